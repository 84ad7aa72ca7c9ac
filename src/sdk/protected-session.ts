// One session that this router's application protects, on the active side: hand-over to the standby, confirms, logged
// and held-back writes. The application reads from `socket` and writes through the session.
//
//   not ready ──agent protects, standby joins──► standbyReady ──handover()──► ready
//       ▲                                                                       │
//       └────────── standby or agent gone: the session goes on ◄────────────────┘
//
// Output is kept while the standby may lack it: from the recorded end on, since a confirm, a logged write and a
// hand-over bring along what comes before them.

import { EventEmitter } from "node:events";
import type net from "node:net";
import { refusal } from "../app/errors.js";
import {
  type AgentMessage,
  type ApplicationMessage,
  type Base,
  MAX_INPUT_BUFFER,
  MAX_OUTPUT,
  MAX_STATE,
  type Position,
  type ReleaseHow,
} from "../app/messages.js";
import { TandemError } from "../errors.js";
import { HeldOutput } from "./held-output.js";
import { InputTap } from "./input-tap.js";

/** Bytes of output kept behind the recorded end, and while there is no standby: a state may stand so far behind what is
 * written, and a socket may hold so much that was not sent, without delaying a hand-over. */
const KEPT_OUTPUT = 65_536;
/** Most bytes of output kept for a standby that takes part: more than a kernel's send buffer holds (tcp_wmem), so what is
 * older is recorded, or the standby is not well. */
const MOST_OUTPUT = 8 << 20;
/** Milliseconds after which a hand-over that could not be made is tried again. */
const HANDOVER_RETRY = 200;

const nothing = Buffer.alloc(0);

/** What the application hands over when the standby is ready. */
export interface HandoverAnswer extends Position {
  /** What the standby's application needs to go on from these offsets. At most 256 KiB. */
  state?: Uint8Array;
  /** The bytes that were read from inputOffset on and are not processed. At most 256 KiB. */
  inputBuffer?: Uint8Array;
}

export interface ProtectOptions {
  /** The service's name; not given: found by the socket's addresses. */
  service?: string;
  /** Asked whenever a standby is ready to take part; between two turns of the event loop, so that state, offsets and
   * buffer belong together. Null: not now, ask again soon. Without it the session is ready only in `delivered` mode, or
   * if it began complete. */
  handover?: () => HandoverAnswer | null;
  /** Writes leave only when a confirm that covers them is on the standby (or no standby is there). Do not wait for such
   * a write before its confirm. Default false. */
  holdOutput?: boolean;
  /** The session's TCP MD5 key (RFC 2385), 1 to 80 bytes. */
  md5Key?: Uint8Array;
}

/** Where a session begins in this process: at its first byte, or at a takeover. */
export interface Origin extends Position {
  /** The kernel socket's first bytes. */
  base: Base;
  /** Output that is on its way, from outputOffset on, and that the application is to produce once more. */
  replay: Uint8Array;
}

interface ProtectedSessionEvents {
  /** The standby can take the session over. */
  ready: [];
  /** It cannot, for this reason; the session goes on. */
  unready: [reason: string];
  /** The agent will not protect it, or a hand-over is refused; the session goes on. */
  refused: [error: TandemError];
}

/** The way to the agent while it is connected. */
export interface AgentLink {
  /** `answered` is called once: with the answer, or with why there is none. */
  ask(message: ApplicationMessage, parts: Uint8Array[], fd: number | null, answered: Answered): void;
  /** Says what has no answer. */
  tell(message: ApplicationMessage, parts: Uint8Array[]): void;
  /** From now on what the agent says about `id` goes to `session`. */
  route(id: number, session: ProtectedSession): void;
}
export type Answered = (answer: AgentMessage | TandemError) => void;

interface QueuedWrite {
  bytes: Buffer;
  /** Offset of the first of `bytes`. */
  start: number;
  gate: "open" | "logged" | "confirmed";
  stored: boolean;
  resolve: (result: { stored: boolean }) => void;
  reject: (error: Error) => void;
}

