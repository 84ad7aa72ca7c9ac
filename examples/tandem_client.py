"""A client of the application protocol (docs/protocol.md), with nothing but Python's standard library.

    agent = Agent("/run/tandem/app.sock", "my program")
    agent.register("ledger", "confirmed")
    session = agent.protect(sock, handover=...)

Nothing here blocks and there are no threads: register `agent.fileno()` with a selector and call `agent.receive()` when
it is readable. It returns events, and keeps the books of protected sessions. When it raises `AgentGone`, every session
goes on unprotected: make another Agent and protect them again with `agent.adopt(session)`.
"""

import array
import json
import socket
import struct

NEWLINE = b"\n"
MAX_LINE = 65536
MAX_FDS = 8
MAX_OUTPUT = 512 * 1024
KEPT_OUTPUT = 64 * 1024
MOST_OUTPUT = 8 * 1024 * 1024


class AgentGone(Exception):
    """The connection to the agent has ended; `code` says why, if the agent did."""

    def __init__(self, code="agent-gone", message="The connection to the agent has ended."):
        super().__init__(message)
        self.code = code


class Refused(Exception):
    """An error that the agent answered, with its stable code."""

    def __init__(self, error):
        super().__init__(f"{error['message']} {error['remedy']}")
        self.code = error["code"]


