// Names of sessions: td_flow_key as bytes, as a map key, and as people read it.

import { offsets, sizes } from "../abi.gen.js";
import { formatIp } from "../net/addresses.js";

const K = offsets.td_flow_key;

export const KEY_BYTES = sizes.td_flow_key;

/** One string for each td_flow_key, for Map lookups only. */
export function tupleOf(bytes: Uint8Array, start = 0): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, KEY_BYTES).toString("latin1");
}

export interface SessionKey {
  family: 4 | 6;
  localIp: string;
  localPort: number;
  peerIp: string;
  peerPort: number;
}

/** The same as bytes: the addresses are views into the key, 16 bytes each, an IPv4 address in the first 4. */
export interface Endpoints {
  family: 4 | 6;
  localIp: Uint8Array;
  localPort: number;
  peerIp: Uint8Array;
  peerPort: number;
}

export function endpointsOf(key: Uint8Array): Endpoints {
  const port = (at: number): number => ((key[at] as number) << 8) | (key[at + 1] as number);
  return {
    family: key[K.family] === 6 ? 6 : 4,
    localIp: key.subarray(K.local_ip, K.local_ip + 16),
    localPort: port(K.local_port),
    peerIp: key.subarray(K.peer_ip, K.peer_ip + 16),
    peerPort: port(K.peer_port),
  };
}

/** The readable form of a td_flow_key. */
export function readKey(key: Uint8Array): SessionKey {
  const { family, localIp, localPort, peerIp, peerPort } = endpointsOf(key);
  return { family, localIp: formatIp(family, localIp), localPort, peerIp: formatIp(family, peerIp), peerPort };
}

/** A td_flow_key as bytes. The addresses are 16 bytes, an IPv4 address in the first 4. */
export function writeKey(
  family: 4 | 6,
  localIp: Uint8Array,
  localPort: number,
  peerIp: Uint8Array,
  peerPort: number,
): Uint8Array {
  const bytes = new Uint8Array(KEY_BYTES);
  bytes.set(localIp, K.local_ip);
  bytes.set(peerIp, K.peer_ip);
  const view = new DataView(bytes.buffer);
  view.setUint16(K.local_port, localPort);
  view.setUint16(K.peer_port, peerPort);
  bytes[K.family] = family;
  return bytes;
}
