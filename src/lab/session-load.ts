// Many interactive sessions from one process in the peer's namespace: session-load HOST PORT SESSIONS INTERVAL_MS.
// Prints "connected" when all are, takes the commands "reset" (forget the gaps so far) and "stop" as lines on
// standard input, and then prints one JSON array with a report for each session.

import net from "node:net";
import { createInterface } from "node:readline";
import { EchoSession } from "./echo-session.js";

const [host, port, count, interval] = process.argv.slice(2);
if (host === undefined || port === undefined || count === undefined || interval === undefined) {
  console.error("usage: session-load HOST PORT SESSIONS INTERVAL_MS");
  process.exit(2);
}
const intervalMs = Number(interval);
const finishLimitMs = 60_000;

function connect(): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port: Number(port), noDelay: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  });
}

const sessions: EchoSession[] = [];
try {
  const wave = 100; // connections under way at once: a listener's queue is not what is tested
  while (sessions.length < Number(count)) {
    const size = Math.min(wave, Number(count) - sessions.length);
    const sockets = await Promise.all(Array.from({ length: size }, connect));
    sessions.push(...sockets.map((socket) => new EchoSession(socket, socket)));
  }
} catch (error) {
  console.error(`cannot connect to ${host} port ${port}: ${(error as Error).message}`);
  process.exit(1);
}
console.log("connected");

// Spread over the interval, in ticks of at least 2 ms.
let next = 0;
let owed = 0;
let last = performance.now();
const timer = setInterval(
  () => {
    const now = performance.now();
    owed = Math.min(sessions.length, owed + ((now - last) / intervalMs) * sessions.length);
    last = now;
    for (; owed >= 1; owed--) sessions[next++ % sessions.length]?.send();
  },
  Math.max(2, Math.min(20, intervalMs / sessions.length)),
);

for await (const command of createInterface({ input: process.stdin })) {
  if (command === "reset") for (const session of sessions) session.resetGap();
  if (command === "stop") break;
}
clearInterval(timer);
const reports = await Promise.all(sessions.map((session) => session.finish(finishLimitMs)));
process.stdout.write(`${JSON.stringify(reports)}\n`, () => process.exit(0));