class Channel:
    """Framing: messages with parts and descriptors over a Unix stream socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.received = bytearray()
        self.fds = []
        self.awaited = None  # (message, lengths) whose parts have not all come

    def send(self, message, parts=(), fds=()):
        if parts:
            message = {**message, "parts": [len(part) for part in parts]}
        line = json.dumps(message, separators=(",", ":")).encode()
        if len(line) > MAX_LINE:
            raise ValueError("a message is longer than 65536 bytes")
        data = b"".join([line, NEWLINE, *parts])
        # Descriptors travel with the first byte.
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.socket.sendmsg([data], rights)
            self.socket.sendall(data[sent:])
        except OSError as error:
            raise AgentGone() from error

    def receive(self):
        """One read: the messages it completes, as (message, parts, fds)."""
        space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(1 << 18, space, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise AgentGone() from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                rights = array.array("i")
                rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
                self.fds.extend(rights)
        if not data or flags & socket.MSG_CTRUNC:
            raise AgentGone()
        self.received += data
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self):
        if self.awaited is None:
            end = self.received.find(NEWLINE)
            if end < 0:
                return None
            message = json.loads(self.received[:end])
            del self.received[: end + 1]
            self.awaited = (message, message.get("parts", []))
        message, lengths = self.awaited
        if len(self.received) < sum(lengths):
            return None
        parts = []
        for length in lengths:
            parts.append(bytes(self.received[:length]))
            del self.received[:length]
        count = message.get("fds", 0)
        fds, self.fds = self.fds[:count], self.fds[count:]
        self.awaited = None
        return message, parts, fds

    def close(self):
        self.socket.close()
        for fd in self.fds:
            socket.close(fd)


class Session:
    """A protected session: counts its offsets, keeps the output that the standby may lack.

    Read from `socket` and tell `read(count)`; write with `write()`, which holds the bytes until a `confirm` that covers
    them is on the standby, or until there is no standby. `handover()` returns (input_offset, state, input_buffer): the
    state, where it stands, and what was read from there on; the state has produced all output so far."""

    def __init__(self, sock, handover, service=None, takeover=None):
        self.socket = sock
        self.handover = handover
        self.service = service
        self.base = {"input": 0, "output": 0}
        self.input_offset = 0
        self.output_offset = 0  # produced so far
        self.replay = b""  # to be produced once more: it is on its way
        self.kept_start = 0  # the offset of the first byte of `kept`
        self.kept = bytearray()
        self.sent = 0  # written into the socket
        self.cleared = 0  # may be written into the socket
        self.confirmed = 0
        if takeover is not None:
            self.base = takeover["base"]
            self.input_offset = takeover["inputOffset"]
            self.output_offset = takeover["confirmed"]["outputOffset"]
            self.replay = takeover["outputSinceConfirm"]
            self.confirmed = self.kept_start = self.output_offset
            self.kept += self.replay
            self.sent = self.cleared = takeover["outputOffset"]
        self.closing = False
        self.detach("agent-absent")

    def detach(self, reason):
        """There is no agent (any more)."""
        self.agent = None
        self.id = None
        self.reason = reason
        self.joined = False
        self.handover_due = False
        self.recorded = 0
        self.told = 0  # how far the output is on the standby, recorded or told
        self.waiting = 0  # confirms that are not answered
        self._clear()

    @property
    def ready(self):
        return self.reason == ""

    def read(self, count):
        """The application has read so many bytes more."""
        self.input_offset += count

    def write(self, data):
        """Produces output. What is on its way since before the takeover is compared, and not sent again."""
        repeated = min(len(data), len(self.replay))
        if data[:repeated] != self.replay[:repeated]:
            # Rather a reset than a changed stream.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
            raise ValueError(f"other output than the peer was sent, at offset {self.output_offset}")
        self.replay = self.replay[repeated:]
        self.output_offset += len(data)
        self.kept += data[repeated:]

    def confirm(self, input_offset, state):
        """The state stands at `input_offset` and has produced all output so far: it leaves when the standby has it."""
        self.confirmed = end = self.output_offset
        self.hand_over()
        start = min(self.told, end)
        lacking = start < end and start < self.kept_start
        if self.agent is None or not self.joined or lacking:
            self._clear()
            return
        while end - start > MAX_OUTPUT:
            piece = self._copy(start, start + MAX_OUTPUT)
            self.agent.ask({"type": "log", "id": self.id, "outputStart": start}, [piece], lambda _: None)
            start += MAX_OUTPUT
        point = {"inputOffset": input_offset, "outputOffset": end, "outputStart": start}
        self.waiting += 1
        message = {"type": "confirm", "id": self.id, **point}
        self.agent.ask(message, [state, self._copy(start, end)], lambda answer: self._confirmed(end, answer))
        self.told = max(self.told, end)

    def close(self):
        """A meant end: when all confirmed output is written, the agent lets go, and only then FIN."""
        self.closing = True
        self.pump()

    def pump(self):
        """Writes what may leave; call it when the socket is writable. True: there is more to write."""
        if self.socket.fileno() < 0:
            return False
        while self.sent < self.cleared:
            try:
                piece = self._copy(self.sent, min(self.cleared, self.sent + (1 << 16)))
                self.sent += self.socket.send(piece)
            except BlockingIOError:
                return True
            except OSError:
                self._end()
                return False
        self._forget()
        if self.closing and self.waiting == 0:
            self._end()
        return False

    def _end(self):
        if self.agent is None:
            self.socket.close()
            return
        agent, self.closing = self.agent, False
        agent.sessions.pop(self.id, None)
        self.agent = None
        agent.ask({"type": "release", "id": self.id, "how": "close"}, [], lambda _: self.socket.close())

    def _confirmed(self, end, answer):
        self.waiting -= 1
        if not answer.get("stored", False):
            self.told = min(self.told, self.recorded)
        self.cleared = max(self.cleared, end)
        self.pump()

    def _clear(self):
        """No standby takes part: what was confirmed leaves."""
        self.cleared = max(self.cleared, self.confirmed)
        self.pump()

    def hear(self, message):
        if message["type"] == "standbyReady":
            self.joined = self.handover_due = True
            self.recorded = self.told = message["recorded"]
        elif message["type"] == "ready":
            self.joined = True
            self.reason = ""
        else:
            self.joined = False
            self.reason = message.get("reason") or message["code"]
        self.hand_over()

    def progress(self, recorded):
        self.recorded = max(self.recorded, recorded)
        self.told = max(self.told, recorded)
        self._forget()
        self.hand_over()

    def hand_over(self):
        """Hands over if it is due and all that the standby lacks is there; progress() tries again."""
        start = min(self.told, self.output_offset)
        end = max(self.recorded, self.output_offset)
        if not self.handover_due or self.recorded < self.kept_start or start < self.kept_start:
            return
        if end - start > MAX_OUTPUT:
            return
        self.handover_due = False
        self.joined = True
        input_offset, state, input_buffer = self.handover()
        assert input_offset + len(input_buffer) == self.input_offset
        point = {"inputOffset": input_offset, "outputOffset": self.output_offset, "outputStart": start}
        message = {"type": "handover", "id": self.id, **point}
        self.agent.channel.send(message, [state, input_buffer, self._copy(start, end)])
        self.told = max(self.told, end)
        self.confirmed = self.output_offset

    def _copy(self, start, end):
        return bytes(self.kept[start - self.kept_start : end - self.kept_start])

    def _forget(self):
        """Lets go of output that is written and that the standby has, or that nobody will ask for."""
        end = self.kept_start + len(self.kept)
        if self.joined or self.handover_due:
            behind = min(self.recorded, max(self.confirmed, self.recorded - KEPT_OUTPUT))
            keep = max(behind, end - MOST_OUTPUT)
        else:
            keep = end - KEPT_OUTPUT
        keep = min(keep, self.sent)
        if keep > self.kept_start:
            del self.kept[: keep - self.kept_start]
            self.kept_start = keep


class Agent:
    """One connection to the agent of this router, for both roles."""

    def __init__(self, path="/run/tandem/app.sock", application="python"):
        try:
            self.channel = Channel(path)
        except OSError as error:
            raise AgentGone("agent-absent", f"No agent listens on {path}.") from error
        self.requests = 0
        self.pending = {}
        self.sessions = {}  # protected ones, by id
        self.offered = {}  # what the standby's application may be given, by id
        self.router = None
        self.role = None
        self.channel.send({"type": "hello", "version": 1, "application": application})

    def fileno(self):
        return self.channel.socket.fileno()

    def ask(self, message, parts, answered, fds=()):
        self.requests += 1
        self.pending[self.requests] = answered
        self.channel.send({**message, "request": self.requests}, parts, fds)

    def register(self, service, mode, answered=lambda answer: None):
        """`answered` gets the answer: a message of type registered, or error."""
        self.ask({"type": "register", "service": service, "mode": mode}, [], answered)

    def adopt(self, session, answered=lambda answer: None):
        """Protects a session on this connection."""

        def protected(answer):
            if answer["type"] == "error":
                session.reason = answer["code"]
            elif session.socket.fileno() < 0:  # it has ended in the meantime
                self.ask({"type": "release", "id": answer["id"], "how": "close"}, [], lambda _: None)
            else:
                session.agent, session.id, session.reason = self, answer["id"], "joining"
                self.sessions[session.id] = session
            answered(answer)

        if session.socket.fileno() < 0:
            return
        message = {"type": "protect", "base": session.base, "fds": 1}
        if session.service is not None:
            message["service"] = session.service
        self.ask(message, [], protected, [session.socket.fileno()])

    def receive(self):
        """Call it when the connection is readable. Returns the standby side's events as (type, message): session, fin,
        closed, notReady, takeover (with `state` and `outputSinceConfirm`), role, error. Their sockets are in `socket`."""
        try:
            received = self.channel.receive()
        except AgentGone:
            self.close("agent-gone")
            raise
        events = []
        for message, parts, fds in received:
            event = self._handle(message, parts, [socket.socket(fileno=fd) for fd in fds])
            if event is not None:
                events.append((message["type"], event))
        return events

    def close(self, reason):
        """Protected sessions go on without the agent."""
        self.channel.close()
        sessions, self.sessions = list(self.sessions.values()), {}
        pending, self.pending = list(self.pending.values()), {}
        for session in sessions:
            session.agent = None
        for answered in pending:
            answered({"type": "error", "code": reason})
        for session in sessions:
            session.detach(reason)

    def _handle(self, message, parts, sockets):
        kind = message["type"]
        if kind == "welcome":
            self.router, self.role = message["router"], message["role"]
        elif kind in ("registered", "protected", "confirmed", "logged", "released"):
            self.pending.pop(message.get("request"), lambda answer: None)(message)
        elif kind == "error":
            if message["fatal"]:
                self.close(message["code"])
                raise AgentGone(message["code"], message["message"])
            if message.get("request") in self.pending:
                self.pending.pop(message["request"])(message)
            elif message.get("id") in self.sessions:
                self.sessions[message["id"]].hear(message)
            else:
                return message
        elif kind in ("standbyReady", "ready", "unready"):
            if message["id"] in self.sessions:
                self.sessions[message["id"]].hear(message)
        elif kind == "progress":
            for session_id, recorded, _ in message["sessions"]:
                if session_id in self.sessions:
                    self.sessions[session_id].progress(recorded)
        elif kind == "role":
            self.role = message["role"]
            return message
        elif kind == "session":
            self.offered[message["id"]] = {**message, "state": parts[0], "socket": sockets[0] if sockets else None}
            return self.offered[message["id"]]
        elif kind in ("fin", "closed", "notReady"):
            if kind != "fin":
                self.offered.pop(message["id"], None)
            return message
        elif kind == "takeover":
            session = self.offered.pop(message["id"])
            given = {"state": parts[0], "outputSinceConfirm": parts[1], "socket": sockets[0]}
            return {**message, **given, "service": session["service"]}
        else:
            for unknown in sockets:
                unknown.close()
        return None
