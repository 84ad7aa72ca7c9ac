// What the agent and the recorder's worker thread say to each other. Both are one program: plain types, no zod.
// Offsets are stream offsets, bytes. Descriptors are numbers of the one process; who is sent one owns it.

import { KEY_BYTES, type SessionKey } from "../session/flow-key.js";
import type { Confirm, Handover } from "../session/handover.js";
import type { HeldPlan } from "../session/held-plan.js";
import type { SnapshotEntry } from "../session/join.js";
import type { Md5Key } from "../session/md5-keys.js";
import type { UnackedOutput } from "../session/segment.js";
import type { ResumePoint, ServiceMode, SessionState } from "../session/session.js";
import type { CapturedFrame } from "./record-capture.js";
import type { CloseCause, RecorderCounters, RecorderOptions } from "./recorder.js";
import type { ResumePointAge } from "./resume-point-age.js";

/** workerData of the thread. */
export interface RecorderStart {
  /** Descriptor of the map "records". */
  ringFd: number;
  services: [id: number, mode: ServiceMode][];
  md5Keys: Md5Key[];
  limits: Partial<Omit<RecorderOptions, "services" | "md5Keys">>;
}

export type ToRecorder =
  /** The worker's end of a session's feed: a non-blocking stream socket. Answered by `feed`. */
  | { type: "attachFeed"; id: number; fd: number }
  /** The application is gone. */
  | { type: "detachFeed"; id: number }
  /** The witness of the active: a socket reached CLOSE. `key` is a td_flow_key. */
  | { type: "socketEnded"; key: Uint8Array; verdicts: number; copiedSeq: number | null }
  /** The active has no such sockets. */
  | { type: "absent"; keys: Uint8Array[] }
  /** A service has an application, or a command, on this router; or has none any more. */
  | { type: "application"; service: number; present: boolean }
  /** Locked snapshots of the active's sockets. Answered by `opened` (again, if it was known) and `joins` in `events`. */
  | { type: "snapshot"; entries: SnapshotEntry[] }
  /** What lies unread in the active's receive queue from sequence number `seq` on. */
  | { type: "fill"; key: Uint8Array; seq: number; bytes: Uint8Array }
  /** How far applications have read. */
  | { type: "copied"; entries: [key: Uint8Array, seq: number][] }
  /** Tell this session's progress, feed or not. */
  | { type: "watch"; id: number; md5: Uint8Array | null }
  /** The active's application hands over. Answered by `handedOver`. */
  | ({ type: "handover"; id: number } & Handover)
  /** Not answered: whatever is posted before `takeover` counts in it, or the session is lost there. */
  | ({ type: "confirm"; id: number } & Confirm)
  | { type: "log"; id: number; outputStart: number; output: Uint8Array }
  /** sessions: so many at most are told one by one, those that are not ready first. */
  | { type: "status"; request: number; sessions: number }
  /** Answered by `outputGaps`: how many sessions a takeover would end, or keep waiting, for a gap in their output. */
  | { type: "outputGaps"; request: number }
  /** The active is about to abdicate: restores in advance what it can (preparation.ts). Answered by `prepareDone`. */
  | { type: "prepare"; request: number }
  /** Old frames must be refused by now: drains to the end, restores, says `restored`, answers `takeover`. */
  | { type: "takeover"; request: number }
  /** The gate is open and the sockets have left repair mode: the injector may speak to them. Our uplinks by index;
   * `peerMac` stands as the source of injected frames. */
  | { type: "inject"; uplinks: { ifindex: number; mac: Uint8Array }[]; peerMac: Uint8Array }
  /** An operator wants to see a session's frames, or has seen enough. */
  | { type: "capture"; id: number; on: boolean }
  /** The active's sockets of these sessions are dead, and nothing of them is on its way any more: what it takes to go on
   * with them there. Answered by `heldPlans`. */
  | { type: "planHeld"; request: number; keys: Uint8Array[] }
  /** Forgets everything, what is in the ring included, and records anew. */
  | { type: "reset"; request: number }
  | { type: "stop" };

