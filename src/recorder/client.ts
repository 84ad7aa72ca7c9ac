// The agent's handle on the recorder thread: requests with answers as promises, the rest as one callback.

import { Worker } from "node:worker_threads";
import {
  type FromRecorder,
  type PackedTakeoverReport,
  type RecorderStart,
  type RecorderStatus,
  type TakeoverReport,
  type ToRecorder,
  unpackReport,
} from "./messages.js";

/** Messages that no request waits for. */
export type RecorderNotice = Extract<FromRecorder, { type: "events" | "progress" | "feed" }>;

type Answer = Extract<FromRecorder, { request: number }>;

export class RecorderClient {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
  #next = 1;
  #over: Error | null = null;

  private constructor(worker: Worker, onNotice: (notice: RecorderNotice) => void, onFailure: (error: Error) => void) {
    this.#worker = worker;
    worker.on("message", (message: FromRecorder) => {
      if (message.type === "started") return;
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
  async status(sessions: boolean): Promise<RecorderStatus> {
    return (await this.#ask((request) => ({ type: "status", request, sessions }))) as RecorderStatus;
  }
  /** Old frames must be refused by now (architecture, section 6, step 2). */
  async takeover(): Promise<TakeoverReport> {
    return unpackReport((await this.#ask((request) => ({ type: "takeover", request }))) as PackedTakeoverReport);
  }
  /** After a takeover, once its sockets have left repair mode behind an open gate. */
  inject(links: Omit<Extract<ToRecorder, { type: "inject" }>, "type">): void {
    this.#send({ type: "inject", ...links });
  }
  async reset(): Promise<void> {
    await this.#ask((request) => ({ type: "reset", request }));
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
