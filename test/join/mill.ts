// The mill: a service whose output tells everything about what its application has processed. A message is a 4-byte
// length and a payload; the state is a chain of hashes over all payloads, and the answer to each is a key stream of the
// chain. One byte of input lost, repeated or changed, or a state that does not belong to its offset, and every later byte
// of output is wrong. Peer and server compute the same.

import { createCipheriv, createHash } from "node:crypto";

const emptyChain = Buffer.alloc(32);
const zeros = Buffer.alloc(1 << 16);
const iv = Buffer.alloc(16);

export interface MillState {
  /** Messages processed. */
  count: number;
  chain: Buffer;
}

export const millStart: MillState = { count: 0, chain: emptyChain };

export function grind(state: MillState, payload: Uint8Array): { state: MillState; output: Buffer } {
  const chain = createHash("sha256").update(state.chain).update(payload).digest();
  const most = (chain[0] as number) < 8 ? 1 << 16 : 400;
  const length = 1 + (chain.readUInt32BE(4) % most);
  const output = createCipheriv("aes-256-ctr", chain, iv).update(zeros.subarray(0, length));
  return { state: { count: state.count + 1, chain }, output };
}

export function packState({ count, chain }: MillState): Buffer {
  const bytes = Buffer.alloc(40);
  bytes.writeBigUInt64BE(BigInt(count));
  chain.copy(bytes, 8);
  return bytes;
}

export function unpackState(bytes: Uint8Array): MillState {
  if (bytes.length === 0) return millStart;
  const buffer = Buffer.from(bytes);
  if (buffer.length !== 40) throw new Error(`a state of ${buffer.length} bytes`);
  return { count: Number(buffer.readBigUInt64BE()), chain: buffer.subarray(8) };
}

export function frame(payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(4 + payload.length);
  bytes.writeUInt32BE(payload.length);
  bytes.set(payload, 4);
  return bytes;
}

/** Numbers in [0, 1) that are the same for the same seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}