export type FromRecorder =
  | { type: "started" }
  | {
      type: "events";
      opened: SessionSummary[];
      closed: SessionClosed[];
      readiness: SessionReadiness[];
      joins: JoinProgress[];
      leaks: SessionLeak[];
    }
  | { type: "progress"; entries: Progress[] }
  /** The session goes on from what was handed over; or why it does not (a name of reasons.ts, or not-recorded,
   * not-awaited). */
  | { type: "handedOver"; id: number; refused: string | null }
  /** attached: it is fed from input byte `offset` on. refused: the session cannot be read from there; descriptor closed.
   * lost: the application's end is gone. */
  | { type: "feed"; id: number; what: "attached" | "refused" | "lost"; offset: number }
  /** dropped: segments that were too many to be shown. */
  | { type: "captured"; id: number; frames: CapturedFrame[]; dropped: number }
  | RecorderStatus
  | RestoredNews
  | PackedTakeoverReport
  | { type: "outputGaps"; request: number; count: number }
  | HeldPlans
  | { type: "prepareDone"; request: number }
  | { type: "resetDone"; request: number };

/** How far a join is: which directions are proven complete. needsFill: the active's receive queue holds what is not
 * recorded, or the truth about two copies of it. */
export interface JoinProgress {
  id: number;
  adoption: number;
  input: boolean;
  output: boolean;
  needsFill: boolean;
}

/** How far a session with a feed, or a watched one, is: recorded output, written feed, vouched-for input; inputFin: where the peer
 * finished, -1 if it has not. */
export type Progress = [id: number, outputEnd: number, fed: number, inputEnd: number, inputFin: number];

export interface SessionSummary extends SessionKey {
  id: number;
  /** td_flow_key in hexadecimal. */
  key: string;
  service: number;
  mode: ServiceMode;
  state: SessionState;
  ready: boolean;
  /** Names of reasons.ts. */
  reasons: string[];
  /** Its input can still be read from `resume.inputOffset`, where a live application has to begin. */
  fromStart: boolean;
  /** It was adopted mid-stream. */
  joined: boolean;
  /** The hand-over's or the last confirm's; (0, 0) without either. */
  resume: ResumePoint;
  inputEnd: number;
  /** Input recorded without a gap; what lies beyond inputEnd the active has not vouched for. */
  inputRecorded: number;
  outputEnd: number;
  peerAck: number;
  /** -1: no feed. */
  fed: number;
  /** How far the standby's application is in the input, by its own reading (live) or by the active's socket; null: it
   * has no such place. */
  resumePoint: number | null;
  /** Sequence numbers of the first byte each way that the standby holds; null: it is not tracked. */
  firstSequence: { input: number; output: number } | null;
  /** When it began to be ready, or not ready for these reasons; boot clock, ns. */
  since: number;
  /** Bytes of memory its streams take. */
  memory: number;
}

/** What the audit found in a session, a clause; key: td_flow_key. */
export interface SessionLeak {
  key: Uint8Array;
  service: number;
  leak: string;
}

/** In the order asked; null: not ready, "ahead": see planHeld (restoration.ts). */
export interface HeldPlans {
  type: "heldPlans";
  request: number;
  plans: (HeldPlan | "ahead" | null)[];
}

export interface SessionClosed {
  id: number;
  cause: CloseCause;
}

export interface SessionReadiness {
  id: number;
  ready: boolean;
  reasons: string[];
  /** It will not become ready again. */
  final: boolean;
}

export interface RecorderStatus {
  type: "status";
  request: number;
  counters: RecorderCounters & { malformed: number };
  counts: { sessions: number; halfOpen: number; closed: number; ready: number };
  /** Sessions not ready, by reason name. */
  notReady: Record<string, number>;
  /** Bytes. */
  memory: { used: number; limit: number };
  ring: { backlog: number; size: number; highest: number };
  /** How long the oldest record of a batch had waited in the ring, ns: the most in the last seconds. */
  lagNs: number;
  resumePoint: ResumePointAge;
  sessions: SessionSummary[];
}

