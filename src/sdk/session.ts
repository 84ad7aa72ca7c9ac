// One session of the active router as the standby application sees it: state and mirrored input, how far its output is
// recorded, and at a takeover the TCP socket.

import { EventEmitter } from "node:events";
import net from "node:net";
import type { AgentMessageOf, Base, Endpoint, Mode, Position } from "../app/messages.js";
import type { TandemError } from "../errors.js";
import type { Origin, ProtectedSession, ProtectOptions } from "./protected-session.js";
import { Replica, type ReplicaOptions } from "./replica.js";
import type { SocketStandIn } from "./socket-stand-in.js";

/** How an agent protects a socket. */
export type Protect = (socket: net.Socket, options: ProtectOptions, origin: Origin) => ProtectedSession;

export interface ResumeOptions extends ProtectOptions {
  /** The application goes on from `confirmed` and produces the output since then once more: what is on its way already
   * is compared and not sent again. Else its first write continues at outputOffset. Default false. */
  replay?: boolean;
}

/** The connection of a session that this router has taken over. */
export class Takeover implements Position {
  /** The TCP connection. Its first byte is the input stream's byte `inputOffset`. */
  readonly socket: net.Socket;
  /** The feed of a live session ends exactly here; in the other modes this is the resume point. */
  readonly inputOffset: number;
  /** What is written to the socket continues the output stream here; what comes before is on its way. */
  readonly outputOffset: number;
  /** The resume point: where `state` stands. */
  readonly confirmed: Position;
  readonly base: Base;
  /** What the application of the other router confirmed or handed over last; empty if it did not. */
  readonly state: Buffer;
  /** Its output from confirmed.outputOffset to outputOffset. */
  readonly outputSinceConfirm: Buffer;
  /** Delivered mode: all that the other application had written is recorded, and so on its way. Null: not known. */
  readonly clean: boolean | null;
  readonly #service: string;
  readonly #protect: Protect;

  constructor(
    socket: net.Socket,
    facts: AgentMessageOf<"takeover">,
    state: Buffer,
    outputSinceConfirm: Buffer,
    service: string,
    protect: Protect,
  ) {
    this.socket = socket;
    this.inputOffset = facts.inputOffset;
    this.outputOffset = facts.outputOffset;
    this.confirmed = facts.confirmed;
    this.base = facts.base;
    this.clean = facts.clean;
    this.state = state;
    this.outputSinceConfirm = outputSinceConfirm;
    this.#service = service;
    this.#protect = protect;
  }

  /** Goes on protected: this router is the active one now, and a standby may join. Once, before anything is written. */
  protect(options: ResumeOptions = {}): ProtectedSession {
    const { replay = false, ...rest } = options;
    const { inputOffset, base } = this;
    return this.#protect(
      this.socket,
      { service: this.#service, ...rest },
      {
        inputOffset,
        outputOffset: replay ? this.confirmed.outputOffset : this.outputOffset,
        replay: replay ? this.outputSinceConfirm : this.outputSinceConfirm.subarray(0, 0),
        base,
      },
    );
  }
}

interface SessionEvents {
  /** The active's output is recorded up to `recorded`; the input it has received, up to `inputEnd`. */
  progress: [recorded: number, inputEnd: number];
  /** The peer has finished its direction: the input stream has this many bytes. */
  fin: [inputOffset: number];
  takeover: [takeover: Takeover];
  /** The session has ended on the active. The feed ends too, when all of it is read. */
  closed: [cause: string];
  /** No takeover will follow: the session cannot be protected any more, or the agent is gone. */
  lost: [error: TandemError];
}

/** A stream from a received descriptor; it flows when somebody listens. */
export function socketFromDescriptor(fd: number, allowHalfOpen: boolean): net.Socket {
  return new net.Socket({ fd, allowHalfOpen, readable: true, writable: true });
}