export class ProtectedSession extends EventEmitter<ProtectedSessionEvents> {
  readonly socket: net.Socket;
  /** Why it is not ready: a word of the agent's (`tandem sessions` shows it), or an error's code. Empty when ready. */
  reason = "agent-absent";
  readonly #options: ProtectOptions;
  readonly #origin: Origin;
  readonly #tap: InputTap;
  readonly #held: HeldOutput;
  #link: AgentLink | null = null;
  /** The agent's number of the session, while it protects it. */
  #id: number | null = null;
  /** The standby takes part: it records, and stores what it is told. */
  #joined = false;
  /** The standby waits for a hand-over, whatever else keeps the session from being ready. */
  #handoverDue = false;
  #handoverTimer: NodeJS.Timeout | null = null;
  /** How far the output is recorded, and how far it is on the standby, recorded or told. */
  #recorded = 0;
  #told = 0;
  /** How far logged and held writes may leave. */
  #loggedTo = 0;
  #confirmedTo = 0;
  #confirmed: Position;
  /** Output that the application is to produce once more. */
  #replay: Uint8Array;
  readonly #queue: QueuedWrite[] = [];
  #over = false;
  /** end() was called; and what sends its FIN, until then. */
  #ended = false;
  #finish: (() => void) | null = null;
  #drained: (() => void) | null = null;

