// What an operator sees of a session: its own frames only, whole and in order, and never more than fits into a period.
import assert from "node:assert/strict";
import { test } from "node:test";
import { RecordCapture } from "../../src/recorder/record-capture.js";
import { TCP_ACK } from "../../src/session/segment.js";
import type { Session } from "../../src/session/session.js";
import { batchOf, buildSample, flowOf } from "./record-builder.js";

const sessionOf = (id: number) => (id === 7 ? ({ flow: 1 } as Session) : undefined);
const segment = (flow: number, out: boolean, seq: number, bytes = 100) =>
  buildSample(flowOf(flow), {
    out,
    seq,
    ack: 1,
    flags: TCP_ACK,
    payload: new Uint8Array(bytes).fill(seq),
    timeNs: seq,
  });

test("one session's frames among others", () => {
  const capture = new RecordCapture();
  assert.equal(capture.active, false);
  capture.start(7);
  const batch = batchOf([segment(1, false, 1), segment(2, false, 2), segment(1, true, 3)]);
  capture.take(batch, batch.length, sessionOf);
  const [seen, ...none] = [...capture.collect(1e9)];
  assert.equal(none.length, 0);
  assert.deepEqual(
    seen?.frames.map(({ out, timeNs, segments }) => [out, timeNs, segments]),
    [
      [false, 1, 1],
      [true, 3, 1],
    ],
  );
  // The batch is used again.
  batch.fill(0);
  assert.equal(seen?.frames[0]?.frame.at(-1), 1);
  assert.deepEqual([...capture.collect(2e9)], [], "nothing twice");
  capture.stop(7);
  assert.equal(capture.active, false);
});

test("what is too much for a period is counted, and the next period begins anew", () => {
  const capture = new RecordCapture();
  capture.start(7);
  const batch = batchOf(Array.from({ length: 100 }, (_, index) => segment(1, false, index, 1400)));
  for (let round = 0; round < 10; round++) capture.take(batch, batch.length, sessionOf);
  const [seen] = [...capture.collect(1e9)];
  assert.ok(seen && seen.dropped > 0 && seen.frames.length > 0);
  assert.equal(seen.frames.length + seen.dropped, 1000);
  assert.deepEqual([...capture.collect(1e9 + 1e6)], [], "not before its time");
  capture.take(batch, batch.length, sessionOf);
  const [next] = [...capture.collect(2e9)];
  assert.deepEqual([next?.frames.length, next?.dropped], [100, 0]);
});
