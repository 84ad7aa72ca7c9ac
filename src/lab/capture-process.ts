// The process behind a Capture: DEVICE FILTER [FILE]. Prints "ready", captures until its standard input ends, then
// prints the summary as JSON. Started inside the namespace.

import { closeSync, openSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import type { FlaggedSegment } from "./capture.js";

interface CapSession {
  open(device: string, filter: string, bufferBytes: number, buffer: Buffer): string;
  setMinBytes?(bytes: number): void;
  on(event: "packet", listener: (bytes: number, truncated: boolean) => void): void;
  close(): void;
}
const { Cap } = createRequire(import.meta.url)("cap") as { Cap: new () => CapSession };

const [device, filter, file] = process.argv.slice(2);
if (device === undefined || filter === undefined) {
  console.error("usage: capture-process DEVICE FILTER [FILE]");
  process.exit(2);
}

const maxFlagged = 100_000;
const kernelBufferBytes = 32 << 20;
const frame = Buffer.alloc(65_536);
const flagged: FlaggedSegment[] = [];
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
  if (!(fin || syn || rst) || flagged.length >= maxFlagged) return;
  flagged.push({
    timeMs,
    from,
    fromPort: frame.readUInt16BE(tcp),
    to,
    toPort: frame.readUInt16BE(tcp + 2),
    seq: frame.readUInt32BE(tcp + 4),
    ack: frame.readUInt32BE(tcp + 8),
    syn,
    fin,
    rst,
  });
}

const session = new Cap();
try {
  session.open(device, filter, kernelBufferBytes, frame);
} catch (error) {
  console.error(`cannot capture on ${device}: ${(error as Error).message}`);
  process.exit(1);
}
session.setMinBytes?.(0);
session.on("packet", (length) => {
  const timeMs = Date.now();
  frames++;
  bytes += length;
  writeFrame(timeMs, length);
  noteTcp(timeMs, length);
});
process.stdout.write("ready\n");
process.stdin.resume().on("end", () => {
  // What the kernel has already taken is read first.
  setTimeout(() => {
    session.close();
    if (output !== null) closeSync(output);
    process.stdout.write(`${JSON.stringify({ frames, bytes, flagged })}\n`, () => process.exit(0));
  }, 50);
});
