// What the agent and the recorder's worker thread say to each other. Both are one program: plain types, no zod.
// Offsets are stream offsets, bytes. Descriptors are numbers of the one process; who is sent one owns it.

import { KEY_BYTES, type SessionKey } from "../session/flow-key.js";
import type { UnackedOutput } from "../session/segment.js";
import type { ServiceMode, SessionState } from "../session/session.js";
import type { CloseCause, RecorderCounters, RecorderOptions } from "./recorder.js";

/** workerData of the thread. */
export interface RecorderStart {
  /** Descriptor of the map "records". */
  ringFd: number;
  services: [id: number, mode: ServiceMode][];
  limits: Partial<Omit<RecorderOptions, "services">>;
}

export type ToRecorder =
  /** The worker's end of a session's feed: a non-blocking stream socket. Answered by `feed`. */
  | { type: "attachFeed"; id: number; fd: number }
  /** The application is gone. */
  | { type: "detachFeed"; id: number }
  /** The witness of the active: a socket reached CLOSE. `key` is a td_flow_key. */
  | { type: "socketEnded"; key: Uint8Array; verdicts: number; copiedSeq: number | null }
  | { type: "status"; request: number; sessions: boolean }
  /** Old frames must be refused by now: drains to the end, restores, answers `takeover`. */
  | { type: "takeover"; request: number }
  /** The gate is open and the sockets have left repair mode: the injector may speak to them. Our uplinks by index;
   * `peerMac` stands as the source of injected frames. */
  | { type: "inject"; uplinks: { ifindex: number; mac: Uint8Array }[]; peerMac: Uint8Array }
  /** Forgets everything, what is in the ring included, and records anew. */
  | { type: "reset"; request: number }
  | { type: "stop" };

export type FromRecorder =
  | { type: "started" }
  | { type: "events"; opened: SessionSummary[]; closed: SessionClosed[]; readiness: SessionReadiness[] }
  | { type: "progress"; entries: Progress[] }
  /** attached: it is fed from input byte 0. refused: the session cannot be read from its start; descriptor closed.
   * lost: the application's end is gone. ended: everything up to `offset` was written, and the stream closed. */
  | { type: "feed"; id: number; what: "attached" | "refused" | "lost" | "ended"; offset: number }
  | RecorderStatus
  | PackedTakeoverReport
  | { type: "resetDone"; request: number };

/** How far a session with a feed is: recorded output, written feed, vouched-for input; inputFin: where the peer
 * finished, -1 if it has not. */
export type Progress = [id: number, outputEnd: number, fed: number, inputEnd: number, inputFin: number];

export interface SessionSummary extends SessionKey {
  id: number;
  service: number;
  mode: ServiceMode;
  state: SessionState;
  ready: boolean;
  /** Names of reasons.ts. */
  reasons: string[];
  /** Its input can still be read from byte 0. */
  fromStart: boolean;
  inputEnd: number;
  outputEnd: number;
  peerAck: number;
  /** -1: no feed. */
  fed: number;
  /** Bytes of memory its streams take. */
  memory: number;
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
  sessions: SessionSummary[];
}

export interface TakenSession {
  id: number;
  service: number;
  key: Uint8Array;
  /** The TCP socket, in repair mode behind the closed gate. */
  fd: number;
  /** Live: the feed ends here and the socket's first byte is this one. Delivered: the socket's first byte is
   * `inputOffset - received`. */
  inputOffset: number;
  received: number;
  outputOffset: number;
  /** Of the recorded output beyond a gap: see plan.ts. */
  outputAhead: number | null;
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

export interface LostSession {
  id: number;
  service: number;
  key: Uint8Array;
  reasons: string[];
  /** To reset it: sequence numbers one of which the peer accepts (RFC 5961, 3.2), and the acknowledgement. */
  reset: { seqs: number[]; ack: number };
  /** What the kernel said when it refused to restore it. */
  detail: string;
}

export interface TakeoverReport {
  type: "takeover";
  request: number;
  sessions: TakenSession[];
  lost: LostSession[];
  /** For the map "closed": td_flow_key, td_closed. */
  closed: { key: Uint8Array; ack: number; seq: number }[];
  /** Bytes the feeds still get; each is ended at its inputOffset. */
  feedBytes: number;
  /** How long it took, ns. */
  drainNs: number;
  restoreNs: number;
  counters: RecorderCounters & { malformed: number };
}

type Keyless<T> = Omit<T, "key">;

/** The report on its way between the threads. A thousand small buffers cost tens of milliseconds to clone, one does not:
 * `keys` are those of sessions, lost and closed, in this order. */
export interface PackedTakeoverReport extends Omit<TakeoverReport, "sessions" | "lost" | "closed"> {
  keys: Uint8Array;
  sessions: Keyless<TakenSession>[];
  lost: Keyless<LostSession>[];
  closed: Keyless<TakeoverReport["closed"][number]>[];
}

export function packReport(report: TakeoverReport): PackedTakeoverReport {
  const { sessions, lost, closed } = report;
  const keyed = [...sessions, ...lost, ...closed];
  const keys = new Uint8Array(keyed.length * KEY_BYTES);
  keyed.forEach(({ key }, index) => {
    keys.set(key, index * KEY_BYTES);
  });
  const without = <T extends { key: Uint8Array }>({ key: _, ...rest }: T) => rest;
  return { ...report, keys, sessions: sessions.map(without), lost: lost.map(without), closed: closed.map(without) };
}

export function unpackReport({ keys, sessions, lost, closed, ...rest }: PackedTakeoverReport): TakeoverReport {
  let at = 0;
  const withKey = <T extends object>(entry: T) => {
    const key = keys.subarray(at, at + KEY_BYTES);
    at += KEY_BYTES;
    return { ...entry, key };
  };
  return { ...rest, sessions: sessions.map(withKey), lost: lost.map(withKey), closed: closed.map(withKey) };
}
