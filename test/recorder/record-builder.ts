// Real record bytes for the recorder's tests: true frames under true td_record headers, in the ring reader's batches.

import {
  offsets,
  sizes,
  TD_RECORD_CHECKSUM_OK,
  TD_RECORD_OUT,
  TD_RECORD_STAMP,
  TD_RECORD_TS,
} from "../../src/abi.gen.js";
import { writeKey } from "../../src/session/flow-key.js";
import { buildFrame, TCP_ACK, TCP_SYN } from "../../src/session/segment.js";
import { encodeTcpOptions, type TcpOptions } from "../../src/session/tcp-options.js";

const R = offsets.td_record;
const mac = new Uint8Array([2, 0, 0, 0, 0, 1]);

export interface BuiltSegment {
  out: boolean;
  seq: number;
  ack: number;
  flags: number;
  window?: number;
  payload?: Uint8Array;
  timestamps?: { value: number; echo: number } | null;
  options?: Partial<TcpOptions>;
  stamp?: { copied: number; written: number; received: number };
  checksumOk?: boolean;
  epoch?: number;
  timeNs?: number;
}

export interface BuiltFlow {
  flow: number;
  family: 4 | 6;
  localIp: Uint8Array;
  peerIp: Uint8Array;
  localPort: number;
  peerPort: number;
  service: number;
}

export function flowOf(flow: number, family: 4 | 6 = 4, service = 1): BuiltFlow {
  const localIp = new Uint8Array(16);
  const peerIp = new Uint8Array(16);
  localIp.set(family === 4 ? [10, 0, 0, 1] : [0xfd, 0, 0, 1]);
  peerIp.set(family === 4 ? [10, 1, flow >> 8, flow & 255] : [0xfd, 0, 0, 2, 0, 0, flow >> 8, flow & 255]);
  return { flow, family, localIp, peerIp, localPort: 80, peerPort: 1024 + (flow % 60000), service };
}

export function keyOf(flow: BuiltFlow): Uint8Array {
  return writeKey(flow.family, flow.localIp, flow.localPort, flow.peerIp, flow.peerPort);
}

/** One sample as Ring.drain writes it, length word included. */
export function buildSample(flow: BuiltFlow, segment: BuiltSegment): Uint8Array {
  const payload = segment.payload ?? new Uint8Array(0);
  const timestamps = segment.timestamps ?? segment.options?.timestamps ?? null;
  const frame = buildFrame(
    {
      family: flow.family,
      sourceIp: segment.out ? flow.localIp : flow.peerIp,
      destinationIp: segment.out ? flow.peerIp : flow.localIp,
      sourcePort: segment.out ? flow.localPort : flow.peerPort,
      destinationPort: segment.out ? flow.peerPort : flow.localPort,
      seq: segment.seq,
      ack: segment.ack,
      flags: segment.flags,
      window: segment.window ?? 65535,
      payload,
      timestamps: segment.options ? null : timestamps,
      ...(segment.options ? { options: encodeTcpOptions(segment.options) } : {}),
    },
    mac,
    mac,
  );
  const length = sizes.td_record + frame.length;
  const bytes = new Uint8Array((8 + length + 7) & ~7);
  const view = new DataView(bytes.buffer);
  const at = 8;
  view.setUint32(0, length, true);
  view.setUint32(4, 1, true);
  view.setBigUint64(at + R.time_ns, BigInt(Math.round(segment.timeNs ?? 1e9)), true);
  view.setUint32(at + R.flow, flow.flow, true);
  view.setUint32(at + R.seq, segment.seq >>> 0, true);
  view.setUint32(at + R.ack, segment.ack >>> 0, true);
  let flags = segment.out ? TD_RECORD_OUT : 0;
  if (segment.checksumOk !== false) flags |= TD_RECORD_CHECKSUM_OK;
  if (timestamps) {
    flags |= TD_RECORD_TS;
    view.setUint32(at + R.tsval, timestamps.value, true);
    view.setUint32(at + R.tsecr, timestamps.echo, true);
  }
  if (segment.stamp) {
    flags |= TD_RECORD_STAMP;
    view.setUint32(at + R.copied_seq, segment.stamp.copied >>> 0, true);
    view.setUint32(at + R.write_seq, segment.stamp.written >>> 0, true);
    view.setUint32(at + R.rcv_nxt, segment.stamp.received >>> 0, true);
  }
  const l4 = 14 + (flow.family === 4 ? 20 : 40);
  view.setUint16(at + R.window, segment.window ?? 65535, true);
  view.setUint16(at + R.frame_length, frame.length, true);
  view.setUint16(at + R.l3_offset, 14, true);
  view.setUint16(at + R.l4_offset, l4, true);
  view.setUint16(at + R.payload_offset, frame.length - payload.length, true);
  view.setUint16(at + R.payload_length, payload.length, true);
  view.setUint16(at + R.service, flow.service, true);
  bytes[at + R.tcp_flags] = segment.flags;
  bytes[at + R.flags] = flags;
  view.setUint32(at + R.epoch, segment.epoch ?? 1, true);
  bytes.set(keyOf(flow), at + R.key);
  bytes.set(frame, at + sizes.td_record);
  return bytes;
}

