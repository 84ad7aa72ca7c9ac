// The peers of a random schedule: plain TCP, unmodified. They compare every byte that comes back.
//   schedules-peer.js SEED HOST ...
// Commands, a JSON object a line: {"do": "open", "sessions": {service: count}}, {"do": "stall", "share", "ms"} (does not
// read for a while), {"do": "halfClose", "share"} (ends its direction), {"do": "finish"} (all of them).
// Events, the same way: {"opened": session}, {"ended": session}; "finished" when all are.

import { createCipheriv } from "node:crypto";
import net from "node:net";
import { createInterface } from "node:readline";
import { endpoint } from "../../src/observe/sessions.js";
import { frame, grind, millStart, randomFrom } from "./mill.js";
import {
  endedFirst,
  type PeerCommand,
  type PeerEvent,
  peerCommand,
  type ScheduleService,
  type ScheduleSession,
  servicePorts,
} from "./schedules-services.js";

const [seed = "1", ...hosts] = process.argv.slice(2);
const random = randomFrom(Number(seed));
/** All answers have come within that after the last message, or they never will, ms. */
const patienceMs = 60_000;
const nothing = Buffer.alloc(0);
/** So many bytes in a row cannot look right by chance. */
const surely = 12;
/** So far back a repetition is recognised. */
const pastBytes = 1 << 18;

/** What is to come back. */
interface Expectation {
  /** The next message. */
  message(length: number): Buffer;
  /** Null, or what is wrong with it. */
  take(chunk: Buffer): string | null;
  /** At the end of the stream: null, or what is wrong. */
  end(): string | null;
  readonly missing: number;
  /** Bytes that will never come, as they may in delivered mode. */
  readonly skipped: number;
}

class MillAnswers implements Expectation {
  readonly skipped = 0;
  #state = millStart;
  readonly #expected: Buffer[] = [];
  #received = 0;

  message(length: number): Buffer {
    const payload = Buffer.alloc(length);
    for (let at = 0; at < length; at++) payload[at] = random() * 256;
    const { state, output } = grind(this.#state, payload);
    this.#state = state;
    this.#expected.push(output);
    return frame(payload);
  }

  take(chunk: Buffer): string | null {
    let rest = chunk;
    while (rest.length > 0) {
      const next = this.#expected[0];
      if (next === undefined) return `${rest.length} bytes too many after ${this.#received}`;
      const length = Math.min(next.length, rest.length);
      if (rest.compare(next, 0, length, 0, length) !== 0)
        return `output differs within ${length} bytes after ${this.#received}`;
      this.#received += length;
      rest = rest.subarray(length);
      if (length === next.length) this.#expected.shift();
      else this.#expected[0] = next.subarray(length);
    }
    return null;
  }

  get missing(): number {
    return this.#expected.reduce((sum, each) => sum + each.length, 0);
  }

  end(): string | null {
    return this.missing > 0 ? `the end came ${this.missing} bytes too early` : null;
  }
}

/** What an application had read and not answered when its router died is gone: the echo may go on later in the stream,
 * never earlier, and no byte of it is another. */
class Echo implements Expectation {
  skipped = 0;
  readonly #stream = createCipheriv("aes-128-ctr", Buffer.alloc(16, `${random()}`), Buffer.alloc(16));
  #expected = nothing;
  /** Came after a gap, and is too short to tell where it belongs. */
  #unplaced = nothing;
  #received = 0;
  /** The last bytes before what is expected. */
  #past = nothing;

  message(length: number): Buffer {
    const bytes = this.#stream.update(Buffer.alloc(length + 1));
    this.#expected = Buffer.concat([this.#expected, bytes]);
    return bytes;
  }