export class StandbySession extends EventEmitter<SessionEvents> implements Position {
  /** Unique among the sessions of this agent's life. */
  readonly id: number;
  readonly service: string;
  readonly mode: Mode;
  readonly local: Endpoint;
  readonly peer: Endpoint;
  /** It began before it was recorded, and was handed over by the active's application. */
  readonly joined: boolean;
  /** What was handed over; empty if nothing was. It stands at inputOffset and outputOffset. */
  readonly state: Buffer;
  readonly inputOffset: number;
  readonly outputOffset: number;
  /** Live: the mirrored input from inputOffset on, only bytes the active's TCP has accepted. Read it, or use replica(),
   * not both. Null in the other modes. */
  readonly feed: net.Socket | null;
  /** How far the active's output is recorded. */
  recorded: number;
  inputEnd: number;
  finOffset: number | null = null;
  closedCause: string | null = null;
  lostError: TandemError | null = null;
  takeover: Takeover | null = null;
  #replica: Replica | null = null;

  /** Sessions are made by a connection; `feedFd` becomes this object's. */
  constructor(facts: Omit<AgentMessageOf<"session">, "type" | "fds">, state: Buffer, feedFd: number | null) {
    super();
    this.id = facts.id;
    this.service = facts.service;
    this.mode = facts.mode;
    this.local = facts.local;
    this.peer = facts.peer;
    this.joined = facts.joined;
    this.state = state;
    this.inputOffset = facts.inputOffset;
    this.outputOffset = facts.outputOffset;
    this.recorded = facts.recorded;
    this.inputEnd = facts.inputOffset;
    this.feed = feedFd === null ? null : socketFromDescriptor(feedFd, false);
    // An agent that dies resets its end; what that means for the session, the connection tells.
    this.feed?.on("error", () => {});
  }

  /** Called by the connection. */
  progress(recorded: number, inputEnd: number): void {
    this.recorded = recorded;
    this.inputEnd = inputEnd;
    this.emit("progress", recorded, inputEnd);
  }

  /** Called by the connection, at the takeover: `fd` becomes this object's. `parts`: state, and output since the confirm. */
  goOn(
    fd: number,
    standIn: SocketStandIn | undefined,
    facts: AgentMessageOf<"takeover">,
    parts: readonly Buffer[],
    protect: Protect,
  ): void {
    const socket = standIn?.become(fd) ?? socketFromDescriptor(fd, true);
    const [state, outputSinceConfirm] = parts as [Buffer, Buffer];
    this.takeover = new Takeover(socket, facts, state, outputSinceConfirm, this.service, protect);
    this.recorded = facts.outputOffset;
    this.emit("takeover", this.takeover);
  }

  /** A connection that this router has accepted, as a session of live mode: it is ours from its first byte on. */
  static accepted(socket: net.Socket, service: string, protect: Protect): StandbySession {
    const start = { inputOffset: 0, outputOffset: 0 };
    const local = { ip: socket.localAddress ?? "", port: socket.localPort ?? 0 };
    const peer = { ip: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 };
    const facts = { id: 0, service, mode: "live" as const, local, peer, ...start, recorded: 0, joined: false };
    const nothing = Buffer.alloc(0);
    const session = new StandbySession(facts, nothing, null);
    const base = { input: 0, output: 0 };
    const takeover = {
      type: "takeover" as const,
      id: 0,
      ...start,
      confirmed: start,
      base,
      clean: null,
      fds: 1 as const,
    };
    session.takeover = new Takeover(socket, takeover, nothing, nothing, service, protect);
    return session;
  }

  /** A Duplex for the same deterministic code that runs on the active: see Replica. Once per session, in live mode. */
  replica(options: ReplicaOptions = {}): Replica {
    if (this.#replica !== null) throw new Error(`Session ${this.id} has a replica already.`);
    if (this.mode !== "live")
      throw new Error(`Session ${this.id} is not live: its application waits for the takeover.`);
    this.#replica = new Replica(this, this.feed ?? new net.Socket(), options);
    return this.#replica;
  }
}
