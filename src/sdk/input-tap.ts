// What a stream has taken from its source and its application has not had yet. A hand-over needs these bytes, and the
// stream does not show them; so every chunk is kept, by reference, until the application has it.

import type { Readable } from "node:stream";

export class InputTap {
  readonly #stream: Readable;
  #kept: Buffer[] = [];
  #bytes = 0;

  /** Bytes that the stream holds already are not known here: see unread(). */
  constructor(stream: Readable) {
    this.#stream = stream;
    const push = stream.push.bind(stream);
    stream.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
      if (chunk instanceof Buffer) {
        this.#kept.push(chunk);
        this.#bytes += chunk.length;
      }
      const more = push(chunk, encoding);
      this.#forget();
      return more;
    };
  }

  /** The bytes that the stream holds and its application has not had, as a copy. Null: some of them came before the tap,
   * or were put back by unshift(). */
  unread(): Buffer | null {
    this.#forget();
    const length = this.#stream.readableLength;
    return this.#bytes < length ? null : Buffer.concat(this.#kept).subarray(this.#bytes - length);
  }

  /** Drops the chunks that the application has had. */
  #forget(): void {
    let chunks = 0;
    for (const chunk of this.#kept) {
      if (this.#bytes - chunk.length < this.#stream.readableLength) break;
      this.#bytes -= chunk.length;
      chunks++;
    }
    if (chunks > 0) this.#kept.splice(0, chunks);
  }
}
