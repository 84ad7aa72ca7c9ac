// The agent of this router as an application sees it for as long as it runs: connected, or tried again. What the
// application wants (registrations, protected sessions) outlives each connection.

import { EventEmitter } from "node:events";
import type net from "node:net";
import { refusal } from "../app/errors.js";
import { DEFAULT_SOCKET_PATH, type Mode, type Role } from "../app/messages.js";
import { TandemError } from "../errors.js";
import { AgentConnection } from "./connection.js";
import { type Origin, ProtectedSession, type ProtectOptions } from "./protected-session.js";
import { StandbySession } from "./session.js";

export interface ConnectOptions {
  /** Path of the agent's Unix socket. Default /run/tandem/app.sock. */
  path?: string;
  /** Shown in the agent's status. Default the process's title. */
  application?: string;
  /** Milliseconds between two attempts to connect or to register. Default 500. */
  retryDelay?: number;
}

interface AgentEvents {
  connected: [];
  /** Not connected (any more), and why; it is tried again until close(). Told once for each reason. */
  disconnected: [error: TandemError];
  /** A session of a registered service is offered. */
  session: [session: StandbySession];
  /** The agent's router has another role now. */
  role: [role: Role];
  registered: [service: string];
  /** A registration that was accepted before is refused on a new connection; it is tried again. */
  refused: [service: string, error: TandemError];
}

interface Registration {
  mode: Mode;
  accepted: boolean;
  resolve: () => void;
  reject: (error: TandemError) => void;
}

/** The session of a socket's first byte. */
const fromStart: Origin = {
  inputOffset: 0,
  outputOffset: 0,
  base: { input: 0, output: 0 },
  replay: new Uint8Array(),
};

export class Agent extends EventEmitter<AgentEvents> {
  readonly #path: string;
  readonly #application: string;
  readonly #retryDelay: number;
  readonly #registrations = new Map<string, Registration>();
  readonly #protected = new Map<net.Socket, ProtectedSession>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #connection: AgentConnection | null = null;
  /** Code of the last failure that was told. */
  #told = "";
  #open = true;

  /** Made by connectAgent. */
  constructor(options: ConnectOptions) {
    super();
    this.#path = options.path ?? DEFAULT_SOCKET_PATH;
    this.#application = options.application ?? process.title;
    this.#retryDelay = options.retryDelay ?? 500;
    // The application gets to listen before anything is told.
    setImmediate(() => this.#connect());
  }

  get connected(): boolean {
    return this.#connection?.greeted ?? false;
  }
  get closed(): boolean {
    return !this.#open;
  }
  /** The router's name; empty while not connected. */
  get router(): string {
    return this.#connection?.router ?? "";
  }
  /** The router's role; null while not connected. */
  get role(): Role | null {
    return this.connected ? (this.#connection?.role ?? null) : null;
  }
  /** The modes that the agent serves. */
  get modes(): string[] {
    return this.#connection?.modes ?? [];
  }
  /** Sessions offered and not yet taken over, closed or lost, by id. */
  get sessions(): ReadonlyMap<number, StandbySession> {
    return this.#connection?.sessions ?? new Map<number, StandbySession>();
  }

  /** Standby side: the sessions of this service come as "session" events. Resolves when the agent has accepted, waiting
   * for it if it is not there; from then on the registration is renewed on each connection. Rejects with TandemError
   * `unknown-service`, `service-taken`, `already-registered`, `mode-not-supported`, `agent-gone` (close()). */
  register(service: string, mode: Mode): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!this.#open) reject(refusal("agent-gone"));
      else if (this.#registrations.has(service)) reject(refusal("already-registered"));
      else {
        const registration = { mode, accepted: false, resolve, reject };
        this.#registrations.set(service, registration);
        this.#register(service, registration);
      }
    });
  }

  /** Active side: protects the session of a connected socket, for as long as it lives and whenever the agent is there.
   * From now on write only through the session. Bytes that lie in the socket's own buffer must be read before a standby
   * can join; a socket with setEncoding() or `onread` cannot be protected. Throws TandemError `already-protected`. */
  protect(socket: net.Socket, options: ProtectOptions = {}): ProtectedSession {
    return this.#protect(socket, options, fromStart);
  }

  /** A connection that this router has accepted, as a live session: see StandbySession.replica. */
  accepted(socket: net.Socket, service: string): StandbySession {
    return StandbySession.accepted(socket, service, this.#protect);
  }

  /** Sessions already taken over go on; protected ones go on unprotected; offered ones are lost. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#connection?.close();
    for (const { accepted, reject } of this.#registrations.values()) if (!accepted) reject(refusal("agent-gone"));
  }

  readonly #protect = (socket: net.Socket, options: ProtectOptions, origin: Origin): ProtectedSession => {
    if (this.#protected.has(socket)) throw refusal("already-protected");
    const session = new ProtectedSession(socket, options, origin);
    this.#protected.set(socket, session);
    socket.once("close", () => this.#protected.delete(socket));
    if (this.#connection?.greeted) session.attach(this.#connection);
    return session;
  };

  #connect(): void {
    if (!this.#open) return;
    try {
      const connection = new AgentConnection(this.#path, this.#application, this.#protect);
      this.#connection = connection;
      connection.on("welcome", () => this.#onWelcome(connection));
      connection.on("session", (session) => this.emit("session", session));
      connection.on("role", (role) => this.emit("role", role));
      connection.on("end", (error) => this.#onEnd(error));
    } catch (error) {
      if (!(error instanceof TandemError)) throw error;
      this.#onEnd(error);
    }
  }

  #onWelcome(connection: AgentConnection): void {
    this.#told = "";
    this.emit("connected");
    for (const [service, registration] of this.#registrations) this.#register(service, registration);
    for (const session of this.#protected.values()) session.attach(connection);
  }

  #onEnd(error: TandemError | null): void {
    this.#connection = null;
    const { code } = error ?? refusal("agent-gone");
    for (const session of this.#protected.values()) session.detach(code);
    if (!this.#open || error === null) return;
    if (code !== this.#told) {
      this.#told = code;
      this.emit("disconnected", error);
    }
    this.#later(() => this.#connect());
  }

  #register(service: string, registration: Registration): void {
    const connection = this.#connection;
    if (!connection?.greeted) return;
    connection.ask({ type: "register", service, mode: registration.mode }, [], null, (answer) => {
      // A connection that ended gives no answer; the next one is asked.
      if (this.#connection !== connection) return;
      if (!(answer instanceof TandemError)) {
        registration.accepted = true;
        registration.resolve();
        this.emit("registered", service);
      } else if (registration.accepted) {
        this.emit("refused", service, answer);
        this.#later(() => this.#register(service, registration));
      } else {
        this.#registrations.delete(service);
        registration.reject(answer);
      }
    });
  }

  #later(what: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      what();
    }, this.#retryDelay);
    this.#timers.add(timer);
  }
}

/** The agent of this router: connects, and connects again whenever the connection is lost, until close(). */
export function connectAgent(options: ConnectOptions = {}): Agent {
  return new Agent(options);
}
