// One recorded session: what the standby knows of a connection, and what it believes of each segment.
//
// Every segment between the peer and the active comes past here before its receiver has it. From the peer come
// *candidates*: only what the active's TCP would accept is believed (RFC 9293, 3.10.7.4; RFC 5961), and even that only
// once the active vouches for it (an ACK it sent, or a stamp of its socket). What the active sends is believed.
// All positions are stream offsets, bytes: 0 is the first byte after the SYN. A FIN takes the offset after the last.

import { TD_RECORD_STAMP, TD_RECORD_TS } from "../abi.gen.js";
import type { RecordCursor } from "../recorder/record-cursor.js";
import type { MemoryBudget } from "./memory-budget.js";
import { Reason, reasonBit } from "./reasons.js";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_URG } from "./segment.js";
import { before, offsetOf, sequenceOf } from "./sequence.js";
import type { SocketOptions } from "./socket-options.js";
import { StreamWindow } from "./stream-window.js";
import type { TcpOptions } from "./tcp-options.js";

/** Where the resume point comes from: the standby application's own read position, the confirms of the application on
 * the active, or its socket's copied_seq. */
export type ServiceMode = "live" | "confirmed" | "delivered";

/** Where an application goes on, stream offsets. start: nothing was confirmed, so from the beginning. */
export interface ResumePoint {
  inputOffset: number;
  outputOffset: number;
  source: "start" | "confirmed" | "live" | "delivered";
}

export type SessionState =
  | "half-open" // handshake not complete
  | "established"
  | "peer-finished" // the peer's FIN was received (CLOSE_WAIT)
  | "active-finished" // our FIN was sent (FIN_WAIT)
  | "closing" // both, and not both acknowledged
  | "closed"; // both acknowledged, or the active's socket is gone

/** Segments that were not believed, by reason. */
export interface Refusals {
  outOfWindow: number;
  oldTimestamp: number;
  ackTooOld: number;
  ackBeyondOutput: number;
  noAck: number;
  resets: number;
}

/** A SYN or SYN-ACK of the peer that the active may have accepted. */
export interface HandshakeCandidate {
  isn: number;
  options: TcpOptions;
  /** Payload bytes of the SYN (TCP Fast Open). */
  data: number;
  /** Never scaled in a SYN (RFC 7323, 2.2). */
  window: number;
}

const DAY_NS = 86_400e9;
/** How long an ACK beyond recorded output may stand unexplained before it counts as a leak. */
const SUSPICION_NS = 1e9;
const MAX_FIN_CANDIDATES = 4;
/** A session that was given up is not adopted again before that. */
const REJOIN_NS = 1e9;

export class Session {
  /** Reasons why it is not ready, as bits (reasons.ts). */
  reasons = 0;
  /** False: joined mid-stream or given up; then only the raw numbers below are kept. */
  tracked = true;
  /** Sequence number of input byte 0 and of output byte 0: the ISNs + 1, unless it began on a former active. */
  firstIn = 0;
  firstOut = 0;
  peerOptions: TcpOptions | null = null;
  ownOptions: TcpOptions | null = null;
  established = false;
  /** Boot clock, ns, when the active's socket was reported gone; 0: it was not. */
  endedAt = 0;
  /** Boot clock, ns, when it became closed; 0: it is not. */
  closedAt = 0;
  /** The packet (from its IP header on) that offers the session: sent again if it was half-open at a takeover. */
  synAck: Uint8Array | null = null;
  /** Active open: SYN-ACKs seen, one of which the active's ACK picks. */
  candidates: HandshakeCandidate[] = [];

