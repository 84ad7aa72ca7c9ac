// All recorded sessions: batches of records go in, sessions with their streams and reasons come out.
//
//   peer's SYN ─► candidate ─┐
//   active's SYN-ACK ────────┴─► half-open ─ACK─► established ─FINs acknowledged / socket ended─► closed ─► forgotten
//
// Pure: no descriptor, no clock of its own. Times are nanoseconds of the boot clock, as in the records.

import { TD_RECORD_CHECKSUM_OK, TD_VERDICT_FIN_CRASH, TD_VERDICT_RST_CRASH } from "../abi.gen.js";
import { KEY_BYTES, tupleOf } from "../session/flow-key.js";
import { type Confirm, type Handover, takeConfirm, takeHandover, takeLog } from "../session/handover.js";
import { adopt, fill, hindranceOf, learn, prove, type SnapshotEntry } from "../session/join.js";
import { type Md5Key, md5KeyOf } from "../session/md5-keys.js";
import { MemoryBudget } from "../session/memory-budget.js";
import { Reason, reasonBit } from "../session/reasons.js";
import { TCP_ACK, TCP_RST, TCP_SYN } from "../session/segment.js";
import { offsetOf, sequenceOf } from "../session/sequence.js";
import { type HandshakeCandidate, type Refusals, type ServiceMode, Session } from "../session/session.js";
import { parseTcpOptions } from "../session/tcp-options.js";
import { RecordCursor } from "./record-cursor.js";

export interface RecorderOptions {
  /** Mode of each service by its id (td_record.service); others count as delivered. */
  services: ReadonlyMap<number, ServiceMode>;
  /** Configured; the active's application may give others (watch). */
  md5Keys: readonly Md5Key[];
  /** Bytes each stream (one direction of a session) may span. */
  sessionBytes: number;
  /** Bytes of all stream buffers together. */
  totalBytes: number;
  /** Half-open sessions, and SYNs waiting for their SYN-ACK, that are kept: the oldest go first (SYN flood). */
  halfOpenLimit: number;
  /** How long closed sessions are remembered, ns. */
  closedNs: number;
}

export const recorderDefaults = {
  md5Keys: [],
  sessionBytes: 32 << 20,
  totalBytes: 1 << 30,
  halfOpenLimit: 16_384,
  closedNs: 60e9,
} as const;

export interface RecorderCounters {
  records: number;
  /** Bytes of payload that were seen, each way. */
  bytesIn: number;
  bytesOut: number;
  badChecksum: number;
  oldEpoch: number;
  /** Inward segments of flows without a session, and segments after a session's end. */
  strays: number;
  refused: Refusals;
  /** Alarms: sessions in which a byte passed unrecorded. */
  auditBreaches: number;
  halfOpenEvicted: number;
  opened: number;
  closed: number;
}

/** What happened since the last takeEvents, each session at most once in each list. */
export interface RecorderEvents {
  opened: Session[];
  closed: { session: Session; cause: CloseCause }[];
  /** Readiness changed. */
  reasons: Session[];
  /** A join went on: adopted, a direction proven, something to fill in or not any more. */
  joins: Session[];
  /** A byte of it passed unrecorded: Session.leak. */
  leaks: Session[];
}
export function isNoNews({ opened, closed, reasons, joins, leaks }: RecorderEvents): boolean {
  return opened.length + closed.length + reasons.length + joins.length + leaks.length === 0;
}
export type CloseCause = "closed" | "socket-ended" | "reincarnated";

/** Candidate SYNs a tuple may have at once. */
const MAX_CANDIDATES = 4;
/** A socket can be reported gone before the last records of it are drained. */
const LINGER_NS = 250e6;
const SWEEP_NS = 1e9;
/** Linux gives up on a SYN-ACK after 63 s (tcp_synack_retries 5). */
const HALF_OPEN_NS = 64e9;

/** How long the active has to tell which of two copies of some input it has taken. */
const DOUBT_NS = 3e9;
/** A snapshot that comes so long after a session's end is not of that session. */
const STALE_SNAPSHOT_NS = 1e9;

/** Ids are never used again in a process, so that a late notice of before a reset hits nothing. */
let nextId = 1;

