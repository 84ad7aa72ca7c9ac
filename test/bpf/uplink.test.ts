// Packet in, verdict, reason and packet out, for the programs of the uplink. One line of description each.

import assert from "node:assert/strict";
import test from "node:test";
import { native } from "../../addon/native.js";
import * as abi from "../../src/abi.gen.js";
import { parseIp } from "../../src/net/addresses.js";
import { unsolicitedAdvertisement } from "../../src/net/announce.js";
import * as f from "./frames.js";
import { flowKey, forever, type LinkSetting, type Mode, needsRoot, Rig } from "./rig.js";

const xdp = { drop: 1, pass: 2, redirect: 4 } as const;
const tc = { pass: 0, drop: 2, redirect: 7 } as const;
type Verdict = "pass" | "drop" | "redirect";

interface Case {
  what: string;
  frame: Uint8Array;
  mode?: Mode | "none";
  voice?: bigint;
  verdict: Verdict;
  /** What is counted; null: nothing is. */
  reason: string | null;
  link?: Partial<LinkSetting>;
  mark?: number;
  quarantine?: boolean;
  before?: (rig: Rig) => void;
  after?: (out: Buffer, rig: Rig) => void;
}

/** A struct __sk_buff with what a test run may set. */
function skbContext(item: Case): Uint8Array {
  const context = Buffer.alloc(192);
  context.writeUInt32LE(item.mark ?? 0, 8);
  context.writeUInt32LE(1, 40); // ifindex: the loopback device
  return context;
}

function play(rig: Rig, program: string, item: Case): void {
  const isXdp = program.startsWith("xdp");
  rig.link(item.link);
  rig.uplinkDevice(1, 2);
  rig.voice(item.voice ?? forever);
  if (item.mode === "none") native.bpfMapDelete(rig.map("gate"), new Uint8Array(4));
  else rig.gate(item.mode ?? "reflect", 7, item.quarantine ? forever : 0n);
  item.before?.(rig);
  rig.clearCounters();
  const { retval, data } = native.bpfTestRun(rig.program(program), {
    data: item.frame,
    ...(isXdp ? {} : { context: skbContext(item) }),
  });
  const verdicts: Record<Verdict, number> = isXdp ? xdp : tc;
  assert.equal(retval, verdicts[item.verdict], `verdict; counted ${JSON.stringify(rig.counters())}`);
  assert.deepEqual(rig.counters(), item.reason === null ? {} : { [item.reason]: 1 });
  if (item.verdict === "pass" && !item.after) assert.deepEqual(Buffer.from(data), Buffer.from(item.frame));
  item.after?.(Buffer.from(data), rig);
}

const extension = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  bytes[1] = length / 8 - 1;
  return bytes;
};
const fragmentHeader = (offset: number, more: boolean): Uint8Array => {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16BE((offset << 3) | (more ? 1 : 0), 2);
  return bytes;
};
const truncated = (frame: Buffer, length: number): Buffer => frame.subarray(0, length);
const patched = (frame: Buffer, offset: number, value: number): Buffer => {
  const copy = Buffer.from(frame);
  copy[offset] = value;
  return copy;
};

/** The frame came out as Geneve, with `inner` unchanged inside and the metadata as it must be. */
const reflects =
  (inner: Buffer, flags: number, service = 3): ((out: Buffer) => void) =>
  (out) => {
    const { inner: got, ...outer } = f.opened(out);
    assert.deepEqual(got, inner);
    assert.equal(outer.flags, flags);
    assert.equal(outer.service, service);
    assert.equal(outer.uplink, 2);
    assert.equal(outer.epoch, 7);
    assert.equal(outer.cookie, f.cookie);
    assert.equal(outer.source, "10.78.0.1");
    assert.equal(outer.destination, "10.78.0.2");
    assert.equal(outer.sourceMac, "02:00:00:00:00:01");
    assert.equal(outer.destinationMac, "02:00:00:00:00:02");
    assert.ok(outer.sourcePort >= 49152);
  };

const tag: [number, number] = [0x8100, 5];
const qinq: [number, number][] = [
  [0x88a8, 100],
  [0x8100, 5],
];
const payload = Buffer.alloc(700, 0x5a);
const unresolved = { partnerMac: "00:00:00:00:00:00" };

