// More deterministic services for the tests of takeovers, on both routers: services [--replica SOCKET].
//
// "halves", port 8082: gives the first 100,000 bytes back and finishes its direction, then reads on to the end. Prints
//   {"port", "bytes", "sha256"} of all its input for each session, by the peer's port.
// "sleeper", port 8083: gives each byte back, from this process, which a test may stop.
// "out": we open the session, to port 9000 of the peer, whenever a line comes on standard input. Gives each byte back.

import { createHash } from "node:crypto";
import net from "node:net";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { serveEcho } from "../../src/lab/demo-server.js";
import { addressPlan } from "../../src/lab/lab.js";
import { serveReplicated } from "../../src/sdk/index.js";
import { halvesBytes, ports } from "./scene.js";

function serveHalves(stream: Duplex & { remotePort?: number | undefined }): void {
  const hash = createHash("sha256");
  const port = stream.remotePort;
  let bytes = 0;
  stream.on("error", () => stream.destroy());
  stream.on("data", (chunk: Buffer) => {
    hash.update(chunk);
    const left = halvesBytes - bytes;
    bytes += chunk.length;
    if (left <= 0) return;
    stream.write(chunk.subarray(0, left));
    if (bytes >= halvesBytes) stream.end();
  });
  stream.on("end", () => console.log(JSON.stringify({ port, bytes, sha256: hash.digest("hex") })));
}

function open(): void {
  const { service, peer } = addressPlan;
  serveEcho(net.connect({ host: peer.v4, port: ports.out, localAddress: service.v4, allowHalfOpen: true }));
}

function replicate(socketPath: string, service: string, serve: (stream: Duplex) => void): Promise<void> {
  return new Promise((resolve) => {
    serveReplicated({ socketPath, service, onConnection: serve, onState: ({ registered }) => registered && resolve() });
  });
}

for (const host of [addressPlan.service.v4, addressPlan.service.v6])
  for (const [port, serve] of [
    [ports.halves, serveHalves],
    [ports.sleeper, serveEcho],
  ] as const) {
    const server = net.createServer({ noDelay: true, allowHalfOpen: true }, serve);
    await new Promise<void>((resolve) => server.listen({ host, port, backlog: 1024 }, resolve));
  }
const [option, socketPath] = process.argv.slice(2);
if (option === "--replica" && socketPath !== undefined)
  await Promise.all([
    replicate(socketPath, "halves", serveHalves),
    replicate(socketPath, "sleeper", serveEcho),
    replicate(socketPath, "out", serveEcho),
  ]);
createInterface({ input: process.stdin }).on("line", open);
console.log("listening");
