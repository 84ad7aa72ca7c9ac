// The agent's side of the application protocol: who is registered for which service, and what is told to whom.
// Knows nothing of recorder, BPF or takeover; the agent calls it and answers its questions.
//
//   connection:  accepted ──hello──► greeted ──register──► has services ──close/refusal──► gone
//
// Descriptors given to openSession and takeover belong to the server when it returns true, and stay the caller's when
// it returns false. Offsets are stream offsets in bytes, as in docs/protocol.md. What applications protect on the
// active side is in protections.ts; one connection may do both.

import { mkdirSync } from "node:fs";
import path from "node:path";
import type { Native, NativeError, UnixChannel } from "../../addon/native.js";
import { TandemError } from "../errors.js";
import { type RefusalCode, refusal } from "./errors.js";
import { MessageReader, type RawMessage } from "./framing.js";
import {
  type AgentMessage,
  type ApplicationMessage,
  type Base,
  type Endpoint,
  encodeMessage,
  MAX_FDS,
  MAX_PROGRESS,
  MODES,
  type Mode,
  OLDEST_VERSION,
  type Position,
  PROTOCOL_VERSION,
  parseApplicationMessage,
  type Role,
  TO_AGENT,
} from "./messages.js";
import { type ProcessFacts, type ProtectingApplication, type ProtectionHandlers, Protections } from "./protections.js";

export interface AppServerOptions extends ProtectionHandlers {
  path: string;
  native: Pick<Native, "unixListen" | "unixChannel" | "unixPeer" | "closeFd" | "closeAtOnce">;
  /** This router's name, and its role at the start. */
  router: string;
  role: Role;
  /** May this service be registered in this mode? Null: yes. */
  accept: (service: string, mode: Mode) => RefusalCode | null;
  /** The application has its answer: its sessions can be opened now. */
  onRegister: (registration: Registration) => void;
  /** The application is gone; sessions of its service have no application. `reason` is one sentence. */
  onGone: (registration: Registration, reason: string) => void;
  /** Bytes that may wait for one application before it is dropped as too slow; states and output, which are bounded by
   * the sessions, do not count. Default 4 MiB. */
  maxPending?: number;
  /** Least time between two progress messages, milliseconds. Default 10. */
  progressInterval?: number;
}

export interface Registration extends ProcessFacts {
  service: string;
  mode: Mode;
  /** What the application calls itself; may be empty. */
  application: string;
}

export interface OfferedSession extends Position {
  id: number;
  service: string;
  mode: Mode;
  local: Endpoint;
  peer: Endpoint;
  /** How far the active's output is recorded. inputOffset is where the feed begins, outputOffset where the state's
   * output stands. */
  recorded: number;
  /** It began before it was recorded. */
  joined: boolean;
  /** What the active's application handed over; empty if it did not. */
  state: Uint8Array;
}

export interface OfferedTakeover extends Position {
  /** The resume point: where `state` stands. */
  confirmed: Position;
  base: Base;
  /** Delivered mode: had the active answered all that it had read? Null: not known. */
  clean: boolean | null;
  state: Uint8Array;
  /** Output of the active from confirmed.outputOffset to outputOffset. */
  outputSinceConfirm: Uint8Array;
}

export interface AppServer {
  /** Offers a session. `feedFd`: the application's end of the mirrored input; null unless its mode is live. False: no
   * application for its service. */
  openSession(session: OfferedSession, feedFd: number | null): boolean;
  /** How far each session is recorded; entries of sessions that were not opened are ignored. Sent in batches. */
  progress(entries: Iterable<readonly [id: number, outputOffset: number, inputEnd: number]>): void;
  /** The peer has finished its direction after `inputOffset` bytes. */
  fin(id: number, inputOffset: number): void;
  /** The session ended on the active: "closed", "reset", "timeout"... End its feed. */
  closed(id: number, cause: string): void;
  /** The session will not be taken over. Close its feed. */
  notReady(id: number, reason: string): void;
  /** Hands over the TCP socket; the feed must end at `inputOffset`. False: the application is gone or never had it. */
  takeover(id: number, takeover: OfferedTakeover, socketFd: number): boolean;
  /** Takeovers in `action` leave some at a time: fewer sends for the agent, fewer receipts for the application. */
  together(action: () => void): void;
  /** To the application that protects the session: it may hand over. `recorded`: how far its output is recorded. */
  standbyReady(id: number, recorded: number): void;
  /** To the application that protects the session: the standby can take it over now. */
  ready(id: number): void;
  /** To the application that protects the session: it cannot, for this reason (a word of reasons.ts). */
  unready(id: number, reason: string): void;
  setRole(role: Role): void;
  registrations(): Registration[];
  /** Tells the applications and stops listening. */
  close(): void;
}

