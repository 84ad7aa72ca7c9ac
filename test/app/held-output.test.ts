// HeldOutput against the simplest model: a whole stream and two numbers.

import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { HeldOutput } from "../../src/sdk/held-output.js";

test("what is held is always exactly [released, produced)", () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("write" as const),
      size: fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 20_000 })),
    }),
    fc.record({ kind: fc.constant("release" as const), by: fc.integer({ min: -3, max: 10_000 }) }),
  );
  const property = fc.property(
    fc.array(step, { maxLength: 80 }),
    fc.integer({ min: 0, max: 50_000 }),
    (steps, ahead) => {
      const held = new HeldOutput();
      let produced = 0;
      let released = 0;
      for (const step of steps) {
        if (step.kind === "write") {
          const chunk = Buffer.from(Array.from({ length: step.size }, (_, index) => (produced + index) % 251));
          held.hold(chunk);
          chunk.fill(0xff); // the caller may use its buffer again
          produced += step.size;
        } else {
          const target = Math.max(0, released + step.by);
          assert.equal(held.release(target), target >= released);
          released = Math.max(released, target);
        }
        assert.equal(held.produced, produced);
        assert.equal(held.released, released);
        assert.equal(held.bytes, Math.max(0, produced - released));
        if (produced > released) {
          const start = released + Math.floor((produced - released) / 3);
          const copy = held.copy(start, produced);
          assert.equal(copy.length, produced - start);
          for (const [index, byte] of copy.entries()) assert.equal(byte, (start + index) % 251);
        }
      }
      released = Math.max(released, Math.min(ahead, produced + 100));
      assert.ok(held.release(released));
      const rest = Buffer.concat(held.take());
      assert.equal(rest.length, Math.max(0, produced - released));
      for (const [index, byte] of rest.entries()) assert.equal(byte, (released + index) % 251);
      // After the takeover: only what is beyond the offset comes back.
      const more = Buffer.from(Array.from({ length: 300 }, (_, index) => (produced + index) % 251));
      const beyond = held.pass(more);
      assert.deepEqual(beyond, more.subarray(Math.min(300, Math.max(0, released - produced))));
    },
  );
  fc.assert(property, { numRuns: 300 });
});
