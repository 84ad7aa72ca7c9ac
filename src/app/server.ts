// The agent's side of the application protocol: who is registered for which service, and what is told to whom.
// Knows nothing of recorder, BPF or takeover; the agent calls it and answers its questions.
//
//   connection:  accepted ──hello──► greeted ──register──► has services ──close/refusal──► gone
//
// Descriptors given to openSession and takeover belong to the server when it returns true, and stay the caller's when
// it returns false. Offsets are stream offsets in bytes, as in docs/protocol.md.

import { mkdirSync } from "node:fs";
import path from "node:path";
import type { Native, NativeError, UnixChannel } from "../../addon/native.js";
import { TandemError } from "../errors.js";
import { type RefusalCode, refusal } from "./errors.js";
import { encodeMessage, MessageReader } from "./framing.js";
import {
  type AgentMessage,
  type ApplicationMessage,
  type Endpoint,
  MAX_PROGRESS,
  OLDEST_VERSION,
  PROTOCOL_VERSION,
  parseApplicationMessage,
  type RawMessage,
  type Role,
} from "./messages.js";

/** Modes this agent serves. */
const MODES = ["live"];

export interface AppServerOptions {
  path: string;
  native: Pick<Native, "unixListen" | "unixChannel" | "unixPeer" | "closeFd">;
  /** This router's name, and its role at the start. */
  router: string;
  role: Role;
  /** May this service be registered in this mode? Null: yes. */
  accept: (service: string, mode: string) => RefusalCode | null;
  /** The application has its answer: its sessions can be opened now. */
  onRegister: (registration: Registration) => void;
  /** The application is gone; sessions of its service have no application. `reason` is one sentence. */
  onGone: (registration: Registration, reason: string) => void;
  /** Bytes that may wait for one application before it is dropped as too slow. Default 4 MiB. */
  maxPending?: number;
  /** Least time between two progress messages, milliseconds. Default 10. */
  progressInterval?: number;
}

export interface Registration {
  service: string;
  mode: string;
  /** What the application calls itself; may be empty. */
  application: string;
  pid: number;
  uid: number;
}

export interface OfferedSession {
  id: number;
  service: string;
  local: Endpoint;
  peer: Endpoint;
  /** How far the active's output is recorded. The feed always starts at input byte 0. */
  outputOffset: number;
}

export interface AppServer {
  /** Offers a session. `feedFd`: the application's end of the mirrored input. False: no application for its service. */
  openSession(session: OfferedSession, feedFd: number): boolean;
  /** How far each session is recorded; entries of sessions that were not opened are ignored. Sent in batches. */
  progress(entries: Iterable<readonly [id: number, outputOffset: number, inputEnd: number]>): void;
  /** The peer has finished its direction after `inputOffset` bytes. */
  fin(id: number, inputOffset: number): void;
  /** The session ended on the active: "closed", "reset", "timeout"... End its feed. */
  closed(id: number, cause: string): void;
  /** The session will not be taken over. Close its feed. */
  notReady(id: number, reason: string): void;
  /** Hands over the TCP socket; the feed must end at `inputOffset`. False: the application is gone or never had it. */
  takeover(id: number, offsets: { inputOffset: number; outputOffset: number }, socketFd: number): boolean;
  setRole(role: Role): void;
  registrations(): Registration[];
  /** Tells the applications and stops listening. */
  close(): void;
}

const MAX_CONNECTIONS = 64;
const HELLO_TIMEOUT = 10_000;
/** Bytes waiting for an application above which progress is not sent but brought up to date. */
const PROGRESS_PENDING = 65_536;

/** Throws NativeError (EADDRINUSE, EACCES...) when the socket cannot be made. */
export function createAppServer(options: AppServerOptions): AppServer {
  return new UnixAppServer(options);
}

class UnixAppServer implements AppServer {
  readonly #options: AppServerOptions;
  readonly #listener: { close(): void };
  readonly #applications = new Set<Application>();
  readonly #byService = new Map<string, Application>();
  readonly #bySession = new Map<number, Application>();
  #role: Role;

  constructor(options: AppServerOptions) {
    this.#options = options;
    this.#role = options.role;
    mkdirSync(path.dirname(options.path), { recursive: true });
    this.#listener = options.native.unixListen(options.path, 0o660, (fd) => this.#accept(fd));
  }

  openSession(session: OfferedSession, feedFd: number): boolean {
    const application = this.#byService.get(session.service);
    if (application === undefined) return false;
    this.#bySession.set(session.id, application);
    const { id, service, local, peer, outputOffset } = session;
    const message = { type: "session", id, service, local, peer, inputOffset: 0, outputOffset, fds: 1 } as const;
    if (!application.send(message, feedFd)) return false;
    this.#options.native.closeFd(feedFd);
    return true;
  }

