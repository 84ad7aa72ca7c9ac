// Frames for the tests, composed byte by byte from the RFCs and independently of the programs under test.

import { parseIp } from "../../src/net/addresses.js";
import { linkDefaults, macBytes } from "./rig.js";

export const service4 = "10.77.0.1";
export const service6 = "fd77::1";
export const peer4 = "10.77.0.10";
export const peer6 = "fd77::10";
export const servicePort = 8080;
export const peerPort = 40000;
export const cookie = 0x1122334455667788n;

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;

export interface Segment {
  family?: 4 | 6;
  source?: string;
  destination?: string;
  sourcePort?: number;
  destinationPort?: number;
  seq?: number;
  ack?: number;
  flags?: number;
  window?: number;
  tcpOptions?: Uint8Array;
  payload?: Uint8Array;
  /** Outermost first: [TPID, TCI]. */
  vlans?: [number, number][];
  /** IPv4 options, a multiple of 4 bytes. */
  ipOptions?: Uint8Array;
  /** IPv4 flags and fragment offset. */
  fragment?: number;
  /** IPv6: [header number, the whole header; its first byte is filled in]. */
  extensions?: [number, Uint8Array][];
  /** Another protocol than TCP; then `payload` follows the IP header at once. */
  protocol?: number;
  hopLimit?: number;
  sourceMac?: string;
  destinationMac?: string;
}

