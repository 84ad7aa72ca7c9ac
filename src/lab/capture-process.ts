// The process behind a Capture: DEVICE FILTER [FILE]. Prints "ready", captures until its standard input ends, then
// prints the summary as JSON. The line "reset" on standard input forgets the gaps so far. Started inside the namespace.

import { closeSync, openSync, writeSync } from "node:fs";
import cap from "cap";
import type { AckGap, FlaggedSegment, Sender } from "./capture.js";

const [device, filter, file] = process.argv.slice(2);
if (device === undefined || filter === undefined) {
  console.error("usage: capture-process DEVICE FILTER [FILE]");
  process.exit(2);
}

const maxFlagged = 100_000;
const maxFlows = 20_000;
const kernelBufferBytes = 32 << 20;
const frame = Buffer.alloc(65_536);
const flagged: FlaggedSegment[] = [];
/** By flow: the newest acknowledgement number, when it came, and the longest time without a newer one. */
const acks = new Map<string, { ack: number; atMs: number; gap: AckGap }>();
let frames = 0;
let bytes = 0;

const output = file === undefined ? null : openSync(file, "w");
if (output !== null) {
  // The pcap file header (draft-ietf-opsawg-pcap): magic, version 2.4, snapshot length, link type 1 (Ethernet).
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(frame.length, 16);
  header.writeUInt32LE(1, 20);
  writeSync(output, header);
}

function writeFrame(timeMs: number, length: number): void {
  if (output === null) return;
  const header = Buffer.alloc(16);
  header.writeUInt32LE(Math.floor(timeMs / 1000), 0);
  header.writeUInt32LE((timeMs % 1000) * 1000, 4);
  header.writeUInt32LE(length, 8);
  header.writeUInt32LE(length, 12);
  writeSync(output, Buffer.concat([header, frame.subarray(0, length)]));
}

/** Eight groups in the shortest form (RFC 5952), which is how the address plan writes them. */
function ipv6Text(offset: number): string {
  const groups = Array.from({ length: 8 }, (_, index) => frame.readUInt16BE(offset + 2 * index).toString(16));
  return new URL(`http://[${groups.join(":")}]/`).hostname.slice(1, -1);
}

/** An acknowledgement that is new (mod 2^32): bytes have arrived at whoever sent it. */
function noteAck(from: string, fromPort: number, to: string, toPort: number, ack: number): void {
  const flow = `${from} ${fromPort} ${to} ${toPort}`;
  const atMs = performance.now();
  const known = acks.get(flow);
  if (known === undefined) {
    if (acks.size < maxFlows) acks.set(flow, { ack, atMs, gap: { from, fromPort, to, toPort, longestGapMs: 0 } });
  } else if (((ack - known.ack) | 0) > 0) {
    known.gap.longestGapMs = Math.max(known.gap.longestGapMs, atMs - known.atMs);
    known.ack = ack;
    known.atMs = atMs;
  }
}

/** Ones' complement sum (RFC 1071) of frame bytes, folded; 0xffff over what includes a right checksum. */
function onesSum(start: number, end: number, initial: number): number {
  let sum = initial;
  for (let at = start; at < end; at += 2) sum += ((frame[at] ?? 0) << 8) | (at + 1 < end ? (frame[at + 1] ?? 0) : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** A segment that was damaged on the way: its receiver drops it, whatever its flags seem to say. Of TCP only SYNs and
 * RSTs are checked: receive offloads merge the others and leave them a partial checksum. */
function damaged(tcp: number, length: number, flags: number): boolean {
  const v4 = frame.readUInt16BE(12) === 0x0800;
  if (v4 && onesSum(14, tcp, 0) !== 0xffff) return true;
  if ((flags & 6) === 0) return false;
  const end = v4 ? 14 + frame.readUInt16BE(16) : 54 + frame.readUInt16BE(18);
  if (end > length) return true;
  return onesSum(tcp, end, onesSum(v4 ? 26 : 22, v4 ? 34 : 54, 6 + end - tcp)) !== 0xffff;
}

function noteTcp(timeMs: number, length: number): void {
  const etherType = frame.readUInt16BE(12);
  let from: string;
  let to: string;
  let tcp: number;
  if (etherType === 0x0800 && frame[23] === 6 && (frame.readUInt16BE(20) & 0x1fff) === 0) {
    from = frame.subarray(26, 30).join(".");
    to = frame.subarray(30, 34).join(".");
    tcp = 14 + ((frame[14] ?? 0) & 15) * 4;
  } else if (etherType === 0x86dd && frame[20] === 6) {
    from = ipv6Text(22);
    to = ipv6Text(38);
    tcp = 54;
  } else return;
  if (length < tcp + 20) return;
  const flags = frame[tcp + 13] ?? 0;
  const [fin, syn, rst] = [(flags & 1) !== 0, (flags & 2) !== 0, (flags & 4) !== 0];
  const fromPort = frame.readUInt16BE(tcp);
  const toPort = frame.readUInt16BE(tcp + 2);
  const ack = frame.readUInt32BE(tcp + 8);
  if ((flags & 0x10) !== 0 && !rst) noteAck(from, fromPort, to, toPort, ack);
  if (!(fin || syn || rst) || flagged.length >= maxFlagged || damaged(tcp, length, flags)) return;
  flagged.push({
    timeMs,
    from,
    fromPort,
    to,
    toPort,
    seq: frame.readUInt32BE(tcp + 4),
    ack,
    syn,
    fin,
    rst,
  });
}

const senders = new Map<string, Sender>();

function noteSender(): void {
  const mac = (frame.toString("hex", 6, 12).match(/../g) ?? []).join(":");
  const known = senders.get(mac);
  if (known === undefined) senders.set(mac, { mac, frames: 1, first: frames, last: frames });
  else {
    known.frames++;
    known.last = frames;
  }
}

const session = new cap.Cap();
try {
  session.open(device, filter, kernelBufferBytes, frame);
} catch (error) {
  console.error(`cannot capture on ${device}: ${(error as Error).message}`);
  process.exit(1);
}
session.on("packet", (length) => {
  const timeMs = Date.now();
  frames++;
  bytes += length;
  writeFrame(timeMs, length);
  noteSender();
  noteTcp(timeMs, length);
});
process.stdout.write("ready\n");
process.stdin.setEncoding("utf8").on("data", (text) => {
  if (!String(text).includes("reset")) return;
  for (const known of acks.values()) known.gap.longestGapMs = 0;
});
process.stdin.on("end", () => {
  // What the kernel has already taken is read first.
  setTimeout(() => {
    session.close();
    if (output !== null) closeSync(output);
    const gaps = [...acks.values()].map(({ gap }) => gap);
    process.stdout.write(`${JSON.stringify({ frames, bytes, flagged, gaps, senders: [...senders.values()] })}\n`, () =>
      process.exit(0),
    );
  }, 50);
});
