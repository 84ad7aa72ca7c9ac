// Many interactive sessions from one process, with the times of every request and answer: blackout-client HOST PORT
// SESSIONS INTERVAL_MS. Prints "connected"; the line "report KILL_MS DEAD_MS" on standard input (when the kill began and
// when it was complete, by the monotonic clock, which is the same for all processes) ends the load and prints a
// BlackoutReport as JSON.
//
// Blackout of a session: from the beginning of the kill to its first answer that cannot be the dead router's, less the
// usual round trip before the kill. So the time until the client happened to ask counts, too: with an interval of 100 ms
// a session may show up to 100 ms more than the service was away. What that request waited for its answer, less the
// usual round trip, is told beside it.
//
// "longest FROM_MS" instead: of each session the longest that a request sent since then had to wait, as waitedMs. For a
// switchover, which nobody can tell from ordinary answers by its time.

import net from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { median } from "./statistics.js";

export interface BlackoutReport {
  usualMs: number;
  /** One entry a session, ms. */
  blackoutMs: number[];
  waitedMs: number[];
  /** Sessions that ended, failed, or had no answer; and answers that were not what was asked for. */
  broken: number;
  wrong: number;
}

const lineBytes = 64;
const settleLimitMs = 5000;
const wave = 100; // connections under way at once

const clockMs = (): number => Number(process.hrtime.bigint()) / 1e6;

class Session {
  /** Of each request: when it was sent, and when answered; 0: not yet. The newest 100 or so. */
  readonly sent: number[] = [];
  readonly answered: number[] = [];
  broken = false;
  wrong = 0;
  #number = 0;
  #answers = 0;
  #partial = "";

  constructor(readonly socket: net.Socket) {
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => this.#take(text));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.broken = true;
    });
  }

  send(): void {
    if (this.broken) return;
    this.sent.push(clockMs());
    this.answered.push(0);
    this.socket.write(lineOf(this.#number++), "latin1");
  }

  #take(text: string): void {
    const now = clockMs();
    this.#partial += text;
    while (this.#partial.length >= lineBytes) {
      if (this.#partial.slice(0, lineBytes) !== lineOf(this.#answers++)) this.wrong++;
      this.#partial = this.#partial.slice(lineBytes);
      const at = this.answered.indexOf(0);
      if (at >= 0) this.answered[at] = now;
    }
    while (this.sent.length > 200 && this.answered[0] !== 0) {
      this.sent.shift();
      this.answered.shift();
    }
  }
}

const lineOf = (number: number): string => `${String(number).padStart(lineBytes - 1, ".")}\n`;

function reportOf(sessions: readonly Session[], killMs: number, deadMs: number): BlackoutReport {
  const usual: number[] = [];
  for (const { sent, answered } of sessions)
    sent.forEach((at, index) => {
      const answer = answered[index] ?? 0;
      if (at > killMs - 1000 && answer !== 0 && answer < killMs) usual.push(answer - at);
    });
  const usualMs = median(usual);
  const report: BlackoutReport = { usualMs, blackoutMs: [], waitedMs: [], broken: 0, wrong: 0 };
  for (const session of sessions) {
    const first = session.answered.findIndex((at) => at > deadMs);
    if (session.broken || first < 0) {
      report.broken++;
      continue;
    }
    report.wrong += session.wrong;
    const answer = session.answered[first] as number;
    report.blackoutMs.push(Math.max(0, answer - killMs - usualMs));
    report.waitedMs.push(Math.max(0, answer - Math.max(killMs, session.sent[first] as number) - usualMs));
  }
  return report;
}

function longestOf(sessions: readonly Session[], fromMs: number): BlackoutReport {
  const { usualMs } = reportOf(sessions, fromMs, fromMs);
  const report: BlackoutReport = { usualMs, blackoutMs: [], waitedMs: [], broken: 0, wrong: 0 };
  for (const { sent, answered, broken, wrong } of sessions) {
    const waits = sent.flatMap((at, index) => (at < fromMs ? [] : [(answered[index] ?? 0) - at]));
    if (broken || waits.some((wait) => wait < 0)) report.broken++;
    else report.waitedMs.push(Math.max(0, ...waits) - usualMs);
    report.wrong += wrong;
  }
  return report;
}

function connect(host: string, port: number): Promise<Session> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, noDelay: true });
    socket.once("error", reject);
    socket.once("connect", () => resolve(new Session(socket)));
  });
}

async function main(host: string, port: number, count: number, intervalMs: number): Promise<void> {
  const sessions: Session[] = [];
  while (sessions.length < count) {
    const size = Math.min(wave, count - sessions.length);
    sessions.push(...(await Promise.all(Array.from({ length: size }, () => connect(host, port)))));
  }
  console.log("connected");
  let next = 0;
  let owed = 0;
  let last = clockMs();
  const timer = setInterval(() => {
    const now = clockMs();
    owed = Math.min(count, owed + ((now - last) / intervalMs) * count);
    last = now;
    for (; owed >= 1; owed--) sessions[next++ % count]?.send();
  }, 2);
  for await (const line of createInterface({ input: process.stdin })) {
    const [what, first, second] = line.split(" ");
    const [killMs, deadMs] = [Number(first), Number(second ?? first)];
    clearInterval(timer);
    const deadline = clockMs() + settleLimitMs;
    while (sessions.some(({ answered }) => answered.includes(0)) && clockMs() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 20));
    process.stdout.write(
      `${JSON.stringify(what === "longest" ? longestOf(sessions, killMs) : reportOf(sessions, killMs, deadMs))}\n`,
      () => process.exit(0),
    );
    return;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [host, port, count, interval] = process.argv.slice(2);
  if (interval === undefined) {
    console.error("usage: blackout-client HOST PORT SESSIONS INTERVAL_MS");
    process.exit(2);
  }
  main(String(host), Number(port), Number(count), Number(interval)).catch((error: Error) => {
    console.error(error.message);
    process.exit(1);
  });
}
