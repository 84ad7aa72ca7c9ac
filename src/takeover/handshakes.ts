// Half-open sessions after a takeover: the recorded SYN-ACK is sent again until the peer answers it; then, and not
// before, the session is given to its application. The restored socket does the rest of TCP's work by itself.

import { native } from "../../addon/native.js";
import type { TakenSession } from "../recorder/messages.js";
import { readKey } from "../session/flow-key.js";
import type { Question } from "./peer-questions.js";

/** Now, then as a stack would repeat its SYN-ACK. */
const atMs = [0, 1000, 3000, 7000];
const patienceMs = 15_000;
/** tcpi_last_ack_recv counts in milliseconds and jiffies; only a clear difference is an answer. */
const slackMs = 8;

export function handshakeQuestion(session: TakenSession, synAck: Uint8Array, goesOn: () => void): Question {
  const { family, peerIp } = readKey(session.key);
  return {
    atMs,
    patienceMs,
    packet: () => ({ family, destination: peerIp, bytes: synAck }),
    // Restoring sets the time of the last acknowledgement; only a valid one of the peer sets it again.
    answer: (ageMs) => (native.tcpInfo(session.fd).lastAckRecvMs + slackMs < ageMs ? "goesOn" : null),
    goesOn,
    ends: () => native.closeAtOnce(session.fd),
  };
}
