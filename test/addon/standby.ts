// The standby of the restore test, started inside its namespace: restores the sessions whose state it reads as JSON from
// standard input, and carries on with both streams. Not a test itself.
// Arguments: bytes of input and of output of each session in all. Prints one JSON line when restored, one at the end.

import net from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { native, type RestoreSession } from "../../addon/native.js";
import { pattern, type SessionDump } from "./sessions.js";

const totalIn = Number(process.argv[2]);
const totalOut = Number(process.argv[3]);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`);

function address(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  if (net.isIPv4(text)) bytes.set(text.split(".").map(Number));
  else {
    // The test's addresses have the form fd00::x.
    bytes[0] = 0xfd;
    bytes[15] = Number.parseInt(text.slice(text.lastIndexOf(":") + 1), 16);
  }
  return bytes;
}

const dumps = JSON.parse((await lines.next()).value as string) as SessionDump[];
const sessions = dumps.map((dump): RestoreSession => {
  const [sndWl1 = 0, sndWnd = 0, maxWindow = 0, rcvWnd = 0, rcvWup = 0] = dump.window;
  return {
    ...dump,
    family: net.isIPv4(dump.localIp) ? 4 : 6,
    localIp: address(dump.localIp),
    peerIp: address(dump.peerIp),
    unacked: Buffer.from(dump.unacked, "base64"),
    received: Buffer.from(dump.received, "base64"),
    window: { sndWl1, sndWnd, maxWindow, rcvWnd, rcvWup },
    options: null,
    md5: dump.md5 === null ? null : Buffer.from(dump.md5),
  };
});
const before = process.hrtime.bigint();
const results = native.restore(sessions);
const after = process.hrtime.bigint();
const fds = results.map((result) => ("fd" in result ? result.fd : -1));
say({
  microsecondsEach: Number(after - before) / 1000 / sessions.length,
  failures: results.filter((result) => !("fd" in result)),
});

await lines.next(); // the test has opened the way to the peer
const releaseStart = process.hrtime.bigint();
const released = native.restoreRelease(fds, true);
const releaseMicroseconds = Number(process.hrtime.bigint() - releaseStart) / 1000 / fds.length;
let wrong = released.filter((code) => code !== "").length;
let complete = 0;

await Promise.all(
  fds.map(async (fd, index) => {
    const dump = dumps[index];
    if (!dump) return;
    const socket = new net.Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
    let read = dump.readOffset;
    socket.on("data", (data) => {
      if (!data.equals(pattern(read, data.length))) wrong++;
      read += data.length;
    });
    const ended = new Promise<void>((resolve) => socket.once("end", resolve).once("error", () => resolve()));
    for (let written = dump.writeOffset; written < totalOut; ) {
      const bytes = pattern(written + 1000, Math.min(32768, totalOut - written));
      written += bytes.length;
      if (!socket.write(bytes)) await new Promise((resolve) => socket.once("drain", resolve).once("close", resolve));
    }
    socket.end();
    await ended;
    if (read === totalIn) complete++;
  }),
);
say({ complete, wrong, releaseMicroseconds });
process.exit(0);
