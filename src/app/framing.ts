// The framing of the application protocol: one JSON object a line, descriptors in the order of the messages that
// name them. Knows nothing about what the messages mean.

import { z } from "zod";
import { refusal } from "./errors.js";
import { type AgentMessage, type ApplicationMessage, MAX_FDS, MAX_LINE, type RawMessage } from "./messages.js";

const NEWLINE = 0x0a;
const envelope = z.looseObject({
  type: z.string().min(1).max(64),
  fds: z.number().int().min(0).max(MAX_FDS).optional(),
});

/** One message as bytes, newline included. Throws TandemError `line-too-long`. */
export function encodeMessage(message: AgentMessage | ApplicationMessage): Buffer {
  const line = Buffer.from(`${JSON.stringify(message)}\n`);
  if (line.length - 1 > MAX_LINE) throw refusal("line-too-long");
  return line;
}

/** Puts lines together from the pieces a stream socket delivers. Holds at most one unfinished line. */
export class MessageReader {
  #pieces: Buffer[] = [];
  #bytes = 0;
  #fds: number[] = [];
  #open = true;
  readonly #utf8 = new TextDecoder("utf-8", { fatal: true });

  /** Calls `deliver` for every message completed by `data`, in order. `fds` came with this data or before it. Throws
   * TandemError when the stream cannot be understood any more: then call abandon() and close the connection. */
  push(data: Uint8Array, fds: readonly number[], deliver: (message: RawMessage) => void): void {
    this.#fds.push(...fds);
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    let start = 0;
    while (this.#open) {
      const end = bytes.indexOf(NEWLINE, start);
      const piece = bytes.subarray(start, end < 0 ? bytes.length : end);
      if (this.#bytes + piece.length > MAX_LINE) throw refusal("line-too-long");
      if (end < 0) {
        // A copy: the caller may use its buffer again.
        if (piece.length > 0) this.#pieces.push(Buffer.from(piece));
        this.#bytes += piece.length;
        break;
      }
      start = end + 1;
      const line = this.#pieces.length === 0 ? piece : Buffer.concat([...this.#pieces, piece]);
      this.#pieces = [];
      this.#bytes = 0;
      deliver(this.#decode(line));
    }
    // A descriptor comes with the first byte of its message; what is left over can only belong to an unfinished line.
    if (this.#fds.length > (this.#bytes === 0 ? 0 : MAX_FDS)) throw refusal("unexpected-descriptors");
  }

  /** Stops delivering, and returns the descriptors no message has claimed, for closing. */
  abandon(): number[] {
    this.#open = false;
    return this.#fds.splice(0);
  }

  #decode(line: Buffer): RawMessage {
    let body: unknown;
    try {
      body = JSON.parse(this.#utf8.decode(line));
    } catch (error) {
      throw refusal("bad-json", "", { cause: error });
    }
    if (typeof body !== "object" || body === null || Array.isArray(body)) throw refusal("bad-json");
    const parsed = envelope.safeParse(body);
    if (!parsed.success) throw refusal("bad-message", "It needs a type, and fds from 0 to 8 if any.");
    const wanted = parsed.data.fds ?? 0;
    if (wanted > this.#fds.length) throw refusal("unexpected-descriptors");
    return { type: parsed.data.type, body, fds: this.#fds.splice(0, wanted) };
  }
}
