# The remote end: an ordinary program. Opens sessions, sends a stream of known bytes on each while it checks the one that
# comes back, byte for byte. Arguments: family address port sessions bytes-out bytes-in MD5-key. The key
# may be empty. Last line: a JSON summary.
import json
import selectors
import socket
import struct
import sys
import time

family, address, port, sessions, total_out, total_in = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
md5_key = sys.argv[7]
PATTERN = bytes((7 * i + i // 251) & 255 for i in range(65521))
PATTERN3 = PATTERN * 3
selector = selectors.DefaultSelector()
wrong, resets, done, closed = 0, 0, 0, 0


def pattern(offset, length):
    start = offset % len(PATTERN)
    return PATTERN3[start:start + length]


def sign(sock, ip):
    """TCP_MD5SIG: all segments from and to this address carry a signature (RFC 2385)."""
    if family == "4":
        address = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(ip))
    else:
        address = struct.pack("=HHI16s104x", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, ip))
    sock.setsockopt(socket.IPPROTO_TCP, 14, address + struct.pack("=BBHI80s", 0, 0, len(md5_key), 0, md5_key.encode()))


for index in range(sessions):
    sock = socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6, socket.SOCK_STREAM)
    if md5_key:
        sign(sock, address)
    sock.settimeout(20)
    sock.connect((address, port))
    sock.setblocking(False)
    selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, [0, 0, False])
print("connected", flush=True)
open_sessions = sessions
deadline = time.monotonic() + 60
while open_sessions and time.monotonic() < deadline:
    for key, events in selector.select(1):
        sock, state = key.fileobj, key.data
        try:
            if events & selectors.EVENT_WRITE and state[0] < total_out:
                state[0] += sock.send(pattern(state[0], min(32768, total_out - state[0])))
                if state[0] == total_out:
                    selector.modify(sock, selectors.EVENT_READ, state)
            if events & selectors.EVENT_READ:
                data = sock.recv(32768)
                if data != pattern(state[1] + 1000, len(data)):
                    wrong += 1
                state[1] += len(data)
                if not data:
                    state[2] = True
                    selector.modify(sock, selectors.EVENT_WRITE, state)
            if state[2] and state[0] == total_out:
                done += state[1] == total_in
                open_sessions -= 1
                selector.unregister(sock)
                sock.close()
        except BlockingIOError:
            pass
        except ConnectionError:
            resets += 1
            open_sessions -= 1
            selector.unregister(sock)
            sock.close()
print(json.dumps({"done": done, "wrong": wrong, "resets": resets, "open": open_sessions}), flush=True)