export interface TakenSession {
  id: number;
  service: number;
  key: Uint8Array;
  /** The TCP socket, in repair mode behind the closed gate. */
  fd: number;
  /** in_end: the live feed ends here. `received` bytes before it are in the socket's receive queue. */
  inputOffset: number;
  received: number;
  /** Where the application's output goes on: after what is recorded and logged. */
  outputOffset: number;
  mode: ServiceMode;
  /** See plan.ts. */
  resume: ResumePoint;
  base: { input: number; output: number };
  sinceConfirm: Uint8Array;
  logged: Uint8Array;
  /** A gap in the recorded output that nobody can fill with the right bytes; null: none. */
  gap: OutputGap | null;
  /** Delivered: see plan.ts. */
  clean: boolean | null;
  /** The peer had finished; the injector's last frame says so to the stack. */
  inputFin: boolean;
  /** The active had finished after outputOffset: shut the socket's writing down once it is out of repair mode. */
  outputFin: boolean;
  outputFinAcked: boolean;
  /** For buildUnacked (segment.ts); its TSval is of the restore, the clock has gone on since. null: nothing is unacked. */
  unacked: UnackedOutput | null;
  /** Half-open: the IP packet to send to the peer again; null: established. */
  synAck: Uint8Array | null;
}

/** The session may go on only if its peer holds nothing beyond the gap. */
export interface OutputGap {
  /** The headers of a segment that makes the peer say what it has. */
  probe: UnackedOutput;
  /** What becomes of the session if it does. */
  lost: LostSession;
}

export interface LostSession {
  id: number;
  service: number;
  key: Uint8Array;
  reasons: string[];
  /** To reset it: sequence numbers one of which the peer accepts (RFC 5961, 3.2), and the acknowledgement. */
  reset: { seqs: number[]; ack: number; md5: Uint8Array | null };
  /** What the kernel said when it refused to restore it. */
  detail: string;
}

/** All sockets are there: what the gate needs to be opened, ahead of the report, which takes a while to make. */
export interface RestoredNews {
  type: "restored";
  /** For the map "closed": td_flow_key, td_closed. */
  closed: { key: Uint8Array; ack: number; seq: number }[];
  /** For the map "ahead": td_flow_key, the sequence number after all output (plan.ts). */
  ahead: { key: Uint8Array; seq: number }[];
  /** How long it took, ns. */
  drainNs: number;
}

export interface TakeoverReport {
  type: "takeover";
  request: number;
  sessions: TakenSession[];
  lost: LostSession[];
  /** Sessions that had been restored in advance. */
  prepared: number;
  /** Bytes the feeds still get; each is ended at its inputOffset. */
  feedBytes: number;
  counters: RecorderCounters & { malformed: number };
}

type Keyless<T> = Omit<T, "key">;

/** The report on its way between the threads. A thousand small buffers cost tens of milliseconds to clone, one does not:
 * `keys` are those of sessions and lost, in this order. */
export interface PackedTakeoverReport extends Omit<TakeoverReport, "sessions" | "lost"> {
  keys: Uint8Array;
  sessions: Keyless<TakenSession>[];
  lost: Keyless<LostSession>[];
}

export function packReport(report: TakeoverReport): PackedTakeoverReport {
  const { sessions, lost } = report;
  const keyed = [...sessions, ...lost];
  const keys = new Uint8Array(keyed.length * KEY_BYTES);
  keyed.forEach(({ key }, index) => {
    keys.set(key, index * KEY_BYTES);
  });
  const without = <T extends { key: Uint8Array }>({ key: _, ...rest }: T) => rest;
  return { ...report, keys, sessions: sessions.map(without), lost: lost.map(without) };
}

export function unpackReport({ keys, sessions, lost, ...rest }: PackedTakeoverReport): TakeoverReport {
  let at = 0;
  const withKey = <T extends object>(entry: T) => {
    const key = keys.subarray(at, at + KEY_BYTES);
    at += KEY_BYTES;
    return { ...entry, key };
  };
  return { ...rest, sessions: sessions.map(withKey), lost: lost.map(withKey) };
}