export class Recorder {
  readonly budget: MemoryBudget;
  readonly counters: RecorderCounters = {
    records: 0,
    bytesIn: 0,
    bytesOut: 0,
    badChecksum: 0,
    oldEpoch: 0,
    strays: 0,
    refused: { outOfWindow: 0, oldTimestamp: 0, ackTooOld: 0, ackBeyondOutput: 0, noAck: 0, resets: 0 },
    auditBreaches: 0,
    halfOpenEvicted: 0,
    opened: 0,
    closed: 0,
  };
  readonly #options: RecorderOptions;
  readonly #cursor = new RecordCursor();
  readonly #byFlow = new Map<number, Session>();
  readonly #byTuple = new Map<string, Session>();
  readonly #byId = new Map<number, Session>();
  readonly #syns = new Map<number, HandshakeCandidate[]>();
  readonly #halfOpen = new Set<Session>();
  /** In the order they closed. */
  readonly #closed = new Set<Session>();
  readonly #ending = new Set<Session>();
  /** Sessions with input for their feed, and those whose progress changed: whoever serves them empties these. */
  readonly feedable = new Set<Session>();
  readonly progressed = new Set<Session>();
  /** Services that have an application on this router. */
  readonly #attended = new Set<number>();
  /** Live sessions that are doubtful, and since when. */
  #doubtful = new Map<Session, number>();
  #touched: Session[] = [];
  #events: RecorderEvents = { opened: [], closed: [], reasons: [], joins: [], leaks: [] };
  #lastFlow = 0;
  #lastSession: Session | undefined;
  #epoch = 0;
  #sweptAt = 0;

  constructor(options: RecorderOptions) {
    this.#options = options;
    this.budget = new MemoryBudget(options.totalBytes);
  }

  /** All sessions, closed ones included. */
  sessions(): IterableIterator<Session> {
    return this.#byId.values();
  }

