// The stream window: any order, duplication, overlap and re-segmentation of a stream gives the same stream.

import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { MemoryBudget } from "../../src/session/memory-budget.js";
import { before, offsetOf, sequenceOf } from "../../src/session/sequence.js";
import { StreamWindow } from "../../src/session/stream-window.js";

const budget = () => new MemoryBudget(1 << 30);

function streamOf(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 131 + (i >> 8) * 17 + 7) & 255;
  return bytes;
}

test("any pieces in any order, overlapping and repeated, give the stream, with trimming in between", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9000 }),
      fc.array(fc.tuple(fc.nat(9000), fc.integer({ min: 1, max: 3000 }), fc.boolean()), { maxLength: 60 }),
      fc.nat(1_000_000),
      (length, pieces, origin) => {
        const stream = streamOf(length);
        const window = new StreamWindow(1 << 20, budget(), origin);
        const known = new Uint8Array(length);
        let trimmed = 0;
        const check = () => {
          let end = trimmed;
          while (end < length && known[end]) end++;
          assert.equal(window.end - origin, end);
          assert.deepEqual(
            Buffer.from(window.copy(window.base, window.end)),
            Buffer.from(stream.subarray(trimmed, end)),
          );
        };
        for (const [at, size, trim] of pieces) {
          const from = Math.min(at, length - 1);
          const to = Math.min(length, from + size);
          assert.ok(window.write(origin + from, stream, from, to - from));
          known.fill(1, Math.max(from, trimmed), Math.max(to, trimmed));
          known.fill(1, 0, trimmed);
          check();
          if (trim) {
            const middle = Math.floor((window.base + window.end) / 2);
            window.trim(middle);
            trimmed = middle - origin;
          }
        }
        for (const { start, end } of window.pieces())
          assert.deepEqual(
            Buffer.from(window.copy(start, end)),
            Buffer.from(stream.subarray(start - origin, end - origin)),
          );
        assert.ok(window.write(origin, stream, 0, length));
        assert.equal(window.end, origin + length);
        assert.deepEqual(window.pieces(), []);
        assert.equal(window.conflictEnd, -1);
        known.fill(1);
        check();
      },
    ),
    { numRuns: 300 },
  );
});

test("a copy that differs is found exactly, wherever it overlaps, and forgotten when trimmed", () => {
  fc.assert(
    fc.property(fc.nat(99), fc.nat(99), fc.integer({ min: 0, max: 60 }), (a, b, gap) => {
      const stream = streamOf(200);
      const window = new StreamWindow(1 << 16, budget());
      window.write(gap, stream, gap, 200 - gap); // early piece if gap > 0
      const forged = Uint8Array.from(stream);
      const [low, high] = [gap + Math.min(a, b), gap + Math.max(a, b)];
      forged[low]! ^= 1;
      forged[high]! ^= low === high ? 2 : 1;
      window.write(0, forged, 0, 200);
      assert.equal(window.conflictStart, low);
      assert.equal(window.conflictEnd, high + 1);
      assert.deepEqual(Buffer.from(window.copy(gap, 200)), Buffer.from(stream.subarray(gap)), "the first copy stays");
      window.trim(high);
      assert.equal(window.conflictEnd, high + 1);
      window.trim(high + 1);
      assert.equal(window.conflictEnd, -1);
    }),
  );
});