  readonly input: StreamWindow;
  readonly output: StreamWindow;
  /** Input bytes the active vouched for: the most of what it acknowledged or had stamped. */
  vouched = 0;
  /** The peer's FIN; -1: none that the active acknowledged. */
  finIn = -1;
  /** Our FIN; -1: none was sent. */
  finOut = -1;
  finOutAcked = false;
  /** What the application on the active has read; and written, -1 if never stamped. */
  copied = 0;
  written = -1;
  /** The peer's last valid acknowledgement. */
  peerAck = 0;
  /** Right edge of the most the active ever allowed the peer to send. */
  rightEdge = 0;
  /** The peer's window, bytes: last, largest, and the segment it came with (RFC 9293, 3.10.7.4: SND.WL1, SND.WL2). */
  sendWindow = 0;
  sendWindowRaw = 0;
  maxSendWindow = 0;
  windowSeq = 0;
  windowAck = 0;
  /** The active's own window as last on the wire. */
  receiveWindowRaw = 0;
  /** Timestamps: our last TSval and when it was sent (ns), our first, the peer's value the active echoes (its
   * TS.Recent), and what the peer last echoed. */
  tsvalOut = 0;
  tsvalOutTime = 0;
  tsvalFirst = 0;
  tsvalFirstTime = 0;
  tsRecent = 0;
  tsRecentTime = 0;
  tsEcho = 0;
  /** The largest payload the active sent: a size that the path carries. */
  largestOutput = 0;
  /** Number of its adoption (join.ts); 0: it was recorded from its SYN. */
  adoption = 0;
  /** All bytes of this direction that a takeover may need are recorded, and all later ones will be. */
  inputProven = true;
  outputProven = true;
  /** Until then: recorded input is what the active got; and the offset after all that it is known to have sent, FIN
   * included. */
  inputAnchored = false;
  sentKnown = 0;
  /** Not before that a snapshot may adopt it again, boot clock, ns. */
  adoptAfter = 0;
  /** The application on the standby is there and may be handed over to: no input is let go of until then. */
  held = false;
  /** Confirmed, and the hand-over of a live session; the state that belongs to it is with the agent. */
  resume: ResumePoint = { inputOffset: 0, outputOffset: 0, source: "start" };
  /** Output from here on is kept even when the peer has acknowledged it: an application that resumes gets it. */
  keepOutput = Number.POSITIVE_INFINITY;
  /** Output that is not recorded yet, if any; what lies before output.end counts for nothing. */
  logged: StreamWindow | null = null;
  /** The options of the active's socket; null: not known. */
  options: SocketOptions | null = null;
  /** TCP MD5 key (RFC 2385); null: none. */
  md5: Uint8Array | null = null;
  /** Somebody wants to know how far it is. */
  watched = false;
  /** What the recorder last told about its join: bit 0 input proven, 1 output proven, 2 needs a fill. */
  toldJoin = 3;
  /** Fixed by the last drain of a takeover: the one input end (architecture, section 4); -1 before. */
  inEnd = -1;
  /** Live: how far the standby application's feed was written; -1: no feed. */
  fed = -1;
  /** Boot clock, ns, of the first and the last record. */
  openedAt = 0;
  lastTime = 0;
  /** The uplink its last segment came by. */
  uplink = 0;
  /** Not tracked: the last sequence numbers of the active, to reset with. */
  rawSeq = 0;
  rawAck = 0;
  rawPeerAck = 0;
  /** Set while the recorder has it on the list of sessions touched since the last audit. */
  touched = false;
  /** What the recorder last told about readiness. */
  toldReasons = -1;
  /** Grows with every change that the plan of a takeover would show. */
  revision = 0;
  /** What the audit found, a clause with stream offsets; null: nothing. */
  leak: string | null = null;

  #finCandidates: number[] = [];
  #suspectAck = -1;
  #suspectSince = 0;

  constructor(
    readonly id: number,
    public flow: number,
    /** td_flow_key. */
    readonly key: Uint8Array,
    readonly tuple: string,
    readonly service: number,
    readonly mode: ServiceMode,
    readonly passive: boolean,
    limit: number,
    budget: MemoryBudget,
  ) {
    this.input = new StreamWindow(limit, budget);
    this.output = new StreamWindow(limit, budget);
    if (mode === "confirmed") this.keepOutput = 0;
  }

  get joined(): boolean {
    return this.adoption !== 0;
  }

  get proven(): boolean {
    return this.inputProven && this.outputProven;
  }

  /** Joined, and the application on the active has yet to hand over (handover.ts). */
  get awaitsHandover(): boolean {
    return (this.reasons & reasonBit(Reason.AwaitingHandover)) !== 0;
  }

  /** The active's receive queue holds something that is not recorded, or the truth about two copies of it. */
  get needsFill(): boolean {
    if (!this.tracked) return false;
    if (this.inputProven || !this.inputAnchored) return this.doubtful;
    return this.input.base > this.copied || this.input.end < this.vouched;
  }

