// An agent for the tests: the real application server on a real Unix socket, with mirrored streams and TCP connections
// made by the test instead of by recorder and restore.

import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { native } from "../../addon/native.js";
import type { RefusalCode } from "../../src/app/errors.js";
import type { ReleaseHow } from "../../src/app/messages.js";
import type { Confirm, Handover, ProcessFacts, ProtectRequest } from "../../src/app/protections.js";
import {
  type AppServer,
  type AppServerOptions,
  createAppServer,
  type OfferedSession,
  type OfferedTakeover,
  type Registration,
} from "../../src/app/server.js";
import { type Agent, connectAgent } from "../../src/sdk/agent.js";
import type { StandbySession } from "../../src/sdk/session.js";

export interface MirroredSession {
  id: number;
  /** The agent's end of the feed. */
  feed: net.Socket;
}

/** What applications said about the sessions they protect. */
export type Said =
  | { what: "protect"; id: number; request: ProtectRequest }
  | { what: "handover"; id: number; handover: Handover }
  | { what: "confirm"; id: number; confirm: Confirm }
  | { what: "log"; id: number; outputStart: number; output: Uint8Array }
  | { what: "release"; id: number; how: ReleaseHow }
  | { what: "gone"; ids: number[]; process: ProcessFacts & { alive: boolean } };

export class TestAgent {
  readonly path: string;
  readonly server: AppServer;
  readonly registered: Registration[] = [];
  readonly gone: { registration: Registration; reason: string }[] = [];
  readonly said: Said[] = [];
  /** Duplicates of what applications protect, by id: closed with their release, as the agent does. */
  readonly duplicates = new Map<number, number>();
  /** The answer to the next protect. */
  refuseProtect: RefusalCode | null = null;
  /** The answer to confirms and logs; null: they wait in `unanswered`. */
  stores: boolean | null = true;
  readonly unanswered: ((stored: boolean) => void)[] = [];
  readonly #directory = mkdtempSync(path.join(tmpdir(), `tandem-app-${process.pid}-`));
  #nextId = 1;

  constructor(options: Partial<AppServerOptions> = {}) {
    this.path = path.join(this.#directory, "app.sock");
    this.server = createAppServer({
      path: this.path,
      native,
      router: "a",
      role: "standby",
      accept: (service, mode) => {
        if (service === "none") return "unknown-service";
        return service === "delivered-only" && mode !== "delivered" ? "mode-not-supported" : null;
      },
      onRegister: (registration) => this.registered.push(registration),
      onGone: (registration, reason) => this.gone.push({ registration, reason }),
      onProtect: (request, answer) => {
        if (this.refuseProtect !== null) {
          native.closeFd(request.fd);
          answer({ refused: this.refuseProtect });
          return;
        }
        const id = this.#nextId++;
        this.duplicates.set(id, request.fd);
        this.said.push({ what: "protect", id, request });
        answer({ id });
      },
      onHandover: (id, handover) => this.said.push({ what: "handover", id, handover }),
      onConfirm: (id, confirm, answer) => {
        this.said.push({ what: "confirm", id, confirm });
        this.#store(answer);
      },
      onLog: (id, outputStart, output, answer) => {
        this.said.push({ what: "log", id, outputStart, output });
        this.#store(answer);
      },
      onRelease: (id, how, answer) => {
        this.said.push({ what: "release", id, how });
        this.#closeDuplicate(id);
        answer();
      },
      onApplicationGone: (ids, process) => {
        this.said.push({ what: "gone", ids, process });
        for (const id of ids) this.#closeDuplicate(id);
      },
      ...options,
    });
  }

  #store(answer: (stored: boolean) => void): void {
    if (this.stores === null) this.unanswered.push(answer);
    else answer(this.stores);
  }

  #closeDuplicate(id: number): void {
    const fd = this.duplicates.get(id);
    this.duplicates.delete(id);
    if (fd !== undefined) native.closeFd(fd);
  }

  /** The next thing of this kind that an application says, from the first one on. */
  async hears<What extends Said["what"]>(what: What): Promise<Extract<Said, { what: What }>> {
    for (let round = 0; round < 1000; round++) {
      const index = this.said.findIndex((said) => said.what === what);
      if (index >= 0) return this.said.splice(index, 1)[0] as Extract<Said, { what: What }>;
      await delay(5);
    }
    throw new Error(`No ${what} came; ${this.said.map((said) => said.what).join(", ") || "nothing"} did.`);
  }

  /** A session without a feed. */
  offer(service: string, mode: "confirmed" | "delivered", facts: Partial<OfferedSession> = {}): number {
    const id = this.#nextId++;
    const local = { ip: "10.77.0.1", port: 80 };
    const peer = { ip: "10.77.0.10", port: 1024 + id };
    const start = { inputOffset: 0, outputOffset: 0, recorded: 0, joined: false, state: new Uint8Array() };
    if (!this.server.openSession({ id, service, mode, local, peer, ...start, ...facts }, null))
      throw new Error("not opened");
    return id;
  }

  open(service: string, recorded = 0, facts: Partial<OfferedSession> = {}): MirroredSession {
    const id = this.#nextId++;
    const [ours, theirs] = native.socketPair();
    const local = { ip: "10.77.0.1", port: 80 };
    const peer = { ip: "10.77.0.10", port: 1024 + id };
    const start = { inputOffset: 0, outputOffset: 0, joined: false, state: new Uint8Array() };
    if (!this.server.openSession({ id, service, mode: "live", local, peer, recorded, ...start, ...facts }, theirs))
      throw new Error("not opened");
    const feed = new net.Socket({ fd: ours, readable: true, writable: true });
    feed.on("error", () => {});
    feed.resume();
    return { id, feed };
  }

  close(): void {
    this.server.close();
    for (const id of this.duplicates.keys()) this.#closeDuplicate(id);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** A takeover of a live session from its first byte. */
export function liveTakeover(inputOffset: number, outputOffset: number): OfferedTakeover {
  const position = { inputOffset, outputOffset };
  const base = { input: inputOffset, output: outputOffset };
  const nothing = new Uint8Array();
  return { ...position, confirmed: position, base, clean: null, state: nothing, outputSinceConfirm: nothing };
}

/** An agent, and an application registered with it for "web". */
export async function registeredPair(): Promise<{
  agent: TestAgent;
  connection: Agent;
  close: () => void;
}> {
  const agent = new TestAgent();
  const connection = connectAgent({ path: agent.path });
  await connection.register("web", "live");
  const close = () => {
    connection.close();
    agent.close();
  };
  return { agent, connection, close };
}

/** The next session that arrives. */
export function nextSession(connection: Agent): Promise<StandbySession> {
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
