"""64 bytes there and 64 back, one after the other, as fast as it goes. In Python, whose own share of a round trip is
small, so that a slow program does not hide what the path costs.

    ping-pong.py serve ADDRESS PORT              echoes; prints "listening"
    ping-pong.py ask ADDRESS PORT SECONDS        prints the round trips' p50 and p99 in microseconds, as JSON
"""
import json
import socket
import sys
import threading
import time

SIZE = 64


def echo(connection):
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(SIZE):
            connection.sendall(data)


def serve(address, port):
    with socket.create_server((address, port), backlog=64) as server:
        print("listening", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=echo, args=(connection,), daemon=True).start()


def ask(address, port, seconds):
    request = b"?" * SIZE
    times = []
    with socket.create_connection((address, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clock = time.perf_counter_ns
        warm = clock() + 200_000_000
        end = warm + int(seconds * 1e9)
        while True:
            began = clock()
            connection.sendall(request)
            left = SIZE
            while left:
                answer = connection.recv(left)
                if not answer:
                    raise SystemExit("the server ended the connection")
                left -= len(answer)
            now = clock()
            if began > warm:
                times.append(now - began)
            if now > end:
                break
    times.sort()
    print(json.dumps({"p50": times[len(times) // 2] / 1e3, "p99": times[len(times) * 99 // 100] / 1e3,
                      "count": len(times)}))


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
else:
    ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
