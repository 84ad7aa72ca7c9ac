// Delivered sessions with a gap in the recorded output: the mirror link lost some of it, the active died before TCP had
// sent it again, and what fills the gap died with it. The successor's output begins in the gap. That is right if the peer
// holds nothing of what the old active had sent beyond the gap, for then the gap reaches to the end of the stream. If it
// does, it would take the successor's first bytes and its own later ones for one stream: rather an end than wrong bytes.
// So the peer is asked, by a segment below its window, which it answers with all blocks that it holds (RFC 2018, section
// 4; RFC 9293, 3.10.7.4), and until then no application has the session.

import { native } from "../../addon/native.js";
import type { DataPlane } from "../net/dataplane.js";
import type { OutputGap, TakenSession } from "../recorder/messages.js";
import { readKey } from "../session/flow-key.js";
import { buildPacket, TCP_ACK } from "../session/segment.js";
import type { Question } from "./peer-questions.js";

/** First when nothing that the old active sent, and nothing that the peer had answered to it, is on its way any more. Then
 * again: a peer answers such a segment twice a second (tcp_invalid_ratelimit in net/ipv4/tcp_input.c). */
const settledMs = 250;
const atMs = [settledMs, settledMs + 600, settledMs + 1200, settledMs + 2400];
const patienceMs = 5000;
const noBytes = new Uint8Array(0);

export function gapQuestion(
  session: TakenSession,
  { probe }: OutputGap,
  dataPlane: Pick<DataPlane, "answersOf" | "forgetAhead">,
  then: Pick<Question, "goesOn" | "ends">,
): Question {
  const { key, fd } = session;
  const { family, peerIp } = readKey(key);
  let before: number | null = null;
  return {
    atMs,
    patienceMs,
    packet: () => {
      before ??= dataPlane.answersOf(key)?.answers ?? 0;
      const bytes = buildPacket({
        family,
        sourceIp: probe.localIp,
        destinationIp: probe.peerIp,
        sourcePort: probe.localPort,
        destinationPort: probe.peerPort,
        seq: (probe.seq - 1) >>> 0,
        ack: probe.ack,
        flags: TCP_ACK,
        window: probe.window,
        payload: noBytes,
        timestamps: probe.timestamps === null ? null : { ...probe.timestamps, value: native.tcpTimestamp(fd) },
        md5: probe.md5,
      });
      return { family, destination: peerIp, bytes };
    },
    answer: () => {
      const said = dataPlane.answersOf(key);
      if (said === null) return "ends"; // among too many others: nobody knows
      if (said.held) return "ends";
      return before !== null && said.answers > before ? "goesOn" : null;
    },
    goesOn: () => {
      dataPlane.forgetAhead(key);
      then.goesOn();
    },
    ends: then.ends,
  };
}
