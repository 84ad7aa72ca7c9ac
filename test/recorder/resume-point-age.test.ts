// Ages of resume points: who is behind, by how much, and since when.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ResumePointWatch } from "../../src/recorder/resume-point-age.js";

const session = (id: number, fed: number, vouched: number, mode: "live" | "delivered" = "live") => ({
  id,
  mode,
  vouched,
  fed,
  copied: fed,
  resume: { inputOffset: 0, outputOffset: 0, source: "start" as const },
});

test("an age begins when a session is seen behind, and ends when its resume point moves or catches up", () => {
  const watch = new ResumePointWatch();
  assert.deepEqual(watch.look([session(1, 10, 10)], 0), { behindBytes: 0, oldestNs: 0 });
  assert.deepEqual(watch.look([session(1, 10, 15)], 100), { behindBytes: 5, oldestNs: 0 });
  assert.deepEqual(watch.look([session(1, 10, 40), session(2, 0, 7, "delivered")], 300), {
    behindBytes: 37,
    oldestNs: 200,
  });
  assert.deepEqual(watch.look([session(1, 11, 40), session(2, 0, 7, "delivered")], 400), {
    behindBytes: 36,
    oldestNs: 100,
  });
  assert.deepEqual(watch.look([session(1, 40, 40)], 500), { behindBytes: 0, oldestNs: 0 });
});

test("a live session without a feed has no resume point", () => {
  assert.deepEqual(new ResumePointWatch().look([session(1, -1, 1000)], 0), { behindBytes: 0, oldestNs: 0 });
});