  progress(entries: Iterable<readonly [number, number, number]>): void {
    for (const entry of entries) this.#bySession.get(entry[0])?.progress(entry);
  }

  fin(id: number, inputOffset: number): void {
    this.#bySession.get(id)?.send({ type: "fin", id, inputOffset });
  }

  closed(id: number, cause: string): void {
    this.#forget(id)?.send({ type: "closed", id, cause });
  }

  notReady(id: number, reason: string): void {
    this.#forget(id)?.send({ type: "notReady", id, reason });
  }

  takeover(id: number, offsets: { inputOffset: number; outputOffset: number }, socketFd: number): boolean {
    const application = this.#forget(id);
    const { inputOffset, outputOffset } = offsets;
    if (!application?.send({ type: "takeover", id, inputOffset, outputOffset, fds: 1 }, socketFd)) return false;
    this.#options.native.closeFd(socketFd);
    return true;
  }

  setRole(role: Role): void {
    if (role === this.#role) return;
    this.#role = role;
    for (const application of this.#applications) {
      if (application.greeted) application.send({ type: "role", role });
    }
  }

  registrations(): Registration[] {
    return [...this.#applications].flatMap((application) => [...application.registrations.values()]);
  }

  close(): void {
    this.#listener.close();
    for (const application of this.#applications) application.refuse(refusal("stopping"));
  }

  #forget(id: number): Application | undefined {
    const application = this.#bySession.get(id);
    this.#bySession.delete(id);
    application?.forget(id);
    return application;
  }

  #accept(fd: number): void {
    const application = new Application(fd, this.#options, {
      onMessage: (message) => this.#onMessage(application, message),
      onGone: (reason) => this.#onGone(application, reason),
    });
    this.#applications.add(application);
    if (this.#applications.size > MAX_CONNECTIONS) application.refuse(refusal("too-many-connections"));
  }

  #onMessage(application: Application, message: ApplicationMessage): void {
    if (message.type === "hello") {
      if (message.version < OLDEST_VERSION) throw refusal("version");
      application.greet(Math.min(message.version, PROTOCOL_VERSION), message.application ?? "", this.#role);
      return;
    }
    if (!application.greeted) throw refusal("hello-first");
    const { service, mode, request } = message;
    const refused = this.#refuses(application, service, mode);
    if (refused !== null) {
      application.answerError(refused, service, request);
      return;
    }
    const registration = application.register(service, mode);
    this.#byService.set(service, application);
    application.send({ type: "registered", service, mode, request });
    this.#options.onRegister(registration);
  }

  #refuses(application: Application, service: string, mode: string): TandemError | null {
    if (application.registrations.has(service)) return refusal("already-registered");
    if (!MODES.includes(mode)) return refusal("mode-not-supported");
    const code = this.#options.accept(service, mode);
    if (code !== null) return refusal(code);
    return this.#byService.has(service) ? refusal("service-taken") : null;
  }

  #onGone(application: Application, reason: string): void {
    this.#applications.delete(application);
    for (const [id, owner] of this.#bySession) if (owner === application) this.#bySession.delete(id);
    for (const [service, registration] of application.registrations) {
      this.#byService.delete(service);
      this.#options.onGone(registration, reason);
    }
  }
}

interface ApplicationEvents {
  onMessage: (message: ApplicationMessage) => void;
  /** Once; after a refusal of ours too. */
  onGone: (reason: string) => void;
}

/** One connected application. */
class Application {
  greeted = false;
  readonly registrations = new Map<string, Registration>();
  readonly #options: AppServerOptions;
  readonly #events: ApplicationEvents;
  readonly #channel: UnixChannel;
  readonly #reader = new MessageReader();
  readonly #peer: { pid: number; uid: number };
  readonly #progress = new Map<number, readonly [number, number, number]>();
  #progressTimer: NodeJS.Timeout | null = null;
  #progressAt = 0;
  #name = "";
  #gone = false;
  readonly #helloTimer: NodeJS.Timeout;

