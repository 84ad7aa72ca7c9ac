// Packet in, verdict, packet out and record, for the programs of the mirror link in both roles.

import assert from "node:assert/strict";
import test from "node:test";
import { native } from "../../addon/native.js";
import * as abi from "../../src/abi.gen.js";
import { parseIp } from "../../src/net/addresses.js";
import * as f from "./frames.js";
import { flowKey, forever, type Mode, needsRoot, Rig } from "./rig.js";

const verdicts = { drop: 1, pass: 2, tx: 3, redirect: 4 } as const;

interface Case {
  what: string;
  frame: Uint8Array;
  verdict: keyof typeof verdicts;
  reason: string | null;
  mode?: Mode | "none";
  recording?: boolean;
  voice?: bigint;
  after?: (out: Buffer) => void;
}

const payload = Buffer.alloc(700, 0x5a);
const inner = f.frame({ payload });
const innerOut = f.outward({ payload });

/** A well-formed frame to this standby with some of its bytes changed, the checksums in front of it kept right. */
function altered(change: (frame: Buffer) => void, { ipSum = true, optionSum = true } = {}): Buffer {
  const frame = f.encapsulated(inner);
  change(frame);
  if (ipSum) {
    frame.writeUInt16BE(0, 24);
    frame.writeUInt16BE(f.internetChecksum(frame.subarray(14, 34)), 24);
  }
  if (optionSum) f.sealOption(frame);
  return frame;
}

const withIpOptions = ((): Buffer => {
  const plain = f.encapsulated(inner);
  const ip = Buffer.concat([plain.subarray(14, 34), Uint8Array.of(148, 4, 0, 0)]);
  ip[0] = 0x46;
  ip.writeUInt16BE(ip.readUInt16BE(2) + 4, 2);
  return Buffer.concat([plain.subarray(0, 14), ip, plain.subarray(34)]);
})();

/** What both roles refuse, and why, in the order in which it is looked at. */
const refused: [string, Uint8Array, string][] = [
  ["IPv4 options in the outer header", withIpOptions, "DROP_GENEVE_MALFORMED"],
  ["an outer fragment", altered((frame) => frame.writeUInt16BE(0x2000, 20)), "DROP_GENEVE_MALFORMED"],
  ["a wrong outer IP checksum", altered((frame) => (frame[24]! ^= 1), { ipSum: false }), "DROP_GENEVE_MALFORMED"],
  [
    "an outer IP length that is not the frame's",
    altered((frame) => frame.writeUInt16BE(500, 16)),
    "DROP_GENEVE_MALFORMED",
  ],
  ["a UDP length that is not the packet's", altered((frame) => frame.writeUInt16BE(500, 38)), "DROP_GENEVE_MALFORMED"],
  ["another Geneve version", altered((frame) => (frame[42] = 0x49)), "DROP_GENEVE_MALFORMED"],
  ["a Geneve control message", altered((frame) => (frame[43] = 0x80)), "DROP_GENEVE_MALFORMED"],
  ["another inner protocol", altered((frame) => frame.writeUInt16BE(0x0800, 44)), "DROP_GENEVE_MALFORMED"],
  ["another option class", altered((frame) => frame.writeUInt16BE(0x0101, 50)), "DROP_GENEVE_MALFORMED"],
  ["another option type", altered((frame) => (frame[52] = 2)), "DROP_GENEVE_MALFORMED"],
  ["another option length", altered((frame) => (frame[53] = 7)), "DROP_GENEVE_MALFORMED"],
  ["a stamp with a flipped bit", altered((frame) => (frame[75]! ^= 4), { optionSum: false }), "DROP_GENEVE_MALFORMED"],
  ["a frame that ends in the option", f.encapsulated(inner).subarray(0, 80), "DROP_GENEVE_MALFORMED"],
  ["another version of the protocol", f.encapsulated(inner, { version: 2 }), "DROP_VERSION"],
  ["another pair's cookie", f.encapsulated(inner, { cookie: 1n }), "DROP_COOKIE"],
  ["a cookie that differs in its upper half", f.encapsulated(inner, { cookie: f.cookie ^ (1n << 63n) }), "DROP_COOKIE"],
  ["an epoch that is over", f.encapsulated(inner, { epoch: 6 }), "DROP_EPOCH_OLD"],
  ["an epoch that has not begun here", f.encapsulated(inner, { epoch: 8 }), "DROP_EPOCH_NEW"],
];

