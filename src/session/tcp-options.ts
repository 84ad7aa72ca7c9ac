// A bounded parser of TCP options (RFC 9293, section 3.1): never reads outside the range it is given.

export interface TcpOptions {
  /** RFC 9293, 3.7.1; null: not there. */
  mss: number | null;
  /** RFC 7323, 2.2; at most 14; null: not there. */
  wscale: number | null;
  /** RFC 2018. */
  sack: boolean;
  /** RFC 7323, 3. */
  timestamps: { value: number; echo: number } | null;
  /** MP_CAPABLE (RFC 8684, 3.1). */
  mptcp: boolean;
  /** MD5 (RFC 2385) or TCP-AO (RFC 5925). */
  authenticated: boolean;
}

/** The options in bytes [start, end) of `bytes`. What is malformed ends the parsing, as it does in the kernel
 * (net/ipv4/tcp_input.c, tcp_parse_options): what came before it counts. */
export function parseTcpOptions(bytes: Uint8Array, start: number, end: number): TcpOptions {
  const found: TcpOptions = {
    mss: null,
    wscale: null,
    sack: false,
    timestamps: null,
    mptcp: false,
    authenticated: false,
  };
  const stop = Math.min(end, bytes.length);
  const byte = (at: number): number => bytes[at] as number;
  const word = (at: number): number =>
    ((byte(at) << 24) | (byte(at + 1) << 16) | (byte(at + 2) << 8) | byte(at + 3)) >>> 0;
  let at = start;
  while (at < stop) {
    const kind = byte(at);
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    if (at + 1 >= stop) break;
    const length = byte(at + 1);
    if (length < 2 || at + length > stop) break;
    if (kind === 2 && length === 4) found.mss = (byte(at + 2) << 8) | byte(at + 3);
    else if (kind === 3 && length === 3) found.wscale = Math.min(14, byte(at + 2));
    else if (kind === 4 && length === 2) found.sack = true;
    else if (kind === 8 && length === 10) found.timestamps = { value: word(at + 2), echo: word(at + 6) };
    else if (kind === 19 || kind === 29) found.authenticated = true;
    else if (kind === 30 && length >= 3 && byte(at + 2) >> 4 === 0) found.mptcp = true;
    at += length;
  }
  return found;
}

/** The options of a SYN or SYN-ACK as bytes, padded to a multiple of 4, in the order Linux sends them. */
export function encodeTcpOptions(options: Partial<TcpOptions>): Uint8Array {
  const out: number[] = [];
  const word = (value: number): void => {
    out.push(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
  };
  if (options.mss != null) out.push(2, 4, options.mss >> 8, options.mss & 255);
  if (options.timestamps) {
    out.push(...(options.sack ? [4, 2] : [1, 1]), 8, 10);
    word(options.timestamps.value);
    word(options.timestamps.echo);
  } else if (options.sack) out.push(1, 1, 4, 2);
  if (options.wscale != null) out.push(1, 3, 3, options.wscale);
  return Uint8Array.from(out);
}
