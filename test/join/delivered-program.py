"""Plain TCP at either end of a session, which knows nothing of Tandem. Driven by lines of Python on standard input, each
answered by one line: the value as JSON, or "failed" and why.

`conns` are the connections by name; accepted ones are named by the port of their peer. What is sent is the text P.
"""

import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time

P = random.Random(7).randbytes(1 << 23)
conns = {}


class Conn:
    def __init__(self, s, name):
        self.s, self.sent, self.upto, self.got, self.eof, self.error = s, 0, 0, bytearray(), False, None
        conns[name] = self

    def _run(self, work):
        def guarded():
            try:
                work()
            except OSError as error:
                self.error = self.error or repr(error)

        threading.Thread(target=guarded, daemon=True).start()

    def _take(self, most):
        data = self.s.recv(most)
        self.got += data
        self.eof = self.eof or not data
        return data

    def read(self, count):
        """So many bytes, in odd sizes."""
        while count > 0 and (data := self._take(min(count, 7919))):
            count -= len(data)
        return len(self.got)

    def drain(self):
        """Reads from now on whatever comes."""
        self._run(lambda: self._forward(False))

    def echo(self):
        self._run(lambda: self._forward(True))

    def _forward(self, back):
        while data := self._take(1 << 16):
            if back:
                self.s.sendall(data)

    def send(self, upto, piece_bytes=5000, pause=0.0):
        """P up to this byte, in pieces. `upto` may be changed meanwhile."""
        self.upto = upto

        def work():
            while self.sent < self.upto:
                piece = P[self.sent : min(self.upto, self.sent + piece_bytes)]
                self.s.sendall(piece)
                self.sent += len(piece)
                time.sleep(pause)

        self._run(work)

    def stuff(self):
        """As much as both kernels take: what the peer's takes makes room in ours, and that may need a moment."""
        self.s.setblocking(False)
        full = 0
        while full < 3:
            try:
                self.sent += self.s.send(P[self.sent : self.sent + 50000])
                full = 0
            except BlockingIOError:
                full += 1
                time.sleep(0.1)
        self.s.setblocking(True)
        return self.sent


def listen(host, port, prepare=None, accepted=None):
    """`prepare` is called with the listener, `accepted` with each connection."""
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64)
    if prepare:
        prepare(listener)

    def accept():
        while True:
            s, address = listener.accept()
            conn = Conn(s, str(address[1]))
            if accepted:
                accepted(conn)

    threading.Thread(target=accept, daemon=True).start()


def connect(name, host, port, prepare=None):
    """Returns the own port."""
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if prepare:
        prepare(s)
    s.settimeout(20)
    s.connect((host, port))
    s.settimeout(None)
    return Conn(s, name).s.getsockname()[1]


def status(name):
    conn = conns[name]
    return {"sent": conn.sent, "received": len(conn.got), "eof": conn.eof, "error": conn.error}


def is_text(name, *parts):
    """Is what was received these parts of P, each [from, to), or a text of its own?"""
    wanted = b"".join(P[part[0] : part[1]] if isinstance(part, tuple) else part.encode() for part in parts)
    return bytes(conns[name].got) == wanted


def digest(start, end):
    return hashlib.sha256(P[start:end]).hexdigest()


def md5(peer, key, bits=None):
    """The value of TCP_MD5SIG, or with `bits` of TCP_MD5SIG_EXT (linux/tcp.h)."""
    if ":" in peer:
        address = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, peer), 0)
    else:
        address = struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(peer))
    flags, length = (0, 0) if bits is None else (1, bits)
    return struct.pack("=128sBBHi80s", address, flags, length, len(key), 0, key)


for line in sys.stdin:
    try:
        try:
            code = compile(line, "line", "eval")
        except SyntaxError:
            exec(line)
            print("null", flush=True)
        else:
            print(json.dumps(eval(code)), flush=True)
    except Exception as error:
        print("failed", repr(error), flush=True)