const MAX_CONNECTIONS = 64;
const HELLO_TIMEOUT = 10_000;
/** Of takeovers that leave together, bytes: they are one buffer of the kernel's. */
const TOGETHER_BYTES = 16_384;
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
  readonly #protections: Protections;
  #role: Role;
  #together = false;

  constructor(options: AppServerOptions) {
    this.#options = options;
    this.#role = options.role;
    this.#protections = new Protections(options);
    mkdirSync(path.dirname(options.path), { recursive: true });
    this.#listener = options.native.unixListen(options.path, 0o660, (fd) => this.#accept(fd));
  }

  openSession(session: OfferedSession, feedFd: number | null): boolean {
    const application = this.#byService.get(session.service);
    if (application === undefined) return false;
    this.#bySession.set(session.id, application);
    const { state, ...facts } = session;
    const message = { type: "session", ...facts, fds: feedFd === null ? 0 : 1 } as const;
    if (!application.send(message, [state], feedFd)) return false;
    if (feedFd !== null) this.#options.native.closeFd(feedFd);
    return true;
  }

  progress(entries: Iterable<readonly [number, number, number]>): void {
    for (const entry of entries) {
      const application = this.#bySession.get(entry[0]) ?? this.#protections.applicationOf(entry[0]);
      application?.progress(entry);
    }
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

  takeover(id: number, takeover: OfferedTakeover, socketFd: number): boolean {
    const application = this.#forget(id);
    const { state, outputSinceConfirm, ...facts } = takeover;
    const message = { type: "takeover", id, ...facts, fds: 1 } as const;
    if (!application?.give(encodeMessage(message, [state, outputSinceConfirm]), socketFd)) return false;
    if (!this.#together) application.flush();
    return true;
  }

  together(action: () => void): void {
    this.#together = true;
    try {
      action();
    } finally {
      this.#together = false;
      for (const application of this.#applications) application.flush();
    }
  }

  standbyReady(id: number, recorded: number): void {
    this.#protections.applicationOf(id)?.send({ type: "standbyReady", id, recorded });
  }

  ready(id: number): void {
    this.#protections.applicationOf(id)?.send({ type: "ready", id });
  }

  unready(id: number, reason: string): void {
    this.#protections.applicationOf(id)?.send({ type: "unready", id, reason });
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
      onMessage: (message, raw) => this.#onMessage(application, message, raw),
      onGone: (reason) => this.#onGone(application, reason),
    });
    this.#applications.add(application);
    if (this.#applications.size > MAX_CONNECTIONS) application.refuse(refusal("too-many-connections"));
  }

  #onMessage(application: Application, message: ApplicationMessage, raw: RawMessage): void {
    if (message.type === "hello") {
      if (message.version < OLDEST_VERSION) throw refusal("version");
      application.greet(Math.min(message.version, PROTOCOL_VERSION), message.application ?? "", this.#role);
      return;
    }
    if (!application.greeted) throw refusal("hello-first");
    if (message.type !== "register") {
      this.#protections.onMessage(application, message, raw);
      return;
    }
    const { service, request } = message;
    const mode = MODES.find((known) => known === message.mode);
    if (mode === undefined) {
      application.answerError(refusal("mode-not-supported"), { service, request });
      return;
    }
    const refused = this.#refuses(application, service, mode);
    if (refused !== null) {
      application.answerError(refused, { service, request });
      return;
    }
    const registration = application.register(service, mode);
    this.#byService.set(service, application);
    application.send({ type: "registered", service, mode, request });
    this.#options.onRegister(registration);
  }

  #refuses(application: Application, service: string, mode: Mode): TandemError | null {
    if (application.registrations.has(service)) return refusal("already-registered");
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
    this.#protections.onGone(application);
  }
}

interface ApplicationEvents {
  /** Descriptors that are left in `raw.fds` are closed. */
  onMessage: (message: ApplicationMessage, raw: RawMessage) => void;
  /** Once; after a refusal of ours too. */
  onGone: (reason: string) => void;
}

