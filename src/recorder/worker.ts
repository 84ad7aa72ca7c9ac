// The recorder's thread: drains the ring every millisecond, serves the live feeds, and answers the agent.
//
//   recording ──takeover──► taken (only the feeds are finished) ──reset──► recording
//
// No wakeup per record: a timer costs less than wakeups do, and the ring is the buffer (facts.md).

import { constants, setPriority } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { native } from "../../addon/native.js";
import { offsets, TD_MARK_INJECT } from "../abi.gen.js";
import { readKey } from "../session/flow-key.js";
import { reasonList } from "../session/reasons.js";
import { sequenceOf } from "../session/sequence.js";
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
import { Preparation } from "./preparation.js";
import { RecordCapture } from "./record-capture.js";
import { isNoNews, Recorder, recorderDefaults } from "./recorder.js";
import { injectRestored, planHeld, type Restoration, rehearse, restoreSessions } from "./restoration.js";
import { ResumePointWatch, resumePointOf } from "./resume-point-age.js";

const TICK_MS = 1;
const BATCH_BYTES = 1 << 20;
/** Batches in one tick, so that messages are heard under load. */
const BATCHES_PER_TICK = 16;
const PROGRESS_NS = 10e6;
const DRAIN_LIMIT_NS = 500e6;
const REHEARSAL_NS = 20e6;
const REHEARSED_AT_ONCE = 16;
/** The most of a lag is told for one to two of these: also who asks once a second misses none. */
const LAG_SPAN_NS = 2e9;

if (parentPort === null) throw new Error("worker.ts is started as a worker thread");
const port = parentPort;
const start = workerData as RecorderStart;
const options = { ...recorderDefaults, ...start.limits, md5Keys: start.md5Keys, services: new Map(start.services) };
const ring = native.ringOpen(start.ringFd, { records: true });
const batch = new Uint8Array(BATCH_BYTES);
const batchTimes = new DataView(batch.buffer);
const noMac = new Uint8Array(6);
const feeds = new Feeds(native, (session, what, offset) => say({ type: "feed", id: session.id, what, offset }));

let recorder = new Recorder(options);
let recording = true;
/** Services with an application on this router; a reset forgets sessions only. */
const attended = new Set<number>();
let highestBacklog = 0;
const lag = { now: 0, before: 0, since: 0 };
let resumePoints = new ResumePointWatch();
const capture = new RecordCapture();
/** When each session's reasons were last told to have changed. */
const changedAt = new WeakMap<Session, number>();
/** Of sessions adopted mid-stream: offsets of the first byte each way that is kept here. */
const keptFrom = new WeakMap<Session, { input: number; output: number }>();
let progressAt = 0;
const preparation = new Preparation(native);
/** Requests to prepare that are not answered yet. */
let toAnswer: number[] = [];
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
    const now = nowNs();
    if (bytes > 0) {
      const oldest = Number(batchTimes.getBigUint64(8 + offsets.td_record.time_ns, true));
      lagSpan(now);
      lag.now = Math.max(lag.now, now - oldest);
      recorder.ingest(batch, bytes);
      if (capture.active) capture.take(batch, bytes, (id) => recorder.get(id));
    }
    recorder.endDrain(nowNs());
    feeds.write(recorder);
    if (backlog === 0) return true;
    // A sample that is being written: its producer needs time, not us.
    if (bytes === 0) return true;
  }
  return false;
}

/** Keeps the most of two spans, this one and the one before. */
function lagSpan(now: number): void {
  if (now - lag.since < LAG_SPAN_NS) return;
  lag.before = now - lag.since < 2 * LAG_SPAN_NS ? lag.now : 0;
  lag.now = 0;
  lag.since = now;
}

function summaryOf(session: Session): SessionSummary {
  return {
    id: session.id,
    key: Buffer.from(session.key).toString("hex"),
    service: session.service,
    ...readKey(session.key),
    mode: session.mode,
    state: session.state,
    ready: session.ready,
    reasons: reasonList(session.reasons),
    fromStart: session.tracked && !session.awaitsHandover && session.input.base <= session.resume.inputOffset,
    joined: session.joined,
    resume: session.resume,
    inputEnd: session.vouched,
    inputRecorded: Math.max(session.input.end, session.vouched),
    outputEnd: session.output.end,
    peerAck: session.peerAck,
    fed: session.fed,
    resumePoint: session.tracked && resumePointOf(session) >= 0 ? resumePointOf(session) : null,
    firstSequence: session.tracked ? firstSequenceOf(session) : null,
    since: changedAt.get(session) ?? session.openedAt,
    memory: session.input.capacity + session.output.capacity + (session.logged?.capacity ?? 0),
  };
}

