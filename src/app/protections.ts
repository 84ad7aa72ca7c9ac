// The sessions that applications of this router protect: whose each one is, where its resume point stands, and what of
// an application's word about it the agent may believe. One Protections for all connections.
//
//   protect ──► protected ──standbyReady──► handover ──► ready ◄──► unready ... ──► release ──► released

import { readFileSync } from "node:fs";
import { TandemError } from "../errors.js";
import { type RefusalCode, refusal } from "./errors.js";
import type { RawMessage } from "./framing.js";
import {
  type AgentMessage,
  type ApplicationMessage,
  type Base,
  MAX_INPUT_BUFFER,
  MAX_OUTPUT,
  MAX_STATE,
  type Position,
  type ReleaseHow,
} from "./messages.js";

/** A task's flag from the start of its end on (include/linux/sched.h). */
const PF_EXITING = 0x4;

/** Another process, by its Unix socket's credentials. */
export interface ProcessFacts {
  pid: number;
  uid: number;
}

export interface ProtectRequest {
  /** Null: the service is to be found by the socket's addresses. */
  service: string | null;
  base: Base;
  md5Key: Uint8Array | null;
  /** Of the TCP socket; the handler's to close, whatever it answers. */
  fd: number;
  process: ProcessFacts;
}

/** A new resume point: the offsets, and output that the standby may lack: from outputStart, to outputOffset at least. */
export interface ResumePoint extends Position {
  outputStart: number;
  output: Uint8Array;
}

export interface Handover extends ResumePoint {
  state: Uint8Array;
  /** What was read from inputOffset on and is not processed. */
  input: Uint8Array;
}

export interface Confirm extends ResumePoint {
  /** Null: the state stays as it was. */
  state: Uint8Array | null;
}

/** What the agent does with an application's word. Answers may be given at once or later, once. */
export interface ProtectionHandlers {
  /** The answer false: the application has gone in the meantime, the session is nobody's. `id` is unique among all
   * sessions of the agent's life, offered ones too. */
  onProtect: (request: ProtectRequest, answer: (result: { id: number } | { refused: RefusalCode }) => boolean) => void;
  /** `standbyReady` was answered. `ready` or `unready` is what comes of it. Throws TandemError `confirm-beyond` when the
   * socket has not received that much input; so does onConfirm. */
  onHandover: (id: number, handover: Handover) => void;
  /** True: the standby has it. False: no standby holds the session. */
  onConfirm: (id: number, confirm: Confirm, answer: (stored: boolean) => void) => void;
  onLog: (id: number, outputStart: number, output: Uint8Array, answer: (stored: boolean) => void) => void;
  /** To be answered when the agent holds no descriptor of the socket any more. */
  onRelease: (id: number, how: ReleaseHow, answer: () => void) => void;
  /** The application is gone and has not released these. Is its process alive? */
  onApplicationGone: (ids: number[], process: ProcessFacts & { alive: boolean }) => void;
}

/** The connection of an application, as far as it matters here. */
export interface ProtectingApplication {
  readonly process: ProcessFacts;
  readonly gone: boolean;
  send(message: AgentMessage): boolean;
  /** Tells, when it is time, how far the session is recorded. */
  progress(entry: readonly [id: number, outputOffset: number, inputEnd: number]): void;
  answerError(error: TandemError, about: { id?: number; request?: number | undefined }): void;
}

type ProtectionMessage = Exclude<ApplicationMessage, { type: "hello" | "register" }>;
type MessageAbout = Exclude<ProtectionMessage, { type: "protect" }>;

interface Protection {
  application: ProtectingApplication;
  confirmed: Position;
}

export class Protections {
  readonly #handlers: ProtectionHandlers;
  readonly #byId = new Map<number, Protection>();

  constructor(handlers: ProtectionHandlers) {
    this.#handlers = handlers;
  }

  /** Who protects it. */
  applicationOf(id: number): ProtectingApplication | undefined {
    return this.#byId.get(id)?.application;
  }

  /** Takes the descriptors that it uses out of `raw.fds`. */
  onMessage(application: ProtectingApplication, message: ProtectionMessage, raw: RawMessage): void {
    if (message.type === "protect") {
      this.#onProtect(application, message, raw);
      return;
    }
    try {
      this.#onMessageAbout(application, message, raw.parts);
    } catch (error) {
      if (!(error instanceof TandemError)) throw error;
      application.answerError(error, { id: message.id, request: message.request });
    }
  }

