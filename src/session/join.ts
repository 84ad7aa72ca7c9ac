// Mid-stream join: a session whose beginning was not recorded is anchored at a locked snapshot of the active's socket,
// and each later snapshot is a proof of what is complete.
//
//   unknown ─snapshot─► adopted ─fill, records─► input proven, output proven ─hand-over─► as if recorded from its start
//
// What passed before the adoption was not stored. So a snapshot proves something only if it was taken when the active
// had known of the adoption for a while (join.graceMs, in which nothing from before is still on its way to its TCP): it
// carries the adoption's number back. The first such snapshot says from where on input is recorded: what was recorded
// before its rcv_nxt may be another copy than the one the active took. Then
// input is complete  when [copied_seq, rcv_nxt) is recorded or filled in, and nothing waits out of order in that socket;
// output is complete when [snd_una, snd_nxt) is recorded.
// Both hold for ever once they held: every later byte passes the standby first (invariants 1 and 2).

import type { JoinSnapshot } from "./join-snapshot.js";
import { Reason, reasonBit } from "./reasons.js";
import { offsetOf, sequenceOf } from "./sequence.js";
import type { Session } from "./session.js";

export interface SnapshotEntry {
  /** td_flow_key. */
  key: Uint8Array;
  service: number;
  /** Accepted. Of a session that it opened the kernel counts the SYN in bytes_acked. */
  passive: boolean;
  /** Stream offsets of the kernel socket's byte 0; of a restored one, as its takeover told them (plan.ts). */
  base: { input: number; output: number };
  /** The adoption the active knew of when it took the snapshot; 0: none. */
  adoption: number;
  snapshot: JoinSnapshot;
}

/** Where a snapshot stands in both streams: offsets, FINs not counted. */
export interface Anchor {
  /** Sequence numbers of offset 0, modulo 2^32. */
  firstIn: number;
  firstOut: number;
  /** After the last byte received in order, and the last one the application has read. */
  received: number;
  copied: number;
  /** After the last byte acknowledged by the peer, and the last one sent. */
  acked: number;
  sent: number;
}

const adoptable = new Set(["established", "close-wait", "fin-wait-1", "fin-wait-2"]);

/** The session's offset 0 is where `base` says; a kernel socket counts from its own beginning, FIN and SYN included. */
export function anchorOf({ passive, base, snapshot }: Pick<SnapshotEntry, "passive" | "base" | "snapshot">): Anchor {
  const { flags } = snapshot;
  const finIn = flags.finReceived ? 1 : 0;
  const finAcked = flags.finAcked ? 1 : 0;
  const received = base.input + snapshot.bytesReceived - finIn;
  const acked = Math.max(0, base.output + snapshot.bytesAcked - (passive ? 0 : 1) - finAcked);
  const firstIn = sequenceOf(-received, snapshot.rcvNxt - finIn);
  const firstOut = sequenceOf(-acked, snapshot.sndUna - finAcked);
  return {
    firstIn,
    firstOut,
    received,
    copied: Math.min(offsetOf(snapshot.copiedSeq, firstIn, received), received),
    acked,
    sent: offsetOf(snapshot.sndNxt, firstOut, acked) - (flags.finSent ? 1 : 0),
  };
}

/** Why a socket cannot be adopted: a reason, or "state" when it is only too early or too late for it. Null: it can. */
export function hindranceOf({ state, flags }: JoinSnapshot): Reason | "state" | null {
  if (flags.mptcp) return Reason.Mptcp;
  if (flags.urgent) return Reason.Urgent;
  return adoptable.has(state) ? null : "state";
}

/** Begins anywhere: a number of before a restart must not be taken for one of after it. */
let nextAdoption = Math.floor(Math.random() * 2 ** 40) + 1;

/** Anchors a new session at a snapshot. `now`: boot clock, ns. */
export function adopt(session: Session, entry: SnapshotEntry, now: number): void {
  const { snapshot } = entry;
  const { flags } = snapshot;
  const anchor = anchorOf(entry);
  session.adoption = nextAdoption++;
  session.toldJoin = -1;
  session.options = snapshot.options;
  session.established = true;
  session.firstIn = anchor.firstIn;
  session.firstOut = anchor.firstOut;
  const offered = { sack: flags.sack, timestamps: flags.timestamps ? { value: 0, echo: 0 } : null };
  const plain = { mptcp: false, authenticated: flags.md5 };
  session.ownOptions = { ...offered, ...plain, mss: null, wscale: flags.wscale ? snapshot.rcvWscale : null };
  const wscale = flags.wscale ? snapshot.sndWscale : null;
  session.adoptPeerOptions({ ...session.ownOptions, mss: snapshot.mss, wscale }, []);

  session.input.restart(anchor.received);
  session.vouched = anchor.received;
  session.copied = anchor.copied;
  if (flags.finReceived) session.finIn = anchor.received;
  session.rightEdge = offsetOf(snapshot.rcvWup, anchor.firstIn, anchor.received) + snapshot.rcvWnd;
  session.receiveWindowRaw = snapshot.rcvWnd >>> (flags.wscale ? snapshot.rcvWscale : 0);

  session.output.restart(anchor.acked);
  session.peerAck = anchor.acked;
  session.written = offsetOf(snapshot.writeSeq, anchor.firstOut, anchor.acked);
  session.sendWindow = snapshot.sndWnd;
  session.sendWindowRaw = snapshot.sndWnd >>> (flags.wscale ? snapshot.sndWscale : 0);
  session.maxSendWindow = snapshot.maxWindow;
  session.windowSeq = offsetOf(snapshot.sndWl1, anchor.firstIn, anchor.received);
  session.windowAck = anchor.acked;
  if (flags.timestamps) {
    session.tsvalOut = session.tsvalFirst = session.tsEcho = snapshot.tsval;
    session.tsvalOutTime = session.tsvalFirstTime = now;
    session.tsRecent = snapshot.tsRecent;
    session.tsRecentTime = snapshot.tsRecent === 0 ? 0 : now; // 0: a restored socket that has heard nothing yet
  }
  session.inputProven = session.outputProven = false;
  session.keepOutput = Number.POSITIVE_INFINITY;
  session.addReason(Reason.InputIncomplete);
  session.addReason(Reason.OutputIncomplete);
  if (session.mode !== "delivered") session.addReason(Reason.AwaitingHandover);
  if (flags.finSent) session.finOut = anchor.sent;
  session.finOutAcked = flags.finAcked;
  session.sentKnown = anchor.sent + (flags.finSent ? 1 : 0);
}