test("beginning anew further on keeps what came early there; what was read before can be put back", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 400 })), { maxLength: 20 }),
      fc.array(fc.tuple(fc.boolean(), fc.nat(900)), { maxLength: 12 }),
      (pieces, moves) => {
        const stream = streamOf(20_000);
        const window = new StreamWindow(1 << 16, budget(), 500);
        const known = new Set<number>();
        for (const [at, size] of pieces) {
          window.write(at, stream, at, size);
          for (let offset = Math.max(at, 500); offset < at + size; offset++) known.add(offset);
        }
        for (const [back, distance] of moves) {
          const base = window.base;
          if (back) {
            const to = Math.max(0, base - distance);
            const upTo = distance % 3 === 0 ? base - Math.floor((base - to) / 2) : base;
            if (to === base) continue;
            assert.ok(window.prepend(to, stream.subarray(to, upTo)));
            assert.equal(window.base, to);
            for (let offset = to; offset < upTo; offset++) known.add(offset);
          } else {
            window.restart(base + distance);
            assert.equal(window.base, base + distance);
          }
          for (const offset of known) if (offset < window.base) known.delete(offset);
          let end = window.base;
          while (known.has(end)) end++;
          assert.equal(window.end, end);
          assert.deepEqual(Buffer.from(window.copy(window.base, end)), Buffer.from(stream.subarray(window.base, end)));
          for (const { start, end } of window.pieces())
            assert.deepEqual(Buffer.from(window.copy(start, end)), Buffer.from(stream.subarray(start, end)));
          assert.equal(window.highest, Math.max(end, ...[...known].map((offset) => offset + 1)));
        }
      },
    ),
  );
});

test("bytes known to be true overrule the copy that was kept, and settle the conflict they cover", () => {
  const truth = streamOf(300);
  const window = new StreamWindow(1 << 16, budget());
  const forged = truth.map((byte, at) => (at >= 100 && at < 200 ? byte ^ 1 : byte));
  window.write(0, forged, 0, 250);
  window.write(0, truth, 0, 250);
  assert.deepEqual([window.conflictStart, window.conflictEnd], [100, 200]);
  assert.ok(window.overrule(50, truth.subarray(50, 150)));
  assert.deepEqual([window.conflictStart, window.conflictEnd], [150, 200]);
  assert.ok(window.overrule(180, truth.subarray(180, 220)));
  assert.deepEqual([window.conflictStart, window.conflictEnd], [150, 180]);
  assert.ok(window.overrule(140, truth.subarray(140)));
  assert.deepEqual([window.conflictStart, window.conflictEnd], [Number.POSITIVE_INFINITY, -1]);
  assert.deepEqual(Buffer.from(window.copy(0, 300)), Buffer.from(truth));
  const small = new StreamWindow(100, budget(), 150);
  assert.equal(small.overrule(160, truth.subarray(160, 251)), false);
  assert.equal(small.prepend(0, truth.subarray(0, 150)), false);
  assert.deepEqual([small.base, small.end, small.capacity], [150, 150, 0]);
});

test("the limit and the budget refuse, and store nothing", () => {
  const shared = new MemoryBudget(8192);
  const one = new StreamWindow(4096, shared);
  const two = new StreamWindow(1 << 20, shared);
  const data = streamOf(8000);
  assert.equal(one.write(0, data, 0, 4096), true);
  assert.equal(one.write(4096, data, 4096, 1), false);
  assert.equal(one.end, 4096);
  assert.equal(two.write(0, data, 0, 5000), false);
  assert.equal(two.write(5000, data, 0, 1), false);
  assert.equal(two.write(0, data, 0, 3000), true);
  assert.equal(shared.used, 8192);
  one.trim(4096);
  one.releaseIfEmpty();
  assert.equal(shared.used, 4096);
  assert.equal(one.capacity, 0);
  assert.equal(one.write(4096, data, 0, 100), true);
  assert.deepEqual(Buffer.from(one.copy(4096, 4196)), Buffer.from(data.subarray(0, 100)));
});

test("reading what is not there throws", () => {
  const window = new StreamWindow(4096, budget());
  window.write(10, streamOf(10), 0, 10);
  assert.throws(() => window.read(0, 5), RangeError);
  assert.throws(() => window.read(15, 25), RangeError);
  assert.deepEqual(window.read(5, 5), []);
});

test("sequence numbers and offsets convert both ways, over the wrap and past 2^32 bytes", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0xffff_ffff }),
      fc.integer({ min: 0, max: 2 ** 50 }),
      fc.integer({ min: -(2 ** 31) + 1, max: 2 ** 31 - 1 }),
      (first, near, distance) => {
        const offset = near + distance;
        assert.equal(offsetOf(sequenceOf(offset, first), first, near), offset);
      },
    ),
  );
  assert.equal(before(0xffff_fff0, 5), true);
  assert.equal(before(5, 0xffff_fff0), false);
  assert.equal(before(7, 7), false);
});