  constructor(fd: number, options: AppServerOptions, events: ApplicationEvents) {
    this.#options = options;
    this.#events = events;
    this.#peer = options.native.unixPeer(fd);
    this.#channel = options.native.unixChannel(fd, {
      onData: (data, fds) => this.#onData(data, fds),
      onClose: (error) => this.#leave(error === null ? "It closed the connection." : closeReason(error)),
    });
    this.#helloTimer = setTimeout(() => this.refuse(refusal("hello-timeout")), HELLO_TIMEOUT);
    this.#helloTimer.unref();
  }

  greet(version: number, name: string, role: Role): void {
    if (this.greeted) throw refusal("bad-message", "A second hello.");
    this.greeted = true;
    this.#name = name;
    clearTimeout(this.#helloTimer);
    this.send({ type: "welcome", version, router: this.#options.router, role, modes: MODES });
  }

  register(service: string, mode: string): Registration {
    const registration = { service, mode, application: this.#name, pid: this.#peer.pid, uid: this.#peer.uid };
    this.registrations.set(service, registration);
    return registration;
  }

  /** `fd` is duplicated; it stays the caller's. False: the application is gone. */
  send(message: AgentMessage, fd?: number): boolean {
    if (this.#gone) return false;
    try {
      this.#channel.send(encodeMessage(message), fd === undefined ? undefined : [fd]);
    } catch (error) {
      // The kernel would not take the descriptor (EMFILE, ETOOMANYREFS): this application cannot be served.
      this.#drop(closeReason(error as NativeError));
      return false;
    }
    if (this.#channel.pending() > (this.#options.maxPending ?? 4_194_304)) this.#drop(refusal("too-slow").message);
    return !this.#gone;
  }

  /** The connection stays. */
  answerError(error: TandemError, service?: string, request?: number): void {
    const { code, message, remedy } = error;
    this.send({ type: "error", code, message, remedy, fatal: false, service, request });
  }

  /** Says why and closes the connection. */
  refuse(error: TandemError): void {
    if (this.#gone) return;
    const { code, message, remedy } = error;
    this.#channel.send(encodeMessage({ type: "error", code, message, remedy, fatal: true }));
    this.#channel.end();
    this.#leave(`Refused: ${message}`);
  }

  /** Keeps the newest state of each session, and sends it in one message when the interval has passed and the
   * application keeps up. What waits is bounded by the number of sessions. */
  progress(entry: readonly [id: number, outputOffset: number, inputEnd: number]): void {
    if (this.#gone) return;
    this.#progress.set(entry[0], entry);
    if (this.#progressTimer !== null) return;
    const interval = this.#options.progressInterval ?? 10;
    const wait = Math.max(0, this.#progressAt + interval - performance.now());
    this.#progressTimer = setTimeout(() => this.#sendProgress(interval), wait);
  }

  /** What was said about the session last supersedes its progress. */
  forget(id: number): void {
    this.#progress.delete(id);
  }

  #sendProgress(interval: number): void {
    if (this.#channel.pending() > PROGRESS_PENDING) {
      this.#progressTimer = setTimeout(() => this.#sendProgress(interval), interval);
      return;
    }
    this.#progressTimer = null;
    this.#progressAt = performance.now();
    const entries = [...this.#progress.values()];
    this.#progress.clear();
    for (let start = 0; start < entries.length; start += MAX_PROGRESS) {
      const sessions = entries
        .slice(start, start + MAX_PROGRESS)
        .map(([id, out, end]): [number, number, number] => [id, out, end]);
      this.send({ type: "progress", sessions });
    }
  }

  #onData(data: Uint8Array, fds: number[]): void {
    if (this.#gone) {
      for (const fd of fds) this.#options.native.closeFd(fd);
      return;
    }
    try {
      this.#reader.push(data, fds, (raw) => this.#onRaw(raw));
    } catch (error) {
      if (!(error instanceof TandemError)) throw error;
      this.refuse(error);
    }
  }

  #onRaw(raw: RawMessage): void {
    // No message of this version brings descriptors.
    for (const fd of raw.fds) this.#options.native.closeFd(fd);
    const message = parseApplicationMessage(raw);
    if (message === null) {
      if (!this.greeted) throw refusal("hello-first");
      this.answerError(refusal("unknown-type", raw.type));
      return;
    }
    if (raw.fds.length > 0) throw refusal("unexpected-descriptors");
    this.#events.onMessage(message);
  }

  /** Without a word: it would not get it. */
  #drop(reason: string): void {
    this.#channel.destroy();
    this.#leave(reason);
  }

  #leave(reason: string): void {
    if (this.#gone) return;
    this.#gone = true;
    clearTimeout(this.#helloTimer);
    if (this.#progressTimer !== null) clearTimeout(this.#progressTimer);
    this.#progress.clear();
    for (const fd of this.#reader.abandon()) this.#options.native.closeFd(fd);
    this.#events.onGone(reason);
  }
}

function closeReason(error: NativeError): string {
  return `Its connection failed: ${error.code}.`;
}
