// The recorder's thread: drains the ring every millisecond, serves the live feeds, and answers the agent.
//
//   recording ──takeover──► taken (only the feeds are finished) ──reset──► recording
//
// No wakeup per record: a timer costs less than wakeups do, and the ring is the buffer (facts.md).

import { constants, setPriority } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { native } from "../../addon/native.js";
import { TD_MARK_INJECT } from "../abi.gen.js";
import { readKey } from "../session/flow-key.js";
import { reasonList } from "../session/reasons.js";
import type { Session } from "../session/session.js";
import { Feeds } from "./feeds.js";
import {
  type FromRecorder,
  type Progress,
  packReport,
  type RecorderStart,
  type RecorderStatus,
  type SessionSummary,
  type ToRecorder,
} from "./messages.js";
import { Recorder, recorderDefaults } from "./recorder.js";
import { injectRestored, type Restoration, rehearse, restoreSessions } from "./restoration.js";

const TICK_MS = 1;
const BATCH_BYTES = 1 << 20;
/** Batches in one tick, so that messages are heard under load. */
const BATCHES_PER_TICK = 16;
const PROGRESS_NS = 10e6;
const DRAIN_LIMIT_NS = 500e6;
const REHEARSAL_NS = 20e6;
const REHEARSED_AT_ONCE = 16;

if (parentPort === null) throw new Error("worker.ts is started as a worker thread");
const port = parentPort;
const start = workerData as RecorderStart;
const options = { ...recorderDefaults, ...start.limits, services: new Map(start.services) };
const ring = native.ringOpen(start.ringFd, { checksums: true });
const batch = new Uint8Array(BATCH_BYTES);
const noMac = new Uint8Array(6);
const feeds = new Feeds(native, (session, what, offset) => say({ type: "feed", id: session.id, what, offset }));

let recorder = new Recorder(options);
let recording = true;
let highestBacklog = 0;
let progressAt = 0;
/** Restored sessions the injector has not spoken to yet. */
let toInject: Restoration["restored"] = [];
let rehearsedAt = 0;
let rehearsing: IterableIterator<Session> | null = null;

function say(message: FromRecorder): void {
  port.postMessage(message);
}

function nowNs(): number {
  return Number(native.bootTimeNs());
}

/** Takes up to `batches` batches, each with what follows from it, so that feeds keep pace with the ring; false when more
 * is waiting. */
function drain(batches: number): boolean {
  for (let count = 0; count < batches; count++) {
    const { bytes, backlog } = ring.drain(batch);
    if (backlog > highestBacklog) highestBacklog = backlog;
    if (bytes > 0) recorder.ingest(batch, bytes);
    recorder.endDrain(nowNs());
    feeds.write(recorder);
    if (backlog === 0) return true;
    // A sample that is being written: its producer needs time, not us.
    if (bytes === 0) return true;
  }
  return false;
}

function summaryOf(session: Session): SessionSummary {
  return {
    id: session.id,
    service: session.service,
    ...readKey(session.key),
    mode: session.mode,
    state: session.state,
    ready: session.ready,
    reasons: reasonList(session.reasons),
    fromStart: session.tracked && session.input.base === 0,
    inputEnd: session.vouched,
    outputEnd: session.output.end,
    peerAck: session.peerAck,
    fed: session.fed,
    memory: session.input.capacity + session.output.capacity,
  };
}

function tellEvents(): void {
  const events = recorder.takeEvents();
  if (events.opened.length + events.closed.length + events.reasons.length === 0) return;
  const changed = new Set(events.reasons);
  for (const session of events.opened) changed.delete(session); // its summary says it
  for (const session of changed) if (!session.tracked) feeds.drop(recorder, session, "lost");
  for (const { session } of events.closed) feeds.end(recorder, session);
  say({
    type: "events",
    opened: events.opened.map(summaryOf),
    closed: events.closed.map(({ session, cause }) => ({ id: session.id, cause })),
    readiness: [...changed].map((session) => ({
      id: session.id,
      ready: session.ready,
      reasons: reasonList(session.reasons),
      final: !session.tracked,
    })),
  });
}

function tellProgress(now: number): void {
  if (recorder.progressed.size === 0 || now - progressAt < PROGRESS_NS) return;
  progressAt = now;
  const entries: Progress[] = [];
  for (const session of recorder.progressed)
    entries.push([session.id, session.output.end, session.fed, session.vouched, session.finIn]);
  recorder.progressed.clear();
  say({ type: "progress", entries });
}

