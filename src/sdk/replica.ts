// A Duplex for deterministic application code that runs on both routers at once.
//
//            before the takeover                        after it
//   reads    the mirrored input (feed)                  the TCP socket, from the byte after the feed's last
//   writes   held until the active's same bytes are     into the TCP socket, without what the active has
//            recorded, then dropped                     sent (recorded) already
//   end()    remembered                                 FIN
//
// The application must write the same bytes for the same input, however both are cut. It looks enough like a
// net.Socket for http.Server's "connection" event. Timeouts and socket options take effect at the takeover: until
// then the active's clock counts, not ours.

import type net from "node:net";
import { Duplex } from "node:stream";
import { refusal } from "../app/errors.js";
import { HeldOutput } from "./held-output.js";
import { InputTap } from "./input-tap.js";
import type { HandoverAnswer, ProtectedSession } from "./protected-session.js";
import type { StandbySession, Takeover } from "./session.js";
import { closeSpentFeed } from "./spent-feeds.js";

type Callback = (error?: Error | null) => void;

export interface ReplicaOptions {
  /** False: the end of the input ends the output too, as net.createServer does by default. Default true. */
  allowHalfOpen?: boolean;
  /** Bytes not known to be recorded past which a write waits. Default 1 MiB. */
  holdLimit?: number;
}

export class Replica extends Duplex {
  readonly session: StandbySession;
  readonly connecting = false;
  readonly pending = false;
  /** As net.Socket's: milliseconds, 0 for none. */
  timeout = 0;
  readonly #feed: net.Socket;
  readonly #held: HeldOutput;
  readonly #holdLimit: number;
  #handover: (() => HandoverAnswer | null) | null = null;
  #tap: InputTap | null = null;
  /** After the takeover, with a handover. */
  #protected: ProtectedSession | null = null;
  /** Bytes of the write that is not called back yet, and what calls it back. */
  #writing = 0;
  #written: Callback | null = null;
  /** The write that waits for the output to be recorded. */
  #waiting: Callback | null = null;
  /** The end() that waits for it. */
  #ending: Callback | null = null;
  #ended = false;
  /** The session is over: what is written goes nowhere. */
  #discarding = false;
  #resetting = false;
  #socket: net.Socket | null = null;
  /** Where input comes from: the feed, later the socket. */
  #source: net.Socket;
  #reading = false;
  /** Input bytes taken from the source so far. */
  #inputOffset: number;
  #inputEnded = false;
  #feedEnded = false;
  #noDelay: boolean | null = null;
  #keepAlive: { on: boolean; delay: number } | null = null;

