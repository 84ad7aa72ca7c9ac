// Which TCP MD5 key (RFC 2385) the configuration has for a session: by service and peer, the longest prefix first.

import { offsets } from "../abi.gen.js";
import { samePrefix } from "../net/addresses.js";

export interface Md5Key {
  /** Place of the service in the configuration. */
  service: number;
  family: 4 | 6;
  /** Of the peers, 16 bytes as in td_flow_key, of which the first `bits` bits count. */
  prefix: Uint8Array;
  bits: number;
  key: Uint8Array;
}

const K = offsets.td_flow_key;

/** `key`: td_flow_key. Null: none is configured. */
export function md5KeyOf(keys: readonly Md5Key[], service: number, key: Uint8Array): Uint8Array | null {
  const peer = key.subarray(K.peer_ip, K.peer_ip + 16);
  let best: Md5Key | null = null;
  for (const each of keys)
    if (
      each.service === service &&
      each.family === key[K.family] &&
      each.bits > (best?.bits ?? -1) &&
      samePrefix(each.prefix, peer, each.bits)
    )
      best = each;
  return best?.key ?? null;
}