  /** Made by Agent.protect. */
  constructor(socket: net.Socket, options: ProtectOptions, origin: Origin) {
    super();
    this.socket = socket;
    this.#options = options;
    this.#origin = origin;
    this.#tap = new InputTap(socket);
    // What was written before is in the socket's hands: it may be recorded, and is not known here.
    const written = origin.outputOffset + origin.replay.length + socket.bytesWritten;
    this.#held = new HeldOutput(written - origin.replay.length, written - origin.replay.length);
    this.#held.hold(Buffer.from(origin.replay));
    this.#replay = origin.replay;
    this.#confirmed = { inputOffset: origin.inputOffset, outputOffset: 0 };
    socket.once("close", () => this.#onSocketClose());
  }

  /** The standby can take the session over. */
  get ready(): boolean {
    return this.reason === "";
  }

  /** Bytes of the input that the application has had, from the session's first one on. */
  get inputOffset(): number {
    return this.#origin.inputOffset + this.socket.bytesRead - this.socket.readableLength;
  }

  /** Bytes of output that the application has produced, from the session's first one on. */
  get outputOffset(): number {
    return this.#held.produced - this.#replay.length;
  }

  /** The session has ended here: close(), abort() or the socket's end. */
  get over(): boolean {
    return this.#over;
  }

  /** Writes to the peer, after all earlier writes. Resolves when the bytes are in the socket. With `logged` they are on
   * the standby before, with every earlier byte, so that a crash cuts none of them off; `stored` says so (false: no
   * standby takes part). Rejects with the socket's error, `session-over` or `replay-mismatch`. */
  write(data: Uint8Array | string, options: { logged?: boolean } = {}): Promise<{ stored: boolean }> {
    if (this.#over || this.#ended) return Promise.reject(refusal("session-over"));
    const chunk = typeof data === "string" ? Buffer.from(data) : Buffer.from(data);
    const repeated = Math.min(chunk.length, this.#replay.length);
    if (chunk.compare(this.#replay, 0, repeated, 0, repeated) !== 0) {
      const error = refusal("replay-mismatch", `At output offset ${this.outputOffset}.`);
      this.socket.resetAndDestroy();
      return Promise.reject(error);
    }
    this.#replay = this.#replay.subarray(repeated);
    const bytes = chunk.subarray(repeated);
    const start = this.#held.produced;
    this.#held.hold(bytes);
    // What is only repeated is on its way already: there is nothing to hold back.
    const held = this.#options.holdOutput === true && bytes.length > 0;
    const gate = options.logged === true ? "logged" : held ? "confirmed" : "open";
    const written = new Promise<{ stored: boolean }>((resolve, reject) => {
      this.#queue.push({ bytes, start, gate, stored: false, resolve, reject });
    });
    if (gate === "logged") this.#log(start + bytes.length);
    this.#keepOutput();
    this.#pump();
    // An application that learns of a lost connection from its socket need not look at every write as well.
    written.catch(() => {});
    return written;
  }

  /** Moves the resume point: input before inputOffset is processed into the state, which has produced the output before
   * outputOffset. All three are stored at once; without `state` it stays as it was. `stored` false: no standby takes
   * part (any more), the application goes on. Rejects with `confirm-behind`, `confirm-beyond` or `state-too-large`;
   * nothing has changed then. */
  async confirm(inputOffset: number, outputOffset: number, state?: Uint8Array): Promise<{ stored: boolean }> {
    if (this.#over) return { stored: false };
    if (inputOffset > this.inputOffset || outputOffset > this.outputOffset) throw refusal("confirm-beyond");
    if (inputOffset < this.#confirmed.inputOffset || outputOffset < this.#confirmed.outputOffset)
      throw refusal("confirm-behind");
    if (state !== undefined && state.length > MAX_STATE) throw refusal("state-too-large");
    this.#confirmed = { inputOffset, outputOffset };
    const stored = await this.#store(outputOffset, (outputStart, output) => ({
      message: { type: "confirm", inputOffset, outputOffset, outputStart, keepState: state === undefined },
      parts: [state ?? nothing, output],
    }));
    this.#confirmedTo = Math.max(this.#confirmedTo, outputOffset);
    this.#pump();
    return { stored };
  }

  /** Ends the output alone: FIN behind all that was written, what waits for its confirm included. Input goes on, and the
   * session stays protected. Resolves when the FIN is in the socket. A successor calls it as well: it is the same FIN. */
  end(): Promise<void> {
    if (this.#over || this.#ended) return Promise.resolve();
    this.#ended = true;
    return new Promise((resolve) => {
      this.#finish = () => this.socket.end(() => resolve());
      this.#pump();
    });
  }

  /** A meant end: what was written leaves, then FIN. Output that still waits for its confirm is not sent. Resolves when
   * the socket is closed. */
  async close(): Promise<void> {
    if (this.#over) return;
    this.#end();
    if (this.#queue.length > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
    await this.#release("close");
    await new Promise<void>((resolve) => {
      if (this.socket.closed) resolve();
      else this.socket.once("close", () => resolve()).destroySoon();
    });
  }

  /** A meant RST. */
  async abort(): Promise<void> {
    if (this.#over) return;
    this.#end();
    await this.#release("abort");
    this.socket.resetAndDestroy();
  }

  /** Called by the agent's connection: it is there, and is asked to protect. */
  attach(link: AgentLink): void {
    const fd = descriptorOf(this.socket);
    if (this.#over || fd === null) return;
    this.#link = link;
    const { service, md5Key } = this.#options;
    const message = { type: "protect", service, base: this.#origin.base, fds: 1 } as const;
    link.ask(message, md5Key === undefined ? [] : [md5Key], fd, (answer) => {
      if (answer instanceof TandemError) {
        if (this.#link === link) this.#refused(answer);
      } else if (answer.type === "protected") {
        this.#id = answer.id;
        link.route(answer.id, this);
        this.#notReady("joining");
        if (this.#over) void this.#release("close");
      }
    });
  }

  /** Called by the agent's connection: it is gone. */
  detach(reason: string): void {
    this.#link = null;
    this.#id = null;
    this.#leave(reason);
  }

  /** Called by the agent's connection: what the agent says about this session. */
  hear(message: AgentMessage): void {
    switch (message.type) {
      case "standbyReady":
        this.#joined = true;
        this.#recorded = message.recorded;
        this.#told = message.recorded;
        this.#handoverDue = true;
        this.#handOver();
        break;
      case "ready":
        this.#joined = true;
        if (this.reason !== "") {
          this.reason = "";
          this.emit("ready");
        }
        break;
      case "unready":
        this.#joined = false;
        this.#notReady(message.reason);
        break;
      case "error":
        this.#refused(new TandemError(message.code, message.message, message.remedy));
        break;
    }
  }

  /** Called by the agent's connection: output before `offset` is recorded. */
  progress(offset: number): void {
    if (offset > this.#held.produced) {
      void this.#release("detach");
      this.#refused(refusal("written-around"));
      return;
    }
    this.#recorded = Math.max(this.#recorded, offset);
    this.#told = Math.max(this.#told, offset);
    this.#keepOutput();
    if (this.#handoverDue) this.#handOver();
  }

  /** Hands over if all that the standby needs is there; else it is tried again. */
  #handOver(): void {
    const { handover } = this.#options;
    if (handover === undefined || this.#over) return;
    if (this.#handoverTimer !== null) clearTimeout(this.#handoverTimer);
    this.#handoverTimer = null;
    // Bytes that were written before the standby took part and are neither recorded nor kept must be recorded first.
    const unread = this.#tap.unread();
    const answer = this.#recorded < this.#held.released || unread === null ? null : this.#askedHandover(handover);
    if (answer === null || unread === null) {
      this.#handoverTimer = setTimeout(() => this.#handOver(), HANDOVER_RETRY);
      this.#handoverTimer.unref();
      return;
    }
    this.#handoverDue = false;
    this.#joined = true;
    const { inputOffset, outputOffset } = answer;
    const input = Buffer.concat([answer.inputBuffer ?? nothing, unread]);
    // The standby has seen nothing from before its join: what lies between the state and the recorded end comes along.
    this.#told = Math.min(this.#told, outputOffset);
    this.#confirmed = { inputOffset, outputOffset };
    void this.#store(Math.max(outputOffset, this.#recorded), (outputStart, output) => ({
      message: { type: "handover", inputOffset, outputOffset, outputStart },
      parts: [answer.state ?? nothing, input, output],
    }));
  }

  /** Null: what the application says cannot be handed over (now). */
  #askedHandover(handover: () => HandoverAnswer | null): HandoverAnswer | null {
    const answer = handover();
    if (answer === null) return null;
    const { inputOffset, outputOffset, state = nothing, inputBuffer = nothing } = answer;
    const code =
      inputOffset + inputBuffer.length !== this.inputOffset
        ? "handover-mismatch"
        : outputOffset > this.outputOffset
          ? "confirm-beyond"
          : state.length > MAX_STATE
            ? "state-too-large"
            : inputBuffer.length + this.socket.readableLength > MAX_INPUT_BUFFER
              ? "buffer-too-large"
              : null;
    if (code !== null && code !== this.reason) {
      this.#notReady(code);
      this.emit("refused", refusal(code));
    }
    if (code !== null || outputOffset < this.#held.released) return null;
    // More than one message holds: some of it is on its way to being recorded.
    const start = Math.min(this.#told, outputOffset);
    return Math.max(outputOffset, this.#recorded) - start > MAX_OUTPUT ? null : answer;
  }

  /** Logs the output before `end`, and lets the logged writes go with it when that is answered. */
  #log(end: number): void {
    void this.#store(end, (outputStart, output) => ({
      message: { type: "log", outputStart },
      parts: [output],
    })).then((stored) => {
      this.#loggedTo = Math.max(this.#loggedTo, end);
      for (const write of this.#queue)
        if (write.gate === "logged" && write.start + write.bytes.length <= end) write.stored ||= stored;
      this.#pump();
    });
  }

  /** Brings what the standby lacks of the output before `end` to it: the last of it with the message that `compose`
   * makes, what is too much for one message in log messages before. Resolves to: all of it is on the standby. */
  async #store(
    end: number,
    compose: (
      outputStart: number,
      output: Uint8Array,
    ) => {
      message: Distributed<Extract<ApplicationMessage, { type: "confirm" | "handover" | "log" }>>;
      parts: Uint8Array[];
    },
  ): Promise<boolean> {
    const link = this.#link;
    const id = this.#id;
    let start = Math.min(this.#told, end);
    // Written before the standby took part, neither known to be recorded nor kept: it will be recorded.
    const lacking = start < end && start < this.#held.released;
    if (link === null || id === null || !this.#joined || lacking) return false;
    const answers: Promise<boolean>[] = [];
    const send = (message: ApplicationMessage, parts: Uint8Array[]) => {
      if (message.type === "handover") link.tell(message, parts);
      else
        answers.push(
          new Promise((resolve) =>
            link.ask(message, parts, null, (answer) => resolve("stored" in answer && answer.stored)),
          ),
        );
    };
    for (; end - start > MAX_OUTPUT; start += MAX_OUTPUT)
      send({ type: "log", id, outputStart: start }, [this.#held.copy(start, start + MAX_OUTPUT)]);
    const { message, parts } = compose(start, this.#held.copy(start, end));
    send({ ...message, id }, parts);
    this.#told = Math.max(this.#told, end);
    const stored = (await Promise.all(answers)).every((each) => each);
    if (!stored) this.#told = Math.min(this.#told, this.#recorded);
    return stored;
  }

  /** Writes into the socket what may leave. */
  #pump(): void {
    for (let write = this.#queue[0]; write !== undefined; write = this.#queue[0]) {
      const end = write.start + write.bytes.length;
      const limit = write.gate === "open" ? end : write.gate === "logged" ? this.#loggedTo : this.#confirmedTo;
      if (limit < end) {
        // A confirm may cover a part of a write.
        const part = write.gate === "confirmed" ? Math.max(0, limit - write.start) : 0;
        if (part > 0) {
          this.socket.write(write.bytes.subarray(0, part));
          write.bytes = write.bytes.subarray(part);
          write.start += part;
        }
        break;
      }
      this.#queue.shift();
      const { resolve, reject, stored } = write;
      // Output that was only repeated may be followed by a FIN already: even zero bytes would fail then.
      if (write.bytes.length === 0) resolve({ stored });
      else this.socket.write(write.bytes, (error) => (error ? reject(error) : resolve({ stored })));
    }
    if (this.#over) this.#dropHeld();
    if (this.#queue.length > 0) return;
    this.#finish?.();
    this.#finish = null;
  }

  /** After close(): what waits for a confirm waits in vain; what waits for the standby still leaves. */
  #dropHeld(): void {
    while (this.#queue[0]?.gate === "confirmed") this.#queue.shift()?.reject(refusal("session-over"));
    if (this.#queue.length > 0) return;
    this.#drained?.();
    this.#drained = null;
  }

  /** Lets go of output that the standby has, or that nobody will ask for. */
  #keepOutput(): void {
    const { produced, released } = this.#held;
    if (!this.#joined && !this.#handoverDue) this.#held.release(Math.max(produced - KEPT_OUTPUT, released));
    else {
      const needed = Math.min(this.#recorded, Math.max(this.#confirmed.outputOffset, this.#recorded - KEPT_OUTPUT));
      this.#held.release(Math.max(needed, produced - MOST_OUTPUT, released));
    }
  }

  #leave(reason: string): void {
    this.#joined = false;
    this.#handoverDue = false;
    if (this.#handoverTimer !== null) clearTimeout(this.#handoverTimer);
    this.#handoverTimer = null;
    this.#keepOutput();
    this.#notReady(reason);
  }

  #notReady(reason: string): void {
    if (this.reason === reason) return;
    this.reason = reason;
    if (!this.#over) this.emit("unready", reason);
  }

  #refused(error: TandemError): void {
    this.#notReady(error.code);
    this.emit("refused", error);
  }

  #end(): void {
    this.#over = true;
    this.#pump();
  }

  /** The agent closes its descriptor; resolves when it has, or is gone. */
  #release(how: ReleaseHow): Promise<void> {
    const link = this.#link;
    const id = this.#id;
    this.#id = null;
    this.#leave("session-over");
    if (link === null || id === null) return Promise.resolve();
    return new Promise((resolve) => link.ask({ type: "release", id, how }, [], null, () => resolve()));
  }

  /** The application or the peer has ended the socket without us. */
  #onSocketClose(): void {
    this.#over = true;
    for (const write of this.#queue.splice(0)) write.reject(refusal("session-over"));
    this.#finish?.();
    this.#finish = null;
    this.#drained?.();
    this.#drained = null;
    void this.#release("close");
  }
}

type Distributed<Message> = Message extends unknown ? Omit<Message, "id" | "request"> : never;

/** The descriptor of a connected socket; null if it has none (any more). */
export function descriptorOf(socket: net.Socket): number | null {
  const handle = (socket as unknown as { _handle: { fd?: number } | null })._handle;
  const fd = handle?.fd ?? -1;
  return fd < 0 ? null : fd;
}
