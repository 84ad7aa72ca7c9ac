// One connection to the agent of this router, from hello to its end: requests and their answers, the sessions that are
// offered on it, and what is said about the sessions that are protected on it.

import { EventEmitter } from "node:events";
import { type NativeError, native, type UnixChannel } from "../../addon/native.js";
import { type RefusalCode, refusal } from "../app/errors.js";
import { MessageReader, type RawMessage } from "../app/framing.js";
import {
  type AgentMessage,
  type AgentMessageOf,
  type ApplicationMessage,
  encodeMessage,
  OLDEST_VERSION,
  PROTOCOL_VERSION,
  parseAgentMessage,
  type Role,
  TO_APPLICATION,
} from "../app/messages.js";
import { TandemError } from "../errors.js";
import type { AgentLink, Answered, ProtectedSession } from "./protected-session.js";
import { rehearseTakeovers } from "./rehearsal.js";
import { type Protect, StandbySession } from "./session.js";
import { SocketStandIn } from "./socket-stand-in.js";

interface ConnectionEvents {
  /** The agent has greeted us. */
  welcome: [];
  session: [session: StandbySession];
  /** The agent's router has another role now. */
  role: [role: Role];
  /** The connection has ended: the reason, null after close(). Sessions not taken over are lost. */
  end: [error: TandemError | null];
}

export class AgentConnection extends EventEmitter<ConnectionEvents> implements AgentLink {
  /** The router's name, and its role when last heard of. */
  router = "";
  role: Role = "fenced";
  modes: string[] = [];
  greeted = false;
  readonly #channel: UnixChannel;
  readonly #reader = new MessageReader(TO_APPLICATION);
  readonly #protect: Protect;
  readonly #sessions = new Map<number, StandbySession>();
  /** What the connections of these sessions would become. */
  readonly #standIns = new Map<number, SocketStandIn>();
  readonly #protected = new Map<number, ProtectedSession>();
  readonly #pending = new Map<number, Answered>();
  #nextRequest = 1;
  /** The fatal error the agent announced before it closed. */
  #reason: TandemError | null = null;
  #open = true;