export function batchOf(samples: Uint8Array[]): Uint8Array {
  const batch = new Uint8Array(samples.reduce((sum, sample) => sum + sample.length, 0));
  let at = 0;
  for (const sample of samples) {
    batch.set(sample, at);
    at += sample.length;
  }
  return batch;
}

export const offer: Partial<TcpOptions> = { mss: 1460, wscale: 7, sack: true, timestamps: { value: 1000, echo: 0 } };

/** A conversation by stream offsets: what both sides would send, as samples. */
export class Conversation {
  /** Sequence numbers of the two SYNs. */
  readonly isnIn: number;
  readonly isnOut: number;
  clockNs = 1e9;

  constructor(
    readonly flow: BuiltFlow,
    options: { isnIn?: number; isnOut?: number } = {},
  ) {
    this.isnIn = options.isnIn ?? 5000;
    this.isnOut = options.isnOut ?? 9_000_000;
  }

  seqIn(offset: number): number {
    return (this.isnIn + 1 + offset) >>> 0;
  }
  seqOut(offset: number): number {
    return (this.isnOut + 1 + offset) >>> 0;
  }

  /** SYN, SYN-ACK, ACK. */
  handshake(options: Partial<TcpOptions> = offer): Uint8Array[] {
    return [this.syn(options), this.synAck(options), this.in({ at: 0, ack: 0 })];
  }
  syn(options: Partial<TcpOptions> = offer, more: Partial<BuiltSegment> = {}): Uint8Array {
    return this.#sample({ out: false, seq: this.isnIn, ack: 0, flags: TCP_SYN, options, ...more });
  }
  synAck(options: Partial<TcpOptions> = offer, more: Partial<BuiltSegment> = {}): Uint8Array {
    const flags = TCP_SYN | TCP_ACK;
    return this.#sample({ out: true, seq: this.isnOut, ack: this.seqIn(0), flags, options, ...more });
  }
  /** A segment of the peer at input offset `at`, acknowledging output offset `ack`. */
  in(segment: { at: number; ack: number } & Partial<BuiltSegment>): Uint8Array {
    const { at, ack, ...more } = segment;
    return this.#sample({ out: false, seq: this.seqIn(at), ack: this.seqOut(ack), flags: TCP_ACK, ...more });
  }
  /** A segment of the active at output offset `at`, acknowledging input offset `ack`. */
  out(segment: { at: number; ack: number } & Partial<BuiltSegment>): Uint8Array {
    const { at, ack, ...more } = segment;
    return this.#sample({ out: true, seq: this.seqOut(at), ack: this.seqIn(ack), flags: TCP_ACK, ...more });
  }
  #sample(segment: BuiltSegment): Uint8Array {
    return buildSample(this.flow, { timeNs: this.clockNs, ...segment });
  }
}
