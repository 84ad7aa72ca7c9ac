// Every refusal of the application protocol, by its stable code: what happened, and what to do about it.
// The codes are part of the protocol (docs/protocol.md): never renamed, never reused.

import { exitCodes, TandemError } from "../errors.js";

interface Refusal {
  message: string;
  remedy: string;
}

export const refusals = {
  // The agent refuses what an application said.
  "hello-first": {
    message: "The first message was not hello.",
    remedy: "Send hello with the protocol version before anything else.",
  },
  version: {
    message: "The agent and the application have no protocol version in common.",
    remedy: "Install the same release of Tandem for the agent and for the SDK.",
  },
  "line-too-long": {
    message: "A message is longer than 65536 bytes.",
    remedy: "Split it; no message of the protocol needs more.",
  },
  "parts-too-large": {
    message: "The parts of a message are longer together than this end accepts.",
    remedy: "Keep to the limits in docs/protocol.md; send output in several log messages.",
  },
  "bad-json": {
    message: "A line is not one JSON object in UTF-8.",
    remedy: "Send one JSON object a line, ended by a newline, with no newline inside.",
  },
  "bad-message": {
    message: "A message lacks a field, or a field has the wrong type or range.",
    remedy: "Compare the message with docs/protocol.md; the message names the field.",
  },
  "unknown-type": {
    message: "The agent does not know this type of message.",
    remedy: "Look at the version in welcome: a newer SDK must not use what an older agent lacks.",
  },
  "unexpected-descriptors": {
    message: "The descriptors that came do not match the number the messages name.",
    remedy: "Attach each descriptor to the first byte of the message that names it in fds.",
  },
  "unknown-service": {
    message: "No service of this name, or of this socket's address and port, is configured.",
    remedy: "Compare the name, address and port with `services` in the agent's configuration.",
  },
  "service-taken": {
    message: "Another application is registered for this service.",
    remedy: "Stop the other one; a service has one application on each router.",
  },
  "already-registered": {
    message: "This connection has registered for the service before.",
    remedy: "Register once for each service and connection.",
  },
  "mode-not-supported": {
    message: "The service or this agent does not support this mode.",
    remedy: "Use a mode listed in welcome, and the one the service is configured for.",
  },
  "not-a-socket": {
    message: "The descriptor to protect is not a socket.",
    remedy: "Pass the descriptor of the connected TCP socket itself.",
  },
  "not-tcp": {
    message: "The socket to protect is not a TCP socket.",
    remedy: "Only TCP over IPv4 or IPv6 can be protected; TLS and the like run above it.",
  },
  mptcp: {
    message: "The socket to protect is a Multipath TCP socket, which cannot be continued elsewhere.",
    remedy: "Create it with IPPROTO_TCP (Go: net.ListenConfig.SetMultipathTCP(false)).",
  },
  "not-connected": {
    message: "The socket to protect is not connected.",
    remedy: "Protect it after accept or connect, and before it is shut down.",
  },
  "already-protected": {
    message: "This socket is protected already.",
    remedy: "Protect a socket once, and release it before somebody else does.",
  },
  "unknown-session": {
    message: "This connection does not protect a session of this id.",
    remedy: "Use the id from `protected`, on the same connection, until it is released.",
  },
  "state-too-large": {
    message: "The state is longer than 262144 bytes.",
    remedy:
      "Keep in the state only what cannot be read from elsewhere. The session goes on from its last resume point.",
  },
  "buffer-too-large": {
    message: "The input buffer is longer than 262144 bytes, or the output longer than 524288.",
    remedy: "Process input before more is read; send output in several log messages before.",
  },
  "confirm-behind": {
    message: "The resume point would go back.",
    remedy: "Confirm in the order in which messages are processed; offsets count from the session's first byte.",
  },
  "confirm-beyond": {
    message: "The resume point is beyond what was read or written, or beyond the output that came with it.",
    remedy: "Confirm only input that was read; send the output up to outputOffset with the confirm.",
  },
  "too-many-connections": {
    message: "Too many applications are connected to the agent.",
    remedy: "Close connections that are not used.",
  },
  "hello-timeout": {
    message: "No hello came in time.",
    remedy: "Send hello as soon as the connection is made.",
  },
  "too-slow": {
    message: "The application does not read what the agent sends; the agent will not keep it all in memory.",
    remedy: "Read the protocol socket all the time; do long work outside of its handler. Then connect again.",
  },
  stopping: {
    message: "The agent is being stopped.",
    remedy: "Connect again later; the SDK does so by itself.",
  },
  // The SDK reports on its side.
  "agent-absent": {
    message: "No agent listens on the socket.",
    remedy: "Start the agent (systemctl start tandem), or give the path from its configuration.",
  },
  "agent-refused": {
    message: "The agent's socket cannot be opened.",
    remedy: "Run the application as a user or group that may write to the socket (mode 0660).",
  },
  "agent-gone": {
    message: "The connection to the agent has ended.",
    remedy: "Connect and register again; sessions already taken over go on without the agent.",
  },
  "feed-mismatch": {
    message: "The mirrored stream and the offsets of the takeover do not fit together.",
    remedy: "This is a defect of the agent: the session was reset rather than continued wrongly. Please report it.",
  },
  "handover-mismatch": {
    message: "The input buffer handed over does not end where the application has read.",
    remedy: "Hand over all bytes that were read and not processed: from inputOffset to the session's inputOffset.",
  },
  "replay-mismatch": {
    message: "The application repeats its output otherwise than the peer was sent it.",
    remedy: "Its output must follow from state and input alone; or do not ask for replay. The session was reset.",
  },
  "written-around": {
    message: "The peer was sent output that did not go through the session.",
    remedy: "Write with the session's write(), never with the socket's. The session goes on unprotected.",
  },
  "session-over": {
    message: "The session, or its output, is closed.",
    remedy: "Do not write after end(), close(), abort() or the socket's end.",
  },
  "not-ready": {
    message: "The session cannot be taken over any more.",
    remedy: "See its reason, and `tandem sessions`.",
  },
} as const satisfies Record<string, Refusal>;

export type RefusalCode = keyof typeof refusals;

/** The error of a code of the protocol (one from an agent may be newer than this SDK knows); `detail` is added to the code's own message. */
export function refusal(code: RefusalCode, detail = "", options?: ErrorOptions): TandemError {
  const { message, remedy } = refusals[code];
  return new TandemError(code, detail === "" ? message : `${message} ${detail}`, remedy, exitCodes.failed, options);
}
