// Mutated real frames: whatever they look like, the programs take them, and none that could be a segment of a service
// gets past while in REFLECT.

import assert from "node:assert/strict";
import test from "node:test";
import { native } from "../../addon/native.js";
import * as f from "./frames.js";
import { forever, needsRoot, Rig } from "./rig.js";

const xdpPass = 2;
const rounds = 20_000;

/** mulberry32: the same mutations in every run. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

const extension = new Uint8Array(8);
const originals: Buffer[] = [
  f.frame({ payload: Buffer.alloc(64) }),
  f.frame({ flags: f.SYN, tcpOptions: f.SYN_OPTIONS(1) }),
  f.frame({ ipOptions: new Uint8Array(12).fill(1), tcpOptions: f.TIMESTAMPS(1, 2) }),
  f.frame({ vlans: [[0x8100, 5]] }),
  f.frame({ family: 6, payload: Buffer.alloc(64) }),
  f.frame({
    family: 6,
    extensions: [
      [0, extension],
      [60, extension],
    ],
  }),
  f.frame({
    family: 6,
    vlans: [
      [0x88a8, 1],
      [0x8100, 5],
    ],
  }),
];

/** An independent and simpler judgement: could a stack see TCP to the service's address and port in this? */
function couldBeSegment(frame: Buffer): boolean {
  let at = 12;
  let type = frame.readUInt16BE(at);
  while ((type === 0x8100 || type === 0x88a8) && at + 6 <= frame.length) {
    at += 4;
    type = frame.readUInt16BE(at);
  }
  at += 2;
  if (type === 0x0800) {
    if (frame.length < at + 20 || frame[at]! >> 4 !== 4 || frame[at + 9] !== 6) return false;
    if ([...frame.subarray(at + 16, at + 20)].join(".") !== f.service4) return false;
    const l4 = at + (frame[at]! & 15) * 4;
    return frame.length >= l4 + 4 && frame.readUInt16BE(l4 + 2) === f.servicePort;
  }
  if (type !== 0x86dd || frame.length < at + 40 || frame[at]! >> 4 !== 6) return false;
  const service = f.frame({ family: 6 }).subarray(14 + 24, 14 + 40);
  if (!frame.subarray(at + 24, at + 40).equals(service)) return false;
  let next = frame[at + 6]!;
  let l4 = at + 40;
  for (let hops = 0; [0, 43, 60, 51].includes(next) && frame.length >= l4 + 8 && hops < 64; hops++) {
    const length = next === 51 ? (frame[l4 + 1]! + 2) * 4 : (frame[l4 + 1]! + 1) * 8;
    next = frame[l4]!;
    l4 += length;
  }
  return next === 6 && frame.length >= l4 + 4 && frame.readUInt16BE(l4 + 2) === f.servicePort;
}

function mutated(random: () => number): Buffer {
  const frame = Buffer.from(originals[random() % originals.length]!);
  for (let changes = random() % 4; changes > 0; changes--) {
    // Mostly in the headers, where it hurts.
    frame[random() % Math.min(frame.length, 90)] =
      random() % 3 === 0 ? [0, 4, 6, 0x45, 0x60, 0xff][random() % 6]! : random() & 0xff;
  }
  return random() % 4 === 0 ? frame.subarray(0, 14 + (random() % (frame.length - 13))) : frame;
}

test("mutated frames", { skip: needsRoot }, async (t) => {
  const rig = new Rig();
  t.after(() => rig.close());
  for (const address of [f.service4, f.service6]) rig.service(address, "passive", f.servicePort, 3);
  rig.link();
  rig.uplinkDevice(1, 2);
  rig.voice(forever);
  rig.recording(true);
  const ring = native.ringOpen(rig.map("records"), { records: true });
  t.after(() => ring.close());
  const batch = Buffer.alloc(1 << 20);

  await t.test("xdp_uplink: frames cut at every byte never pass", () => {
    rig.gate("reflect");
    for (const original of originals) {
      for (let length = 14; length < original.length; length++) {
        const data = original.subarray(0, length);
        const { retval } = native.bpfTestRun(rig.program("xdp_uplink"), { data });
        assert.notEqual(retval, xdpPass, data.toString("hex"));
      }
    }
  });

  await t.test("xdp_uplink: nothing that could be a segment passes", () => {
    rig.gate("reflect");
    const random = generator(1);
    let segments = 0;
    for (let round = 0; round < rounds; round++) {
      const data = mutated(random);
      const { retval, data: out } = native.bpfTestRun(rig.program("xdp_uplink"), { data });
      if (couldBeSegment(data)) {
        segments++;
        assert.notEqual(retval, xdpPass, data.toString("hex"));
      }
      if (retval === 4) assert.deepEqual(f.opened(out).inner, data);
      else if (retval === xdpPass) assert.deepEqual(Buffer.from(out), data);
    }
    assert.ok(segments > rounds / 10, `${segments} of ${rounds} could be segments`);
  });

  await t.test("xdp_mirror at the standby: what is sent back was recorded, and is what came", () => {
    rig.gate("fenced");
    const random = generator(2);
    let reflected = 0;
    for (let round = 0; round < rounds; round++) {
      const inner = mutated(random);
      const data = f.encapsulated(inner);
      if (random() % 2) data[random() % 86] = random() & 0xff;
      const { retval, data: out } = native.bpfTestRun(rig.program("xdp_mirror"), { data });
      const { records } = ring.drain(batch);
      assert.equal(records, retval === 3 ? 1 : 0, data.toString("hex"));
      if (retval !== 3) continue;
      reflected++;
      assert.deepEqual(Buffer.from(out).subarray(86), inner);
    }
    assert.ok(reflected > rounds / 10, `${reflected} of ${rounds} were reflected`);
  });
});
