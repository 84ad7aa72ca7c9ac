// An agent for the tests: the real application server on a real Unix socket, with mirrored streams and TCP connections
// made by the test instead of by recorder and restore.

import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { native } from "../../addon/native.js";
import { type AppServer, type AppServerOptions, createAppServer, type Registration } from "../../src/app/server.js";
import { connectStandby, type StandbyConnection } from "../../src/sdk/connection.js";
import type { StandbySession } from "../../src/sdk/session.js";

export interface MirroredSession {
  id: number;
  /** The agent's end of the feed. */
  feed: net.Socket;
}

export class TestAgent {
  readonly path: string;
  readonly server: AppServer;
  readonly registered: Registration[] = [];
  readonly gone: { registration: Registration; reason: string }[] = [];
  readonly #directory = mkdtempSync(path.join(tmpdir(), `tandem-app-${process.pid}-`));
  #nextId = 1;

  constructor(options: Partial<AppServerOptions> = {}) {
    this.path = path.join(this.#directory, "app.sock");
    this.server = createAppServer({
      path: this.path,
      native,
      router: "a",
      role: "standby",
      accept: (service) => (service === "none" ? "unknown-service" : null),
      onRegister: (registration) => this.registered.push(registration),
      onGone: (registration, reason) => this.gone.push({ registration, reason }),
      ...options,
    });
  }

  open(service: string, outputOffset = 0): MirroredSession {
    const id = this.#nextId++;
    const [ours, theirs] = native.socketPair();
    const local = { ip: "10.77.0.1", port: 80 };
    const peer = { ip: "10.77.0.10", port: 1024 + id };
    if (!this.server.openSession({ id, service, local, peer, outputOffset }, theirs)) throw new Error("not opened");
    const feed = new net.Socket({ fd: ours, readable: true, writable: true });
    feed.on("error", () => {});
    feed.resume();
    return { id, feed };
  }

  close(): void {
    this.server.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** An agent, and an application registered with it for "web". */
export async function registeredPair(): Promise<{
  agent: TestAgent;
  connection: StandbyConnection;
  close: () => void;
}> {
  const agent = new TestAgent();
  const connection = await connectStandby({ path: agent.path });
  await connection.register("web");
  const close = () => {
    connection.close();
    agent.close();
  };
  return { agent, connection, close };
}

/** The next session that arrives. */
export function nextSession(connection: StandbyConnection): Promise<StandbySession> {
  return new Promise((resolve) => connection.once("session", resolve));
}

/** A TCP connection: the peer's end, and the descriptor of the service's end, from which nothing was read. */
export async function tcpPair(): Promise<{ peer: net.Socket; fd: number }> {
  const listener = net.createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const accepted = new Promise<net.Socket>((resolve) => listener.once("connection", resolve));
  const peer = net.connect({
    port: (listener.address() as net.AddressInfo).port,
    host: "127.0.0.1",
    allowHalfOpen: true,
  });
  const socket = await accepted;
  const fd = native.dupFd((socket as unknown as { _handle: { fd: number } })._handle.fd);
  // The duplicate keeps the connection: no FIN leaves.
  socket.destroy();
  listener.close();
  return { peer, fd };
}

/** Everything a stream delivers until its end, which must not close its other direction; rejects with its error. */
export function collect(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const pieces: Buffer[] = [];
  return new Promise((resolve, reject) => {
    stream.on("data", (piece: Buffer) => pieces.push(piece));
    stream.on("end", () => resolve(Buffer.concat(pieces)));
    stream.on("error", reject);
  });
}
