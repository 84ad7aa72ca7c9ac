"""The service of ledger.mjs in Python: each line of the peer is an amount, the answer to it is how many amounts there
were on this connection, and their sum. Start the same command on both routers, or the other program on one of them:

    python3 examples/ledger.py --listen 10.77.0.1:7100 --service ledger

No answer leaves before the sum it tells is on the standby.
"""

import argparse
import selectors
import socket

from tandem_client import Agent, AgentGone, Session

RETRY_SECONDS = 0.5


class Connection:
    """One peer: its sum, and what of its input is not a whole line yet."""

    def __init__(self, ledger, sock, takeover=None):
        self.ended = False
        self.events = 0  # what the selector waits for
        self.unfinished = b""
        self.processed = takeover["inputOffset"] if takeover else 0
        state = takeover["state"] if takeover else b""
        self.count, self.sum = map(int, state.split()) if state else (0, 0)
        sock.setblocking(False)
        self.session = Session(sock, self.handover, ledger.service, takeover)

    def state(self):
        return b"%d %d" % (self.count, self.sum)

    def handover(self):
        return self.processed, self.state(), self.unfinished

    def on_ready(self, mask):
        if mask & selectors.EVENT_READ:
            self.on_input()
        self.session.pump()

    def on_input(self):
        session = self.session
        try:
            data = session.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            print(f"connection: {error}", flush=True)
            data = b""
        session.read(len(data))
        if not data:
            self.ended = True
            session.close()
            return
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        for line in lines:
            self.count += 1
            self.sum += int(line)
            session.write(self.state() + b"\n")
            self.processed += len(line) + 1
        if lines:
            session.confirm(self.processed, self.state())


class Ledger:
    def __init__(self, path, listen, service):
        self.path = path
        self.service = service
        self.agent = None
        self.connections = []
        self.told = None
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(listen)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, self.on_accept)
        host, port = self.listener.getsockname()
        print(f"listening on {host}:{port}", flush=True)

    def run(self):
        while True:
            if self.agent is None:
                self.connect()
            self.watch()
            for key, mask in self.selector.select(RETRY_SECONDS):
                key.data(mask)

    def watch(self):
        """Which sockets are read, and which wait to be written, follows from the sessions."""
        reasons = []
        for connection in list(self.connections):
            session = connection.session
            events = selectors.EVENT_WRITE if session.pump() else 0
            if session.socket.fileno() < 0:
                self.connections.remove(connection)
                events = 0
            else:
                reasons.append(session.reason or "ready")
                if not connection.ended:
                    events |= selectors.EVENT_READ
            if connection.events == events:
                continue
            if connection.events:
                self.selector.unregister(session.socket)
            if events:
                self.selector.register(session.socket, events, connection.on_ready)
            connection.events = events
        if reasons != self.told:
            self.told = reasons
            print("sessions:", *reasons, flush=True)

    def connect(self):
        try:
            self.agent = Agent(self.path, "ledger")
        except AgentGone:
            return
        self.agent.register(self.service, "confirmed", self.on_registered)
        for connection in self.connections:
            self.agent.adopt(connection.session)
        self.selector.register(self.agent, selectors.EVENT_READ, self.on_agent)

    def on_registered(self, answer):
        if answer["type"] == "error":
            print(f"not registered: {answer['code']}", flush=True)
        else:
            print(f"registered for {self.service}", flush=True)

    def on_agent(self, _mask):
        agent = self.agent
        try:
            fd = agent.fileno()
            for kind, event in agent.receive():
                if kind == "takeover":
                    print(f"taken over: input {event['inputOffset']}, state \"{event['state'].decode()}\"", flush=True)
                    self.serve(event["socket"], event)
        except AgentGone as error:
            print(f"not registered: {error}", flush=True)
            self.selector.unregister(fd)
            self.agent = None

    def on_accept(self, _mask):
        sock, _ = self.listener.accept()
        self.serve(sock)

    def serve(self, sock, takeover=None):
        connection = Connection(self, sock, takeover)
        self.connections.append(connection)
        if self.agent is not None:
            self.agent.adopt(connection.session)


parser = argparse.ArgumentParser()
parser.add_argument("--listen", default="127.0.0.1:7100")
parser.add_argument("--service", default="ledger")
parser.add_argument("--socket", default="/run/tandem/app.sock")
arguments = parser.parse_args()
host, _, port = arguments.listen.rpartition(":")
Ledger(arguments.socket, (host, int(port)), arguments.service).run()
