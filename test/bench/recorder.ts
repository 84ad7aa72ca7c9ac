// How many records a second the recorder takes in one thread, payload stored, and what an idle session costs.
// Run: node --expose-gc build/js/test/bench/recorder.js [--json]

import { offsets } from "../../src/abi.gen.js";
import { Recorder, recorderDefaults } from "../../src/recorder/recorder.js";
import { batchOf, Conversation, flowOf, keyOf } from "../recorder/record-builder.js";

const R = offsets.td_record;
const SESSIONS = 64;
const SECONDS = 1.5;

interface Throughput {
  payloadBytes: number;
  recordsPerSecond: number;
  megabytesPerSecond: number;
}

function recorderOf(): Recorder {
  return new Recorder({ ...recorderDefaults, services: new Map([[1, "live"]]) });
}

/** Input at full rate on many sessions: data records, an ACK of the active for every second one, a feed that reads. */
function throughput(payloadBytes: number): Throughput {
  const recorder = recorderOf();
  const talks = Array.from({ length: SESSIONS }, (_, index) => new Conversation(flowOf(index + 1)));
  for (const talk of talks) {
    const batch = batchOf(talk.handshake());
    recorder.ingest(batch, batch.length);
  }
  recorder.endDrain(1e9);
  const sessions = talks.map((talk) => recorder.find(keyOf(talk.flow))!);
  for (const session of sessions) recorder.attachFeed(session);

  const payload = new Uint8Array(payloadBytes).fill(7);
  const rounds = Math.max(1, Math.floor((1 << 20) / (SESSIONS * (2 * payloadBytes + 3 * 180))));
  const samples: Uint8Array[] = [];
  for (let round = 0; round < rounds; round++)
    for (const talk of talks) {
      samples.push(talk.in({ at: 2 * round * payloadBytes, ack: 0, payload, timestamps: { value: 9, echo: 1 } }));
      samples.push(talk.in({ at: (2 * round + 1) * payloadBytes, ack: 0, payload, timestamps: { value: 9, echo: 1 } }));
      samples.push(talk.out({ at: 0, ack: (2 * round + 2) * payloadBytes, timestamps: { value: 9, echo: 9 } }));
    }
  const batch = batchOf(samples);
  const view = new DataView(batch.buffer);
  const starts: { seq: number; out: boolean }[] = [];
  let at = 0;
  for (const sample of samples) {
    starts.push({ seq: at + 8 + R.seq, out: (sample[8 + R.flags]! & 1) !== 0 });
    at += sample.length;
  }
  const step = 2 * rounds * payloadBytes;
  let records = 0;
  let busyNs = 0n;
  for (let warm = true; ; ) {
    const began = process.hrtime.bigint();
    recorder.ingest(batch, batch.length);
    recorder.endDrain(1e9);
    for (const session of recorder.feedable) {
      for (const { length } of recorder.takeFeed(session, 1 << 20)) recorder.fed(session, length);
    }
    recorder.feedable.clear();
    recorder.progressed.clear();
    busyNs += process.hrtime.bigint() - began;
    records += samples.length;
    // Moving the batch on is the peer's work, not the recorder's: outside the clock.
    for (const { seq, out } of starts) {
      const field = out ? seq + R.ack - R.seq : seq;
      view.setUint32(field, (view.getUint32(field, true) + step) >>> 0, true);
    }
    if (warm && busyNs > 300_000_000n) {
      warm = false;
      busyNs = 0n;
      records = 0;
    } else if (!warm && busyNs > BigInt(SECONDS * 1e9)) break;
  }
  if (recorder.counters.auditBreaches > 0 || sessions.some((session) => !session.ready || session.fed === 0))
    throw new Error("the benchmark's own records were not believed");
  const seconds = Number(busyNs) / 1e9;
  return {
    payloadBytes,
    recordsPerSecond: Math.round(records / seconds),
    megabytesPerSecond: Math.round(((records * 2) / 3 / seconds) * payloadBytes * 1e-6),
  };
}

/** Bytes of heap and buffers an idle session costs, its streams given back. */
function idleSession(): number | null {
  if (globalThis.gc === undefined) return null;
  const recorder = recorderOf();
  const used = () => {
    // Buffers are freed by the collection after the one that found them dead.
    for (let i = 0; i < 3; i++) globalThis.gc?.();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const count = 10_000;
  const before = used();
  for (let id = 1; id <= count; id++) {
    const talk = new Conversation(flowOf(id));
    const batch = batchOf([
      ...talk.handshake(),
      talk.in({ at: 0, ack: 0, payload: new Uint8Array(100) }),
      talk.out({ at: 0, ack: 100, payload: new Uint8Array(100) }),
      talk.in({ at: 100, ack: 100 }),
    ]);
    recorder.ingest(batch, batch.length);
    const session = recorder.find(keyOf(talk.flow))!;
    recorder.attachFeed(session);
    recorder.endDrain(1e9);
    recorder.fed(session, 100);
  }
  recorder.feedable.clear();
  recorder.progressed.clear();
  recorder.takeEvents();
  recorder.endDrain(10e9);
  const bytes = Math.round((used() - before) / count);
  if (recorder.budget.used !== 0) throw new Error("idle sessions keep buffers");
  return bytes;
}

/** What `make bench` takes up. */
export function benchRecorder(): { throughput: Throughput[]; idleSessionBytes: number | null } {
  return { throughput: [100, 1448].map(throughput), idleSessionBytes: idleSession() };
}

if (process.argv[1]?.endsWith("/bench/recorder.js")) {
  const result = benchRecorder();
  if (process.argv.includes("--json")) console.log(JSON.stringify(result));
  else {
    for (const { payloadBytes, recordsPerSecond, megabytesPerSecond } of result.throughput)
      console.log(`${payloadBytes}-byte payload: ${recordsPerSecond} records/s, ${megabytesPerSecond} MB/s of payload`);
    console.log(`idle session: ${result.idleSessionBytes ?? "? (run with --expose-gc)"} bytes`);
  }
}
