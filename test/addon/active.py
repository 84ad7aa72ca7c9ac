# The active router's application, in a language with no knowledge of Tandem: accepts sessions, reads and writes streams
# of known bytes, and after its router is cut off reads its sockets' state by TCP_REPAIR for the restore test.
# Arguments: family address port sessions read-limit write-limit peer MD5-key (or empty). Commands on standard input: "dump".
import base64
import json
import selectors
import socket
import struct
import sys
import fcntl

family, address, port, sessions, read_limit, write_limit = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
peer_address, md5_key = sys.argv[7:9]
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_TIMESTAMP, TCP_REPAIR_WINDOW = 19, 20, 21, 24, 29
SIOCOUTQ, SIOCINQ, SIOCOUTQNSD = 0x5411, 0x541B, 0x894B
PATTERN = bytes((7 * i + i // 251) & 255 for i in range(65521))
PATTERN3 = PATTERN * 3


def out_bytes(offset, length):
    start = (offset + 1000) % len(PATTERN)
    return PATTERN3[start:start + length]


def in_bytes(offset, length):
    start = offset % len(PATTERN)
    return PATTERN3[start:start + length]


def sign(sock, ip):
    """TCP_MD5SIG: all segments from and to this address carry a signature (RFC 2385)."""
    if family == "4":
        address = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(ip))
    else:
        address = struct.pack("=HHI16s104x", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, ip))
    sock.setsockopt(socket.IPPROTO_TCP, 14, address + struct.pack("=BBHI80s", 0, 0, len(md5_key), 0, md5_key.encode()))


def queue_length(sock, request):
    return struct.unpack("i", fcntl.ioctl(sock, request, b"\0\0\0\0"))[0]


def option(sock, name, length):
    return sock.getsockopt(socket.IPPROTO_TCP, name, length)


def peek(sock, length):
    data = b""
    if length:
        data = sock.recv(length, socket.MSG_PEEK)
        assert len(data) == length, (len(data), length)
    return base64.b64encode(data).decode()


def dump(sock, read, written):
    unacked, unsent = queue_length(sock, SIOCOUTQ), queue_length(sock, SIOCOUTQNSD)
    info = option(sock, socket.TCP_INFO, 256)
    options, scales = info[5], info[6]
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, 2)
    write_seq = struct.unpack("I", option(sock, TCP_QUEUE_SEQ, 4))[0]
    sent = unacked - unsent
    unacked_data = peek(sock, unacked)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, 1)
    rcv_nxt = struct.unpack("I", option(sock, TCP_QUEUE_SEQ, 4))[0]
    queued = queue_length(sock, SIOCINQ)
    peer = sock.getpeername()
    state = {
        "peerIp": peer[0], "peerPort": peer[1], "localIp": address, "localPort": port,
        "sndUna": (write_seq - unacked) & 0xffffffff, "unacked": base64.b64encode(base64.b64decode(unacked_data)[:sent]).decode(),
        "rcvSeq": (rcv_nxt - queued) & 0xffffffff, "received": peek(sock, queued),
        "mss": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG),
        "timestamp": struct.unpack("I", option(sock, TCP_TIMESTAMP, 4))[0] if options & 1 else None,
        "sackPermitted": bool(options & 2),
        "sndWscale": scales & 15 if options & 4 else None, "rcvWscale": scales >> 4 if options & 4 else None,
        "window": list(struct.unpack("5I", option(sock, TCP_REPAIR_WINDOW, 20))),
        "md5": md5_key or None, "readOffset": read, "writeOffset": written - unsent,
    }
    return state


listener = socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if md5_key:
    sign(listener, peer_address)
listener.bind((address, port))
listener.listen(4096)
print("listening", flush=True)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ, None)
selector.register(sys.stdin, selectors.EVENT_READ, None)
states = []
told = False
while True:
    for key, events in selector.select():
        if key.fileobj is sys.stdin:
            assert sys.stdin.readline().strip() == "dump"
            json.dump([dump(*state) for state in states], sys.stdout)
            print(flush=True)
            sys.stdin.readline()  # stays, with its sockets in repair, until the test ends it
            sys.exit(0)
        if key.fileobj is listener:
            sock = listener.accept()[0]
            sock.setblocking(False)
            states.append([sock, 0, 0])
            selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, states[-1])
            continue
        sock, state = key.fileobj, key.data
        wanted = 0
        if state[1] < read_limit:
            wanted |= selectors.EVENT_READ
            if events & selectors.EVENT_READ:
                data = sock.recv(min(16384, read_limit - state[1]))
                assert data == in_bytes(state[1], len(data)), "input at the active"
                state[1] += len(data)
        if state[2] < write_limit:
            wanted |= selectors.EVENT_WRITE
            if events & selectors.EVENT_WRITE:
                try:
                    state[2] += sock.send(out_bytes(state[2], min(16384, write_limit - state[2])))
                except BlockingIOError:
                    pass
        if wanted:
            selector.modify(sock, wanted, state)
        else:
            selector.unregister(sock)
    if not told and len(states) == sessions and all(state[1] >= read_limit for state in states):
        told = True
        print("going", flush=True)
