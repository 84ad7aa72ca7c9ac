# The remote end, driven line by line: ordinary sockets of an ordinary kernel, each sending a stream of known bytes and
# checking the one that comes back, byte for byte. Commands are JSON objects on standard input (see peer.ts), each is
# answered by one line. TCP_REPAIR serves for what only a peer can do to itself: choose its initial sequence number
# before connect(), and read the numbers that a forger would have to guess.
import hashlib
import json
import os
import selectors
import socket
import struct
import sys

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
REPAIR_OFF_SILENTLY = -1
PERIOD = 65521
TABLE = bytes((7 * i + i // 251 + 13 * (i // 7)) & 255 for i in range(PERIOD)) * 2
CHUNK = 32768

selector = selectors.DefaultSelector()
sessions = {}
listeners = []


def pattern(seed, offset, length):
    start = (offset + seed * 7919) % PERIOD
    return TABLE[start : start + length]


class Session:
    def __init__(self, name, sock, reading=True):
        self.name, self.sock, self.seed = name, sock, sum(name.encode()) + len(name)
        self.send_to = self.sent = self.received = 0
        self.finish = self.finished = self.eof = False
        self.reading, self.connected = reading, False
        self.wrong, self.error = -1, None
        self.hash = hashlib.sha256()
        self.registered = 0
        sock.setblocking(False)

    def watch(self):
        wanted = 0
        if self.sock is not None:
            if not self.connected or self.sent < self.send_to or (self.finish and not self.finished):
                wanted |= selectors.EVENT_WRITE
            if self.connected and self.reading and not self.eof:
                wanted |= selectors.EVENT_READ
        if wanted == self.registered:
            return
        if self.registered == 0:
            selector.register(self.sock, wanted, self)
        elif wanted == 0:
            selector.unregister(self.sock)
        else:
            selector.modify(self.sock, wanted, self)
        self.registered = wanted

    def fail(self, error):
        self.error = errno_name(error)
        self.close()

    def close(self):
        if self.registered:
            selector.unregister(self.sock)
            self.registered = 0
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def on_event(self, events):
        try:
            if events & selectors.EVENT_WRITE:
                self.on_writable()
            if events & selectors.EVENT_READ and self.sock is not None:
                self.on_readable()
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(error)
        self.watch()

    def on_writable(self):
        if not self.connected:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self.connected = True
        if self.sent < self.send_to:
            data = pattern(self.seed, self.sent, min(CHUNK, self.send_to - self.sent))
            taken = self.sock.send(data)
            self.hash.update(data[:taken])
            self.sent += taken
        if self.finish and not self.finished and self.sent == self.send_to:
            self.sock.shutdown(socket.SHUT_WR)
            self.finished = True

    def on_readable(self):
        data = self.sock.recv(CHUNK)
        if not data:
            self.eof = True
            return
        if self.wrong < 0 and data != pattern(self.seed, self.received, len(data)):
            self.wrong = self.received
        self.received += len(data)

    def summary(self):
        return {
            "sent": self.sent,
            "received": self.received,
            "wrong": self.wrong,
            "eof": self.eof,
            "error": self.error,
            "connected": self.connected,
            "port": 0 if self.sock is None else self.sock.getsockname()[1],
            "sha256": self.hash.hexdigest(),
        }


def errno_name(error):
    return os.strerror(error.errno) if error.errno else str(error)


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def choose_isn(sock, isn):
    """connect() keeps a write_seq that is not 0 (tcp_v4_connect)."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("I", isn & 0xFFFFFFFF))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)


def sequence_numbers(sock):
    """(next to send, next expected)"""
    numbers = []
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    for queue in (SEND_QUEUE, RECEIVE_QUEUE):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        numbers.append(struct.unpack("I", sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, 4))[0])
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_SILENTLY)
    return numbers


def prepare(command):
    sock = socket.socket(family_of(command["host"]), socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if command.get("receiveBuffer"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, command["receiveBuffer"])
    if command.get("segment"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, command["segment"])
    if command.get("port"):
        sock.bind(("", command["port"]))
    return sock


def open_session(command):
    """Starts to connect; the first bytes may be asked for already."""
    sock = prepare(command)
    if command.get("isn") is not None:
        choose_isn(sock, command["isn"])
    session = Session(command["name"], sock, command.get("reading", True))
    session.send_to = command.get("sendTo", 0)
    session.finish = command.get("finish", False)
    sessions[session.name] = session
    try:
        sock.connect((command["host"], command["servicePort"]))
    except BlockingIOError:
        pass
    session.watch()
    return {}


def open_before_wrap(command):
    """Connects until the service's stack has chosen a sequence number at most `within` before 2^32, and not so near that
    nothing can be said before. The service's first byte has that number; the distance is the answer."""
    for attempt in range(1, 20001):
        sock = prepare(command)
        sock.connect((command["host"], command["servicePort"]))
        distance = 2**32 - sequence_numbers(sock)[1]
        if 100_000 <= distance <= command["within"]:
            session = Session(command["name"], sock)
            session.connected = True
            sessions[session.name] = session
            session.watch()
            return {"distance": distance, "attempts": attempt}
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    raise RuntimeError("no sequence number near enough to 2^32")


def change(command):
    session = sessions[command["name"]]
    session.send_to = command.get("sendTo", session.send_to)
    session.reading = command.get("reading", session.reading)
    session.finish = command.get("finish", session.finish)
    if session.sock is not None:
        session.watch()
    return {}


def listen(command):
    """Sessions that the service opens: each takes the next of the names."""
    listener = socket.socket(family_of(command["host"]), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((command["host"], command["servicePort"]))
    listener.listen(16)
    names = list(command["names"])

    def accept(_events):
        sock, _ = listener.accept()
        session = Session(names.pop(0), sock)
        session.connected = True
        sessions[session.name] = session
        session.watch()

    selector.register(listener, selectors.EVENT_READ, accept)
    listeners.append(listener)
    return {}


def checksum(data):
    total = sum(struct.unpack("!%dH" % ((len(data) + 1) // 2), data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def forge(command):
    """A segment in the name of a session's peer, IPv4, numbers relative to the true ones."""
    sock = sessions[command["name"]].sock
    source, source_port = sock.getsockname()
    target, target_port = sock.getpeername()
    seq, ack = sequence_numbers(sock)
    payload = bytes([command.get("fill", 0)]) * command.get("length", 0)
    tcp = struct.pack(
        "!HHIIBBHHH",
        source_port,
        target_port,
        (seq + command.get("seq", 0)) & 0xFFFFFFFF,
        (ack + command.get("ack", 0)) & 0xFFFFFFFF,
        5 << 4,
        command["flags"],
        command.get("window", 500),
        0,
        0,
    )
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!HH", 6, len(tcp) + len(payload))
    right = checksum(pseudo + tcp + payload)
    tcp = tcp[:16] + struct.pack("!H", right ^ (0x5555 if command.get("corrupt") else 0)) + tcp[18:]
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(tcp) + len(payload),
        0,
        0,
        64,
        6,
        0,
        socket.inet_aton(source),
        socket.inet_aton(target),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(header + tcp + payload, (target, 0))
    return {}


def status(_command):
    return {"sessions": {name: session.summary() for name, session in sessions.items()}}


commands = {
    "open": open_session,
    "openBeforeWrap": open_before_wrap,
    "change": change,
    "listen": listen,
    "forge": forge,
    "status": status,
}
pending = b""


def on_command(_events):
    global pending
    data = os.read(0, 1 << 16)
    if not data:
        sys.exit(0)
    *lines, pending = (pending + data).split(b"\n")
    for line in lines:
        command = json.loads(line)
        try:
            answer = commands[command["do"]](command)
        except (OSError, RuntimeError, KeyError) as error:
            answer = {"failure": f"{command['do']} {command.get('name', '')}: {error!r}"}
        print(json.dumps(answer), flush=True)


selector.register(0, selectors.EVENT_READ, on_command)
while True:
    for key, events in selector.select():
        if isinstance(key.data, Session):
            if key.data.registered:
                key.data.on_event(events)
        else:
            key.data(events)
