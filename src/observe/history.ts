// What the status page plots: the last minutes in samples of one second, and the last takeovers. Bounded, in memory.

import { z } from "zod";
import { type TakeoverReport, takeoverReportSchema } from "../takeover/report.js";
import type { JournalEntry } from "./journal.js";
import type { Observation } from "./observation.js";

export interface Sample {
  timeMs: number;
  /** Share of the ring that waits, 0 to 1. */
  ringFill: number;
  lagSeconds: number;
  /** Recorded payload, bytes a second since the sample before. */
  bytesIn: number;
  bytesOut: number;
}

export interface PastTakeover {
  timeMs: number;
  report: TakeoverReport;
}

const journalled = z.object({ takeover: takeoverReportSchema });

/** The takeovers of a journal. What another version wrote differently is passed over. */
export function pastTakeovers(journal: readonly JournalEntry[]): PastTakeover[] {
  return journal.flatMap(({ time, facts }) => {
    const { data } = journalled.safeParse(facts);
    return data ? [{ timeMs: Date.parse(time), report: data.takeover }] : [];
  });
}

export const keptSamples = 300;
export const keptTakeovers = 12;

export class History {
  readonly #samples: Sample[] = [];
  readonly #takeovers: PastTakeover[] = [];
  #before: { timeMs: number; bytesIn: number; bytesOut: number } | null = null;

  /** Oldest first. */
  get samples(): readonly Sample[] {
    return this.#samples;
  }

  /** Oldest first. */
  get takeovers(): readonly PastTakeover[] {
    return this.#takeovers;
  }

  sample(look: Pick<Observation, "timeMs" | "recorder">): void {
    const { timeMs, recorder } = look;
    const { bytesIn, bytesOut } = recorder.counters;
    const before = this.#before;
    const seconds = before ? (timeMs - before.timeMs) / 1e3 : 0;
    // A recorder that began anew counts from 0.
    const rate = (now: number, past: number) => (seconds > 0 ? Math.max(0, now - past) / seconds : 0);
    this.#samples.push({
      timeMs,
      ringFill: recorder.ring.backlog / recorder.ring.size,
      lagSeconds: recorder.lagNs / 1e9,
      bytesIn: rate(bytesIn, before?.bytesIn ?? 0),
      bytesOut: rate(bytesOut, before?.bytesOut ?? 0),
    });
    this.#before = { timeMs, bytesIn, bytesOut };
    if (this.#samples.length > keptSamples) this.#samples.shift();
  }

  takeover(report: TakeoverReport, timeMs: number): void {
    this.#takeovers.push({ timeMs, report });
    if (this.#takeovers.length > keptTakeovers) this.#takeovers.shift();
  }
}
