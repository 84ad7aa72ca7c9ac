// Builds a complete TCP segment, checksums and signature right: as an IP packet (nudges) or as an Ethernet frame (the
// injector).

import { createHash } from "node:crypto";

export const TCP_FIN = 1;
export const TCP_SYN = 2;
export const TCP_RST = 4;
export const TCP_PSH = 8;
export const TCP_ACK = 16;
export const TCP_URG = 32;

export interface SegmentFields {
  family: 4 | 6;
  /** Addresses as in td_flow_key: network order, an IPv4 address in the first 4 bytes. */
  sourceIp: Uint8Array;
  destinationIp: Uint8Array;
  sourcePort: number;
  destinationPort: number;
  seq: number;
  ack: number;
  /** TCP_* or-ed. */
  flags: number;
  /** As on the wire, unscaled. */
  window: number;
  payload: Uint8Array;
  /** RFC 7323; null: none. */
  timestamps: { value: number; echo: number } | null;
  /** Further options, a multiple of 4 bytes (SYN and SYN-ACK). */
  options?: Uint8Array;
  /** TCP MD5 key (RFC 2385); null: the session is unsigned. */
  md5?: Uint8Array | null;
}

/** What an end that checks it demands (GTSM, RFC 5082); to all others it is one value of many. */
const HOPS = 255;

/** With two NOPs in front, as Linux writes it. */
const SIGNATURE_BYTES = 20;

/** RFC 1071 over bytes [start, end), on top of a partial sum. Not folded. */
function sum16(bytes: Uint8Array, start: number, end: number, initial: number): number {
  let sum = initial;
  let at = start;
  for (; at + 1 < end; at += 2) sum += ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  if (at < end) sum += (bytes[at] as number) << 8;
  return sum;
}

function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000);
  return ~folded & 0xffff;
}

/** An IPv4 or IPv6 packet. Throws RangeError when it does not fit into one. */
export function buildPacket(fields: SegmentFields): Uint8Array {
  return build(fields, 0);
}

/** An Ethernet frame, at least 14 bytes of header and the packet; padding is the device's business. */
export function buildFrame(fields: SegmentFields, sourceMac: Uint8Array, destinationMac: Uint8Array): Uint8Array {
  const frame = build(fields, 14);
  frame.set(destinationMac.subarray(0, 6), 0);
  frame.set(sourceMac.subarray(0, 6), 6);
  frame.set(fields.family === 4 ? [0x08, 0x00] : [0x86, 0xdd], 12);
  return frame;
}

function build(fields: SegmentFields, l3: number): Uint8Array {
  const extra = fields.options ?? new Uint8Array(0);
  const key = fields.md5 ?? null;
  const headerLength = 20 + (key ? SIGNATURE_BYTES : 0) + (fields.timestamps ? 12 : 0) + extra.length;
  if (headerLength > 60 || headerLength % 4 !== 0)
    throw new RangeError(`a TCP header of ${headerLength} bytes is not possible`);
  const ipLength = fields.family === 4 ? 20 : 40;
  const addressLength = fields.family === 4 ? 4 : 16;
  const l4 = l3 + ipLength;
  const tcpLength = headerLength + fields.payload.length;
  if (ipLength + tcpLength > 65535) throw new RangeError(`${fields.payload.length} bytes do not fit into one packet`);
  const bytes = new Uint8Array(l4 + tcpLength);
  const view = new DataView(bytes.buffer);

  const addresses = fields.family === 4 ? l3 + 12 : l3 + 8;
  bytes.set(fields.sourceIp.subarray(0, addressLength), addresses);
  bytes.set(fields.destinationIp.subarray(0, addressLength), addresses + addressLength);
  if (fields.family === 4) {
    bytes[l3] = 0x45;
    view.setUint16(l3 + 2, ipLength + tcpLength);
    view.setUint16(l3 + 6, 0x4000); // do not fragment: identification 0 is then allowed (RFC 6864)
    bytes[l3 + 8] = HOPS;
    bytes[l3 + 9] = 6;
    view.setUint16(l3 + 10, fold(sum16(bytes, l3, l4, 0)));
  } else {
    bytes[l3] = 0x60;
    view.setUint16(l3 + 4, tcpLength);
    bytes[l3 + 6] = 6;
    bytes[l3 + 7] = HOPS;
  }

  view.setUint16(l4, fields.sourcePort);
  view.setUint16(l4 + 2, fields.destinationPort);
  view.setUint32(l4 + 4, fields.seq >>> 0);
  view.setUint32(l4 + 8, fields.ack >>> 0);
  bytes[l4 + 12] = (headerLength / 4) << 4;
  bytes[l4 + 13] = fields.flags;
  view.setUint16(l4 + 14, fields.window);
  let at = l4 + 20;
  if (key) {
    view.setUint32(at, 0x01011312);
    at += SIGNATURE_BYTES;
  }
  if (fields.timestamps) {
    view.setUint32(at, 0x0101080a); // two NOPs, kind 8, length 10, as RFC 7323, appendix A, recommends
    view.setUint32(at + 4, fields.timestamps.value >>> 0);
    view.setUint32(at + 8, fields.timestamps.echo >>> 0);
    at += 12;
  }
  bytes.set(extra, at);
  bytes.set(fields.payload, l4 + headerLength);
  if (key) bytes.set(signature(fields.family, bytes, l3, l4, key), l4 + 24);
  // The pseudo header of RFC 9293, 3.1, and RFC 8200, 8.1: both sum to addresses + protocol + length.
  const pseudo = sum16(bytes, addresses, addresses + 2 * addressLength, 6 + tcpLength);
  view.setUint16(l4 + 16, fold(sum16(bytes, l4, l4 + tcpLength, pseudo)));
  return bytes;
}

