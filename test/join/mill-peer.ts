// The mill's peer: plain TCP, unmodified. Sends messages of random sizes and compares every byte that comes back.
//   mill-peer.js HOST PORT SESSIONS SEED INTERVAL_MS
// On standard input "stop": no more messages, ends its direction, waits for all answers and the end. Then one JSON line:
// one entry a session {localPort, messages, sent, received, broken: null | what went wrong, longestGapMs}.
// "connected" is said first; "gap" on standard input resets the longest gaps.

import net from "node:net";
import { createInterface } from "node:readline";
import { frame, grind, millStart, randomFrom } from "./mill.js";

const [host = "", port = "", count = "1", seed = "1", interval = "20"] = process.argv.slice(2);

class Session {
  messages = 0;
  sent = 0;
  received = 0;
  broken: string | null = null;
  longestGapMs = 0;
  localPort = 0;
  readonly socket = net.connect({ host, port: Number(port), allowHalfOpen: true, noDelay: true });
  readonly done: Promise<void>;
  #state = millStart;
  #expected: Buffer[] = [];
  #waitingSince = 0;
  readonly #random: () => number;

  constructor(sessionSeed: number) {
    this.#random = randomFrom(sessionSeed);
    this.socket.on("connect", () => {
      this.localPort = this.socket.localPort ?? 0;
    });
    this.socket.on("data", (chunk: Buffer) => this.#take(chunk));
    this.done = new Promise((resolve) => {
      this.socket.on("error", (error) => this.#break(error.message));
      this.socket.on("end", () => {
        if (this.#expected.length > 0) this.#break(`the end came ${this.#missing()} bytes too early`);
        if (!this.socket.writableEnded) this.#break("the service ended first");
      });
      this.socket.on("close", () => resolve());
    });
  }

  send(): void {
    if (this.broken !== null || this.socket.writableLength > 1 << 18) return;
    const long = this.#random() < 0.05;
    const payload = Buffer.alloc(Math.floor(this.#random() * (long ? 20_000 : 300)));
    for (let at = 0; at < payload.length; at++) payload[at] = this.#random() * 256;
    const { state, output } = grind(this.#state, payload);
    this.#state = state;
    if (this.#expected.length === 0) this.#waitingSince = performance.now();
    this.#expected.push(output);
    this.messages++;
    const bytes = frame(payload);
    this.sent += bytes.length;
    // In pieces, so that messages are cut anywhere.
    const cut = Math.floor(this.#random() * bytes.length);
    this.socket.write(bytes.subarray(0, cut));
    setTimeout(() => this.socket.write(bytes.subarray(cut)), 0);
  }

  resetGap(): void {
    this.longestGapMs = 0;
    this.#waitingSince = performance.now();
  }

  #missing(): number {
    return this.#expected.reduce((sum, each) => sum + each.length, 0);
  }

  #take(chunk: Buffer): void {
    const now = performance.now();
    this.longestGapMs = Math.max(this.longestGapMs, now - this.#waitingSince);
    this.#waitingSince = now;
    let rest = chunk;
    while (rest.length > 0) {
      const next = this.#expected[0];
      if (next === undefined) {
        this.#break(`${rest.length} bytes too many after ${this.received}`);
        return;
      }
      const length = Math.min(next.length, rest.length);
      if (rest.compare(next, 0, length, 0, length) !== 0) {
        this.#break(
          `output differs within ${length} bytes after ${this.received}, message ${this.messages - this.#expected.length}`,
        );
        return;
      }
      this.received += length;
      rest = rest.subarray(length);
      if (length === next.length) this.#expected.shift();
      else this.#expected[0] = next.subarray(length);
    }
  }

  #break(what: string): void {
    this.broken ??= what;
    this.socket.destroy();
  }
}

const sessions = Array.from({ length: Number(count) }, (_, index) => new Session(Number(seed) * 1000 + index));
await Promise.all(
  sessions.map(({ socket }) => new Promise<void>((resolve) => socket.once("connect", resolve).once("close", resolve))),
);
console.log("connected");
let next = 0;
const timer = setInterval(() => sessions[next++ % sessions.length]?.send(), Number(interval) / sessions.length);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "gap") for (const session of sessions) session.resetGap();
  if (line === "stop") break;
}
clearInterval(timer);
await new Promise((resolve) => setTimeout(resolve, 5));
for (const { socket } of sessions) socket.end();
await Promise.all(sessions.map(({ done }) => done));
console.log(
  JSON.stringify(
    sessions.map(({ localPort, messages, sent, received, broken, longestGapMs }) => ({
      localPort,
      messages,
      sent,
      received,
      broken,
      longestGapMs,
    })),
  ),
);
process.exit(0);