  /** The active has taken one of two copies of some bytes. */
  get doubtful(): boolean {
    return this.input.conflictStart < this.vouched;
  }

  /** After all that is recorded of our output, what came after a gap and a FIN included. */
  get sentEnd(): number {
    return Math.max(this.output.highest, this.finOut + 1);
  }

  /** What fills the gap in the recorded output is not known, and nothing but the active's application makes it again:
   * whoever goes on would fill it with other bytes. A live or confirmed application repeats itself. */
  get hasOutputGap(): boolean {
    return this.mode === "delivered" && this.sentEnd > this.output.end && this.finOut !== this.output.end;
  }

  /** After all output that is recorded or logged, without a gap. */
  get loggedEnd(): number {
    return Math.max(this.output.end, this.logged?.end ?? 0);
  }

  get ready(): boolean {
    return this.reasons === 0;
  }

  get state(): SessionState {
    if (this.closedAt !== 0) return "closed";
    if (!this.established) return "half-open";
    if (this.finIn >= 0) return this.finOut >= 0 ? "closing" : "peer-finished";
    return this.finOut >= 0 ? "active-finished" : "established";
  }

  /** Both ends have finished and know it of each other. */
  get finished(): boolean {
    return this.finIn >= 0 && this.finOutAcked;
  }

  /** Input a live application may have: vouched for, contiguous, unambiguous. */
  get feedEnd(): number {
    return Math.min(this.vouched, this.input.end, this.input.conflictStart);
  }

  get timestamps(): boolean {
    return this.peerOptions?.timestamps != null && this.ownOptions?.timestamps != null;
  }

  get sackPermitted(): boolean {
    return this.peerOptions?.sack === true && this.ownOptions?.sack === true;
  }

  /** Both window scales, or neither (RFC 7323, 2.2). */
  get scales(): { peer: number; own: number } | null {
    const peer = this.peerOptions?.wscale;
    const own = this.ownOptions?.wscale;
    return peer == null || own == null ? null : { peer, own };
  }

  /** The sequence number after all that was recorded of our output, FIN included. */
  get nextOut(): number {
    return sequenceOf(this.output.end + (this.finOut === this.output.end ? 1 : 0), this.firstOut);
  }

  /** What the active has acknowledged, FIN included, as a sequence number. */
  get nextIn(): number {
    return sequenceOf(this.vouched + (this.finIn >= 0 ? 1 : 0), this.firstIn);
  }

  /** An acknowledgement of unrecorded output that is still unexplained. */
  get suspicious(): boolean {
    return this.#suspectAck >= 0;
  }

  /** The one FIN that may follow the recorded input and was not vouched for; -1: none, or several. */
  get finCandidate(): number {
    return this.#finCandidates.length === 1 ? (this.#finCandidates[0] as number) : -1;
  }

  addReason(reason: Reason): void {
    this.reasons |= reasonBit(reason);
  }

  dropReason(reason: Reason): void {
    this.reasons &= ~reasonBit(reason);
  }

  /** Not to be held ready any more, for good: its streams are forgotten and only reset numbers are kept. */
  giveUp(reason: Reason): void {
    this.addReason(reason);
    if (!this.tracked) return;
    this.adoptAfter = this.lastTime + REJOIN_NS;
    this.giveUpAt(reason, this.nextOut, this.nextIn, sequenceOf(this.peerAck, this.firstOut));
  }

  /** The audit found that a byte passed that was not recorded. `leak`: how that can be told, a clause. */
  giveUpLeaking(leak: string): void {
    this.leak = leak;
    this.giveUp(Reason.AuditBreach);
  }

  /** As giveUp, for a session whose streams are not known: only these sequence numbers are. */
  giveUpAt(reason: Reason, seq: number, ack: number, peerAck: number): void {
    this.addReason(reason);
    this.rawSeq = seq;
    this.rawAck = ack;
    this.rawPeerAck = peerAck;
    this.tracked = false;
    // To be joined anew: until it is complete the active shows its socket. Of a multipath session that is of no use.
    this.inputProven = this.outputProven = reason === Reason.Mptcp;
    this.input.release();
    this.output.release();
    this.logged?.release();
    this.logged = null;
  }