function firstSequenceOf(session: Session): { input: number; output: number } {
  const from = keptFrom.get(session) ?? { input: 0, output: 0 };
  return { input: sequenceOf(from.input, session.firstIn), output: sequenceOf(from.output, session.firstOut) };
}

/** Adopted in the meantime: another stands in for it under its id. */
function replaced(session: Session): boolean {
  const current = recorder.get(session.id);
  return current !== undefined && current !== session;
}

function tellEvents(): void {
  const events = recorder.takeEvents();
  if (isNoNews(events)) return;
  const now = nowNs();
  for (const session of events.reasons) changedAt.set(session, now);
  for (const session of events.opened)
    if (session.joined && session.tracked)
      keptFrom.set(session, { input: session.input.base, output: session.output.base });
  const changed = new Set(events.reasons);
  for (const session of events.opened) changed.delete(session); // its summary says it
  for (const session of changed) {
    if (!session.tracked) feeds.drop(recorder, session, "lost");
    if (replaced(session)) changed.delete(session);
  }
  for (const { session } of events.closed) feeds.end(recorder, session);
  say({
    type: "events",
    opened: events.opened.filter((session) => !replaced(session)).map(summaryOf),
    closed: events.closed.map(({ session, cause }) => ({ id: session.id, cause })),
    readiness: [...changed].map((session) => ({
      id: session.id,
      ready: session.ready,
      reasons: reasonList(session.reasons),
      final: !session.tracked,
    })),
    joins: events.joins
      .filter((session) => !replaced(session))
      .map(({ id, adoption, inputProven: input, outputProven: output, needsFill }) => ({
        id,
        adoption,
        input,
        output,
        needsFill,
      })),
    leaks: events.leaks.map(({ key, service, leak }) => ({ key, service, leak: leak ?? "" })),
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

/** One step of what is restored in advance; true: the next one is due at once. */
function prepareSome(now: number): boolean {
  const more = preparation.step(now);
  if (toAnswer.length > 0 && !preparation.busy) answerPrepare();
  return more;
}

function answerPrepare(): void {
  for (const request of toAnswer) say({ type: "prepareDone", request });
  toAnswer = [];
}

function tick(): void {
  let idle = true;
  if (recording) {
    const empty = drain(BATCHES_PER_TICK);
    const now = nowNs();
    tellEvents();
    tellProgress(now);
    for (const captured of capture.collect(now)) say({ type: "captured", ...captured });
    idle = !prepareSome(now) && empty;
    if (idle) rehearseSome(now);
  } else feeds.write(recorder);
  if (idle) setTimeout(tick, TICK_MS);
  else setImmediate(tick);
}

function statusOf(request: number, most: number): RecorderStatus {
  const now = nowNs();
  lagSpan(now);
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
    lagNs: Math.max(lag.now, lag.before),
    resumePoint: resumePoints.look(openSessions(), now),
    sessions: sessionsFirstNotReady(most).map(summaryOf),
  };
}

function* openSessions(): IterableIterator<Session> {
  for (const session of recorder.sessions()) if (session.closedAt === 0) yield session;
}

function sessionsFirstNotReady(most: number): Session[] {
  if (most === 0) return [];
  const all = Array.from(recorder.sessions());
  if (all.length <= most) return all;
  const rank = (session: Session) => (session.closedAt !== 0 ? 2 : session.ready ? 1 : 0);
  return all.sort((one, other) => rank(one) - rank(other)).slice(0, most);
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
  const {
    sessions,
    lost,
    prepared,
    restored: waiting,
  } = restoreSessions(recorder, native.restore, nowNs(), preparation, (news) => {
    say({ type: "restored", ...news, drainNs: drained - began });
    takeInherited();
  });
  toInject = waiting;
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
      prepared,
      feedBytes,
      counters: { ...recorder.counters, malformed: recorder.malformed },
    }),
  );
  answerPrepare();
  for (const { id } of lost) feeds.drop(recorder, recorder.get(id) as Session, "lost");
  feeds.write(recorder);
}

