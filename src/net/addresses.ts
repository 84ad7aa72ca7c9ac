// Addresses between text and bytes: IP as the 16 bytes of the data plane (td_flow_key) and in canonical text, and MAC.
import net from "node:net";

export interface IpBytes {
  family: 4 | 6;
  /** 16 bytes in network order; IPv4 in the first 4. */
  bytes: Uint8Array;
}

/** Throws RangeError on what is not an address. */
export function parseIp(text: string): IpBytes {
  const bytes = new Uint8Array(16);
  if (net.isIPv4(text)) {
    bytes.set(text.split(".").map(Number));
    return { family: 4, bytes };
  }
  if (!net.isIPv6(text)) throw new RangeError(`${text} is not an IP address`);
  let address = text.split("%")[0] ?? "";
  const embedded = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  if (embedded) {
    const [a = 0, b = 0, c = 0, d = 0] = (embedded[2] ?? "").split(".").map(Number);
    address = `${embedded[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head = "", tail] = address.split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16)));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const all = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  all.forEach((group, index) => {
    bytes[index * 2] = group >> 8;
    bytes[index * 2 + 1] = group & 0xff;
  });
  return { family: 6, bytes };
}

/** The inverse of parseIp; IPv6 in the compressed form of RFC 5952. */
export function formatIp(family: number, bytes: Uint8Array): string {
  if (family === 4) return bytes.subarray(0, 4).join(".");
  const groups = Array.from({ length: 8 }, (_, index) => ((bytes[index * 2] ?? 0) << 8) | (bytes[index * 2 + 1] ?? 0));
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const text = groups.map((group) => group.toString(16));
  if (best.start < 0) return text.join(":");
  return `${text.slice(0, best.start).join(":")}::${text.slice(best.start + best.length).join(":")}`;
}

/** An address with or without /LENGTH (without: all of it). Null: it is neither. */
export function parsePrefix(text: string): (IpBytes & { bits: number }) | null {
  const [, address = "", length] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  if (net.isIP(address) === 0) return null;
  const ip = parseIp(address);
  const most = ip.family === 4 ? 32 : 128;
  const bits = length === undefined ? most : Number(length);
  return bits <= most ? { ...ip, bits } : null;
}

/** Are the first `bits` bits the same? */
export function samePrefix(one: Uint8Array, other: Uint8Array, bits: number): boolean {
  const whole = bits >> 3;
  for (let at = 0; at < whole; at++) if (one[at] !== other[at]) return false;
  const rest = 0xff00 >> (bits & 7);
  return (bits & 7) === 0 || (((one[whole] ?? 0) ^ (other[whole] ?? 0)) & rest & 0xff) === 0;
}

/** Six bytes as 02:00:00:00:00:01. */
export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** The inverse. */
export function parseMac(text: string): Uint8Array {
  return Uint8Array.from(text.split(":"), (byte) => Number.parseInt(byte, 16));
}