  onGone(application: ProtectingApplication): void {
    const ids = [...this.#byId].flatMap(([id, protection]) => (protection.application === application ? [id] : []));
    for (const id of ids) this.#byId.delete(id);
    if (ids.length > 0) {
      const alive = isAlive(application.process.pid);
      this.#handlers.onApplicationGone(ids, { ...application.process, alive });
    }
  }

  #onProtect(
    application: ProtectingApplication,
    message: Extract<ProtectionMessage, { type: "protect" }>,
    raw: RawMessage,
  ): void {
    const { service = null, base = { input: 0, output: 0 }, request } = message;
    const [fd] = raw.fds.splice(0, 1);
    if (fd === undefined) throw refusal("unexpected-descriptors");
    const ask = { service, base, md5Key: raw.parts[0] ?? null, fd, process: application.process };
    this.#handlers.onProtect(ask, (result) => {
      if (application.gone) return false;
      if ("refused" in result) {
        application.answerError(refusal(result.refused), { request });
        return true;
      }
      // What the peer has acknowledged may be ahead of the state that a takeover resumed from.
      const confirmed = { inputOffset: base.input, outputOffset: 0 };
      this.#byId.set(result.id, { application, confirmed });
      return application.send({ type: "protected", id: result.id, request });
    });
  }

  #onMessageAbout(application: ProtectingApplication, message: MessageAbout, parts: Uint8Array[]): void {
    const { id, request } = message;
    const protection = this.#byId.get(id);
    if (protection?.application !== application) throw refusal("unknown-session", `(${id})`);
    const [first, second, third] = parts;
    switch (message.type) {
      case "handover": {
        const [state, input, output] = [first, second, third] as [Uint8Array, Uint8Array, Uint8Array];
        if (input.length > MAX_INPUT_BUFFER) throw refusal("buffer-too-large");
        check(protection, message, state, output);
        const { inputOffset, outputOffset, outputStart } = message;
        this.#handlers.onHandover(id, { inputOffset, outputOffset, outputStart, state, input, output });
        protection.confirmed = { inputOffset, outputOffset };
        return;
      }
      case "confirm": {
        const [state, output] = [first, second] as [Uint8Array, Uint8Array];
        check(protection, message, state, output);
        const { inputOffset, outputOffset, outputStart } = message;
        const confirm = { inputOffset, outputOffset, outputStart, output, state: message.keepState ? null : state };
        this.#handlers.onConfirm(id, confirm, (stored) => {
          application.send({ type: "confirmed", id, stored, request });
        });
        protection.confirmed = { inputOffset, outputOffset };
        return;
      }
      case "log": {
        const output = first as Uint8Array;
        if (output.length > MAX_OUTPUT) throw refusal("buffer-too-large");
        this.#handlers.onLog(id, message.outputStart, output, (stored) => {
          application.send({ type: "logged", id, stored, request });
        });
        return;
      }
      case "release":
        this.#byId.delete(id);
        this.#handlers.onRelease(id, message.how, () => {
          application.send({ type: "released", id, request });
        });
        return;
    }
  }
}

/** Throws what is wrong with a resume point. */
function check(
  protection: Protection,
  point: Position & { outputStart: number },
  state: Uint8Array,
  output: Uint8Array,
): void {
  const { inputOffset, outputOffset, outputStart } = point;
  if (state.length > MAX_STATE) throw refusal("state-too-large");
  if (output.length > MAX_OUTPUT) throw refusal("buffer-too-large");
  if (inputOffset < protection.confirmed.inputOffset || outputOffset < protection.confirmed.outputOffset)
    throw refusal("confirm-behind");
  if (outputStart + output.length < outputOffset) throw refusal("confirm-beyond");
}

/** A process that dies closes its connection to us while it still exists, and is there until its parent has waited for
 * it: its flags tell (proc(5), /proc/PID/stat). */
function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const [, , , , , , flags] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(flags) & PF_EXITING) === 0;
  } catch {
    return false;
  }
}