/** A few sessions at a time, round and round. */
function rehearseSome(now: number): void {
  if (now - rehearsedAt < REHEARSAL_NS) return;
  rehearsedAt = now;
  rehearsing ??= recorder.sessions();
  for (let count = 0; count < REHEARSED_AT_ONCE; count++) {
    const { value, done } = rehearsing.next();
    if (done) {
      rehearsing = null;
      return;
    }
    rehearse(value, noMac, now);
  }
}

function tick(): void {
  let empty = true;
  if (recording) {
    empty = drain(BATCHES_PER_TICK);
    const now = nowNs();
    tellEvents();
    tellProgress(now);
    if (empty) rehearseSome(now);
  } else feeds.write(recorder);
  if (empty) setTimeout(tick, TICK_MS);
  else setImmediate(tick);
}

function statusOf(request: number, withSessions: boolean): RecorderStatus {
  const notReady: Record<string, number> = {};
  let ready = 0;
  for (const session of recorder.sessions()) {
    if (session.closedAt !== 0) continue;
    if (session.ready) ready++;
    for (const name of reasonList(session.reasons)) notReady[name] = (notReady[name] ?? 0) + 1;
  }
  return {
    type: "status",
    request,
    counters: { ...recorder.counters, malformed: recorder.malformed },
    counts: { ...recorder.counts, ready },
    notReady,
    memory: { used: recorder.budget.used, limit: recorder.budget.limit },
    ring: { backlog: ring.backlog(), size: ring.size, highest: highestBacklog },
    sessions: withSessions ? Array.from(recorder.sessions(), summaryOf) : [],
  };
}

function takeOver(request: Extract<ToRecorder, { type: "takeover" }>): void {
  const began = nowNs();
  // Old frames are refused by now, so this ends; a sample may still be in its producer's hands for a moment. Were the
  // gate open after all, a takeover that never ends would be worse than one that leaves the newest to be sent again.
  while (ring.backlog() > 0 && nowNs() - began < DRAIN_LIMIT_NS) drain(BATCHES_PER_TICK);
  const drained = nowNs();
  recorder.finish(drained);
  tellEvents();
  recording = false;
  const { sessions, lost, closed, restored: waiting } = restoreSessions(recorder, native.restore, nowNs());
  toInject = waiting;
  const restored = nowNs();
  let feedBytes = 0;
  for (const { id, inputOffset } of sessions) {
    const session = recorder.get(id) as Session;
    if (!feeds.has(session)) continue;
    feedBytes += inputOffset - session.fed;
    feeds.end(recorder, session);
  }
  say(
    packReport({
      type: "takeover",
      request: request.request,
      sessions,
      lost,
      closed,
      feedBytes,
      drainNs: drained - began,
      restoreNs: restored - drained,
      counters: { ...recorder.counters, malformed: recorder.malformed },
    }),
  );
  for (const { id } of lost) feeds.drop(recorder, recorder.get(id) as Session, "lost");
  feeds.write(recorder);
}

function reset(request: number): void {
  feeds.close(recorder);
  // What is in the ring belongs to the past.
  while (ring.backlog() > 0) if (ring.drain(batch).bytes === 0) break;
  recorder = new Recorder(options);
  rehearsing = null;
  toInject = [];
  recording = true;
  highestBacklog = 0;
  say({ type: "resetDone", request });
}

port.on("message", (message: ToRecorder) => {
  switch (message.type) {
    case "attachFeed": {
      const session = recorder.get(message.id);
      if (session !== undefined) feeds.attach(recorder, session, message.fd);
      else {
        native.closeFd(message.fd);
        say({ type: "feed", id: message.id, what: "refused", offset: 0 });
      }
      break;
    }
    case "detachFeed": {
      const session = recorder.get(message.id);
      if (session !== undefined) feeds.drop(recorder, session, null);
      break;
    }
    case "socketEnded":
      recorder.socketEnded(message.key, message.verdicts, message.copiedSeq, nowNs());
      break;
    case "status":
      say(statusOf(message.request, message.sessions));
      break;
    case "takeover":
      takeOver(message);
      break;
    case "inject":
      injectRestored(
        toInject,
        (uplink, frames) => native.injectFrames(message.uplinks[uplink]?.ifindex ?? 0, frames, TD_MARK_INJECT),
        message.uplinks.map(({ mac }) => mac),
        message.peerMac,
      );
      toInject = [];
      break;
    case "reset":
      reset(message.request);
      break;
    case "stop":
      feeds.close(recorder);
      ring.close();
      process.exit(0); // ends this thread only
  }
});

try {
  // Of this thread alone (Linux): a recorder that waits for the CPU lets the ring run full, and that slows down every
  // session of the pair.
  setPriority(constants.priority.PRIORITY_HIGHEST);
} catch {
  // Without CAP_SYS_NICE it has to take its turn.
}
say({ type: "started" });
tick();