  /** Sessions half-open, and closed but remembered, among those of `sessions`. */
  get counts(): { sessions: number; halfOpen: number; closed: number } {
    return { sessions: this.#byId.size, halfOpen: this.#halfOpen.size, closed: this.#closed.size };
  }

  get(id: number): Session | undefined {
    return this.#byId.get(id);
  }

  /** By td_flow_key. */
  find(key: Uint8Array): Session | undefined {
    return this.#byTuple.get(tupleOf(key));
  }

  get malformed(): number {
    return this.#cursor.malformed;
  }

  /** Takes `bytes` of a batch of Ring.drain. The batch may be overwritten afterwards. */
  ingest(batch: Uint8Array, bytes: number): void {
    const record = this.#cursor;
    const counters = this.counters;
    record.start(batch, bytes);
    while (record.next()) {
      counters.records += record.segments;
      const flow = record.flow;
      if (flow === 0) continue;
      if ((record.flags & TD_RECORD_CHECKSUM_OK) === 0) {
        counters.badChecksum++;
        continue;
      }
      if (record.epoch !== this.#epoch && !this.#admitEpoch(record)) continue;
      const out = record.out;
      if (out) counters.bytesOut += record.payloadLength;
      else counters.bytesIn += record.payloadLength;
      if (record.tcpFlags & TCP_SYN) {
        this.#handshake(record, out);
        continue;
      }
      const session = flow === this.#lastFlow ? this.#lastSession : this.#lookup(flow, record);
      if (session === undefined || session.closedAt !== 0) {
        if (session === undefined && out && (record.tcpFlags & (TCP_RST | TCP_ACK)) === TCP_ACK)
          this.#joinMidStream(record);
        else counters.strays++;
        continue;
      }
      if (out) session.takeOutput(record);
      else session.takeInput(record, counters.refused);
      if (!session.touched) {
        session.touched = true;
        this.#touched.push(session);
      }
    }
  }

  /** After each drain of the ring: audit, trimming, the ends of sessions. `now`: boot clock, ns. */
  endDrain(now: number): void {
    const touched = this.#touched;
    if (touched.length > 0) {
      this.#touched = [];
      for (const session of touched) {
        session.touched = false;
        this.#settle(session, now);
      }
    }
    for (const session of this.#ending)
      if (session.finished || now - session.endedAt > LINGER_NS) this.#close(session, "socket-ended", now);
    if (now - this.#sweptAt >= SWEEP_NS) this.#sweep(now);
  }

  /** The active's socket has reached CLOSE. With a crash verdict the session goes on: the standby will take it over.
   * `copiedSeq`, if known, tells an earlier socket of the same tuple from this session's. */
  socketEnded(key: Uint8Array, verdicts: number, copiedSeq: number | null, now: number): void {
    if (verdicts & (TD_VERDICT_FIN_CRASH | TD_VERDICT_RST_CRASH)) return;
    const session = this.find(key);
    if (session === undefined || session.closedAt !== 0 || session.endedAt !== 0) return;
    if (copiedSeq !== null && session.tracked) {
      const read = offsetOf(copiedSeq, session.firstIn, session.copied);
      // Of a join nobody knows yet how far its socket is.
      if (read < 0 || (session.inputProven && read > session.input.highest + 1)) return;
    }
    session.endedAt = now;
    this.#ending.add(session);
  }

  /** The active has no such socket: a session of which nothing is kept, and which only a last segment, or one of a socket
   * in TIME-WAIT, made known, is none. One that is kept ends by its segments, or as the witness says. */
  absent(key: Uint8Array, now: number): void {
    const session = this.find(key);
    if (session === undefined || session.tracked || session.closedAt !== 0) return;
    this.#close(session, "socket-ended", now);
  }

  /** A service has an application on this router that its sessions can be given to, or has none any more. */
  attend(service: number, present: boolean): void {
    if (present) this.#attended.add(service);
    else this.#attended.delete(service);
    for (const session of this.#byId.values()) {
      if (session.service !== service || session.closedAt !== 0) continue;
      // A live session's application is there once it has its feed.
      if (session.mode !== "live") {
        if (present) session.dropReason(Reason.NoApplication);
        else session.addReason(Reason.NoApplication);
      }
      if (!present) this.#unhold(session);
      this.#hold(session);
      this.#tell(session);
    }
  }

  /** A locked snapshot of a socket of the active: the first one adopts a session whose beginning was not recorded, later
   * ones prove it complete (join.ts). */
  snapshot(entry: SnapshotEntry, now: number): void {
    const session = this.find(entry.key);
    if (session !== undefined && session.closedAt !== 0) {
      if (now - session.closedAt < STALE_SNAPSHOT_NS) return;
    } else if (session?.tracked) {
      if (entry.adoption === session.adoption) this.#prove(session, entry);
      return;
    } else if (session !== undefined && now < session.adoptAfter) return;
    const hindrance = hindranceOf(entry.snapshot);
    if (hindrance === "state") return;
    if (hindrance !== null && session !== undefined && session.closedAt === 0) {
      session.addReason(hindrance);
      this.#tell(session);
      return;
    }
    const adopted = this.#replace(entry, session, now);
    if (hindrance === null) adopt(adopted, entry, now);
    else {
      const { sndNxt, rcvNxt, sndUna } = entry.snapshot;
      adopted.established = true;
      adopted.giveUpAt(hindrance, sndNxt, rcvNxt, sndUna);
    }
    this.#events.opened.push(adopted);
    this.#tell(adopted);
  }

  /** What lies unread in the receive queue of the active's socket from sequence number `seq` on. */
  fill(key: Uint8Array, seq: number, bytes: Uint8Array): void {
    const session = this.find(key);
    if (session === undefined || !session.tracked || session.closedAt !== 0 || !session.needsFill) return;
    fill(session, seq, bytes);
    this.#changed(session);
  }

  /** The application on the active has read up to sequence number `seq`. */
  copied(key: Uint8Array, seq: number): void {
    const session = this.find(key);
    if (session === undefined || !session.tracked || session.closedAt !== 0) return;
    if (this.#readTo(session, seq)) this.#changed(session);
  }

  /** The application on the active hands over. Null, or the name of the reason why it does not count. */
  handover(session: Session, handover: Handover): string | null {
    const refused = takeHandover(session, handover);
    this.#changed(session);
    return refused;
  }

  /** Moves the resume point; whether it did is said by `resume`. */
  confirm(session: Session, confirm: Confirm): void {
    takeConfirm(session, confirm);
    this.#changed(session);
  }

  /** Output that is to reach the peer even if the active dies before it is sent. */
  log(session: Session, outputStart: number, output: Uint8Array): void {
    takeLog(session, outputStart, output);
    this.#changed(session);
  }

  /** Progress of this session is told from now on; `md5`: its TCP MD5 key, null: as configured. */
  watch(session: Session, md5: Uint8Array | null): void {
    session.watched = true;
    if (md5 !== null) {
      session.md5 = md5;
      session.revision++;
      session.dropReason(Reason.Authenticated);
    }
    this.progressed.add(session);
    this.#tell(session);
  }

  /** A live application reads the session from its start, or its hand-over, on. False, and nothing changed: it cannot any
   * more. */
  attachFeed(session: Session): boolean {
    if (session.mode !== "live" || !session.tracked || session.fed >= 0 || session.awaitsHandover) return false;
    if (session.closedAt !== 0 || session.input.base > session.resume.inputOffset) return false;
    session.fed = session.resume.inputOffset;
    this.feedable.add(session);
    this.progressed.add(session);
    session.dropReason(Reason.NoApplication);
    this.#tell(session);
    return true;
  }

  /** The application is gone. Another may start over only if nothing was let go of yet. */
  detachFeed(session: Session): void {
    session.fed = -1;
    // Taken over, and what is inherited meanwhile is still added to it.
    if (session.closedAt !== 0 || session.inEnd >= 0) return;
    if (session.input.base > session.resume.inputOffset) session.giveUp(Reason.FeedLost);
    session.addReason(Reason.NoApplication);
    this.#tell(session);
  }

  /** Vouched-for input the feed does not have yet, as views valid until the next ingest. At most `maxBytes`. */
  takeFeed(session: Session, maxBytes: number): Uint8Array[] {
    if (session.fed < 0 || !session.tracked) return [];
    const end = session.inEnd >= 0 ? session.inEnd : session.feedEnd;
    return session.input.read(session.fed, Math.min(end, session.fed + maxBytes));
  }

  /** `bytes` more are in the feed. */
  fed(session: Session, bytes: number): void {
    session.fed += bytes;
    session.trimInput();
  }

  /** After the last drain: fixes in_end of every session that goes on. */
  finish(now: number): void {
    this.endDrain(now);
    for (const session of this.#ending) this.#close(session, "socket-ended", now);
    for (const session of this.#byId.values()) {
      if (session.closedAt !== 0 || !session.tracked) continue;
      session.inEnd = Math.min(session.vouched, session.input.end);
      // A conflict beyond in_end is none: those bytes are the peer's to send again.
      if (session.input.conflictEnd >= 0 && session.input.conflictStart >= session.inEnd) {
        session.input.truncate(session.inEnd);
        session.dropReason(Reason.AmbiguousInput);
      }
    }
  }

  /** What to answer a recently closed session with (td_closed); null: it did not finish both ways. */
  closedEntry(session: Session): { ack: number; seq: number } | null {
    if (!session.finished) return null;
    return {
      ack: sequenceOf(session.finIn + 1, session.firstIn),
      seq: sequenceOf(session.finOut + 1, session.firstOut),
    };
  }

  takeEvents(): RecorderEvents {
    const events = this.#events;
    if (!isNoNews(events)) this.#events = { opened: [], closed: [], reasons: [], joins: [], leaks: [] };
    return events;
  }

  /** Forgets a session and what it keeps. */
  forget(session: Session): void {
    session.input.release();
    session.output.release();
    session.logged?.release();
    session.logged = null;
    this.#byId.delete(session.id);
    if (this.#byFlow.get(session.flow) === session) this.#byFlow.delete(session.flow);
    if (this.#byTuple.get(session.tuple) === session) this.#byTuple.delete(session.tuple);
    for (const set of [this.#halfOpen, this.#closed, this.#ending, this.feedable, this.progressed]) set.delete(session);
    if (this.#lastSession === session) this.#lastFlow = 0;
  }

  /** False: of an epoch older than one already seen. The data plane refuses those, so this is an alarm. */
  #admitEpoch(record: RecordCursor): boolean {
    if (record.epoch > this.#epoch) {
      this.#epoch = record.epoch;
      return true;
    }
    this.counters.oldEpoch++;
    const session = this.#lookup(record.flow, record);
    if (session !== undefined && session.closedAt === 0) {
      session.giveUpLeaking(`a segment of epoch ${record.epoch} came past in epoch ${this.#epoch}`);
      this.#tell(session);
    }
    return false;
  }

  #lookup(flow: number, record: RecordCursor): Session | undefined {
    let session = this.#byFlow.get(flow);
    if (session === undefined) {
      // The data plane gives a flow a new id when its own table had to forget it.
      session = this.#byTuple.get(tupleOf(record.bytes, record.keyStart));
      if (session === undefined) return undefined;
      this.#byFlow.delete(session.flow);
      session.flow = flow;
      this.#byFlow.set(flow, session);
    }
    this.#lastFlow = flow;
    this.#lastSession = session;
    return session;
  }

  #handshake(record: RecordCursor, out: boolean): void {
    const ack = (record.tcpFlags & TCP_ACK) !== 0;
    if (record.tcpFlags & TCP_RST) return;
    if (out) {
      if (ack) this.#synAckSent(record);
      else this.#synSent(record);
    } else if (ack) this.#synAckReceived(record);
    else this.#synReceived(record);
  }

  #synReceived(record: RecordCursor): void {
    const flow = record.flow;
    const known = this.#syns.get(flow);
    const candidate = candidateOf(record);
    if (known === undefined) {
      if (this.#syns.size >= this.#options.halfOpenLimit) {
        const oldest = this.#syns.keys().next();
        if (!oldest.done) this.#syns.delete(oldest.value);
        this.counters.halfOpenEvicted++;
      }
      this.#syns.set(flow, [candidate]);
      return;
    }
    if (known.some((other) => sameOffer(other, candidate))) return;
    known.push(candidate);
    if (known.length > MAX_CANDIDATES) known.shift();
  }

  /** The active answers a SYN: its ACK says which one, and from now on there is a session. */
  #synAckSent(record: RecordCursor): void {
    const existing = this.#lookup(record.flow, record);
    const offered = this.#syns.get(record.flow) ?? [];
    const matching = offered.filter(({ isn, data }) => {
      const over = (record.ack - isn - 1) >>> 0;
      return over === 0 || (data > 0 && over === data);
    });
    const picked = matching[0];
    const firstIn = picked === undefined ? record.ack : (picked.isn + 1) >>> 0;
    const firstOut = (record.seq + 1) >>> 0;
    if (existing !== undefined && existing.firstOut === firstOut && existing.firstIn === firstIn) {
      existing.lastTime = record.time; // sent again
      return;
    }
    this.#syns.delete(record.flow);
    const session = this.#open(record, existing, true);
    session.firstIn = firstIn;
    session.firstOut = firstOut;
    session.ownOptions = optionsOf(record);
    session.rightEdge = record.window;
    session.receiveWindowRaw = record.window;
    if (session.ownOptions.timestamps) {
      session.tsvalOut = session.tsvalFirst = session.ownOptions.timestamps.value;
      session.tsvalOutTime = session.tsvalFirstTime = record.time;
    }
    const frame = record.frameStart;
    session.synAck = record.bytes.slice(frame + record.l3Offset, frame + record.payloadOffset);
    if (picked === undefined) {
      session.giveUp(Reason.HandshakeBroken);
    } else {
      session.adoptPeerOptions(
        picked.options,
        matching.map(({ options }) => options),
      );
      session.sendWindow = session.sendWindowRaw = session.maxSendWindow = picked.window;
      session.windowSeq = -1;
      // Taken by the active, the SYN's data would be stream bytes before any candidate of ours.
      if (record.ack !== firstIn) session.giveUp(Reason.FastOpen);
    }
    if (record.payloadLength > 0) session.giveUp(Reason.FastOpen);
    this.#addHalfOpen(session);
  }

  /** The active opens a session itself. */
  #synSent(record: RecordCursor): void {
    const existing = this.#lookup(record.flow, record);
    const firstOut = (record.seq + 1) >>> 0;
    if (existing !== undefined && !existing.passive && existing.firstOut === firstOut) {
      existing.lastTime = record.time;
      return;
    }
    const session = this.#open(record, existing, false);
    session.firstOut = firstOut;
    session.ownOptions = optionsOf(record);
    session.rightEdge = record.window;
    session.receiveWindowRaw = record.window;
    if (record.payloadLength > 0) session.giveUp(Reason.FastOpen);
    this.#addHalfOpen(session);
  }

  #synAckReceived(record: RecordCursor): void {
    const session = this.#lookup(record.flow, record);
    if (session === undefined || session.passive || session.established || record.ack !== session.firstOut) {
      this.counters.strays++;
      return;
    }
    const candidate = candidateOf(record);
    if (session.candidates.some((other) => sameOffer(other, candidate))) return;
    session.candidates.push(candidate);
    if (session.candidates.length > MAX_CANDIDATES) session.candidates.shift();
    if (candidate.data > 0) session.giveUp(Reason.FastOpen);
  }

  /** A session the active has and whose beginning was not recorded. */
  #joinMidStream(record: RecordCursor): void {
    const session = this.#open(record, undefined, true);
    session.established = true;
    session.giveUpAt(Reason.JoinedMidStream, record.seq, record.ack, record.seq);
    session.takeOutput(record);
    this.counters.opened++;
    this.#events.opened.push(session);
    this.#tell(session);
  }

  #open(record: RecordCursor, existing: Session | undefined, passive: boolean): Session {
    if (existing !== undefined) {
      if (existing.closedAt === 0) this.#close(existing, "reincarnated", record.time);
      this.#byFlow.delete(existing.flow);
    }
    const key = record.bytes.slice(record.keyStart, record.keyStart + KEY_BYTES);
    const session = this.#create(nextId++, record.flow, key, record.service, passive, record.time);
    session.uplink = record.uplink;
    this.#lastFlow = session.flow;
    this.#lastSession = session;
    return session;
  }

  /** A session that stands in for one that nothing is kept of, under its id, or for none. */
  #replace(entry: SnapshotEntry, existing: Session | undefined, now: number): Session {
    const { key, service, passive } = entry;
    if (existing === undefined || existing.closedAt !== 0) {
      this.counters.opened++;
      return this.#create(nextId++, existing?.flow ?? 0, key, service, passive, now);
    }
    if (!existing.established) this.counters.opened++;
    this.forget(existing);
    existing.closedAt = now; // whoever still holds it
    const session = this.#create(existing.id, existing.flow, key, service, passive, now);
    session.uplink = existing.uplink;
    session.watched = existing.watched;
    session.md5 = existing.md5;
    return session;
  }

  /** `flow` 0: not known yet. */
  #create(id: number, flow: number, key: Uint8Array, service: number, passive: boolean, now: number): Session {
    const mode = this.#options.services.get(service) ?? "delivered";
    const { sessionBytes } = this.#options;
    const session = new Session(id, flow, key, tupleOf(key), service, mode, passive, sessionBytes, this.budget);
    session.md5 = md5KeyOf(this.#options.md5Keys, service, key);
    session.lastTime = now;
    session.openedAt = now;
    if (mode === "live" || !this.#attended.has(service)) session.addReason(Reason.NoApplication);
    this.#byId.set(id, session);
    this.#byTuple.set(session.tuple, session);
    if (flow !== 0) {
      this.#byFlow.set(flow, session);
      if (this.#lastFlow === flow) this.#lastSession = session;
    }
    return session;
  }

  #addHalfOpen(session: Session): void {
    session.addReason(Reason.HalfOpen);
    if (this.#halfOpen.size >= this.#options.halfOpenLimit) {
      const oldest = this.#halfOpen.values().next();
      if (!oldest.done) this.forget(oldest.value);
      this.counters.halfOpenEvicted++;
    }
    this.#halfOpen.add(session);
  }

  #settle(session: Session, now: number): void {
    if (session.closedAt !== 0) return;
    session.audit(now);
    session.trimInput();
    if (session.logged !== null) session.releaseOutput();
    if (session.established && this.#halfOpen.delete(session)) {
      this.counters.opened++;
      this.#events.opened.push(session);
    }
    this.#changed(session);
    if (session.finished) this.#close(session, "closed", now);
  }

  /** What follows from news of a session. */
  #changed(session: Session): void {
    session.revision++;
    if (session.closedAt !== 0) return;
    this.#hold(session);
    this.#tell(session);
    if (session.fed >= 0 || session.watched) this.progressed.add(session);
    if (session.fed >= 0 && session.feedEnd > session.fed) this.feedable.add(session);
  }