/** Segments that must be reflected, whatever stands in front of TCP. */
const shapes: [string, f.Segment][] = [
  ["an IPv4 segment", { payload }],
  ["an IPv6 segment", { family: 6, payload }],
  ["a pure ACK", {}],
  ["a segment with one VLAN tag", { vlans: [tag], payload }],
  ["a segment with two VLAN tags", { vlans: qinq, payload }],
  ["an IPv6 segment with two VLAN tags", { family: 6, vlans: qinq, payload }],
  ["IPv4 options (router alert)", { ipOptions: Uint8Array.of(148, 4, 0, 0), payload }],
  ["40 bytes of IPv4 options", { ipOptions: new Uint8Array(40).fill(1), payload }],
  ["TCP timestamps", { tcpOptions: f.TIMESTAMPS(1, 2), payload }],
  ["a SYN with its options", { flags: f.SYN, tcpOptions: f.SYN_OPTIONS(1) }],
  ["hop-by-hop options in front of TCP", { family: 6, extensions: [[0, extension(8)]], payload }],
  [
    "hop-by-hop, routing, destination options and AH in front of TCP",
    {
      family: 6,
      extensions: [
        [0, extension(16)],
        [43, extension(8)],
        [60, extension(24)],
        [51, Uint8Array.of(0, 1, ...new Array<number>(10).fill(0))],
      ],
      payload,
    },
  ],
  ["a segment of another local port by its remote port (active open)", { sourcePort: 179, destinationPort: 33333 }],
];