  /** `protect`: how a session that is taken over here goes on protected. Throws TandemError `agent-absent`,
   * `agent-refused`. */
  constructor(path: string, application: string, protect: Protect) {
    super();
    this.#protect = protect;
    this.#channel = native.unixChannel(connect(path), {
      onData: (data, fds) => this.#onData(data, fds),
      onClose: (error) => this.#finish(this.#reason ?? refusal("agent-gone", error?.message)),
    });
    this.tell({ type: "hello", version: PROTOCOL_VERSION, application: application.slice(0, 64) }, []);
  }

  /** Sessions that could be taken over, by id. */
  get sessions(): ReadonlyMap<number, StandbySession> {
    return this.#sessions;
  }

  ask(message: ApplicationMessage, parts: Uint8Array[], fd: number | null, answered: Answered): void {
    if (!this.#open) {
      answered(refusal("agent-gone"));
      return;
    }
    const request = this.#nextRequest++;
    this.#pending.set(request, answered);
    this.#channel.send(encodeMessage({ ...message, request }, parts), fd === null ? undefined : [fd]);
  }

  tell(message: ApplicationMessage, parts: Uint8Array[]): void {
    if (this.#open) this.#channel.send(encodeMessage(message, parts));
  }

  route(id: number, session: ProtectedSession): void {
    this.#protected.set(id, session);
  }

  /** Sessions already taken over stay; the others are lost. */
  close(): void {
    this.#finish(null);
  }

  #onData(data: Uint8Array, fds: number[]): void {
    if (!this.#open) {
      for (const fd of fds) native.closeFd(fd);
      return;
    }
    try {
      this.#reader.push(data, fds, (raw) => this.#onMessage(raw));
    } catch (error) {
      if (!(error instanceof TandemError)) throw error;
      this.#finish(error);
    }
  }

  #onMessage(raw: RawMessage): void {
    try {
      const message = parseAgentMessage(raw);
      if (message !== null) this.#handle(message, raw);
    } finally {
      for (const fd of raw.fds) native.closeFd(fd);
    }
  }

  #handle(message: AgentMessage, raw: RawMessage): void {
    switch (message.type) {
      case "welcome":
        if (message.version < OLDEST_VERSION || message.version > PROTOCOL_VERSION) throw refusal("version");
        this.router = message.router;
        this.role = message.role;
        this.modes = message.modes;
        this.greeted = true;
        this.emit("welcome");
        break;
      case "error":
        this.#onError(message);
        break;
      case "role":
        this.role = message.role;
        this.emit("role", message.role);
        break;
      case "session": {
        const feedFd = message.fds === 0 ? null : claim(raw);
        const session = new StandbySession(message, raw.parts[0] as Buffer, feedFd);
        this.#forget(message.id); // offered anew
        this.#sessions.set(message.id, session);
        const standIn = SocketStandIn.make();
        if (standIn !== null) this.#standIns.set(message.id, standIn);
        this.emit("session", session);
        break;
      }
      case "progress":
        for (const [id, outputOffset, inputEnd] of message.sessions) {
          this.#protected.get(id)?.progress(outputOffset);
          this.#sessions.get(id)?.progress(outputOffset, inputEnd);
        }
        break;
      case "fin": {
        const session = this.#sessions.get(message.id);
        if (session === undefined) break;
        session.finOffset = message.inputOffset;
        session.emit("fin", message.inputOffset);
        break;
      }
      case "closed": {
        const session = this.#forget(message.id);
        if (session === undefined) break;
        session.closedCause = message.cause;
        session.emit("closed", message.cause);
        break;
      }
      case "notReady": {
        const session = this.#forget(message.id);
        if (session !== undefined) lose(session, refusal("not-ready", `Reason: ${message.reason}.`));
        break;
      }
      case "takeover":
        this.#onTakeover(message, raw);
        break;
      case "standbyReady":
      case "ready":
      case "unready":
        this.#protected.get(message.id)?.hear(message);
        break;
      case "released":
        this.#protected.delete(message.id);
        this.#answered(message.request)?.(message);
        break;
      case "registered":
        this.#answered(message.request)?.(message);
        rehearseTakeovers();
        break;
      case "protected":
      case "confirmed":
      case "logged":
        this.#answered(message.request)?.(message);
        break;
    }
  }

  #onTakeover(message: AgentMessageOf<"takeover">, raw: RawMessage): void {
    const session = this.#sessions.get(message.id);
    if (session === undefined) return;
    const standIn = this.#standIns.get(message.id);
    this.#standIns.delete(message.id);
    this.#forget(message.id);
    session.goOn(claim(raw), standIn, message, raw.parts, this.#protect);
  }

  #onError(message: AgentMessageOf<"error">): void {
    const error = new TandemError(message.code, message.message, message.remedy);
    const answered = this.#answered(message.request);
    if (message.fatal) this.#reason = error;
    else if (answered !== undefined) answered(error);
    else if (message.id !== undefined) this.#protected.get(message.id)?.hear(message);
  }

  #answered(request: number | undefined): Answered | undefined {
    if (request === undefined) return undefined;
    const answered = this.#pending.get(request);
    this.#pending.delete(request);
    return answered;
  }

  #forget(id: number): StandbySession | undefined {
    const session = this.#sessions.get(id);
    this.#sessions.delete(id);
    this.#standIns.get(id)?.drop();
    this.#standIns.delete(id);
    return session;
  }

  #finish(error: TandemError | null): void {
    if (!this.#open) return;
    this.#open = false;
    for (const fd of this.#reader.abandon()) native.closeFd(fd);
    this.#channel.destroy();
    const failure = error ?? refusal("agent-gone");
    for (const session of this.#sessions.values()) lose(session, failure);
    this.#sessions.clear();
    for (const standIn of this.#standIns.values()) standIn.drop();
    this.#standIns.clear();
    this.emit("end", error);
    for (const answered of this.#pending.values()) answered(failure);
    this.#pending.clear();
    this.#protected.clear();
  }
}

/** Takes the message's next descriptor. */
function claim(raw: RawMessage): number {
  const fd = raw.fds.shift();
  if (fd === undefined) throw refusal("unexpected-descriptors");
  return fd;
}

function lose(session: StandbySession, error: TandemError): void {
  session.lostError = error;
  session.emit("lost", error);
}

/** errno of connect(2) → the refusal that explains it. */
const connectErrors: Record<string, RefusalCode> = {
  ENOENT: "agent-absent",
  ECONNREFUSED: "agent-absent",
  EACCES: "agent-refused",
  EPERM: "agent-refused",
};

function connect(path: string): number {
  try {
    return native.unixConnect(path);
  } catch (error) {
    throw refusal(connectErrors[(error as NativeError).code] ?? "agent-refused", `(${path})`, { cause: error });
  }
}