/** What the wire does not show, or shows late: the socket's options, and how much its application has written. */
function noteFacts(session: Session, { options, writeSeq }: Pick<JoinSnapshot, "options" | "writeSeq">): void {
  session.options = options;
  const written = offsetOf(writeSeq, session.firstOut, session.output.end);
  if (written > session.written) session.written = written;
}

/** What a snapshot says of a complete session: those facts, and which of several handshakes was its. */
export function learn(session: Session, { flags, ...snapshot }: JoinSnapshot): void {
  noteFacts(session, snapshot);
  const { peerOptions } = session;
  if ((session.reasons & reasonBit(Reason.AmbiguousHandshake)) === 0 || peerOptions === null) return;
  session.peerOptions = {
    ...peerOptions,
    mss: snapshot.mss,
    wscale: flags.wscale ? snapshot.sndWscale : null,
    sack: flags.sack,
    timestamps: flags.timestamps ? { value: 0, echo: 0 } : null,
  };
  session.sendWindow = snapshot.sndWnd;
  session.maxSendWindow = snapshot.maxWindow;
  session.dropReason(Reason.AmbiguousHandshake);
}

/** What a snapshot, taken after the session was adopted, proves of it. Records that are ingested later than they could
 * be only delay a proof. */
export function prove(session: Session, snapshot: JoinSnapshot): void {
  const { flags } = snapshot;
  noteFacts(session, snapshot);
  if (!session.inputProven) {
    const received = offsetOf(snapshot.rcvNxt, session.firstIn, session.vouched) - (flags.finReceived ? 1 : 0);
    const copied = Math.min(offsetOf(snapshot.copiedSeq, session.firstIn, session.vouched), received);
    if (flags.finReceived) {
      session.finIn = received;
      session.vouched = received; // an acknowledgement of the FIN may have been taken for one more byte
    } else if (received > session.vouched) session.vouched = received;
    if (copied > session.copied) session.copied = copied;
    if (!session.inputAnchored) {
      session.inputAnchored = true;
      session.input.restart(received);
    }
    session.trimInput();
    const { base, end } = session.input;
    if (!flags.outOfOrder && base <= session.copied && end >= received && end >= session.vouched) {
      session.inputProven = true;
      session.dropReason(Reason.InputIncomplete);
    }
  }
  if (!session.outputProven) {
    const acked = offsetOf(snapshot.sndUna, session.firstOut, session.peerAck) - (flags.finAcked ? 1 : 0);
    const sent = offsetOf(snapshot.sndNxt, session.firstOut, session.peerAck);
    if (sent > session.sentKnown) session.sentKnown = sent;
    if (flags.finSent) session.finOut = sent - 1;
    if (flags.finAcked) session.finOutAcked = true;
    if (acked > session.peerAck) {
      session.peerAck = acked;
      session.releaseOutput();
    }
    if (session.output.end >= (flags.finSent ? sent - 1 : sent)) {
      session.outputProven = true;
      session.dropReason(Reason.OutputIncomplete);
    }
  }
}

/** Bytes from `seq` on that lie in the active's receive queue, unread: from the active itself, so they also settle what
 * was ambiguous. They may come in pieces, the first one first. */
export function fill(session: Session, seq: number, bytes: Uint8Array): void {
  const { input } = session;
  const start = offsetOf(seq, session.firstIn, session.copied);
  const missing = Math.max(0, Math.min(input.base - start, bytes.length));
  // A session that is complete needs nothing but the truth about two copies.
  const known = session.inputProven ? Math.max(missing, input.end - start) : bytes.length;
  const fits =
    (session.inputProven || input.prepend(start, bytes.subarray(0, missing))) &&
    input.overrule(start + missing, bytes.subarray(missing, known));
  if (!fits) session.giveUp(Reason.Memory);
  else session.trimInput();
}