  take(chunk: Buffer): string | null {
    const bytes = Buffer.concat([this.#unplaced, chunk]);
    this.#unplaced = nothing;
    let same = 0;
    while (same < bytes.length && bytes[same] === this.#expected[same]) same++;
    this.#advance(same);
    const rest = bytes.subarray(same);
    if (rest.length === 0) return null;
    if (rest.length < surely) {
      this.#unplaced = rest;
      return null;
    }
    if (this.#place(rest)) return this.take(rest);
    const before = this.#past.indexOf(rest.subarray(0, surely));
    const what = before < 0 ? "is none of the stream" : `came before, ${this.#past.length - before} bytes ago`;
    return `output ${what}, after ${this.#received} (${this.skipped} skipped): ${rest.length} bytes`;
  }

  get missing(): number {
    return this.#expected.length;
  }

  end(): string | null {
    const rest = this.#unplaced;
    if (rest.length > 0 && !this.#place(rest)) return `the last ${rest.length} bytes are none of the stream`;
    this.#advance(rest.length);
    this.skipped += this.#expected.length;
    return null;
  }

  /** Drops what is expected before `rest`. */
  #place(rest: Buffer): boolean {
    const at = this.#expected.indexOf(rest.subarray(0, surely));
    if (at < 0) return false;
    this.skipped += at;
    this.#past = Buffer.concat([this.#past, this.#expected.subarray(0, at)]);
    this.#expected = this.#expected.subarray(at);
    return true;
  }

  #advance(length: number): void {
    this.#past = Buffer.concat([this.#past, this.#expected.subarray(0, length)]).subarray(-pastBytes);
    this.#expected = this.#expected.subarray(length);
    this.#received += length;
  }
}

class Session {
  messages = 0;
  sent = 0;
  received = 0;
  broken: string | null = null;
  ended = false;
  local = "";
  readonly socket: net.Socket;
  readonly done: Promise<void>;
  readonly connected: Promise<void>;
  readonly #expectation: Expectation;
  readonly #interval: NodeJS.Timeout;
  /** The second piece of the last message. */
  #rest: Buffer = nothing;

  constructor(private readonly service: ScheduleService) {
    const host = hosts[Math.floor(random() * hosts.length)];
    this.socket = net.connect({ host, port: servicePorts[service], allowHalfOpen: true, noDelay: true });
    this.#expectation = service === "delivered" ? new Echo() : new MillAnswers();
    this.#interval = setInterval(() => this.#send(), 10 + random() * 150);
    this.connected = new Promise((resolve) => {
      this.socket.once("connect", () => {
        this.local = endpoint(this.socket.localAddress ?? "", this.socket.localPort ?? 0);
        say({ opened: this.#view() });
        resolve();
      });
      this.socket.once("close", () => resolve());
    });
    this.socket.on("data", (chunk: Buffer) => {
      this.received += chunk.length;
      const wrong = this.#expectation.take(chunk);
      if (wrong !== null) this.break(wrong);
    });
    this.socket.on("error", (error) => this.break(error.message));
    this.socket.on("end", () => {
      const wrong = this.socket.writableEnded ? this.#expectation.end() : endedFirst;
      if (wrong !== null) this.break(wrong);
    });
    this.done = new Promise((resolve) => {
      this.socket.once("close", () => {
        clearInterval(this.#interval);
        this.ended = true;
        say({ ended: this.#view() });
        resolve();
      });
    });
  }

  finish(): void {
    if (this.socket.writableEnded) return;
    this.#send();
    this.socket.end(this.#rest);
    setTimeout(() => this.break("hangs"), patienceMs).unref();
  }

  stall(milliseconds: number): void {
    this.socket.pause();
    setTimeout(() => this.socket.resume(), milliseconds);
  }

  break(what: string): void {
    if (this.ended) return;
    this.broken ??= `${what} (${this.#expectation.missing} bytes missing)`;
    this.socket.destroy();
  }

  #send(): void {
    if (this.broken !== null || this.socket.writableEnded || this.socket.writableLength > 1 << 18) return;
    if (this.socket.connecting) return;
    const bytes = this.#expectation.message(Math.floor(random() * (random() < 0.05 ? 20_000 : 300)));
    this.messages++;
    this.sent += bytes.length;
    // In pieces, so that messages are cut anywhere.
    this.#sendRest();
    const cut = Math.floor(random() * bytes.length);
    this.socket.write(bytes.subarray(0, cut));
    this.#rest = bytes.subarray(cut);
    setTimeout(() => this.#sendRest(), random() * 20);
  }

  #sendRest(): void {
    if (this.#rest.length === 0 || this.socket.writableEnded) return;
    this.socket.write(this.#rest);
    this.#rest = nothing;
  }

  #view(): ScheduleSession {
    const { service, local, messages, sent, received, broken } = this;
    return { service, local, messages, sent, received, skipped: this.#expectation.skipped, broken };
  }
}

const sessions: Session[] = [];
const some = (share: number): Session[] => sessions.filter(({ ended }) => !ended && random() < share);

function say(event: PeerEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function obey(command: PeerCommand): void {
  switch (command.do) {
    case "open":
      for (const [service, count] of Object.entries(command.sessions))
        for (let opened = 0; opened < count; opened++) sessions.push(new Session(service as ScheduleService));
      return;
    case "stall":
      for (const session of some(command.share)) session.stall(command.ms);
      return;
    case "halfClose":
      for (const session of some(command.share)) session.finish();
      return;
    case "finish":
      for (const session of sessions) session.finish();
      void Promise.all(sessions.map(({ done }) => done)).then(() => {
        console.log("finished");
        process.exit(0);
      });
      return;
  }
}

for await (const line of createInterface({ input: process.stdin })) obey(peerCommand.parse(JSON.parse(line)));
