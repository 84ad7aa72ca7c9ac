// The lab's server application: an HTTP service and an echo service, both deterministic, so that an active and a
// standby that are given the same input produce the same output, byte for byte. Each works on any Duplex: a TCP
// socket, or the replica of one on the standby.
//
// As a program, plain TCP that knows nothing of Tandem: demo-server.js --listen 10.77.0.1:8080,8081
//   (HTTP on the first port, echo on the second; --listen may be repeated, an IPv6 address is [fd77::1]:8080,8081)
// With --replica SOCKET it also runs on replicas of the sessions that the agent at SOCKET mirrors: the standby's side,
// for the services "web" (HTTP) and "echo". With --handover besides, echo sessions are handed over to a standby that
// joins, so that they can go there and back.

import { createCipheriv, createHash } from "node:crypto";
import http from "node:http";
import net from "node:net";
import { type Duplex, pipeline, Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { type Replica, type ServeReplicatedOptions, serveReplicated } from "../sdk/index.js";

const chunkBytes = 64 * 1024;
const maxDownloadBytes = 2 ** 40;

/** `length` bytes that are the same on every machine: the AES-128-CTR key stream of a fixed key. */
export function deterministicBytes(length: number): Readable {
  const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, "tandem"), Buffer.alloc(16));
  const zeros = Buffer.alloc(chunkBytes);
  let left = length;
  return new Readable({
    highWaterMark: 4 * chunkBytes,
    read() {
      if (left === 0) {
        this.push(null);
        return;
      }
      const take = Math.min(left, chunkBytes);
      left -= take;
      this.push(cipher.update(zeros.subarray(0, take)));
    },
  });
}

function answerJson(response: http.ServerResponse, status: number, body: object): void {
  const text = `${JSON.stringify(body)}\n`;
  response
    .writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) })
    .end(text);
}

/** PUT or POST anything: {"bytes", "sha256"} of the body. GET /bytes/N: N deterministic bytes. */
function answer(request: http.IncomingMessage, response: http.ServerResponse): void {
  response.sendDate = false;
  const wanted = /^\/bytes\/(\d{1,13})$/.exec(request.url ?? "");
  if (request.method === "PUT" || request.method === "POST") {
    const hash = createHash("sha256");
    let bytes = 0;
    request.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      bytes += chunk.length;
    });
    request.on("end", () => answerJson(response, 200, { bytes, sha256: hash.digest("hex") }));
  } else if (request.method === "GET" && wanted?.[1] !== undefined && Number(wanted[1]) <= maxDownloadBytes) {
    const length = Number(wanted[1]);
    response.writeHead(200, { "Content-Type": "application/octet-stream", "Content-Length": length });
    pipeline(deterministicBytes(length), response, () => {}); // a peer that goes away is its own affair
  } else {
    request.resume();
    answerJson(response, 404, { error: "PUT anything, or GET /bytes/N" });
  }
}

const httpServer = http.createServer({ keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 }, answer);
httpServer.timeout = 0;

/** Serves one HTTP connection. A time-out would be an event that only one of two replicas may see: there are none. */
export function serveHttp(stream: Duplex): void {
  stream.on("error", () => stream.destroy());
  httpServer.emit("connection", stream);
}

/** Returns each byte; ends when the other side has ended. */
export function serveEcho(stream: Duplex): void {
  stream.on("error", () => stream.destroy());
  stream.pipe(stream);
}

/** What was read was written in the same turn: the two offsets are all of its state. */
function serveEchoAndHandOver(connection: Replica): void {
  connection.protect(() => ({ inputOffset: connection.inputOffset, outputOffset: connection.outputOffset }));
  serveEcho(connection);
}

interface Listen {
  host: string;
  http: number;
  echo: number;
}

/** "10.77.0.1:8080,8081" or "[fd77::1]:8080,8081". */
export function parseListen(text: string): Listen {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):(\d+),(\d+)$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (match === null || host === undefined) throw new Error(`--listen ${text}: expected ADDRESS:HTTP_PORT,ECHO_PORT`);
  return { host, http: Number(match[3]), echo: Number(match[4]) };
}

function listen(host: string, port: number, serve: (socket: net.Socket) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = net.createServer({ noDelay: true, allowHalfOpen: true }, serve);
    server.once("error", reject);
    server.listen({ host, port, backlog: 4096 }, resolve);
  });
}

async function main(argv: readonly string[]): Promise<void> {
  const listens = argv.flatMap((word, index) => (word === "--listen" ? [parseListen(argv[index + 1] ?? "")] : []));
  if (listens.length === 0) throw new Error("usage: demo-server --listen ADDRESS:HTTP_PORT,ECHO_PORT ...");
  const replica = argv.indexOf("--replica");
  const handsOver = replica >= 0 && argv.includes("--handover");
  // Listens to nothing itself: whoever accepts echo connections passes them on to it.
  const accepted = net.createServer();
  const serveAccepted = handsOver ? (socket: net.Socket) => void accepted.emit("connection", socket) : serveEcho;
  for (const each of listens) {
    await listen(each.host, each.http, serveHttp);
    await listen(each.host, each.echo, serveAccepted);
  }
  if (replica >= 0) {
    const socketPath = argv[replica + 1] ?? "";
    await Promise.all([
      replicate({ socketPath, service: "web", onConnection: serveHttp }),
      replicate(
        handsOver
          ? { socketPath, service: "echo", onConnection: serveEchoAndHandOver, listener: accepted }
          : { socketPath, service: "echo", onConnection: serveEcho },
      ),
    ]);
  }
  console.log("listening");
}

/** Resolves once registered; goes on registering when the agent restarts. */
function replicate(options: ServeReplicatedOptions): Promise<void> {
  return new Promise((resolve) => {
    serveReplicated({
      ...options,
      onState: ({ registered, error }) => {
        if (registered) resolve();
        else console.error(`${options.service}: ${error?.message}`);
      },
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).catch((error: Error) => {
    console.error(error.message);
    process.exit(1);
  });
}