/** RFC 1071. */
export function internetChecksum(...parts: Uint8Array[]): number {
  const all = Buffer.concat(parts);
  let sum = 0;
  for (let at = 0; at < all.length; at += 2) sum += (all[at]! << 8) | (all[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

const addressBytes = (text: string): Uint8Array => {
  const { family, bytes } = parseIp(text);
  return bytes.subarray(0, family === 4 ? 4 : 16);
};

export function tcpChecksum(source: Uint8Array, destination: Uint8Array, tcp: Uint8Array): number {
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(tcp.length, 0);
  pseudo.writeUInt32BE(6, 4);
  return internetChecksum(source, destination, pseudo, tcp);
}

function ethernet(type: number, options: Segment): Buffer {
  const tags = options.vlans ?? [];
  const header = Buffer.alloc(14 + tags.length * 4);
  header.set(macBytes(options.destinationMac ?? "02:00:00:00:0a:01"), 0);
  header.set(macBytes(options.sourceMac ?? "02:00:00:00:0a:10"), 6);
  tags.forEach(([tpid, tci], index) => {
    header.writeUInt16BE(tpid, 12 + index * 4);
    header.writeUInt16BE(tci, 14 + index * 4);
  });
  header.writeUInt16BE(type, 12 + tags.length * 4);
  return header;
}

/** A frame from the peer to the service, unless told otherwise; all lengths and checksums right. */
export function frame(options: Segment = {}): Buffer {
  const family = options.family ?? 4;
  const source = addressBytes(options.source ?? (family === 4 ? peer4 : peer6));
  const destination = addressBytes(options.destination ?? (family === 4 ? service4 : service6));
  let transport = Buffer.from(options.payload ?? new Uint8Array());
  if (options.protocol === undefined) {
    const tcpOptions = options.tcpOptions ?? new Uint8Array();
    const header = Buffer.alloc(20);
    header.writeUInt16BE(options.sourcePort ?? peerPort, 0);
    header.writeUInt16BE(options.destinationPort ?? servicePort, 2);
    header.writeUInt32BE((options.seq ?? 1000) >>> 0, 4);
    header.writeUInt32BE((options.ack ?? 2000) >>> 0, 8);
    header[12] = ((20 + tcpOptions.length) / 4) << 4;
    header[13] = options.flags ?? ACK;
    header.writeUInt16BE(options.window ?? 512, 14);
    transport = Buffer.concat([header, tcpOptions, transport]);
    transport.writeUInt16BE(tcpChecksum(source, destination, transport), 16);
  }
  const protocol = options.protocol ?? 6;
  if (family === 4) {
    const ipOptions = options.ipOptions ?? new Uint8Array();
    const ip = Buffer.concat([Buffer.alloc(20), ipOptions]);
    ip[0] = 0x40 | (ip.length / 4);
    ip.writeUInt16BE(ip.length + transport.length, 2);
    ip.writeUInt16BE(options.fragment ?? 0x4000, 6);
    ip[8] = options.hopLimit ?? 64;
    ip[9] = protocol;
    ip.set(source, 12);
    ip.set(destination, 16);
    ip.writeUInt16BE(internetChecksum(ip), 10);
    return Buffer.concat([ethernet(0x0800, options), ip, transport]);
  }
  const extensions = options.extensions ?? [];
  const ip = Buffer.alloc(40);
  const chain = extensions.map(([, bytes], index) => {
    const copy = Buffer.from(bytes);
    copy[0] = extensions[index + 1]?.[0] ?? protocol;
    return copy;
  });
  ip[0] = 0x60;
  ip.writeUInt16BE(transport.length + chain.reduce((sum, bytes) => sum + bytes.length, 0), 4);
  ip[6] = extensions[0]?.[0] ?? protocol;
  ip[7] = options.hopLimit ?? 64;
  ip.set(source, 8);
  ip.set(destination, 24);
  return Buffer.concat([ethernet(0x86dd, options), ip, ...chain, transport]);
}

/** From the service to the peer. */
export const outward = (options: Segment = {}): Buffer =>
  frame({
    source: options.family === 6 ? service6 : service4,
    destination: options.family === 6 ? peer6 : peer4,
    sourcePort: servicePort,
    destinationPort: peerPort,
    ...options,
  });

export function arp(operation: 1 | 2, sender: string, target: string, options: Segment = {}): Buffer {
  const body = Buffer.alloc(28);
  body.writeUInt16BE(1, 0);
  body.writeUInt16BE(0x0800, 2);
  body[4] = 6;
  body[5] = 4;
  body.writeUInt16BE(operation, 6);
  body.set(macBytes("02:00:00:00:0a:10"), 8);
  body.set(addressBytes(sender), 14);
  body.set(addressBytes(target), 24);
  return Buffer.concat([ethernet(0x0806, options), body]);
}

/** Neighbour solicitation (135) or advertisement (136) about `target`. */
export function neighbour(type: 135 | 136, source: string, destination: string, target: string): Buffer {
  const icmp = Buffer.alloc(24);
  icmp[0] = type;
  icmp.set(addressBytes(target), 8);
  return frame({ family: 6, source, destination, protocol: 58, hopLimit: 255, payload: icmp });
}

/** Blocks of [left, right), behind two NOPs (RFC 2018, section 3). */
export const SACK = (...blocks: [number, number][]): Uint8Array => {
  const bytes = Buffer.alloc(4 + 8 * blocks.length, 1);
  bytes[2] = 5;
  bytes[3] = 2 + 8 * blocks.length;
  for (const [index, [left, right]] of blocks.entries()) {
    bytes.writeUInt32BE(left >>> 0, 4 + 8 * index);
    bytes.writeUInt32BE(right >>> 0, 8 + 8 * index);
  }
  return bytes;
};
export const TIMESTAMPS = (tsval: number, tsecr: number): Uint8Array => {
  const bytes = Buffer.from([1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]);
  bytes.writeUInt32BE(tsval >>> 0, 4);
  bytes.writeUInt32BE(tsecr >>> 0, 8);
  return bytes;
};

/** What a Linux SYN carries: MSS, SACK permitted, timestamps, NOP, window scale. */
export const SYN_OPTIONS = (tsval: number): Uint8Array => {
  const bytes = Buffer.from([2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7]);
  bytes.writeUInt32BE(tsval >>> 0, 8);
  return bytes;
};

export interface Envelope {
  out?: boolean;
  reflected?: boolean;
  stamp?: { copiedSeq: number; writeSeq: number; rcvNxt: number };
  uplink?: number;
  service?: number;
  epoch?: number;
  version?: number;
  cookie?: bigint;
  sourceIp?: string;
  destinationIp?: string;
  sourcePort?: number;
}

const outerLength = 86;

/** The frame inside Geneve with our option, as a partner would send it to this router's end of the mirror link. */
export function encapsulated(inner: Uint8Array, options: Envelope = {}): Buffer {
  const outer = Buffer.alloc(outerLength);
  outer.set(macBytes(linkDefaults.localMac), 0);
  outer.set(macBytes(linkDefaults.partnerMac), 6);
  outer.writeUInt16BE(0x0800, 12);
  outer[14] = 0x45;
  outer.writeUInt16BE(72 + inner.length, 16);
  outer.writeUInt16BE(0x4000, 20);
  outer[22] = 64;
  outer[23] = 17;
  outer.set(addressBytes(options.sourceIp ?? linkDefaults.partnerIp), 26);
  outer.set(addressBytes(options.destinationIp ?? linkDefaults.localIp), 30);
  outer.writeUInt16BE(internetChecksum(outer.subarray(14, 34)), 24);
  outer.writeUInt16BE(options.sourcePort ?? 50000, 34);
  outer.writeUInt16BE(6081, 36);
  outer.writeUInt16BE(52 + inner.length, 38);
  outer[42] = 9; // version 0, 9 words of options
  outer.writeUInt16BE(0x6558, 44);
  outer.writeUInt16BE(0xff5a, 50);
  outer[52] = 1;
  outer[53] = 8;
  outer[54] = options.version ?? 1;
  outer[55] = (options.out ? 1 : 0) | (options.reflected ? 2 : 0) | (options.stamp ? 4 : 0);
  outer[56] = options.uplink ?? 0;
  outer.writeUInt16BE(options.service ?? 3, 58);
  outer.writeUInt32BE(options.epoch ?? 7, 62);
  outer.writeBigUInt64LE(options.cookie ?? cookie, 66);
  if (options.stamp) {
    outer.writeUInt32BE(options.stamp.copiedSeq, 74);
    outer.writeUInt32BE(options.stamp.writeSeq, 78);
    outer.writeUInt32BE(options.stamp.rcvNxt, 82);
  }
  sealOption(outer);
  return Buffer.concat([outer, inner]);
}

/** Makes the option's checksum right again after a change. */
export function sealOption(outer: Buffer): void {
  outer.writeUInt16BE(0, 60);
  outer.writeUInt16BE(internetChecksum(outer.subarray(50, 86)), 60);
}

export interface Opened {
  destinationMac: string;
  sourceMac: string;
  sourcePort: number;
  flags: number;
  uplink: number;
  service: number;
  epoch: number;
  cookie: bigint;
  inner: Buffer;
  source: string;
  destination: string;
}

/** Takes a frame apart and throws when anything in its outer headers is not as it must be. */
export function opened(bytes: Uint8Array): Opened {
  const all = Buffer.from(bytes);
  const wrong = (what: string): never => {
    throw new Error(`${what} in ${all.subarray(0, outerLength).toString("hex")}`);
  };
  if (all.length < outerLength) wrong("too short");
  if (all.readUInt16BE(12) !== 0x0800) wrong("ethertype");
  if (all[14] !== 0x45 || all[22]! < 1 || all[23] !== 17) wrong("IPv4 header");
  if (all.readUInt16BE(16) !== all.length - 14) wrong("IPv4 length");
  if (all.readUInt16BE(20) !== 0x4000) wrong("IPv4 fragmentation bits");
  if (internetChecksum(all.subarray(14, 34)) !== 0) wrong("IPv4 checksum");
  if (all.readUInt16BE(36) !== 6081) wrong("UDP port");
  if (all.readUInt16BE(38) !== all.length - 34) wrong("UDP length");
  if (all.readUInt16BE(40) !== 0) wrong("UDP checksum");
  if (all[42] !== 9 || all[43] !== 0 || all.readUInt16BE(44) !== 0x6558) wrong("Geneve header");
  if (all.readUInt16BE(50) !== 0xff5a || all[52] !== 1 || all[53] !== 8 || all[54] !== 1) wrong("option");
  if (internetChecksum(all.subarray(50, 86)) !== 0) wrong("option checksum");
  const mac = (at: number): string =>
    [...all.subarray(at, at + 6)].map((b) => b.toString(16).padStart(2, "0")).join(":");
  return {
    destinationMac: mac(0),
    sourceMac: mac(6),
    sourcePort: all.readUInt16BE(34),
    flags: all[55]!,
    uplink: all[56]!,
    service: all.readUInt16BE(58),
    epoch: all.readUInt32BE(62),
    cookie: all.readBigUInt64LE(66),
    source: [...all.subarray(26, 30)].join("."),
    destination: [...all.subarray(30, 34)].join("."),
    inner: all.subarray(outerLength),
  };
}
