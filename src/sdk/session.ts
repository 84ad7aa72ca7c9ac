// One session of the active router as the standby application sees it: the mirrored input, how far its output is
// recorded, and at a takeover the TCP socket.

import { EventEmitter } from "node:events";
import net from "node:net";
import type { Endpoint } from "../app/messages.js";
import type { TandemError } from "../errors.js";
import { Replica, type ReplicaOptions } from "./replica.js";

export interface Takeover {
  /** The TCP connection. Its first byte is the input stream's byte `inputOffset`. */
  socket: net.Socket;
  /** The feed ends exactly here. */
  inputOffset: number;
  /** What is written to the socket continues the output stream here; what comes before is on its way. */
  outputOffset: number;
}

interface SessionEvents {
  /** The active's output is recorded up to `outputOffset`; the input it has received, up to `inputEnd`. */
  progress: [outputOffset: number, inputEnd: number];
  /** The peer has finished its direction: the input stream has this many bytes. */
  fin: [inputOffset: number];
  takeover: [takeover: Takeover];
  /** The session has ended on the active. The feed ends too, when all of it is read. */
  closed: [cause: string];
  /** No takeover will follow: the session cannot be protected any more, or the agent is gone. */
  lost: [error: TandemError];
}

export interface SessionFacts {
  id: number;
  service: string;
  local: Endpoint;
  peer: Endpoint;
}

/** A stream from a received descriptor; it flows when somebody listens. */
export function socketFromDescriptor(fd: number, allowHalfOpen: boolean): net.Socket {
  return new net.Socket({ fd, allowHalfOpen, readable: true, writable: true });
}

export class StandbySession extends EventEmitter<SessionEvents> {
  /** Unique among the sessions of this agent's life. */
  readonly id: number;
  readonly service: string;
  readonly local: Endpoint;
  readonly peer: Endpoint;
  /** The mirrored input from byte 0, only bytes the active's TCP has accepted. Read it, or use replica(), not both. */
  readonly feed: net.Socket;
  outputOffset: number;
  inputEnd = 0;
  finOffset: number | null = null;
  closedCause: string | null = null;
  lostError: TandemError | null = null;
  takeover: Takeover | null = null;
  #replica: Replica | null = null;

  /** Sessions are made by a connection; `feedFd` becomes this object's. */
  constructor(facts: SessionFacts, outputOffset: number, feedFd: number) {
    super();
    this.id = facts.id;
    this.service = facts.service;
    this.local = facts.local;
    this.peer = facts.peer;
    this.outputOffset = outputOffset;
    this.feed = socketFromDescriptor(feedFd, false);
    // An agent that dies resets its end; what that means for the session, the connection tells.
    this.feed.on("error", () => {});
  }

  /** A Duplex for the same deterministic code that runs on the active: see Replica. Once per session. */
  replica(options: ReplicaOptions = {}): Replica {
    if (this.#replica !== null) throw new Error(`Session ${this.id} has a replica already.`);
    this.#replica = new Replica(this, options);
    return this.#replica;
  }
}
