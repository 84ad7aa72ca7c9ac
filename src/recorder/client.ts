// The agent's handle on the recorder thread: requests with answers as promises, the rest as one callback.

import { Worker } from "node:worker_threads";
import {
  type FromRecorder,
  type HeldPlans,
  type PackedTakeoverReport,
  type RecorderStart,
  type RecorderStatus,
  type RestoredNews,
  type TakeoverReport,
  type ToRecorder,
  unpackReport,
} from "./messages.js";
import type { CapturedFrame } from "./record-capture.js";

/** Messages that no request waits for. */
export type RecorderNotice = Extract<FromRecorder, { type: "events" | "progress" | "feed" | "handedOver" }>;

type Answer = Extract<FromRecorder, { request: number }>;

export class RecorderClient {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
  #next = 1;
  #restored: (news: RestoredNews) => void = () => {};
  #over: Error | null = null;

  private constructor(worker: Worker, onNotice: (notice: RecorderNotice) => void, onFailure: (error: Error) => void) {
    this.#worker = worker;
    worker.on("message", (message: FromRecorder) => {
      if (message.type === "started" || message.type === "captured") return;
      if (message.type === "restored") {
        this.#restored(message);
        return;
      }
      if (!("request" in message)) {
        onNotice(message);
        return;
      }
      this.#waiting.get(message.request)?.resolve(message);
      this.#waiting.delete(message.request);
    });
    const end = (error: Error, expected: boolean): void => {
      if (this.#over !== null) return;
      this.#over = error;
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
      if (!expected) onFailure(error);
    };
    worker.on("error", (error: Error) => end(error, false));
    worker.on("exit", (code) => end(new Error(`the recorder thread ended (${code})`), code === 0));
  }

  /** Resolves once the ring is open; rejects with what the thread threw. `onFailure`: it died later; sessions are not
   * recorded any more. */
  static async start(
    options: RecorderStart,
    onNotice: (notice: RecorderNotice) => void,
    onFailure: (error: Error) => void,
  ): Promise<RecorderClient> {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: options });
    await new Promise<void>((resolve, reject) => {
      worker.once("message", () => resolve());
      worker.once("error", reject);
    });
    // Not all listeners: Node's own are among them, and without them no message arrives.
    worker.removeAllListeners("error");
    return new RecorderClient(worker, onNotice, onFailure);
  }

  attachFeed(id: number, fd: number): void {
    this.#send({ type: "attachFeed", id, fd });
  }
  detachFeed(id: number): void {
    this.#send({ type: "detachFeed", id });
  }
  socketEnded(key: Uint8Array, verdicts: number, copiedSeq: number | null): void {
    this.#send({ type: "socketEnded", key, verdicts, copiedSeq });
  }
  /** Joins, resume points and logged output: see ToRecorder. */
  tell(
    message: Extract<
      ToRecorder,
      { type: "application" | "absent" | "snapshot" | "fill" | "copied" | "watch" | "handover" | "confirm" | "log" }
    >,
  ): void {
    this.#send(message);
  }
  /** With `sessions`, so many of them at most, those that are not ready first. */
  async status(sessions: boolean, most = Number.MAX_SAFE_INTEGER): Promise<RecorderStatus> {
    const told = sessions ? most : 0;
    return (await this.#ask((request) => ({ type: "status", request, sessions: told }))) as RecorderStatus;
  }
  /** Sessions that have a gap in their output that only the active can fill, of what is recorded by now. */
  async outputGaps(): Promise<number> {
    const answer = await this.#ask((request) => ({ type: "outputGaps", request }));
    return (answer as Extract<FromRecorder, { type: "outputGaps" }>).count;
  }
  /** Resolves when all sessions that can be are restored in advance; see ToRecorder. */
  async prepare(): Promise<void> {
    await this.#ask((request) => ({ type: "prepare", request }));
  }
  /** Old frames must be refused by now (architecture, section 6, step 2). `restored` comes first. */
  takeover(): { restored: Promise<RestoredNews>; report: Promise<TakeoverReport> } {
    const answer = this.#ask((request) => ({ type: "takeover", request }));
    const report = answer.then((packed) => unpackReport(packed as PackedTakeoverReport));
    const restored = new Promise<RestoredNews>((resolve, reject) => {
      this.#restored = resolve;
      report.catch(reject);
    });
    return { restored, report };
  }
  /** After a takeover, once its sockets have left repair mode behind an open gate. */
  inject(links: Omit<Extract<ToRecorder, { type: "inject" }>, "type">): void {
    this.#send({ type: "inject", ...links });
  }
  async planHeld(keys: Uint8Array[]): Promise<HeldPlans["plans"]> {
    return ((await this.#ask((request) => ({ type: "planHeld", request, keys }))) as HeldPlans).plans;
  }
  async reset(): Promise<void> {
    await this.#ask((request) => ({ type: "reset", request }));
  }
  /** Frames of a session from now on, until the function that is returned is called. */
  capture(id: number, onFrames: (frames: CapturedFrame[], dropped: number) => void): () => void {
    const listener = (message: FromRecorder): void => {
      if (message.type === "captured" && message.id === id) onFrames(message.frames, message.dropped);
    };
    this.#worker.on("message", listener);
    this.#send({ type: "capture", id, on: true });
    return () => {
      this.#worker.off("message", listener);
      this.#send({ type: "capture", id, on: false });
    };
  }
  async stop(): Promise<void> {
    if (this.#over !== null) return;
    const gone = new Promise((resolve) => this.#worker.once("exit", resolve));
    this.#send({ type: "stop" });
    await gone;
  }

  #send(message: ToRecorder): void {
    this.#worker.postMessage(message);
  }
  #ask(make: (request: number) => ToRecorder): Promise<Answer> {
    if (this.#over !== null) return Promise.reject(this.#over);
    const request = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(request, { resolve, reject });
      this.#send(make(request));
    });
  }
}