  /** Made by StandbySession.replica. */
  constructor(session: StandbySession, feed: net.Socket, options: ReplicaOptions) {
    super({ allowHalfOpen: options.allowHalfOpen ?? true });
    this.session = session;
    this.#holdLimit = options.holdLimit ?? 1_048_576;
    this.#feed = feed;
    this.#source = feed;
    this.#inputOffset = session.inputOffset;
    this.#held = new HeldOutput(Math.max(session.recorded, session.outputOffset), session.outputOffset);
    // Paused before anybody listens: it flows when the application reads.
    feed.pause();
    feed.on("data", (chunk: Buffer) => this.#onInput(feed, chunk));
    feed.on("close", () => this.#onFeedEnd());
    session.on("progress", (outputOffset) => this.#onProgress(outputOffset));
    session.on("fin", () => this.#advanceInput());
    session.on("closed", () => this.#onClosed());
    session.on("lost", (error) => this.#onLost(error));
    session.on("takeover", (takeover) => this.#onTakeover(takeover));
    // What happened before the application asked for the replica.
    if (feed.destroyed) this.#feedEnded = true;
    if (session.takeover !== null) this.#onTakeover(session.takeover);
    else if (session.lostError !== null) this.#onLost(session.lostError);
    else if (session.closedCause !== null) this.#onClosed();
    this.#advanceInput();
  }

  /** While this router is the active one the session is protected, so that a standby that joins can go on with it: see
   * ProtectOptions. Offsets are the replica's inputOffset and outputOffset. */
  protect(handover: () => HandoverAnswer | null): void {
    this.#handover = handover;
    this.#tap ??= new InputTap(this);
    const { takeover } = this.session;
    if (this.#socket !== null && takeover !== null) this.#protectAt(takeover);
  }

  get takenOver(): boolean {
    return this.#socket !== null;
  }
  /** Bytes of the input that the application has had, from the session's first one on. */
  get inputOffset(): number {
    return this.#inputOffset - this.readableLength;
  }
  /** Bytes of output that the application has produced, from the session's first one on. */
  get outputOffset(): number {
    return this.#held.produced + this.#queued;
  }
  /** Bytes that wait in the stream behind a write. */
  get #queued(): number {
    return this.writableLength - this.#writing;
  }
  get bytesRead(): number {
    return this.#inputOffset;
  }
  get bytesWritten(): number {
    return this.outputOffset;
  }
  get localAddress(): string {
    return this.session.local.ip;
  }
  get localPort(): number {
    return this.session.local.port;
  }
  get localFamily(): string {
    return this.session.local.ip.includes(":") ? "IPv6" : "IPv4";
  }
  get remoteAddress(): string {
    return this.session.peer.ip;
  }
  get remotePort(): number {
    return this.session.peer.port;
  }
  get remoteFamily(): string {
    return this.localFamily;
  }
  get readyState(): string {
    if (this.readable && this.writable) return "open";
    if (this.readable) return "readOnly";
    return this.writable ? "writeOnly" : "closed";
  }

  address(): { address: string; family: string; port: number } {
    return { address: this.localAddress, family: this.localFamily, port: this.localPort };
  }

  setTimeout(milliseconds: number, listener?: () => void): this {
    this.timeout = milliseconds;
    if (listener !== undefined) {
      if (milliseconds === 0) this.off("timeout", listener);
      else this.once("timeout", listener);
    }
    this.#socket?.setTimeout(milliseconds);
    return this;
  }

  setNoDelay(on = true): this {
    this.#noDelay = on;
    this.#socket?.setNoDelay(on);
    return this;
  }

  setKeepAlive(on = false, delay = 0): this {
    this.#keepAlive = { on, delay };
    this.#socket?.setKeepAlive(on, delay);
    return this;
  }

  ref(): this {
    this.#source.ref();
    this.#socket?.ref();
    return this;
  }

  unref(): this {
    this.#source.unref();
    this.#socket?.unref();
    return this;
  }

  /** Ends the output, and destroys when it is out. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once("finish", () => this.destroy());
  }

  /** A meant RST: sent at once after a takeover, or at the takeover if the active has not sent its own by then. */
  resetAndDestroy(): this {
    this.#resetting = true;
    return this.destroy();
  }

  override _read(): void {
    this.#reading = true;
    this.#source.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.#output([chunk], callback);
  }

  override _writev(chunks: { chunk: Buffer }[], callback: Callback): void {
    this.#output(
      chunks.map((entry) => entry.chunk),
      callback,
    );
  }

  override _final(callback: Callback): void {
    this.#ended = true;
    if (this.#discarding) callback();
    else if (this.#socket !== null) this.#socket.end(callback);
    else {
      this.#ending = callback;
      this.#releaseWaiting();
    }
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    this.#ending = null;
    if (this.#socket !== null) {
      this.#feed.destroy();
      if (this.#resetting) this.#socket.resetAndDestroy();
      else this.#socket.destroy();
    } else {
      // The active's socket is still there, so the session goes on without a reader: its input is read and dropped, and
      // its output is still ours to finish at a takeover.
      this.#feed.resume();
    }
    callback(error);
    waiting?.(error);
  }

  #output(chunks: Buffer[], callBack: Callback): void {
    const callback: Callback = (error) => {
      if (this.#written !== callback) return;
      this.#writing = 0;
      this.#written = null;
      callBack(error);
    };
    this.#writing = chunks.reduce((sum, { length }) => sum + length, 0);
    this.#written = callback;
    if (this.#discarding) {
      callback();
      return;
    }
    const socket = this.#socket;
    if (socket !== null) {
      this.#send(
        socket,
        chunks.map((chunk) => this.#held.pass(chunk)),
        callback,
      );
      return;
    }
    for (const chunk of chunks) this.#held.hold(chunk);
    if (this.#held.bytes > this.#holdLimit) this.#waiting = callback;
    else callback();
  }

  /** Calls back when the last piece is in the kernel, or at once if all are empty. */
  #send(socket: net.Socket, pieces: Buffer[], callback: Callback): void {
    const some = pieces.filter((piece) => piece.length > 0);
    const last = some.pop();
    if (last === undefined) {
      callback();
      return;
    }
    if (some.length > 0) socket.cork();
    if (this.#protected === null) {
      for (const piece of some) socket.write(piece);
      socket.write(last, callback);
    } else {
      for (const piece of some) void this.#protected.write(piece);
      this.#protected.write(last).then(() => callback(), callback);
    }
    if (some.length > 0) socket.uncork();
  }

  /** Lets the write or the end go that waits for bytes to be recorded, if they are. */
  #releaseWaiting(): void {
    if (this.#waiting !== null && (this.#discarding || this.#held.bytes <= this.#holdLimit)) {
      const waiting = this.#waiting;
      this.#waiting = null;
      waiting();
    }
    if (this.#ending !== null && (this.#discarding || this.#held.bytes === 0)) {
      const ending = this.#ending;
      this.#ending = null;
      ending();
    }
  }

  #onProgress(outputOffset: number): void {
    if (this.#socket !== null) return;
    // What came before the state that was handed over needs nothing from us, recorded or not.
    if (!this.#held.release(Math.max(outputOffset, this.session.outputOffset))) {
      this.#fail("The recorded output went back.");
      return;
    }
    this.#releaseWaiting();
  }

  #onInput(source: net.Socket, chunk: Buffer): void {
    this.#inputOffset += chunk.length;
    const { finOffset, takeover } = this.session;
    if (source === this.#feed && takeover !== null && this.#inputOffset > takeover.inputOffset) {
      this.#fail("The feed goes beyond the takeover's input offset.");
      return;
    }
    if (finOffset !== null && this.#inputOffset > finOffset) {
      this.#fail("There is input beyond the FIN.");
      return;
    }
    if (!this.destroyed && !this.push(chunk)) {
      this.#reading = false;
      source.pause();
    }
    this.#advanceInput();
  }

  /** After anything that moves or bounds the input: is it at its end, or at the change from feed to socket? */
  #advanceInput(): void {
    const { finOffset, takeover } = this.session;
    if (finOffset !== null && this.#inputOffset === finOffset) this.#endInput();
    if (takeover === null || this.#socket === null || this.#source !== this.#feed) return;
    if (this.#inputOffset < takeover.inputOffset) {
      if (this.#feedEnded) this.#fail("The feed ended before the takeover's input offset.");
      return;
    }
    const socket = takeover.socket;
    this.#source = socket;
    closeSpentFeed(this.#feed);
    socket.pause();
    socket.on("data", (chunk: Buffer) => this.#onInput(socket, chunk));
    socket.on("end", () => this.#endInput());
    // With the input at its end already, the socket must still see the peer's FIN to close.
    if (this.#reading || this.#inputEnded || this.destroyed) socket.resume();
  }

  #endInput(): void {
    if (this.#inputEnded) return;
    this.#inputEnded = true;
    if (!this.destroyed) this.push(null);
    // The end itself is seen only by a stream that is read.
    this.#source.resume();
  }

  #onFeedEnd(): void {
    this.#feedEnded = true;
    this.#advanceInput();
    if (this.session.closedCause !== null) this.#onClosed();
  }

  #onClosed(): void {
    this.#discarding = true;
    this.#releaseWaiting();
    if (!this.#feedEnded) return; // there is input the application has not had
    if (!this.#inputEnded) {
      const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET", syscall: "read" });
      this.destroy(this.session.closedCause === "reset" ? reset : undefined);
    } else if (this.readableEnded) this.destroy();
    else this.once("end", () => this.destroy());
  }

  #onLost(error: Error): void {
    this.#discarding = true;
    this.destroy(error);
    this.#feed.destroy();
  }

  #onTakeover(takeover: Takeover): void {
    const { socket, inputOffset, outputOffset } = takeover;
    this.#socket = socket;
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => {
      if (!this.#inputEnded || !this.#ended) this.destroy();
    });
    if (inputOffset < this.#inputOffset) {
      this.#fail("The takeover's input offset is behind the feed.");
      return;
    }
    if (!this.#held.release(outputOffset)) {
      this.#fail("The takeover's output offset is behind the recorded output.");
      return;
    }
    if (this.#resetting || this.#discarding) {
      socket.resetAndDestroy();
      return;
    }
    socket.on("timeout", () => this.emit("timeout"));
    if (this.timeout > 0) socket.setTimeout(this.timeout);
    if (this.#noDelay !== null) socket.setNoDelay(this.#noDelay);
    if (this.#keepAlive !== null) socket.setKeepAlive(this.#keepAlive.on, this.#keepAlive.delay);
    if (this.#handover !== null) this.#protectAt(takeover);
    const waiting = this.#waiting;
    this.#waiting = null;
    this.#send(socket, this.#held.take(), (error) => waiting?.(error));
    if (this.destroyed) {
      // The application closed before; what it wrote must still get out, as from a closed kernel socket.
      socket.destroySoon();
      return;
    }
    if (this.#ended) {
      const ending = this.#ending;
      this.#ending = null;
      socket.end(ending ?? undefined);
    }
    this.#advanceInput();
  }

  #protectAt(takeover: Takeover): void {
    this.#protected = takeover.protect({ handover: () => this.#handedOver() });
  }

  /** The application's answer, and the bytes that it has not had from us. */
  #handedOver(): HandoverAnswer | null {
    // All that the application has produced must be with the protected session, which gets what it lacks to the standby.
    // Behind a write that waits for the peer there may be more: it need not wait.
    if (this.#queued > 0) this.#written?.();
    const complete = this.#source === this.#socket && this.#queued === 0;
    const answer = complete ? (this.#handover?.() ?? null) : null;
    const unread = this.#tap?.unread() ?? null;
    if (answer === null || unread === null) return null;
    return { ...answer, inputBuffer: Buffer.concat([answer.inputBuffer ?? Buffer.alloc(0), unread]) };
  }

  /** Rather a reset than a stream with a hole or a repeated byte. */
  #fail(detail: string): void {
    this.#discarding = true;
    this.#socket?.resetAndDestroy();
    this.#feed.destroy();
    this.destroy(refusal("feed-mismatch", `Session ${this.session.id}. ${detail}`));
  }
}
