// Copies of the frames of single sessions, for an operator who looks at them: bounded, and never in the recorder's way.

import type { Session } from "../session/session.js";
import { RecordCursor } from "./record-cursor.js";

export interface CapturedFrame {
  /** Boot clock, ns. */
  timeNs: number;
  /** Sent by the active. */
  out: boolean;
  /** From the Ethernet header on. The lengths and checksums in it are those of the first of its segments. */
  frame: Uint8Array;
  /** Input segments that continued one another are one record. */
  segments: number;
  l3Offset: number;
  l4Offset: number;
}

/** Bytes of frames that may leave the recorder's thread in one period. */
const PERIOD_BYTES = 512 << 10;
const PERIOD_NS = 10e6;

export class RecordCapture {
  readonly #cursor = new RecordCursor();
  #wanted = new Map<number, { frames: CapturedFrame[]; dropped: number }>();
  #left = PERIOD_BYTES;
  #since = 0;

  get active(): boolean {
    return this.#wanted.size > 0;
  }

  start(id: number): void {
    this.#wanted.set(id, { frames: [], dropped: 0 });
  }

  stop(id: number): void {
    this.#wanted.delete(id);
  }

  /** After the recorder has taken this batch: the sessions then know their flows. */
  take(batch: Uint8Array, bytes: number, sessionOf: (id: number) => Session | undefined): void {
    const flows = new Map<number, number>();
    for (const id of this.#wanted.keys()) {
      const session = sessionOf(id);
      if (session) flows.set(session.flow, id);
    }
    const record = this.#cursor;
    record.start(batch, bytes);
    while (record.next()) {
      const entry = this.#wanted.get(flows.get(record.flow) ?? -1);
      if (entry === undefined) continue;
      const { time: timeNs, out, frameStart, frameLength, segments, l3Offset, l4Offset } = record;
      if (this.#left < frameLength) {
        entry.dropped += segments;
        continue;
      }
      this.#left -= frameLength;
      const frame = record.bytes.slice(frameStart, frameStart + frameLength);
      entry.frames.push({ timeNs, out, frame, segments, l3Offset, l4Offset });
    }
  }

  /** What was captured since the last call; at most once a period. */
  *collect(now: number): Generator<{ id: number; frames: CapturedFrame[]; dropped: number }> {
    if (now - this.#since < PERIOD_NS) return;
    this.#since = now;
    this.#left = PERIOD_BYTES;
    for (const [id, { frames, dropped }] of this.#wanted) {
      if (frames.length + dropped === 0) continue;
      this.#wanted.set(id, { frames: [], dropped: 0 });
      yield { id, frames, dropped };
    }
  }
}
