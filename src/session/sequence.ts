// TCP sequence numbers (modulo 2^32) against stream offsets (64-bit inside, numbers exact to 2^53 bytes: 8 PiB a stream).
// Only here and at the edge is anything modulo.

/** The offset nearest to `near` whose sequence number is `seq`; `first` is the sequence number of offset 0 (ISN + 1).
 * Right as long as the true offset is less than 2^31 away from `near`. May be negative (before the stream). */
export function offsetOf(seq: number, first: number, near: number): number {
  return near + ((seq - first - near) | 0);
}

/** The sequence number, 0..2^32-1, of a stream offset. */
export function sequenceOf(offset: number, first: number): number {
  return (first + offset) >>> 0;
}

/** True when `a` comes before `b` in the sense of RFC 9293, section 3.4. Also right for timestamps (RFC 7323). */
export function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}