const bare: Case[] = [
  {
    what: "the pulse passes",
    frame: f.frame({ destination: "10.78.0.1", protocol: 17, payload: new Uint8Array(72) }),
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
  {
    what: "ARP about the link's own address passes",
    frame: f.arp(1, "10.78.0.2", "10.78.0.1"),
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
  {
    what: "Geneve to somebody else passes",
    frame: f.encapsulated(inner, { destinationIp: "10.99.0.1" }),
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
  { what: "a bare segment of a service", frame: inner, verdict: "drop", reason: "DROP_NOT_OURS" },
  {
    what: "a bare packet for the service address",
    frame: f.frame({ protocol: 1, payload: new Uint8Array(8) }),
    verdict: "drop",
    reason: "DROP_NOT_OURS",
  },
  {
    what: "ARP about the service address",
    frame: f.arp(1, "10.78.0.2", f.service4),
    verdict: "drop",
    reason: "DROP_NOT_OURS",
  },
  {
    what: "a bare fragment for the service address",
    frame: f.frame({ fragment: 0x2000 }),
    verdict: "drop",
    reason: "DROP_NOT_OURS",
  },
  {
    what: "a bare malformed segment for the service address",
    frame: f.frame().subarray(0, 40),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
];

const atStandby: Case[] = [
  ...bare,
  ...refused.map(([what, frame, reason]): Case => ({ what, frame, verdict: "drop", reason })),
  {
    what: "a frame while not standing by",
    frame: f.encapsulated(inner),
    recording: false,
    verdict: "drop",
    reason: "DROP_DIRECTION",
  },
  {
    what: "a frame while this router is active",
    frame: f.encapsulated(inner),
    mode: "reflect",
    verdict: "drop",
    reason: "DROP_DIRECTION",
  },
  {
    what: "a frame while this router is alone",
    frame: f.encapsulated(inner),
    mode: "solo",
    verdict: "drop",
    reason: "DROP_DIRECTION",
  },
  {
    what: "a frame while there is no gate",
    frame: f.encapsulated(inner),
    mode: "none",
    verdict: "drop",
    reason: "DROP_EPOCH_NEW",
  },
  {
    what: "a reflected frame",
    frame: f.encapsulated(inner, { reflected: true }),
    verdict: "drop",
    reason: "DROP_DIRECTION",
  },
  {
    what: "no TCP inside",
    frame: f.encapsulated(f.frame({ protocol: 17, payload })),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "a TCP fragment inside",
    frame: f.encapsulated(f.frame({ fragment: 0x2000, payload })),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "a truncated segment inside",
    frame: f.encapsulated(inner.subarray(0, 45)),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "a frame longer than any record",
    frame: f.encapsulated(f.frame({ payload: Buffer.alloc(3300) })),
    verdict: "drop",
    reason: "DROP_TOO_LONG",
  },
];

const atActive: Case[] = [
  ...bare,
  ...refused.map(([what, frame, reason]): Case => ({ what, frame, verdict: "drop", reason })),
  {
    what: "an inward frame is decapsulated and passed on",
    frame: f.encapsulated(inner, { reflected: true, uplink: 2 }),
    verdict: "pass",
    reason: "PASS_DELIVERED_IN",
    // A test run shows the metadata for tc_mirror_in in front: magic and uplink.
    after: (out) => assert.deepEqual(out, Buffer.concat([Buffer.from("e5d0117a02000000", "hex"), inner])),
  },
  {
    what: "an outward frame is decapsulated and sent",
    frame: f.encapsulated(innerOut, { reflected: true, out: true, uplink: 2 }),
    verdict: "redirect",
    reason: "PASS_DELIVERED_OUT",
    after: (out) => assert.deepEqual(out, innerOut),
  },
  {
    what: "an outward frame for an unknown uplink",
    frame: f.encapsulated(innerOut, { reflected: true, out: true, uplink: 5 }),
    verdict: "drop",
    reason: "DROP_UPLINK_UNKNOWN",
  },
  {
    what: "an outward frame after the voice has run out",
    frame: f.encapsulated(innerOut, { reflected: true, out: true, uplink: 2 }),
    voice: 1n,
    verdict: "drop",
    reason: "DROP_NO_VOICE",
  },
  {
    what: "an inward frame after the voice has run out",
    frame: f.encapsulated(inner, { reflected: true, uplink: 2 }),
    voice: 1n,
    verdict: "drop",
    reason: "DROP_NO_VOICE",
  },
  {
    what: "a reflected frame while fenced",
    frame: f.encapsulated(innerOut, { reflected: true, out: true, uplink: 2 }),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_DIRECTION",
  },
  {
    what: "a reflected frame in SOLO, whose session has gone on without it",
    frame: f.encapsulated(innerOut, { reflected: true, out: true, uplink: 2 }),
    mode: "solo",
    verdict: "drop",
    reason: "DROP_DIRECTION",
  },
];

interface RecordSeen {
  length: number;
  view: Buffer;
}
const number = (record: RecordSeen, field: keyof typeof abi.offsets.td_record): number => {
  const at = abi.offsets.td_record[field];
  const size = {
    flow: 4,
    seq: 4,
    ack: 4,
    tsval: 4,
    tsecr: 4,
    copied_seq: 4,
    write_seq: 4,
    rcv_nxt: 4,
    epoch: 4,
  } as Record<string, number>;
  const bytes = size[field] ?? (["tcp_flags", "flags", "uplink"].includes(field) ? 1 : 2);
  return record.view.readUIntLE(at, bytes);
};

test("mirror programs: packet in, verdict and packet out", { skip: needsRoot }, async (t) => {
  const rig = new Rig();
  t.after(() => rig.close());
  rig.service(f.service4, "passive", f.servicePort, 3);
  rig.service(f.service6, "passive", f.servicePort, 3);
  rig.link();
  rig.uplinkDevice(1, 2);
  const ring = native.ringOpen(rig.map("records"), { records: true });
  t.after(() => ring.close());
  const batch = Buffer.alloc(1 << 20);
  const records = (): RecordSeen[] => {
    const { bytes } = ring.drain(batch);
    const found: RecordSeen[] = [];
    for (let at = 0; at < bytes; ) {
      const length = batch.readUInt32LE(at);
      found.push({ length, view: Buffer.from(batch.subarray(at + 8, at + 8 + length)) });
      at += 8 + ((length + 7) & ~7);
    }
    return found;
  };
  const set = (mode: Mode | "none", recording: boolean, voice: bigint): void => {
    if (mode === "none") native.bpfMapDelete(rig.map("gate"), new Uint8Array(4));
    else rig.gate(mode);
    rig.recording(recording);
    rig.voice(voice);
    rig.clearCounters();
  };
  const play = (item: Case, mode: Mode, recording: boolean): void => {
    set(item.mode ?? mode, item.recording ?? recording, item.voice ?? (mode === "reflect" ? forever : 0n));
    const { retval, data } = native.bpfTestRun(rig.program("xdp_mirror"), { data: item.frame });
    assert.equal(retval, verdicts[item.verdict], `verdict; counted ${JSON.stringify(rig.counters())}`);
    assert.deepEqual(rig.counters(), item.reason === null ? {} : { [item.reason]: 1 });
    assert.equal(records().length, 0, "records");
    item.after?.(Buffer.from(data));
  };
  for (const item of atStandby) await t.test(`standby: ${item.what}`, () => play(item, "fenced", true));
  for (const item of atActive) await t.test(`active: ${item.what}`, () => play(item, "reflect", false));

  const standby = (frame: Uint8Array): { record: RecordSeen; out: Buffer } => {
    set("fenced", true, 0n);
    const { retval, data } = native.bpfTestRun(rig.program("xdp_mirror"), { data: frame });
    assert.equal(retval, verdicts.tx, `verdict; counted ${JSON.stringify(rig.counters())}`);
    const seen = records();
    assert.equal(seen.length, 1, "records");
    return { record: seen[0]!, out: Buffer.from(data) };
  };

  await t.test("standby: every field of an inward record, and the frame that goes back", () => {
    const segment = f.frame({
      seq: 0xffff_fff0,
      ack: 7,
      window: 513,
      flags: f.ACK | f.PSH,
      tcpOptions: f.TIMESTAMPS(0x8000_0001, 9),
      payload,
      vlans: [[0x8100, 5]],
    });
    const sent = f.encapsulated(segment, { uplink: 2 });
    const before = native.bootTimeNs();
    const { record, out } = standby(sent);
    const time = record.view.readBigUInt64LE(abi.offsets.td_record.time_ns);
    const tick = 20_000_000n; // at HZ 100 it is 10 ms
    assert.ok(time >= before - tick && time <= native.bootTimeNs());
    assert.deepEqual(rig.counters(), { PASS_RECORDED_IN: 1 });
    const expected = {
      seq: 0xffff_fff0,
      ack: 7,
      tsval: 0x8000_0001,
      tsecr: 9,
      copied_seq: 0,
      write_seq: 0,
      rcv_nxt: 0,
      window: 513,
      frame_length: segment.length,
      l3_offset: 18,
      l4_offset: 38,
      payload_offset: 70,
      payload_length: 700,
      service: 3,
      tcp_flags: f.ACK | f.PSH,
      flags: abi.TD_RECORD_TS | abi.TD_RECORD_CHECKSUM_OK,
      epoch: 7,
      uplink: 2,
    } as const;
    for (const [field, value] of Object.entries(expected))
      assert.equal(number(record, field as keyof typeof expected), value, field);
    assert.ok(number(record, "flow") > 0);
    const { key } = abi.offsets.td_record;
    assert.deepEqual(record.view.subarray(key, key + 40), flowKey(f.service4, f.servicePort, f.peer4, f.peerPort));
    assert.deepEqual(record.view.subarray(abi.sizes.td_record, abi.sizes.td_record + segment.length), segment);
    const back = f.opened(out);
    assert.deepEqual(back.inner, segment);
    assert.equal(back.flags, abi.TD_WIRE_REFLECTED);
    assert.deepEqual([back.source, back.destination], ["10.78.0.1", "10.78.0.2"]);
    assert.deepEqual([back.sourceMac, back.destinationMac], ["02:00:00:00:00:01", "02:00:00:00:00:02"]);
    assert.equal(back.sourcePort, 50000);
    assert.equal(back.epoch, 7);
    assert.equal(back.cookie, f.cookie);
  });

  await t.test("standby: an outward record has the stamp and the same flow as the other direction", () => {
    const stamp = { copiedSeq: 0xffff_ffff, writeSeq: 2, rcvNxt: 3 };
    const key = { sourcePort: 41000 };
    const inward = standby(f.encapsulated(f.frame({ family: 6, ...key })));
    const outward = standby(f.encapsulated(f.outward({ family: 6, destinationPort: 41000 }), { out: true, stamp }));
    assert.deepEqual(rig.counters(), { PASS_RECORDED_OUT: 1 });
    assert.equal(number(outward.record, "flags"), abi.TD_RECORD_OUT | abi.TD_RECORD_STAMP | abi.TD_RECORD_CHECKSUM_OK);
    assert.equal(number(outward.record, "copied_seq"), 0xffff_ffff);
    assert.equal(number(outward.record, "write_seq"), 2);
    assert.equal(number(outward.record, "rcv_nxt"), 3);
    assert.equal(number(outward.record, "flow"), number(inward.record, "flow"));
    assert.equal(f.opened(outward.out).flags, abi.TD_WIRE_OUT | abi.TD_WIRE_STAMP | abi.TD_WIRE_REFLECTED);
    const other = standby(f.encapsulated(f.frame({ family: 6, sourcePort: 41001 })));
    assert.notEqual(number(other.record, "flow"), number(inward.record, "flow"));
    const { key: at } = abi.offsets.td_record;
    assert.deepEqual(outward.record.view.subarray(at, at + 16), Buffer.from(parseIp(f.service6).bytes));
  });

  await t.test("standby: frames of every length are recorded whole", () => {
    for (const length of [
      0, 1, 73, 74, 75, 201, 202, 203, 457, 458, 459, 969, 970, 971, 1460, 1481, 1482, 1483, 3273, 3274,
    ]) {
      const segment = f.frame({ payload: Buffer.from(Uint8Array.from({ length }, (_, at) => at * 7)) });
      const { record } = standby(f.encapsulated(segment));
      assert.equal(number(record, "frame_length"), segment.length);
      assert.equal(number(record, "payload_length"), length);
      assert.deepEqual(record.view.subarray(abi.sizes.td_record, abi.sizes.td_record + segment.length), segment);
    }
  });

  await t.test("standby: Ethernet padding is no payload", () => {
    const padded = Buffer.concat([f.frame(), Buffer.alloc(6)]);
    const { record } = standby(f.encapsulated(padded));
    assert.equal(number(record, "payload_length"), 0);
    assert.equal(number(record, "frame_length"), padded.length);
  });

  await t.test("standby: timestamps are found wherever they stand, and only where they are whole", () => {
    const tail = (bytes: number[]): Uint8Array => Uint8Array.from(bytes);
    const cases: [Uint8Array, number | null][] = [
      [f.SYN_OPTIONS(0x0102_0304), 0x0102_0304],
      [tail([8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0]), 0x0102_0304],
      [tail([1, 1, 1, 1, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]), 0x0102_0304],
      [tail([5, 26, ...new Array<number>(24).fill(8), 1, 1, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]), 0x0102_0304],
      [tail([0, 0, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]), null],
      [tail([1, 1, 8, 9, 1, 2, 3, 4, 0, 0, 0, 0]), null],
      [tail([5, 0, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]), null],
      [tail([1, 1, 1, 1, 1, 1, 1, 1, 8, 10, 1, 2]), null],
      [tail([2, 4, 5, 180]), null],
    ];
    for (const [tcpOptions, expected] of cases) {
      const length = Math.ceil(tcpOptions.length / 4) * 4;
      const { record } = standby(f.encapsulated(f.frame({ tcpOptions: Buffer.concat([tcpOptions], length), payload })));
      const flagged = (number(record, "flags") & abi.TD_RECORD_TS) !== 0;
      assert.equal(flagged ? number(record, "tsval") : null, expected, Buffer.from(tcpOptions).toString("hex"));
    }
  });

  await t.test("standby: a corrupt segment is recorded, and not as correct", () => {
    const corrupt = Buffer.from(inner);
    corrupt[100]! ^= 1;
    const { record } = standby(f.encapsulated(corrupt));
    assert.equal(number(record, "flags") & abi.TD_RECORD_CHECKSUM_OK, 0);
  });

  await t.test(
    "standby: input that goes on where the record before it ends is one record, anything else is not",
    () => {
      set("fenced", true, 0n);
      const tcpOptions = f.TIMESTAMPS(5, 6);
      const bytes = Buffer.from(Array.from({ length: 3000 }, (_, index) => (index * 7 + (index >> 8)) & 255));
      const piece = (from: number, to: number, more: f.Segment = {}): Buffer =>
        f.frame({ seq: (0xffff_ff00 + from) >>> 0, tcpOptions, payload: bytes.subarray(from, to), ...more });
      const corrupt = piece(1000, 2000);
      corrupt[200]! ^= 1;
      const after = piece(1000, 2000);
      /** How many records come of them, and how many segments the first stands for. */
      const drained = (...frames: Buffer[]): { found: RecordSeen[]; segments: number } => {
        for (const data of frames)
          assert.equal(
            native.bpfTestRun(rig.program("xdp_mirror"), { data: f.encapsulated(data) }).retval,
            verdicts.tx,
          );
        return { found: records(), segments: batch.readUInt32LE(4) };
      };
      const { found, segments } = drained(piece(0, 1000), after, piece(2000, 3000, { flags: f.ACK | f.PSH }));
      assert.deepEqual([found.length, segments], [1, 3]);
      const record = found[0]!;
      const start = abi.sizes.td_record + number(record, "payload_offset");
      assert.equal(number(record, "payload_length"), 3000);
      assert.equal(record.length, start + 3000);
      assert.equal(number(record, "frame_length"), record.length - abi.sizes.td_record);
      assert.deepEqual(record.view.subarray(start), bytes);
      const others: Record<string, Buffer> = {
        "a gap": piece(1001, 2000),
        "a byte again": piece(999, 2000),
        "another acknowledgement": piece(1000, 2000, { ack: 2001 }),
        "another window": piece(1000, 2000, { window: 513 }),
        "another TSval": piece(1000, 2000, { tcpOptions: f.TIMESTAMPS(6, 6) }),
        "another TSecr": piece(1000, 2000, { tcpOptions: f.TIMESTAMPS(5, 7) }),
        "no timestamps": piece(1000, 2000, { tcpOptions: new Uint8Array() }),
        "a FIN": piece(1000, 2000, { flags: f.ACK | f.FIN }),
        "urgent data": piece(1000, 2000, { flags: f.ACK | 32 }),
        "no data": piece(1000, 1000),
        "another flow": piece(1000, 2000, { sourcePort: f.peerPort + 1 }),
        "a wrong checksum": corrupt,
      };
      for (const [what, other] of Object.entries(others))
        assert.equal(drained(piece(0, 1000), other).found.length, 2, what);
      assert.equal(drained(corrupt, piece(2000, 3000)).found.length, 2, "after a wrong checksum");
      const out = (from: number, to: number): Buffer => f.outward({ seq: from, payload: bytes.subarray(from, to) });
      for (const data of [out(0, 1000), out(1000, 2000)])
        native.bpfTestRun(rig.program("xdp_mirror"), { data: f.encapsulated(data, { out: true }) });
      assert.equal(records().length, 2, "outward");
    },
  );

  await t.test("standby: a full ring drops, and what fits later is recorded again", () => {
    set("fenced", true, 0n);
    const frame = f.encapsulated(f.frame({ payload: Buffer.alloc(1400) }));
    let sent = 0;
    for (; native.bpfTestRun(rig.program("xdp_mirror"), { data: frame }).retval === verdicts.tx; sent++)
      assert.ok(sent < 2000);
    assert.deepEqual(rig.counters(), { DROP_RING_FULL: 1, PASS_RECORDED_IN: sent });
    let drained = 0;
    for (let more = records().length; more > 0; more = records().length) drained += more;
    assert.equal(drained, sent);
    assert.equal(native.bpfTestRun(rig.program("xdp_mirror"), { data: frame }).retval, verdicts.tx);
    assert.equal(records().length, 1);
  });

  await t.test("tc_mirror_in: without the note of xdp_mirror, nothing for a service address comes through", () => {
    set("reflect", false, forever);
    const run = (data: Uint8Array): number => native.bpfTestRun(rig.program("tc_mirror_in"), { data }).retval;
    assert.equal(run(f.frame({ destination: "10.78.0.1", protocol: 17, payload: new Uint8Array(72) })), 0);
    assert.deepEqual(rig.counters(), {});
    for (const frame of [
      inner,
      f.frame({ family: 6 }),
      f.frame({ fragment: 0x2000 }),
      f.arp(1, "10.78.0.2", f.service4),
    ])
      assert.equal(run(frame), 2);
    assert.deepEqual(rig.counters(), { DROP_NOT_OURS: 4 });
  });
});