  /** A segment from the peer, neither SYN nor refused for its checksum or epoch. */
  takeInput(record: RecordCursor, refusals: Refusals): void {
    const flags = record.tcpFlags;
    if (flags & TCP_RST) {
      // Anybody can send one (RFC 5961, 3.2). The session ends when the active's socket does.
      refusals.resets++;
      return;
    }
    if ((flags & TCP_ACK) === 0) {
      refusals.noAck++;
      return;
    }
    this.lastTime = record.time;
    this.uplink = record.uplink;
    if (!this.tracked) {
      this.rawPeerAck = record.ack;
      if (this.passive) this.#establish();
      return;
    }
    // Active open, before the active has picked its SYN-ACK: there is no stream yet.
    if (!this.established && !this.passive) return;
    const length = record.payloadLength;
    const start = offsetOf(record.seq, this.firstIn, this.vouched);
    const end = start + length;
    const fin = (flags & TCP_FIN) !== 0;
    // Acceptable: it ends at or after what is expected next, and begins inside the window (RFC 9293, 3.10.7.4, and
    // tcp_sequence in net/ipv4/tcp_input.c). A keepalive is one below: the active only answers it, so nothing is lost.
    const expected = this.finIn >= 0 ? this.vouched + 1 : this.vouched;
    if ((fin ? end + 1 : end) < expected || start > this.rightEdge) {
      refusals.outOfWindow++;
      return;
    }
    const hasTimestamp = (record.flags & TD_RECORD_TS) !== 0;
    // PAWS (RFC 7323, 5.3) against the value that the active itself echoes: its TS.Recent is at least that. Linux lets
    // one tick pass (TCP_PAWS_WINDOW in include/net/tcp.h).
    if (
      hasTimestamp &&
      this.tsRecentTime !== 0 &&
      before(record.tsval + 1, this.tsRecent) &&
      record.time - this.tsRecentTime < 24 * DAY_NS
    ) {
      refusals.oldTimestamp++;
      return;
    }
    if (!this.#takePeerAck(record, start, refusals)) return;
    if (hasTimestamp) this.tsEcho = record.tsecr;
    if (length > 0) {
      if (flags & TCP_URG) {
        this.giveUp(Reason.Urgent);
        return;
      }
      // Below `vouched` the active has the byte already and ignores another copy, whatever is in it.
      const skip = start < this.vouched ? this.vouched - start : 0;
      const keep = this.finIn >= 0 ? Math.min(length, this.finIn - start) : length;
      if (keep > skip) {
        if (!this.input.write(start + skip, record.bytes, record.payloadStart + skip, keep - skip)) {
          this.giveUp(Reason.Memory);
          return;
        }
        if (this.input.conflictEnd >= 0) this.addReason(Reason.AmbiguousInput);
        // Data at and after a FIN's place: that FIN was not the peer's (or this is not its data). The bytes stay.
        if (this.#finCandidates.length > 0 && this.finIn < 0)
          this.#finCandidates = this.#finCandidates.filter((at) => at >= end);
      }
    }
    if (fin && this.finIn < 0 && end >= this.vouched && end >= this.input.end && !this.#finCandidates.includes(end)) {
      this.#finCandidates.push(end);
      if (this.#finCandidates.length > MAX_FIN_CANDIDATES) this.#finCandidates.shift();
    }
  }

  /** A segment of the active, neither SYN nor refused for its checksum or epoch. */
  takeOutput(record: RecordCursor): void {
    const flags = record.tcpFlags;
    // A reset may come from a control socket: its numbers say nothing about the session.
    if ((flags & TCP_RST) !== 0 || (flags & TCP_ACK) === 0) return;
    this.lastTime = record.time;
    const length = record.payloadLength;
    if (!this.tracked) {
      const after = (record.seq + length + (flags & TCP_FIN ? 1 : 0)) >>> 0;
      if (before(this.rawSeq, after)) this.rawSeq = after;
      if (before(this.rawAck, record.ack)) this.rawAck = record.ack;
      if (!this.passive) this.#establish();
      return;
    }
    if (!this.established && !this.passive && !this.#pickSynAck(record.ack)) return;
    const acked = offsetOf(record.ack, this.firstIn, this.vouched);
    this.vouch(acked);
    const edge = acked + (record.window << (this.scales?.own ?? 0));
    if (edge > this.rightEdge) this.rightEdge = edge;
    this.receiveWindowRaw = record.window;
    if (record.flags & TD_RECORD_TS) this.#noteTimestamps(record);
    if (record.flags & TD_RECORD_STAMP) this.#noteStamp(record);
    if (!this.tracked) return;
    const start = offsetOf(record.seq, this.firstOut, this.output.end);
    if (length > 0) {
      if (flags & TCP_URG) {
        this.giveUp(Reason.Urgent);
        return;
      }
      if (!this.output.write(start, record.bytes, record.payloadStart, length)) {
        this.giveUp(Reason.Memory);
        return;
      }
      if (length > this.largestOutput) this.largestOutput = length;
    }
    if (flags & TCP_FIN) {
      this.finOut = start + length;
      if (!this.outputProven) this.sentKnown = Math.max(this.sentKnown, this.finOut + 1);
    }
    if (this.#suspectAck >= 0) this.#weighSuspicion(start, length);
  }

  /** The active has, or had, all input before `offset` (one more when it counts the peer's FIN). */
  vouch(offset: number): void {
    if (offset <= this.vouched || this.finIn >= 0) {
      if (this.finIn >= 0 && offset > this.finIn + 1)
        this.giveUpLeaking(`the active has input up to ${offset}, and the peer finished at ${this.finIn}`);
      return;
    }
    if (this.input.end === offset - 1 && this.#finCandidates.includes(offset - 1)) {
      this.finIn = offset - 1;
      this.vouched = this.finIn;
      this.#finCandidates.length = 0;
      // Nothing can follow: what came early beyond it was not the peer's.
      this.input.truncate(this.finIn);
      return;
    }
    this.vouched = offset;
  }

  /** After each drain (architecture, section 1): gives the session up if a byte passed that was not recorded. */
  audit(now: number): void {
    if (!this.tracked) return;
    if (this.inputProven && this.vouched > this.input.end)
      this.giveUpLeaking(`the active has input up to ${this.vouched}, and recorded is up to ${this.input.end}`);
    else if (this.#suspectAck >= 0 && now - this.#suspectSince >= SUSPICION_NS)
      this.giveUpLeaking(
        `the peer has acknowledged output up to ${this.#suspectAck}, and recorded is up to ${this.output.end}`,
      );
  }

  /** Lets go of input that no takeover can need: before the resume point. */
  trimInput(): void {
    if (!this.tracked) return;
    const point = this.#resumeInput();
    // Of a join that is not proven, also what was never recorded: the application has read it.
    if (!this.held && point > this.input.base) this.input.restart(point);
    if (this.input.conflictEnd < 0) this.dropReason(Reason.AmbiguousInput);
  }

  /** Lets go of output that neither the peer nor an application that resumes can need, and of logged output that is
   * recorded now. */
  releaseOutput(): void {
    if (!this.tracked) return;
    this.output.restart(Math.min(this.peerAck, this.keepOutput));
    if (this.logged === null) return;
    this.logged.restart(this.output.end);
    if (this.logged.highest > this.output.end) return;
    this.logged.release();
    this.logged = null;
  }

  /** Where input must be kept from. Before a hand-over that is what the application has read: it hands over the rest. */
  #resumeInput(): number {
    if (this.mode === "delivered" || this.awaitsHandover) return this.copied;
    return this.mode === "live" ? this.fed : this.resume.inputOffset;
  }

  /** False: the active would not accept its ACK, so the segment counts for nothing (RFC 5961, 5.2). */
  #takePeerAck(record: RecordCursor, start: number, refusals: Refusals): boolean {
    const acked = offsetOf(record.ack, this.firstOut, this.peerAck);
    const recorded = this.finOut === this.output.end ? this.finOut + 1 : this.output.end;
    const sent = this.outputProven ? recorded : Math.max(recorded, this.sentKnown, this.output.highest);
    if (acked > sent) {
      // What was sent before the adoption is not all known; then neither is what this acknowledges.
      if (!this.outputProven) return true;
      // Either nobody's ACK, or output left that was not recorded. The active's next segments tell which.
      refusals.ackBeyondOutput++;
      if (acked <= this.peerAck + Math.max(this.maxSendWindow, 1) + 1 && this.#suspectAck < 0) {
        this.#suspectAck = acked;
        this.#suspectSince = record.time;
      }
      return false;
    }
    if (acked < this.peerAck - this.maxSendWindow || acked < 0) {
      refusals.ackTooOld++;
      return false;
    }
    this.#establish();
    if (this.finOut >= 0 && acked === this.finOut + 1) this.finOutAcked = true;
    const bytes = this.finOutAcked ? Math.min(acked, this.finOut) : acked;
    const advanced = bytes > this.peerAck;
    const raw = record.window;
    const window = raw << (this.scales?.peer ?? 0);
    // RFC 9293, 3.10.7.4: SND.WL1 < SEG.SEQ, or the same and SND.WL2 =< SEG.ACK.
    if (advanced || start > this.windowSeq || (start === this.windowSeq && acked >= this.windowAck)) {
      this.windowSeq = start;
      this.windowAck = acked;
      this.sendWindow = window;
      this.sendWindowRaw = raw;
      if (window > this.maxSendWindow) this.maxSendWindow = window;
    }
    if (advanced) {
      this.peerAck = bytes;
      this.releaseOutput();
    }
    return true;
  }

  #noteTimestamps(record: RecordCursor): void {
    const value = record.tsval;
    if (this.tsvalFirstTime === 0) {
      this.tsvalFirst = value;
      this.tsvalFirstTime = record.time;
      this.tsvalOut = value;
    }
    if (!before(value, this.tsvalOut)) {
      this.tsvalOut = value;
      this.tsvalOutTime = record.time;
    }
    // A socket that was restored here has heard nothing of the peer yet and echoes 0: that is not its TS.Recent, and may
    // lie ahead of it by the serial arithmetic of timestamps.
    if (record.tsecr !== 0 && (this.tsRecentTime === 0 || !before(record.tsecr, this.tsRecent))) {
      this.tsRecent = record.tsecr;
      this.tsRecentTime = record.time;
    }
  }

  #noteStamp(record: RecordCursor): void {
    this.vouch(offsetOf(record.rcvNxt, this.firstIn, this.vouched));
    // copied_seq and rcv_nxt count a FIN that was read; the stream does not.
    const copied = Math.min(offsetOf(record.copiedSeq, this.firstIn, this.vouched), this.vouched);
    if (copied > this.copied) this.copied = copied;
    const written = offsetOf(record.writeSeq, this.firstOut, this.output.end);
    if (written > this.written) this.written = written;
  }

  /** Active open: the active's first ACK says which SYN-ACK it took. */
  #pickSynAck(ack: number): boolean {
    const matching = this.candidates.filter((candidate) => ((candidate.isn + 1) | 0) === (ack | 0));
    const picked = matching[0];
    if (picked === undefined) return false;
    this.candidates = [];
    this.firstIn = (picked.isn + 1) >>> 0;
    this.vouched = 0;
    this.sendWindow = this.sendWindowRaw = this.maxSendWindow = picked.window;
    this.windowSeq = -1;
    this.adoptPeerOptions(
      picked.options,
      matching.map((candidate) => candidate.options),
    );
    this.#establish();
    return true;
  }

  #establish(): void {
    if (this.established) return;
    this.established = true;
    this.synAck = null;
    this.dropReason(Reason.HalfOpen);
  }

