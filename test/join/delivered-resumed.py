"""What a takeover starts for a session, as inetd would: the connection is standard input and output. Writes what it is told
in its environment and all options of the socket to DIRECTORY/PORT.json, by the peer's port; says `hello` if that is
given; then gives everything back, and keeps it in DIRECTORY/PORT.input.
    delivered-resumed.py DIRECTORY [hello]
"""

import json
import os
import socket
import sys

directory, hello = sys.argv[1], "".join(sys.argv[2:])
s = socket.socket(fileno=0)
six = s.family == socket.AF_INET6
IP_MINTTL, IPV6_MINHOPCOUNT, SO_BUF_LOCK, IPV6_TCLASS = 21, 73, 72, 67


def ip(four, sixth):
    return s.getsockopt(socket.IPPROTO_IPV6, sixth) if six else s.getsockopt(socket.IPPROTO_IP, four)


def tcp(option):
    return s.getsockopt(socket.IPPROTO_TCP, option)


def text(level, option):
    return s.getsockopt(level, option, 16).rstrip(b"\0").decode()


facts = {
    "environment": {name: value for name, value in os.environ.items() if name.startswith("TANDEM_")},
    "options": {
        "ttl": ip(socket.IP_TTL, socket.IPV6_UNICAST_HOPS),
        "minTtl": ip(IP_MINTTL, IPV6_MINHOPCOUNT),
        "tos": ip(socket.IP_TOS, IPV6_TCLASS),
        "noDelay": tcp(socket.TCP_NODELAY),
        "keepAlive": s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "keepIdle": tcp(socket.TCP_KEEPIDLE),
        "keepInterval": tcp(socket.TCP_KEEPINTVL),
        "keepCount": tcp(socket.TCP_KEEPCNT),
        "userTimeout": tcp(socket.TCP_USER_TIMEOUT),
        "congestion": text(socket.IPPROTO_TCP, socket.TCP_CONGESTION),
        "maxSegment": tcp(socket.TCP_MAXSEG),
        "device": text(socket.SOL_SOCKET, socket.SO_BINDTODEVICE),
        "sendBuffer": s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        "receiveBuffer": s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        "bufferLocks": s.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK),
        "priority": s.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY),
        "mark": s.getsockopt(socket.SOL_SOCKET, socket.SO_MARK),
    },
}
path = os.path.join(directory, os.environ["TANDEM_PEER_PORT"])
with open(path + ".input", "wb", buffering=0) as kept:
    with open(path + ".new", "w") as file:
        json.dump(facts, file)
    os.rename(path + ".new", path + ".json")
    s.setblocking(True)
    s.sendall(hello.encode())
    while data := s.recv(1 << 16):
        kept.write(data)
        s.sendall(data)