/** RFC 2385, 2.0: over pseudo header, TCP header without its options and with a checksum of zero, payload, key. */
function signature(family: 4 | 6, bytes: Uint8Array, l3: number, l4: number, key: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer);
  const length = bytes.length - l4;
  const rest = new DataView(new ArrayBuffer(family === 4 ? 4 : 8));
  if (family === 4) {
    rest.setUint16(0, 6);
    rest.setUint16(2, length);
  } else {
    rest.setUint32(0, length);
    rest.setUint32(4, 6);
  }
  const headerLength = (view.getUint8(l4 + 12) >> 4) * 4;
  return createHash("md5")
    .update(bytes.subarray(family === 4 ? l3 + 12 : l3 + 8, l4))
    .update(rest)
    .update(bytes.subarray(l4, l4 + 20))
    .update(bytes.subarray(l4 + headerLength))
    .update(key)
    .digest();
}

/** Unacknowledged output of a restored session, ready to be sent again from its first byte on. */
export interface UnackedOutput {
  family: 4 | 6;
  localIp: Uint8Array;
  peerIp: Uint8Array;
  localPort: number;
  peerPort: number;
  /** Sequence number of bytes[0]. */
  seq: number;
  bytes: Uint8Array;
  /** The FIN follows the last byte. */
  fin: boolean;
  ack: number;
  /** As on the wire, unscaled. */
  window: number;
  /** The restored socket's clock now, and the peer's last TSval; null: timestamps off. */
  timestamps: { value: number; echo: number } | null;
  /** TCP MD5 key; null: unsigned. */
  md5: Uint8Array | null;
  /** Most payload bytes a packet may have. */
  segmentBytes: number;
}

/** IP packets for the nudge: every unacknowledged byte once, in order, with the headers of the moment.
 * A FIN rides on the last one, or alone when there is no byte. */
export function buildUnacked(output: UnackedOutput): Uint8Array[] {
  const packets: Uint8Array[] = [];
  const total = output.bytes.length;
  for (let at = 0; at < total || (at === 0 && output.fin); ) {
    const stop = Math.min(total, at + output.segmentBytes);
    const last = stop === total;
    packets.push(
      buildPacket({
        family: output.family,
        sourceIp: output.localIp,
        destinationIp: output.peerIp,
        sourcePort: output.localPort,
        destinationPort: output.peerPort,
        seq: (output.seq + at) >>> 0,
        ack: output.ack,
        flags: TCP_ACK | (last && total > 0 ? TCP_PSH : 0) | (last && output.fin ? TCP_FIN : 0),
        window: output.window,
        payload: output.bytes.subarray(at, stop),
        timestamps: output.timestamps,
        md5: output.md5,
      }),
    );
    if (last) break;
    at = stop;
  }
  return packets;
}
