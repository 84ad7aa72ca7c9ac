// One interactive session as the peer has it: numbered lines out, the same lines expected back in order. Counts what
// is lost, repeated or changed, and keeps the longest silence between two answers.

import { createHash } from "node:crypto";
import type { Readable, Writable } from "node:stream";

export interface EchoReport {
  sent: number;
  received: number;
  bytesIn: number;
  bytesOut: number;
  lost: number;
  duplicated: number;
  changed: number;
  /** Of all bytes sent and of all that came back. */
  sentSha256: string;
  receivedSha256: string;
  /** Longest time between two answers, or from the last answer until now while one is owed, ms. */
  longestGapMs: number;
  /** The other side ended the session, or it failed, before we ended it. */
  brokenBy: string | null;
}

/** What the line of this number is: numbered, and of 20 to 219 bytes, so that lines and segments do not align. */
export function echoLine(number: number): string {
  return `${String(number).padStart(9, "0")} ${"abcdefghijklmnopqrstuvwxyz".repeat(9).slice(number % 26, 9 + ((number * 37) % 200) + (number % 26))}\n`;
}

export class EchoSession {
  readonly #input: Writable;
  readonly #sentHash = createHash("sha256");
  readonly #receivedHash = createHash("sha256");
  #sent = 0;
  #received = 0;
  #bytesIn = 0;
  #bytesOut = 0;
  #lost = 0;
  #duplicated = 0;
  #changed = 0;
  #longestGapMs = 0;
  #lastAnswer = performance.now();
  #brokenBy: string | null = null;
  #partial = "";
  #ending = false;
  #wake: () => void = () => {};

  /** `input` leads to the server, `output` comes from it. */
  constructor(input: Writable, output: Readable) {
    this.#input = input;
    output.setEncoding("latin1").on("data", (text: string) => this.#take(text));
    output.on("end", () => this.#break("the server ended it"));
    for (const stream of [input, output]) stream.on("error", (error) => this.#break(error.message));
  }

  #break(reason: string): void {
    if (!this.#ending) this.#brokenBy ??= reason;
    this.#wake();
  }

  #take(text: string): void {
    this.#bytesIn += text.length;
    this.#receivedHash.update(text, "latin1");
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop() ?? "";
    if (lines.length === 0) return;
    const now = performance.now();
    this.#longestGapMs = Math.max(this.#longestGapMs, now - this.#lastAnswer);
    this.#lastAnswer = now;
    for (const line of lines) this.#check(line);
    this.#wake();
  }

  #check(line: string): void {
    const number = Number.parseInt(line, 10);
    if (!Number.isInteger(number) || number >= this.#sent || `${line}\n` !== echoLine(number)) {
      this.#changed++;
      this.#received++;
    } else if (number < this.#received) this.#duplicated++;
    else {
      this.#lost += number - this.#received;
      this.#received = number + 1;
    }
  }

  send(): void {
    if (this.#brokenBy !== null) return;
    // A gap is time in which an answer is owed; the pause before a question is not one.
    if (this.#sent === this.#received) this.#lastAnswer = performance.now();
    const line = echoLine(this.#sent++);
    this.#bytesOut += line.length;
    this.#sentHash.update(line, "latin1");
    this.#input.write(line, "latin1");
  }

  /** Lines that have come back, or were passed over, so far. */
  get answered(): number {
    return this.#received;
  }

  /** Forgets the longest gap so far: from now on counts. */
  resetGap(): void {
    this.#longestGapMs = 0;
  }

  /** Waits for what is owed, at most so long, and reports. Ends the session. */
  async finish(limitMs: number): Promise<EchoReport> {
    const deadline = performance.now() + limitMs;
    while (this.#received < this.#sent && this.#brokenBy === null && performance.now() < deadline) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadline - performance.now());
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#ending = true;
    this.#input.end();
    return this.report();
  }

  report(): EchoReport {
    const owed = Math.max(0, this.#sent - this.#received);
    const silent = owed > 0 ? performance.now() - this.#lastAnswer : 0;
    return {
      sent: this.#sent,
      received: this.#received,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      lost: this.#lost + (this.#ending ? owed : 0),
      duplicated: this.#duplicated,
      changed: this.#changed,
      sentSha256: this.#sentHash.copy().digest("hex"),
      receivedSha256: this.#receivedHash.copy().digest("hex"),
      longestGapMs: Math.max(this.#longestGapMs, silent),
      brokenBy: this.#brokenBy,
    };
  }
}