  /** Fixes what the peer offered. Differing offers with one ISN: nobody can tell which the active took. */
  adoptPeerOptions(options: TcpOptions, offers: TcpOptions[]): void {
    this.peerOptions = options;
    for (const other of offers)
      if (
        other.mss !== options.mss ||
        other.wscale !== options.wscale ||
        other.sack !== options.sack ||
        (other.timestamps === null) !== (options.timestamps === null)
      )
        this.addReason(Reason.AmbiguousHandshake);
    if (options.mptcp && this.ownOptions?.mptcp) this.giveUp(Reason.Mptcp);
    if ((options.authenticated || this.ownOptions?.authenticated) && this.md5 === null)
      this.addReason(Reason.Authenticated);
  }

  #weighSuspicion(start: number, length: number): void {
    const sent = this.finOut === this.output.end ? this.finOut + 1 : this.output.end;
    if (sent >= this.#suspectAck) this.#suspectAck = -1;
    else if (start >= this.#suspectAck)
      this.giveUpLeaking(
        `the peer has acknowledged output up to ${this.#suspectAck}, the active goes on at ${start}, and recorded is up to ${sent}`,
      );
    else if (length === 0 && start >= this.output.highest) this.#suspectAck = -1; // SND.NXT is lower: a forged ACK
  }
}