/** One connected application. */
class Application implements ProtectingApplication {
  greeted = false;
  readonly process: ProcessFacts;
  readonly registrations = new Map<string, Registration>();
  readonly #options: AppServerOptions;
  readonly #events: ApplicationEvents;
  readonly #channel: UnixChannel;
  readonly #reader = new MessageReader(TO_AGENT);
  readonly #progress = new Map<number, readonly [number, number, number]>();
  #progressTimer: NodeJS.Timeout | null = null;
  #progressAt = 0;
  #name = "";
  #gone = false;
  /** Takeovers that leave together, and their descriptors. */
  #given: Buffer[] = [];
  #givenFds: number[] = [];
  #givenBytes = 0;
  /** Bytes of parts sent since nothing waited last: so much of what waits is not held against the application. */
  #partsAllowance = 0;
  readonly #helloTimer: NodeJS.Timeout;

  constructor(fd: number, options: AppServerOptions, events: ApplicationEvents) {
    this.#options = options;
    this.#events = events;
    const { pid, uid } = options.native.unixPeer(fd);
    this.process = { pid, uid };
    this.#channel = options.native.unixChannel(fd, {
      onData: (data, fds) => this.#onData(data, fds),
      onClose: (error) => this.#leave(error === null ? "It closed the connection." : closeReason(error)),
    });
    this.#helloTimer = setTimeout(() => this.refuse(refusal("hello-timeout")), HELLO_TIMEOUT);
    this.#helloTimer.unref();
  }

  get gone(): boolean {
    return this.#gone;
  }

  greet(version: number, name: string, role: Role): void {
    if (this.greeted) throw refusal("bad-message", "A second hello.");
    this.greeted = true;
    this.#name = name;
    clearTimeout(this.#helloTimer);
    this.send({ type: "welcome", version, router: this.#options.router, role, modes: MODES });
  }

  register(service: string, mode: Mode): Registration {
    const registration = { service, mode, application: this.#name, ...this.process };
    this.registrations.set(service, registration);
    return registration;
  }

  /** `fd` is duplicated; it stays the caller's. False: the application is gone. */
  send(message: AgentMessage, parts: readonly Uint8Array[] = [], fd: number | null = null): boolean {
    if (this.#gone) return false;
    const bounded = parts.reduce((sum, part) => sum + part.length, 0);
    return this.#write(encodeMessage(message, parts), bounded, fd === null ? undefined : [fd]);
  }

  /** `bounded`: bytes of it that the number of sessions bounds. */
  #write(bytes: Buffer, bounded: number, fds: number[] | undefined): boolean {
    if (this.#channel.pending() === 0) this.#partsAllowance = 0;
    this.#partsAllowance += bounded;
    try {
      this.#channel.send(bytes, fds);
    } catch (error) {
      // The kernel would not take the descriptor (EMFILE, ETOOMANYREFS): this application cannot be served.
      this.#drop(closeReason(error as NativeError));
      return false;
    }
    const allowed = (this.#options.maxPending ?? 4_194_304) + this.#partsAllowance;
    if (this.#channel.pending() > allowed) this.#drop(refusal("too-slow").message);
    return !this.#gone;
  }

  /** Takes over `fd`, to hand it over by the next flush. False: the application is gone; the descriptor stays the
   * caller's. */
  give(message: Buffer, fd: number): boolean {
    if (this.#gone) return false;
    if (this.#givenFds.length === MAX_FDS || this.#givenBytes + message.length > TOGETHER_BYTES) this.flush();
    if (this.#gone) return false;
    this.#given.push(message);
    this.#givenFds.push(fd);
    this.#givenBytes += message.length;
    return true;
  }

  /** Sends what was given. To an application that cannot take it the connections are lost with it. */
  flush(): void {
    const fds = this.#givenFds;
    if (fds.length === 0) return;
    const { closeFd, closeAtOnce } = this.#options.native;
    const sent = this.#write(Buffer.concat(this.#given), this.#givenBytes, fds);
    for (const fd of fds) (sent ? closeFd : closeAtOnce)(fd);
    this.#given = [];
    this.#givenFds = [];
    this.#givenBytes = 0;
  }

  /** The connection stays. */
  answerError(error: TandemError, about: { service?: string; id?: number; request?: number | undefined }): void {
    const { code, message, remedy } = error;
    this.send({ type: "error", code, message, remedy, fatal: false, ...about });
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
    try {
      const message = parseApplicationMessage(raw);
      if (message !== null) {
        if (raw.fds.length > 0 && message.type !== "protect") throw refusal("unexpected-descriptors");
        this.#events.onMessage(message, raw);
        return;
      }
      if (!this.greeted) throw refusal("hello-first");
      this.answerError(refusal("unknown-type", raw.type), {});
    } finally {
      for (const fd of raw.fds) this.#options.native.closeFd(fd);
    }
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