  /** From when the application on the active may be told that all is ready, until it hands over: it hands over what it
   * has read by then, and stands anywhere after what it had read and written so far. */
  #hold(session: Session): void {
    if (session.held || !session.awaitsHandover || !session.proven || !this.#attended.has(session.service)) return;
    session.held = true;
    if (session.mode === "confirmed") session.keepOutput = session.output.base;
  }

  #unhold(session: Session): void {
    if (!session.held) return;
    session.held = false;
    session.keepOutput = Number.POSITIVE_INFINITY;
  }

  #prove(session: Session, { snapshot }: SnapshotEntry): void {
    if (session.proven) {
      learn(session, snapshot);
      // It may have been said while nobody could hear it.
      this.#readTo(session, snapshot.copiedSeq);
    } else prove(session, snapshot);
    this.#changed(session);
  }

  /** False: that was known. */
  #readTo(session: Session, seq: number): boolean {
    if (!session.established) return false;
    // It counts a FIN that was read; and what is recorded is in the ring before the active can have it, so what is not
    // ingested is nobody's breach.
    const offset = Math.min(offsetOf(seq, session.firstIn, session.copied), session.input.end);
    if (offset <= session.copied) return false;
    session.vouch(offset);
    session.copied = offset;
    return true;
  }

  #tellJoin(session: Session): void {
    const told = (session.inputProven ? 1 : 0) | (session.outputProven ? 2 : 0) | (session.needsFill ? 4 : 0);
    if (told === session.toldJoin) return;
    session.toldJoin = told;
    this.#events.joins.push(session);
  }

  #tell(session: Session): void {
    if (session.established) this.#tellJoin(session);
    if (session.reasons === session.toldReasons) return;
    if (session.reasons & ~Math.max(0, session.toldReasons) & reasonBit(Reason.AuditBreach)) {
      this.counters.auditBreaches++;
      this.#events.leaks.push(session);
    }
    session.toldReasons = session.reasons;
    if (session.established) this.#events.reasons.push(session);
  }

  #close(session: Session, cause: CloseCause, now: number): void {
    this.#ending.delete(session);
    session.closedAt = now;
    session.inEnd = Math.min(session.vouched, session.feedEnd);
    session.output.release();
    session.logged?.release();
    session.logged = null;
    if (session.fed < 0) session.input.release();
    if (this.#halfOpen.delete(session)) {
      // Nobody was told of it.
      this.forget(session);
      return;
    }
    this.counters.closed++;
    this.#closed.add(session);
    this.#events.closed.push({ session, cause });
  }

  /** Once a second: what nothing else would come past for. */
  #sweep(now: number): void {
    this.#sweptAt = now;
    for (const session of this.#closed) {
      if (now - session.closedAt < this.#options.closedNs) break;
      if (session.fed < 0) this.forget(session);
    }
    for (const session of this.#halfOpen) {
      if (now - session.openedAt < HALF_OPEN_NS) break;
      this.forget(session);
    }
    const doubtful = new Map<Session, number>();
    for (const session of this.#byId.values()) {
      if (session.mode === "live" && session.closedAt === 0 && session.doubtful && !session.awaitsHandover) {
        // Its feed cannot pass bytes of which only the active knows the true copy. If that could not give them in the
        // meantime, the session is joined anew, from what its application hands over.
        const since = this.#doubtful.get(session) ?? now;
        if (now - since < DOUBT_NS) doubtful.set(session, since);
        else session.giveUp(Reason.AmbiguousInput);
        this.#tell(session);
      }
      if (session.suspicious) {
        session.audit(now);
        this.#tell(session);
      }
      if (now - session.lastTime > SWEEP_NS) {
        session.input.releaseIfEmpty();
        session.output.releaseIfEmpty();
      }
    }
    this.#doubtful = doubtful;
  }
}

function optionsOf(record: RecordCursor) {
  return parseTcpOptions(record.bytes, record.optionsStart, record.payloadStart);
}

function candidateOf(record: RecordCursor): HandshakeCandidate {
  return { isn: record.seq, options: optionsOf(record), data: record.payloadLength, window: record.window };
}

function sameOffer(a: HandshakeCandidate, b: HandshakeCandidate): boolean {
  return (
    a.isn === b.isn &&
    a.data === b.data &&
    a.options.mss === b.options.mss &&
    a.options.wscale === b.options.wscale &&
    a.options.sack === b.options.sack &&
    a.options.mptcp === b.options.mptcp &&
    (a.options.timestamps === null) === (b.options.timestamps === null)
  );
}
