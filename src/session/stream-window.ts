// The kept part of one direction of a session: bytes [base, end) in order, and pieces beyond end that came early.
//
//        base                 end                        (all stream offsets, bytes)
//   ──────┼━━━━━━━━━━━━━━━━━━━━┼─────┃piece┃────┃piece┃───
//         └ kept, contiguous ──┘     └ at their place ──┘
//
// One circular buffer that doubles up to a limit and is given back when the session is idle. The first copy of a byte
// stays; a later one that differs is reported as a conflict, since nobody can tell which of the two a TCP has taken.

import type { MemoryBudget } from "./memory-budget.js";

const SMALLEST = 2048;
/** Up to here a loop is cheaper than the views that TypedArray.set needs. */
const LOOP_COPY = 48;
const NOTHING = Buffer.alloc(0);

export class StreamWindow {
  /** Offset of the first byte kept. */
  base: number;
  /** Offset after the last byte that is contiguous from base. */
  end: number;
  /** Hull of the bytes two copies of which differed; empty (start Infinity) when there are none. */
  conflictStart = Number.POSITIVE_INFINITY;
  conflictEnd = -1;
  #buffer = NOTHING;
  /** Where in the buffer offset base is. */
  #head = 0;
  /** Start and end offsets of the pieces beyond end: ascending, disjoint, not touching. */
  #pieces: number[] = [];

  /** `limit`: the most bytes [base, …) may span; `budget` is shared by all windows. */
  constructor(
    readonly limit: number,
    readonly budget: MemoryBudget,
    base = 0,
  ) {
    this.base = base;
    this.end = base;
  }

  /** Bytes of memory the buffer takes. */
  get capacity(): number {
    return this.#buffer.length;
  }

  /** After the last byte known, pieces included. */
  get highest(): number {
    return this.#pieces.length === 0 ? this.end : (this.#pieces[this.#pieces.length - 1] as number);
  }