const foreign: Case[] = [
  { what: "transit IPv4", frame: f.frame({ destination: "192.0.2.1" }), verdict: "pass", reason: "PASS_TRANSIT" },
  {
    what: "transit IPv6",
    frame: f.frame({ family: 6, destination: "2001:db8::1" }),
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
  {
    what: "transit fragments",
    frame: f.frame({ destination: "192.0.2.1", fragment: 0x2001 }),
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
  { what: "neither IP nor ARP", frame: patched(f.frame(), 12, 0x88), verdict: "pass", reason: "PASS_TRANSIT" },
  {
    what: "ARP about another address, while fenced",
    frame: f.arp(1, f.peer4, "10.77.0.2"),
    mode: "fenced",
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
  {
    what: "ND about another address, while fenced",
    frame: f.neighbour(135, f.peer6, "ff02::1:ff00:2", "fd77::2"),
    mode: "fenced",
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
];

const inwardDrops: Case[] = [
  { what: "a segment while fenced", frame: f.frame(), mode: "fenced", verdict: "drop", reason: "DROP_FENCED_IN" },
  {
    what: "a segment while there is no gate at all",
    frame: f.frame(),
    mode: "none",
    verdict: "drop",
    reason: "DROP_FENCED_IN",
  },
  {
    what: "a segment after the voice has run out",
    frame: f.frame(),
    voice: 1n,
    verdict: "drop",
    reason: "DROP_NO_VOICE",
  },
  {
    what: "a segment in SOLO after the voice has run out",
    frame: f.frame(),
    mode: "solo",
    voice: 1n,
    verdict: "drop",
    reason: "DROP_NO_VOICE",
  },
  {
    what: "ping of the service address while fenced",
    frame: f.frame({ protocol: 1, payload: new Uint8Array(8) }),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_IN",
  },
  {
    what: "ARP request for the service address while fenced",
    frame: f.arp(1, f.peer4, f.service4),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  },
  {
    what: "ARP request for the service address without voice",
    frame: f.arp(1, f.peer4, f.service4),
    voice: 1n,
    verdict: "drop",
    reason: "DROP_NO_VOICE",
  },
  {
    what: "tagged ARP request for the service address while fenced",
    frame: f.arp(1, f.peer4, f.service4, { vlans: [tag] }),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  },
  {
    what: "solicitation of the service address while fenced",
    frame: f.neighbour(135, f.peer6, "ff02::1:ff00:1", f.service6),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  },
  {
    what: "unicast solicitation of the service address while fenced",
    frame: f.neighbour(135, f.peer6, f.service6, f.service6),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  },
  {
    what: "the first fragment of a segment",
    frame: f.frame({ fragment: 0x2000, payload }),
    verdict: "drop",
    reason: "DROP_FRAGMENT",
  },
  {
    what: "a later fragment of a segment",
    frame: f.frame({ fragment: 0x0010, payload }),
    verdict: "drop",
    reason: "DROP_FRAGMENT",
  },
  {
    what: "an IPv6 fragment of TCP",
    frame: f.frame({ family: 6, extensions: [[44, fragmentHeader(0, true)]], payload }),
    verdict: "drop",
    reason: "DROP_FRAGMENT",
  },
  {
    what: "an atomic IPv6 fragment of TCP",
    frame: f.frame({ family: 6, extensions: [[44, fragmentHeader(0, false)]], payload }),
    verdict: "drop",
    reason: "DROP_FRAGMENT",
  },
  {
    what: "an IPv6 fragment that hides its TCP behind destination options",
    frame: f.frame({
      family: 6,
      extensions: [
        [44, fragmentHeader(0, true)],
        [60, extension(8)],
      ],
      payload,
    }),
    verdict: "drop",
    reason: "DROP_FRAGMENT",
  },
  {
    what: "more extension headers than are walked",
    frame: f.frame({ family: 6, extensions: new Array(7).fill([60, extension(8)]) as [number, Uint8Array][] }),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "an IPv4 header length below 5",
    frame: patched(f.frame({ payload }), 14, 0x44),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "an IPv4 total length beyond the frame",
    frame: patched(f.frame({ payload }), 16, 0x40),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "an IPv6 payload length beyond the frame",
    frame: patched(f.frame({ family: 6, payload }), 18, 0x40),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "a TCP header length below 5",
    frame: patched(f.frame({ payload }), 14 + 20 + 12, 0x40),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "a TCP header length beyond the packet",
    frame: patched(f.frame(), 14 + 20 + 12, 0xf0),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  { what: "three VLAN tags", frame: f.frame({ vlans: [tag, tag, tag] }), verdict: "drop", reason: "DROP_MALFORMED" },
  {
    what: "a frame longer than may be recorded",
    frame: f.frame({ payload: Buffer.alloc(1400) }),
    link: { recordMax: 1453 },
    verdict: "drop",
    reason: "DROP_TOO_LONG",
  },
  {
    what: "a segment while the partner's MAC is unknown",
    frame: f.frame(),
    link: unresolved,
    verdict: "drop",
    reason: "DROP_LINK_UNRESOLVED",
  },
  {
    what: "a segment by a device that is no uplink",
    frame: f.frame(),
    before: (rig) => rig.removeUplink(1, 2),
    verdict: "drop",
    reason: "DROP_UPLINK_UNKNOWN",
  },
];

const inwardPasses: Case[] = [
  {
    what: "ARP request for the service address with voice",
    frame: f.arp(1, f.peer4, f.service4),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  {
    what: "solicitation of the service address with voice",
    frame: f.neighbour(135, f.peer6, "ff02::1:ff00:1", f.service6),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  {
    what: "ping of the service address with voice",
    frame: f.frame({ protocol: 1, payload: new Uint8Array(8) }),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  {
    what: "a UDP fragment for the service address with voice",
    frame: f.frame({ protocol: 17, fragment: 0x2000, payload }),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  {
    what: "an IPv6 UDP fragment for the service address",
    frame: f.frame({ family: 6, protocol: 17, extensions: [[44, fragmentHeader(0, true)]], payload }),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  {
    what: "TCP for the service address, but of no service",
    frame: f.frame({ destinationPort: 22 }),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  { what: "a segment in SOLO", frame: f.frame(), mode: "solo", verdict: "pass", reason: "PASS_SOLO_IN" },
  {
    what: "the service's port at another address",
    frame: f.frame({ destination: "10.77.0.2" }),
    verdict: "pass",
    reason: "PASS_TRANSIT",
  },
];

const inward: Case[] = [
  ...foreign,
  ...inwardDrops,
  ...inwardPasses,
  ...shapes.map(([what, segment]): Case => {
    const frame = f.frame(segment);
    const service = segment.sourcePort === 179 ? 4 : 3;
    return {
      what: `${what} is reflected`,
      frame,
      verdict: "redirect",
      reason: "PASS_REFLECT_IN",
      after: reflects(frame, 0, service),
    };
  }),
];

const key = flowKey(f.service4, f.servicePort, f.peer4, f.peerPort);
const reset = f.outward({ flags: f.RST | f.ACK, seq: 0xffff_fff0, ack: 5 });
const acknowledges =
  (family: 4 | 6, seq: number, ack: number): ((out: Buffer) => void) =>
  (out) => {
    const { inner } = f.opened(out);
    const expected = f.outward({ family, flags: f.ACK, seq, ack, window: 0xffff, hopLimit: 255 });
    assert.deepEqual(inner, expected);
  };

const outward: Case[] = [
  { what: "transit IPv4", frame: f.frame({ source: "192.0.2.1" }), verdict: "pass", reason: null },
  { what: "a segment while fenced", frame: f.outward(), mode: "fenced", verdict: "drop", reason: "DROP_FENCED_OUT" },
  {
    what: "a segment while there is no gate at all",
    frame: f.outward(),
    mode: "none",
    verdict: "drop",
    reason: "DROP_FENCED_OUT",
  },
  {
    what: "a segment after the voice has run out",
    frame: f.outward(),
    voice: 1n,
    verdict: "drop",
    reason: "DROP_NO_VOICE",
  },
  {
    what: "an ICMP answer while fenced",
    frame: f.outward({ protocol: 1, payload: new Uint8Array(8) }),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_OUT",
  },
  {
    what: "an ICMP answer with voice",
    frame: f.outward({ protocol: 1, payload: new Uint8Array(8) }),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  {
    what: "an ARP reply for the service address while fenced",
    frame: f.arp(2, f.service4, f.peer4),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  },
  {
    what: "an ARP request for the service address while fenced",
    frame: f.arp(1, "10.77.0.2", f.service4),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  },
  {
    what: "an advertisement of the service address while fenced",
    frame: f.neighbour(136, "fd77::2", "ff02::1", f.service6),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  },
  {
    what: "a solicitation from the service address while fenced",
    frame: f.neighbour(135, f.service6, "ff02::1:ff00:10", f.peer6),
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_OUT",
  },
  {
    what: "a gratuitous ARP with voice",
    frame: f.arp(2, f.service4, f.service4),
    verdict: "pass",
    reason: "PASS_OTHER",
  },
  { what: "a segment in SOLO", frame: f.outward({ payload }), mode: "solo", verdict: "pass", reason: "PASS_SOLO_OUT" },
  {
    what: "a fragment of TCP",
    frame: f.outward({ fragment: 0x2000, payload }),
    verdict: "drop",
    reason: "DROP_FRAGMENT",
  },
  {
    what: "a header length nobody sends",
    frame: patched(f.outward(), 46, 0x10),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  },
  {
    what: "a segment longer than may be recorded",
    frame: f.outward({ payload: Buffer.alloc(1400) }),
    link: { recordMax: 1453 },
    verdict: "drop",
    reason: "DROP_TOO_LONG",
  },
  {
    what: "a segment while the partner's MAC is unknown",
    frame: f.outward(),
    link: unresolved,
    verdict: "drop",
    reason: "DROP_LINK_UNRESOLVED",
  },
  {
    what: "a segment by a device that is no uplink",
    frame: f.outward(),
    before: (rig) => rig.removeUplink(1, 2),
    verdict: "drop",
    reason: "DROP_UPLINK_UNKNOWN",
  },
  {
    what: "an injected frame turns round, gate or not",
    frame: f.frame(),
    mode: "fenced",
    mark: abi.TD_MARK_INJECT,
    verdict: "redirect",
    reason: "PASS_INJECTED",
  },
  ...shapes.map(([what, segment]): Case => {
    const active = segment.sourcePort === 179;
    const frame = f.outward(active ? { sourcePort: 33333, destinationPort: 179 } : segment);
    return {
      what: `${what} is reflected, without a stamp as it has no socket`,
      frame,
      verdict: "redirect",
      reason: "PASS_REFLECT_OUT",
      after: reflects(frame, abi.TD_WIRE_OUT, active ? 4 : 3),
    };
  }),
  {
    what: "a FIN after a crash",
    frame: f.outward({ flags: f.FIN | f.ACK }),
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_FIN_CRASH),
    verdict: "drop",
    reason: "DROP_CRASHED",
  },
  {
    what: "data after a crash",
    frame: f.outward({ payload }),
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_FIN_CRASH),
    verdict: "drop",
    reason: "DROP_CRASHED",
  },
  {
    what: "a reset after a crash",
    frame: reset,
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_RST_CRASH),
    verdict: "drop",
    reason: "DROP_CRASHED",
  },
  {
    what: "a crash after a meant FIN is a crash",
    frame: reset,
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_FIN_MEANT | abi.TD_VERDICT_RST_CRASH),
    verdict: "drop",
    reason: "DROP_CRASHED",
  },
  {
    what: "a crash in SOLO is silent as well",
    frame: reset,
    mode: "solo",
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_RST_CRASH),
    verdict: "drop",
    reason: "DROP_CRASHED",
  },
  {
    what: "the agent's own reset of a lost session leaves after a crash",
    frame: reset,
    mode: "solo",
    quarantine: true,
    mark: abi.TD_MARK_OWN,
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_RST_CRASH),
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "a SYN-ACK on the tuple of a crashed session leaves and voids the verdict",
    frame: f.outward({ flags: f.SYN | f.ACK, tcpOptions: f.SYN_OPTIONS(1) }),
    mode: "solo",
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_FIN_CRASH),
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
    after: (_, rig) => assert.equal(rig.verdictOf(key), 0),
  },
  {
    what: "a meant FIN",
    frame: f.outward({ flags: f.FIN | f.ACK }),
    mode: "solo",
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_FIN_MEANT),
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "a reset of nobody's outside of a quarantine",
    frame: reset,
    mode: "solo",
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "a reset of nobody's in a quarantine",
    frame: reset,
    quarantine: true,
    verdict: "drop",
    reason: "DROP_RST_QUARANTINE",
  },
  {
    what: "a reset of nobody's just after a crash of its service",
    frame: reset,
    before: (rig) => rig.service(f.service4, "passive", f.servicePort, 3, 0, native.bootTimeNs()),
    verdict: "drop",
    reason: "DROP_RST_QUARANTINE",
  },
  {
    what: "data just after a crash of its service",
    frame: f.outward({ payload }),
    mode: "solo",
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "a reset of nobody's long after a crash of its service",
    frame: reset,
    mode: "solo",
    before: (rig) => rig.service(f.service4, "passive", f.servicePort, 3, 0, 1n),
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "a reset of nobody's once somebody listens again",
    frame: reset,
    mode: "solo",
    before: (rig) => rig.service(f.service4, "passive", f.servicePort, 3),
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "data in a quarantine",
    frame: f.outward({ payload }),
    mode: "solo",
    quarantine: true,
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "a meant reset in a quarantine",
    frame: reset,
    mode: "solo",
    quarantine: true,
    before: (rig) => rig.verdict(key, abi.TD_VERDICT_RST_MEANT),
    verdict: "pass",
    reason: "PASS_SOLO_OUT",
  },
  {
    what: "a reset with options, so perhaps signed, is not rewritten",
    frame: f.outward({ flags: f.RST, tcpOptions: f.TIMESTAMPS(1, 2) }),
    quarantine: true,
    before: (rig) => rig.closed(key, 77, 88),
    verdict: "drop",
    reason: "DROP_RST_QUARANTINE",
  },
];

test("uplink programs: packet in, verdict and packet out", { skip: needsRoot }, async (t) => {
  const rig = new Rig();
  t.after(() => rig.close());
  for (const address of [f.service4, f.service6]) {
    rig.service(address, "passive", f.servicePort, 3);
    rig.service(address, "active", 179, 4);
  }
  const clean = (): void => {
    native.bpfMapDelete(rig.map("crash"), key);
    native.bpfMapDelete(rig.map("closed"), key);
  };
  const short: Case = {
    what: "a frame that ends in the IPv4 header", // which a test run of an skb refuses
    frame: truncated(f.frame(), 30),
    verdict: "drop",
    reason: "DROP_MALFORMED",
  };
  for (const item of [...inward, short]) await t.test(`xdp_uplink: ${item.what}`, () => play(rig, "xdp_uplink", item));
  for (const item of inward)
    await t.test(`tc_uplink_in_reflect: ${item.what}`, () => play(rig, "tc_uplink_in_reflect", item));
  for (const item of outward) {
    await t.test(`tc_uplink_out: ${item.what}`, () => {
      clean();
      play(rig, "tc_uplink_out", item);
    });
  }

  for (const family of [4, 6] as const) {
    await t.test(`tc_uplink_out: a reset of a session closed before the takeover becomes its ACK, IPv${family}`, () => {
      clean();
      const session = family === 4 ? key : flowKey(f.service6, f.servicePort, f.peer6, f.peerPort);
      rig.link();
      rig.uplinkDevice(1, 2);
      rig.voice(forever);
      rig.gate("reflect", 7, forever);
      rig.closed(session, 0xffff_ff00, 0x8000_0001);
      rig.clearCounters();
      const frame = f.outward({ family, flags: f.RST | f.ACK, seq: 0x1234_5678, ack: 5, window: 0 });
      const { retval, data } = native.bpfTestRun(rig.program("tc_uplink_out"), { data: frame });
      assert.equal(retval, tc.redirect);
      assert.deepEqual(rig.counters(), { PASS_CLOSED_ACK: 1, PASS_REFLECT_OUT: 1 });
      acknowledges(family, 0xffff_ff00, 0x8000_0001)(Buffer.from(data));
    });
  }

  const sideDoor: Case[] = [
    { what: "transit", frame: f.frame({ destination: "192.0.2.1" }), verdict: "pass", reason: null },
    {
      what: "a segment that came past the standby",
      frame: f.frame(),
      mark: abi.TD_MARK_REFLECTED,
      verdict: "pass",
      reason: null,
    },
    {
      what: "a segment from the injector",
      frame: f.frame(),
      mode: "fenced",
      mark: abi.TD_MARK_INJECT,
      verdict: "pass",
      reason: null,
    },
    { what: "a segment that did not pass the standby", frame: f.frame(), verdict: "drop", reason: "DROP_UNREFLECTED" },
    {
      what: "the same over IPv6 with two tags",
      frame: f.frame({ family: 6, vlans: qinq }),
      verdict: "drop",
      reason: "DROP_UNREFLECTED",
    },
    {
      what: "a segment with somebody else's mark",
      frame: f.frame(),
      mark: 1,
      verdict: "drop",
      reason: "DROP_UNREFLECTED",
    },
    { what: "a segment while fenced", frame: f.frame(), mode: "fenced", verdict: "drop", reason: "DROP_FENCED_IN" },
    { what: "a segment without voice", frame: f.frame(), voice: 1n, verdict: "drop", reason: "DROP_NO_VOICE" },
    {
      what: "ARP for the service address while fenced",
      frame: f.arp(1, f.peer4, f.service4),
      mode: "fenced",
      verdict: "drop",
      reason: "DROP_FENCED_NEIGHBOUR",
    },
    { what: "a segment in SOLO", frame: f.frame(), mode: "solo", verdict: "pass", reason: null },
    {
      what: "a fragment of TCP",
      frame: f.frame({ fragment: 0x2000, payload }),
      verdict: "drop",
      reason: "DROP_FRAGMENT",
    },
    {
      what: "ping of the service address with voice",
      frame: f.frame({ protocol: 1, payload: new Uint8Array(8) }),
      verdict: "pass",
      reason: null,
    },
  ];
  for (const item of sideDoor) await t.test(`tc_uplink_in: ${item.what}`, () => play(rig, "tc_uplink_in", item));

  const stamps = f.TIMESTAMPS(1, 2);
  const gap = 0xffff_fff0; // acknowledged up to here; what is ahead of the gap ends at 100
  const answers: [what: string, options: Uint8Array, held: number][] = [
    ["no options", new Uint8Array(), 0],
    ["timestamps alone", stamps, 0],
    ["a block beyond the gap", f.SACK([10, 60]), 1],
    ["one behind timestamps", Buffer.concat([stamps, f.SACK([10, 100])]), 1],
    ["a duplicate that is reported (RFC 2883)", f.SACK([0xffff_ff00, gap]), 0],
    ["a duplicate, then two blocks beyond the gap", f.SACK([0xffff_ff00, gap], [20, 30], [5, 10]), 1],
    ["a block beyond all that was ever sent", f.SACK([10, 200]), 0],
    ["a block that is cut off", f.SACK([10, 60]).subarray(0, 8), 0],
  ];
  for (const [what, tcpOptions, held] of answers)
    for (const program of ["tc_uplink_in", "tc_uplink_in_reflect"])
      await t.test(`${program}: what the peer holds beyond a gap in the output: ${what}`, () => {
        rig.link();
        rig.voice(forever);
        rig.gate("solo", 7, 0n);
        rig.ahead(key, 100);
        const context = skbContext({ what, frame: f.frame(), verdict: "pass", reason: null });
        native.bpfTestRun(rig.program(program), { data: f.frame({ ack: gap, tcpOptions }), context });
        assert.deepEqual(rig.heardOf(key), { answers: 1, held });
        native.bpfMapDelete(rig.map("ahead"), key);
      });

  await t.test("both directions of a session get the same outer port, and sessions differ", () => {
    rig.link();
    rig.uplinkDevice(1, 2);
    rig.voice(forever);
    rig.gate("reflect");
    const ports = new Set<number>();
    for (let port = 30000; port < 30064; port++) {
      const family = port % 2 ? 4 : 6;
      const there = native.bpfTestRun(rig.program("xdp_uplink"), { data: f.frame({ family, sourcePort: port }) });
      const back = native.bpfTestRun(rig.program("tc_uplink_out"), {
        data: f.outward({ family, destinationPort: port }),
      });
      assert.equal(f.opened(there.data).sourcePort, f.opened(back.data).sourcePort);
      ports.add(f.opened(there.data).sourcePort);
    }
    assert.ok(ports.size > 60, `${ports.size} different ports for 64 sessions`);
  });
});

test("a virtual MAC: the service says nothing but it, and answers to it with the voice only", {
  skip: needsRoot,
}, async (t) => {
  const virtual = "02:00:5e:10:00:01";
  const rig = new Rig({ virtualMac: virtual });
  t.after(() => rig.close());
  for (const address of [f.service4, f.service6]) rig.service(address, "passive", f.servicePort, 3);
  const bytes = Buffer.from(virtual.replaceAll(":", ""), "hex");
  const spoken = (frame: Buffer, at: number[] = []) => {
    const changed = Buffer.from(frame);
    for (const offset of [6, ...at]) bytes.copy(changed, offset);
    return changed;
  };
  const out = (what: string, item: Omit<Case, "what">) =>
    t.test(`tc_uplink_out: ${what}`, () => play(rig, "tc_uplink_out", { what, ...item }));
  const says = (expected: Buffer) => (got: Buffer) => assert.deepEqual(got, expected);

  for (const family of [4, 6] as const) {
    const frame = f.outward({ family, payload });
    await out(`a segment in REFLECT, IPv${family}`, {
      frame,
      verdict: "redirect",
      reason: "PASS_REFLECT_OUT",
      after: reflects(spoken(frame), abi.TD_WIRE_OUT),
    });
    await out(`a segment in SOLO, IPv${family}`, {
      frame,
      mode: "solo",
      verdict: "pass",
      reason: "PASS_SOLO_OUT",
      after: says(spoken(frame)),
    });
  }
  const answer = f.arp(2, f.service4, f.peer4);
  await out("an ARP answer says it twice", {
    frame: answer,
    verdict: "pass",
    reason: "PASS_OTHER",
    after: says(spoken(answer, [22])),
  });
  const own = f.arp(1, "10.77.0.2", f.service4);
  await out("this router's own question about the address does not", {
    frame: own,
    verdict: "pass",
    reason: "PASS_OTHER",
    after: says(own),
  });
  const other = f.outward({ destination: "192.0.2.1", source: "10.77.0.2" });
  await out("what is not the service's does not", { frame: other, verdict: "pass", reason: null, after: says(other) });
  const announced = unsolicitedAdvertisement(Uint8Array.of(2, 0, 0, 0, 0, 9), parseIp(f.service6).bytes);
  await out("an advertisement says it in its option, with the checksum of that", {
    frame: announced,
    verdict: "pass",
    reason: "PASS_OTHER",
    after: says(Buffer.from(unsolicitedAdvertisement(bytes, parseIp(f.service6).bytes))),
  });
  await out("nothing of it while fenced", {
    frame: announced,
    mode: "fenced",
    verdict: "drop",
    reason: "DROP_FENCED_NEIGHBOUR",
  });
});
