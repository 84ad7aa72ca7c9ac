// The output an application has produced and that is not known to be recorded from the active: counts stream offsets,
// keeps exactly the bytes that a takeover might have to send (standby) or that a confirm has to bring along (active).
// Pure; no I/O.

/** Bytes of one block; small writes share one. */
const BLOCK = 4096;

export class HeldOutput {
  #blocks: Buffer[] = [];
  /** Bytes used in the last block. */
  #tail = 0;
  /** Bytes of the first block that are dropped already. */
  #head = 0;
  #produced: number;
  #released: number;

  /** `released`: the offset up to which the output needs nothing from us; `produced`: that of the first byte to come. */
  constructor(released = 0, produced = 0) {
    this.#released = released;
    this.#produced = produced;
  }

  /** Stream offset of the next byte the application will produce. */
  get produced(): number {
    return this.#produced;
  }

  /** Stream offset up to which the output is on its way without us. */
  get released(): number {
    return this.#released;
  }

  /** Bytes kept: [released, produced), or 0 if the application is behind. */
  get bytes(): number {
    return Math.max(0, this.#produced - this.#released);
  }

  /** Keeps a copy of what is not released; the caller may use its buffer again. */
  hold(chunk: Buffer): void {
    let rest = this.#beyond(chunk);
    while (rest.length > 0) {
      let last = this.#blocks.at(-1);
      if (last === undefined || this.#tail === last.length) {
        last = Buffer.allocUnsafeSlow(Math.max(BLOCK, rest.length));
        this.#blocks.push(last);
        this.#tail = 0;
      }
      const taken = rest.copy(last, this.#tail);
      this.#tail += taken;
      rest = rest.subarray(taken);
    }
  }

  /** A copy of [start, end), which must be held: released <= start, end <= produced. */
  copy(start: number, end: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(end - start);
    let at = 0;
    let skip = start - this.#released;
    for (const view of this.#views()) {
      if (at === bytes.length) break;
      if (skip >= view.length) skip -= view.length;
      else {
        at += view.copy(bytes, at, skip);
        skip = 0;
      }
    }
    return bytes;
  }

  /** Drops what lies before `offset`. False, and nothing is done, if `offset` is before what was released already: those
   * bytes are gone. */
  release(offset: number): boolean {
    if (offset < this.#released) return false;
    let drop = Math.min(this.bytes, offset - this.#released);
    this.#released = offset;
    let blocks = 0;
    while (drop > 0) {
      const block = this.#blocks[blocks] as Buffer;
      const used = (blocks === this.#blocks.length - 1 ? this.#tail : block.length) - this.#head;
      const step = Math.min(drop, used);
      drop -= step;
      this.#head += step;
      if (step === used) {
        blocks++;
        this.#head = 0;
      }
    }
    if (blocks > 0) this.#blocks.splice(0, blocks);
    if (this.#blocks.length === 0) this.#tail = 0;
    return true;
  }

  /** Hands over what is kept, in order; from here on it counts as released. */
  take(): Buffer[] {
    const views = this.#views();
    this.#blocks = [];
    this.#head = 0;
    this.#tail = 0;
    this.#released = Math.max(this.#released, this.#produced);
    return views;
  }

  /** After take(): returns the part of `chunk` that is not released (a view, perhaps empty), for sending at once. */
  pass(chunk: Buffer): Buffer {
    const rest = this.#beyond(chunk);
    this.#released = Math.max(this.#released, this.#produced);
    return rest;
  }

  #views(): Buffer[] {
    const last = this.#blocks.length - 1;
    return this.#blocks.map((block, index) =>
      block.subarray(index === 0 ? this.#head : 0, index === last ? this.#tail : block.length),
    );
  }

  #beyond(chunk: Buffer): Buffer {
    const start = this.#produced;
    this.#produced += chunk.length;
    if (start >= this.#released) return chunk;
    return chunk.subarray(Math.min(chunk.length, this.#released - start));
  }
}
