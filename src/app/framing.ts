// The framing of messages that carry bytes and descriptors: one JSON object a line, the byte strings it announces in
// `parts` right behind its newline, descriptors in the order of the messages that name them. Knows nothing about what
// the messages mean. Applications speak it over a Unix socket, the two agents over TLS (without descriptors).

import { refusal } from "./errors.js";

const NEWLINE = 0x0a;
const NOTHING = Buffer.alloc(0);
const MAX_PARTS = 16;

/** What one message may hold at most. */
export interface FrameLimits {
  /** Bytes of the line, without its newline. */
  line: number;
  /** Bytes of all parts together. */
  parts: number;
  /** Descriptors. */
  fds: number;
  /** Descriptors that may come ahead of the message that names them: messages that were sent together, cut in two. */
  fdsAhead: number;
}

/** A message as the framing delivers it: a JSON object with its type, its parts, and the descriptors it named. */
export interface RawMessage {
  type: string;
  body: unknown;
  parts: Buffer[];
  fds: number[];
}

/** A message without what the framing adds to it. */
export type Unframed<Message> = Message extends unknown ? Omit<Message, "parts"> : never;

/** What the framing itself needs of a message; written out, since each message of a takeover of many waits for it. */
interface Envelope {
  type: string;
  fds: number;
  parts: number[];
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function readEnvelope(body: object, limits: FrameLimits): Envelope {
  const { type, fds = 0, parts = [] } = body as Record<string, unknown>;
  const well = typeof type === "string" && type.length >= 1 && type.length <= 64 && isCount(fds) && fds <= limits.fds;
  if (!well || !Array.isArray(parts) || parts.length > MAX_PARTS || !parts.every(isCount)) {
    const limit = `fds from 0 to ${limits.fds} and parts with byte counts, if any`;
    throw refusal("bad-message", `It needs a type, ${limit}.`);
  }
  return { type, fds, parts };
}

/** The message whose parts are awaited, and how long they are. */
interface AwaitedParts {
  message: RawMessage;
  lengths: number[];
  total: number;
}

/** One message as bytes: its line, newline included, and its parts. Throws TandemError `line-too-long`. */
export function encodeFrame(message: { type: string }, parts: readonly Uint8Array[], maxLine: number): Buffer {
  const json = JSON.stringify(message);
  const lengths = parts.map((part) => part.length);
  const text = parts.length === 0 ? json : `${json.slice(0, -1)},"parts":[${lengths.join(",")}]}`;
  const line = Buffer.from(`${text}\n`);
  if (line.length - 1 > maxLine) throw refusal("line-too-long");
  return lengths.some((length) => length > 0) ? Buffer.concat([line, ...parts]) : line;
}

/** Puts messages together from the pieces a stream delivers. Holds at most one unfinished message. */
export class MessageReader {
  readonly #limits: FrameLimits;
  #pieces: Buffer[] = [];
  /** Bytes in #pieces. */
  #bytes = 0;
  #awaiting: AwaitedParts | null = null;
  #fds: number[] = [];
  #open = true;
  readonly #utf8 = new TextDecoder("utf-8", { fatal: true });

  constructor(limits: FrameLimits) {
    this.#limits = limits;
  }

  /** Calls `deliver` for every message completed by `data`, in order. `fds` came with this data or before it. Throws
   * TandemError when the stream cannot be understood any more: then call abandon() and close the connection. */
  push(data: Uint8Array, fds: readonly number[], deliver: (message: RawMessage) => void): void {
    this.#fds.push(...fds);
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    let start = 0;
    while (this.#open) {
      const next =
        this.#awaiting === null ? this.#takeLine(bytes, start, deliver) : this.#takeParts(bytes, start, deliver);
      if (next < 0) break;
      start = next;
    }
    // A descriptor comes with the first byte of its message, or ahead of it.
    const unfinished = this.#bytes > 0 && this.#awaiting === null;
    const { fds: most, fdsAhead } = this.#limits;
    if (this.#fds.length > (unfinished ? Math.max(most, fdsAhead) : fdsAhead)) throw refusal("unexpected-descriptors");
  }

  /** Stops delivering, and returns the descriptors no message that was delivered has claimed, for closing. */
  abandon(): number[] {
    this.#open = false;
    return [...(this.#awaiting?.message.fds.splice(0) ?? []), ...this.#fds.splice(0)];
  }

  /** Returns where the next bytes begin; -1: all are taken and the line is unfinished. */
  #takeLine(bytes: Buffer, start: number, deliver: (message: RawMessage) => void): number {
    const end = bytes.indexOf(NEWLINE, start);
    const piece = bytes.subarray(start, end < 0 ? bytes.length : end);
    if (this.#bytes + piece.length > this.#limits.line) throw refusal("line-too-long");
    if (end < 0) {
      this.#keep(piece);
      return -1;
    }
    const { message, lengths } = this.#decode(this.#assemble(piece));
    const total = lengths.reduce((sum, length) => sum + length, 0);
    if (total > this.#limits.parts) {
      this.#fds.unshift(...message.fds);
      throw refusal("parts-too-large", `${total} of at most ${this.#limits.parts}.`);
    }
    if (total === 0) {
      // As of most sessions that are taken over: nothing to cut out of the bytes.
      for (const _ of lengths) message.parts.push(NOTHING);
      deliver(message);
    } else this.#awaiting = { message, lengths, total };
    return end + 1;
  }

  /** As #takeLine, for the parts of the message whose line was read last. */
  #takeParts(bytes: Buffer, start: number, deliver: (message: RawMessage) => void): number {
    const { message, lengths, total } = this.#awaiting as AwaitedParts;
    const piece = bytes.subarray(start, start + total - this.#bytes);
    if (this.#bytes + piece.length < total) {
      this.#keep(piece);
      return -1;
    }
    const all = this.#pieces.length === 0 ? Buffer.from(piece) : this.#assemble(piece);
    let at = 0;
    for (const length of lengths) {
      message.parts.push(all.subarray(at, at + length));
      at += length;
    }
    this.#awaiting = null;
    deliver(message);
    return start + piece.length;
  }

  /** A copy: the caller may use its buffer again. */
  #keep(piece: Buffer): void {
    if (piece.length > 0) this.#pieces.push(Buffer.from(piece));
    this.#bytes += piece.length;
  }

  #assemble(last: Buffer): Buffer {
    const whole = this.#pieces.length === 0 ? last : Buffer.concat([...this.#pieces, last]);
    this.#pieces = [];
    this.#bytes = 0;
    return whole;
  }

  #decode(line: Buffer): { message: RawMessage; lengths: number[] } {
    let body: unknown;
    try {
      body = JSON.parse(this.#utf8.decode(line));
    } catch (error) {
      throw refusal("bad-json", "", { cause: error });
    }
    if (typeof body !== "object" || body === null || Array.isArray(body)) throw refusal("bad-json");
    const { type, fds, parts } = readEnvelope(body, this.#limits);
    if (fds > this.#fds.length) throw refusal("unexpected-descriptors");
    return { message: { type, body, parts: [], fds: this.#fds.splice(0, fds) }, lengths: parts };
  }
}
