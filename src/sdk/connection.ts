// The application's connection to the agent of its own router: hello, registration, and sessions as they come.

import { EventEmitter } from "node:events";
import { type NativeError, native, type UnixChannel } from "../../addon/native.js";
import { type RefusalCode, refusal } from "../app/errors.js";
import { encodeMessage, MessageReader } from "../app/framing.js";
import {
  type AgentMessage,
  type AgentMessageOf,
  DEFAULT_SOCKET_PATH,
  OLDEST_VERSION,
  PROTOCOL_VERSION,
  parseAgentMessage,
  type RawMessage,
  type Role,
} from "../app/messages.js";
import { TandemError } from "../errors.js";
import { StandbySession, socketFromDescriptor } from "./session.js";

export interface ConnectOptions {
  /** Path of the agent's Unix socket. Default /run/tandem/app.sock. */
  path?: string;
  /** Shown in the agent's status. Default the process's title. */
  application?: string;
}

interface ConnectionEvents {
  session: [session: StandbySession];
  /** The agent's router has another role now. */
  role: [role: Role];
  /** The connection has ended: the reason, null after close(). Sessions not taken over are lost. */
  end: [error: TandemError | null];
}

interface Pending {
  resolve: () => void;
  reject: (error: TandemError) => void;
}

export class StandbyConnection extends EventEmitter<ConnectionEvents> {
  /** The router's name, and its role when last heard of. */
  router = "";
  role: Role = "fenced";
  modes: string[] = [];
  readonly #channel: UnixChannel;
  readonly #reader = new MessageReader();
  readonly #sessions = new Map<number, StandbySession>();
  readonly #pending = new Map<number, Pending>();
  #nextRequest = 1;
  #welcome: Pending | null;
  /** The fatal error the agent announced before it closed. */
  #reason: TandemError | null = null;
  #open = true;

  /** Made by connectStandby. `fd` becomes this object's. */
  constructor(fd: number, application: string, welcome: Pending) {
    super();
    this.#welcome = welcome;
    this.#channel = native.unixChannel(fd, {
      onData: (data, fds) => this.#onData(data, fds),
      onClose: (error) => this.#finish(this.#reason ?? refusal("agent-gone", error?.message)),
    });
    this.#channel.send(
      encodeMessage({
        type: "hello",
        version: PROTOCOL_VERSION,
        role: "standby",
        application: application.slice(0, 64),
      }),
    );
  }

  /** Sessions that could be taken over, by id. */
  get sessions(): ReadonlyMap<number, StandbySession> {
    return this.#sessions;
  }

  /** Resolves when the agent has accepted; then its sessions arrive as "session" events. Rejects with TandemError:
   * `unknown-service`, `service-taken`, `already-registered`, `mode-not-supported`, `agent-gone`. */
  register(service: string, mode = "live"): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!this.#open) {
        reject(refusal("agent-gone"));
        return;
      }
      const request = this.#nextRequest++;
      this.#pending.set(request, { resolve, reject });
      this.#channel.send(encodeMessage({ type: "register", service, mode, request }));
    });
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
    const unclaimed = new Set(raw.fds);
    const claim = (): number => {
      const [fd] = unclaimed;
      if (fd === undefined) throw refusal("unexpected-descriptors");
      unclaimed.delete(fd);
      return fd;
    };
    try {
      const message = parseAgentMessage(raw);
      if (message !== null) this.#handle(message, claim);
    } finally {
      for (const fd of unclaimed) native.closeFd(fd);
    }
  }

  #handle(message: AgentMessage, claim: () => number): void {
    switch (message.type) {
      case "welcome":
        if (message.version < OLDEST_VERSION || message.version > PROTOCOL_VERSION) throw refusal("version");
        this.router = message.router;
        this.role = message.role;
        this.modes = message.modes;
        this.#welcome?.resolve();
        this.#welcome = null;
        break;
      case "registered":
        this.#answered(message.request)?.resolve();
        break;
      case "error":
        this.#onError(message);
        break;
      case "role":
        this.role = message.role;
        this.emit("role", message.role);
        break;
      case "session": {
        const session = new StandbySession(message, message.outputOffset, claim());
        this.#sessions.set(message.id, session);
        this.emit("session", session);
        break;
      }
      case "progress":
        for (const [id, outputOffset, inputEnd] of message.sessions) {
          const session = this.#sessions.get(id);
          if (session === undefined) continue;
          session.outputOffset = outputOffset;
          session.inputEnd = inputEnd;
          session.emit("progress", outputOffset, inputEnd);
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
        this.#onTakeover(message, claim);
        break;
    }
  }

  #onTakeover(message: AgentMessageOf<"takeover">, claim: () => number): void {
    const { id, inputOffset, outputOffset } = message;
    const session = this.#forget(id);
    if (session === undefined) return;
    session.takeover = { socket: socketFromDescriptor(claim(), true), inputOffset, outputOffset };
    session.outputOffset = outputOffset;
    session.emit("takeover", session.takeover);
  }

  #onError(message: AgentMessageOf<"error">): void {
    const error = new TandemError(message.code, message.message, message.remedy);
    if (message.fatal) this.#reason = error;
    else this.#answered(message.request)?.reject(error);
  }

  #answered(request: number | undefined): Pending | undefined {
    if (request === undefined) return undefined;
    const pending = this.#pending.get(request);
    this.#pending.delete(request);
    return pending;
  }

  #forget(id: number): StandbySession | undefined {
    const session = this.#sessions.get(id);
    this.#sessions.delete(id);
    return session;
  }

  #finish(error: TandemError | null): void {
    if (!this.#open) return;
    this.#open = false;
    for (const fd of this.#reader.abandon()) native.closeFd(fd);
    this.#channel.destroy();
    const failure = error ?? refusal("agent-gone");
    this.#welcome?.reject(failure);
    for (const pending of this.#pending.values()) pending.reject(failure);
    this.#pending.clear();
    for (const session of this.#sessions.values()) lose(session, failure);
    this.#sessions.clear();
    this.emit("end", error);
  }
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

/** Connects to the agent of this router. Rejects with TandemError: `agent-absent`, `agent-refused`, `agent-gone`,
 * `version`, `too-many-connections`. */
export async function connectStandby(options: ConnectOptions = {}): Promise<StandbyConnection> {
  const path = options.path ?? DEFAULT_SOCKET_PATH;
  let fd: number;
  try {
    fd = native.unixConnect(path);
  } catch (error) {
    throw refusal(connectErrors[(error as NativeError).code] ?? "agent-refused", `(${path})`, { cause: error });
  }
  return new Promise((resolve, reject) => {
    const connection = new StandbyConnection(fd, options.application ?? process.title, {
      resolve: () => resolve(connection),
      reject,
    });
  });
}