/** What the old active has forwarded since the last drain of a takeover, or since it was asked for last. */
function takeInherited(): void {
  for (let count = 0; count < BATCHES_PER_TICK; count++) {
    const { bytes } = ring.drain(batch);
    if (bytes === 0) return;
    recorder.ingest(batch, bytes);
  }
}

function reset(request: number): void {
  feeds.close(recorder);
  preparation.discard();
  // What is in the ring belongs to the past.
  while (ring.backlog() > 0) if (ring.drain(batch).bytes === 0) break;
  recorder = new Recorder(options);
  for (const service of attended) recorder.attend(service, true);
  rehearsing = null;
  toInject = [];
  recording = true;
  highestBacklog = 0;
  resumePoints = new ResumePointWatch();
  say({ type: "resetDone", request });
}

/** What the active says of a session speaks of segments that were recorded before: those first. */
function catchUp(): void {
  for (let left = ring.backlog() + BATCH_BYTES; left > 0 && !drain(1); ) left -= BATCH_BYTES;
  tellEvents();
}

/** What the active, or its application, says of sessions. After a takeover there is no active. */
function hear(
  message: Extract<ToRecorder, { type: "snapshot" | "fill" | "copied" | "handover" | "confirm" | "log" }>,
): void {
  const session = "id" in message ? recorder.get(message.id) : undefined;
  if (!recording || ("id" in message && session === undefined)) {
    if (message.type === "handover") say({ type: "handedOver", id: message.id, refused: "not-recorded" });
    return;
  }
  catchUp();
  if (message.type === "snapshot") {
    const now = nowNs();
    for (const entry of message.entries) recorder.snapshot(entry, now);
  } else if (message.type === "fill") recorder.fill(message.key, message.seq, message.bytes);
  else if (message.type === "copied") for (const [key, seq] of message.entries) recorder.copied(key, seq);
  else if (session === undefined) return;
  else if (message.type === "handover")
    say({ type: "handedOver", id: message.id, refused: recorder.handover(session, message) });
  else if (message.type === "confirm") recorder.confirm(session, message);
  else recorder.log(session, message.outputStart, message.output);
  tellEvents();
}

port.on("message", (message: ToRecorder) => {
  switch (message.type) {
    case "application":
      if (message.present) attended.add(message.service);
      else attended.delete(message.service);
      recorder.attend(message.service, message.present);
      break;
    case "snapshot":
    case "fill":
    case "copied":
    case "handover":
    case "confirm":
    case "log":
      hear(message);
      break;
    case "watch": {
      const session = recorder.get(message.id);
      if (session !== undefined) recorder.watch(session, message.md5);
      break;
    }
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
    case "absent":
      for (const key of message.keys) recorder.absent(key, nowNs());
      break;
    case "socketEnded":
      recorder.socketEnded(message.key, message.verdicts, message.copiedSeq, nowNs());
      break;
    case "status":
      say(statusOf(message.request, message.sessions));
      break;
    case "outputGaps": {
      catchUp();
      let count = 0;
      for (const session of openSessions()) if (session.ready && session.hasOutputGap) count++;
      say({ type: "outputGaps", request: message.request, count });
      break;
    }
    case "prepare":
      toAnswer.push(message.request);
      if (recording) preparation.begin(recorder, nowNs());
      else answerPrepare();
      break;
    case "takeover":
      takeOver(message);
      break;
    case "inject":
      takeInherited();
      injectRestored(
        toInject,
        (uplink, frames) => native.injectFrames(message.uplinks[uplink]?.ifindex ?? 0, frames, TD_MARK_INJECT),
        message.uplinks.map(({ mac }) => mac),
        message.peerMac,
      );
      toInject = [];
      break;
    case "planHeld": {
      if (recording) catchUp();
      const now = nowNs();
      const planOf = (key: Uint8Array) => {
        const session = recording ? recorder.find(key) : undefined;
        return session === undefined ? null : planHeld(session, now);
      };
      say({ type: "heldPlans", request: message.request, plans: message.keys.map(planOf) });
      break;
    }
    case "capture":
      if (message.on) capture.start(message.id);
      else capture.stop(message.id);
      break;
    case "reset":
      reset(message.request);
      break;
    case "stop":
      feeds.close(recorder);
      preparation.discard();
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