  /** The early pieces as [start, end) offsets. */
  pieces(): { start: number; end: number }[] {
    const result: { start: number; end: number }[] = [];
    for (let i = 0; i < this.#pieces.length; i += 2)
      result.push({ start: this.#pieces[i] as number, end: this.#pieces[i + 1] as number });
    return result;
  }

  /** Stores `length` bytes of `source` from `start` on at stream offset `offset`; what lies before base is ignored.
   * False, and nothing stored: they do not fit into the limit or the budget. */
  write(offset: number, source: Uint8Array, start: number, length: number): boolean {
    const to = offset + length;
    let from = offset;
    if (from < this.base) {
      if (to <= this.base) return true;
      start += this.base - from;
      from = this.base;
    }
    if (from >= to) return true;
    if (to - this.base > this.#buffer.length && !this.#grow(to - this.base)) return false;
    if (from === this.end && this.#pieces.length === 0) {
      this.#store(from, source, start, to - from);
      this.end = to;
      return true;
    }
    this.#merge(from, to, source, start);
    return true;
  }

  /** Lets go of everything before `offset`; an offset beyond end counts as end. */
  trim(offset: number): void {
    if (offset <= this.base) return;
    const to = Math.min(offset, this.end);
    const capacity = this.#buffer.length;
    // Empty: from the front again, where the memory is in the cache.
    if (to === this.end && this.#pieces.length === 0) this.#head = 0;
    else if (capacity > 0) this.#head = (this.#head + (to - this.base)) % capacity;
    this.base = to;
    if (this.conflictEnd >= 0 && this.conflictEnd <= to) this.#forgetConflict();
  }

  /** As trim, but also beyond end: what is missing before `offset` will not be needed. */
  restart(offset: number): void {
    if (offset <= this.end) {
      this.trim(offset);
      return;
    }
    const pieces = this.#pieces;
    while (pieces.length > 0 && (pieces[1] as number) <= offset) pieces.splice(0, 2);
    let end = offset;
    if (pieces.length > 0 && (pieces[0] as number) <= offset) end = pieces.splice(0, 2)[1] as number;
    const capacity = this.#buffer.length;
    if (end === offset && pieces.length === 0) this.#head = 0;
    else this.#head = (this.#head + (offset - this.base)) % capacity;
    this.base = offset;
    this.end = end;
    if (this.conflictEnd >= 0 && this.conflictEnd <= offset) this.#forgetConflict();
  }

  /** Puts bytes before base; if they do not reach it, what is between is missing and the rest has come early. False, and
   * nothing changed: they do not fit. */
  prepend(offset: number, bytes: Uint8Array): boolean {
    if (bytes.length === 0) return true;
    const span = this.highest - offset;
    if (span > this.#buffer.length && !this.#grow(span)) return false;
    const capacity = this.#buffer.length;
    this.#head = (this.#head - (this.base - offset) + capacity) % capacity;
    const to = offset + bytes.length;
    if (to < this.base) {
      if (this.end > this.base) this.#pieces.unshift(this.base, this.end);
      this.end = to;
    }
    this.base = offset;
    this.#store(offset, bytes, 0, bytes.length);
    return true;
  }

  /** Stores bytes that are known to be the true ones, whatever was there; a conflict in them is settled. As write,
   * false: they do not fit. */
  overrule(offset: number, bytes: Uint8Array): boolean {
    if (!this.write(offset, bytes, 0, bytes.length)) return false;
    const from = Math.max(offset, this.base);
    const to = offset + bytes.length;
    if (from >= to) return true;
    this.#store(from, bytes, from - offset, to - from);
    if (this.conflictStart >= from && this.conflictEnd <= to) this.#forgetConflict();
    else if (this.conflictStart >= from && this.conflictStart < to) this.conflictStart = to;
    else if (this.conflictEnd > from && this.conflictEnd <= to) this.conflictEnd = from;
    return true;
  }

  /** Forgets what came early, and everything from `offset` on. */
  truncate(offset: number): void {
    this.#pieces.length = 0;
    if (offset < this.end) this.end = Math.max(offset, this.base);
    if (this.conflictStart >= this.end) this.#forgetConflict();
    else if (this.conflictEnd > this.end) this.conflictEnd = this.end;
  }

  /** Bytes [from, to) as one or two views into the buffer, valid until the next write, trim or release.
   * Throws RangeError when they are not all there. */
  read(from: number, to: number): Uint8Array[] {
    if (from >= to) return [];
    if (from < this.base || !this.#has(from, to))
      throw new RangeError(`bytes ${from}..${to} are not kept (${this.base}..${this.end})`);
    const capacity = this.#buffer.length;
    const at = (this.#head + (from - this.base)) % capacity;
    const first = Math.min(to - from, capacity - at);
    const views = [this.#buffer.subarray(at, at + first)];
    if (first < to - from) views.push(this.#buffer.subarray(0, to - from - first));
    return views;
  }

  /** A copy of the bytes [from, to). Throws as read does. */
  copy(from: number, to: number): Uint8Array {
    const result = new Uint8Array(Math.max(0, to - from));
    let at = 0;
    for (const view of this.read(from, to)) {
      result.set(view, at);
      at += view.length;
    }
    return result;
  }

  /** Gives the memory back if nothing is kept. An idle session then costs its numbers only. */
  releaseIfEmpty(): void {
    if (this.base === this.end && this.#pieces.length === 0) this.release();
  }

  /** Forgets all bytes and gives the memory back; the offsets go on from end. */
  release(): void {
    this.budget.give(this.#buffer.length);
    this.#buffer = NOTHING;
    this.#head = 0;
    this.#pieces.length = 0;
    this.base = this.end;
    this.#forgetConflict();
  }

  #forgetConflict(): void {
    this.conflictStart = Number.POSITIVE_INFINITY;
    this.conflictEnd = -1;
  }

  #has(from: number, to: number): boolean {
    if (to <= this.end) return true;
    for (let i = 0; i < this.#pieces.length; i += 2)
      if (from >= (this.#pieces[i] as number) && to <= (this.#pieces[i + 1] as number)) return true;
    return false;
  }

  #grow(needed: number): boolean {
    if (needed > this.limit) return false;
    const old = this.#buffer;
    let capacity = old.length === 0 ? SMALLEST : old.length;
    while (capacity < needed) capacity *= 2;
    if (capacity > this.limit) capacity = this.limit;
    if (!this.budget.take(capacity - old.length)) return false;
    const grown = Buffer.allocUnsafeSlow(capacity);
    if (old.length > 0) {
      // Unrolled from the head on: what wrapped round comes after it.
      old.copy(grown, 0, this.#head);
      old.copy(grown, old.length - this.#head, 0, this.#head);
    }
    this.#buffer = grown;
    this.#head = 0;
    return true;
  }

  #store(offset: number, source: Uint8Array, start: number, length: number): void {
    const buffer = this.#buffer;
    const capacity = buffer.length;
    let at = this.#head + (offset - this.base);
    if (at >= capacity) at -= capacity;
    const first = Math.min(length, capacity - at);
    if (length <= LOOP_COPY && first === length) {
      for (let i = 0; i < length; i++) buffer[at + i] = source[start + i] as number;
      return;
    }
    buffer.set(source.subarray(start, start + first), at);
    if (first < length) buffer.set(source.subarray(start + first, start + length), 0);
  }

  /** Compares bytes that are kept with another copy of them, and widens the conflict where they differ. */
  #compare(from: number, to: number, source: Uint8Array, start: number): void {
    const buffer = this.#buffer;
    const capacity = buffer.length;
    let at = (this.#head + (from - this.base)) % capacity;
    for (let done = from; done < to; ) {
      const length = Math.min(to - done, capacity - at);
      const first = start + (done - from);
      if (buffer.compare(source, first, first + length, at, at + length) !== 0) {
        for (let i = 0; i < length; i++) {
          if (buffer[at + i] === source[first + i]) continue;
          const offset = done + i;
          if (offset < this.conflictStart) this.conflictStart = offset;
          if (offset >= this.conflictEnd) this.conflictEnd = offset + 1;
        }
      }
      done += length;
      at = 0;
    }
  }

  #merge(from: number, to: number, source: Uint8Array, start: number): void {
    const origin = from - start; // offset of source[0]
    let at = from;
    if (at < this.end) {
      const stop = Math.min(to, this.end);
      this.#compare(at, stop, source, at - origin);
      at = stop;
    }
    if (at >= to) return;
    const pieces = this.#pieces;
    // The new run [runStart, runEnd) swallows every piece it overlaps or touches.
    let first = 0;
    while (first < pieces.length && (pieces[first + 1] as number) < at) first += 2;
    let runStart = at;
    let runEnd = to;
    let last = first;
    while (last < pieces.length && (pieces[last] as number) <= to) {
      const pieceStart = pieces[last] as number;
      const pieceEnd = pieces[last + 1] as number;
      if (pieceStart > at) {
        this.#store(at, source, at - origin, pieceStart - at);
        at = pieceStart;
      }
      const stop = Math.min(to, pieceEnd);
      if (stop > at) {
        this.#compare(at, stop, source, at - origin);
        at = stop;
      }
      if (pieceStart < runStart) runStart = pieceStart;
      if (pieceEnd > runEnd) runEnd = pieceEnd;
      last += 2;
    }
    if (at < to) this.#store(at, source, at - origin, to - at);
    if (runStart <= this.end) {
      this.end = runEnd;
      pieces.splice(0, last);
    } else pieces.splice(first, last - first, runStart, runEnd);
  }
}
