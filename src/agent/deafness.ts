// An active whose uplinks have a carrier, and nobody behind them: a dead switch port, one direction of a cable. It begins
// with the uplink path of the heartbeat, which tells as little as that one of the two routers is cut off there; whether
// it is this one its neighbours tell.
//
//   path up ──silent for a while──► asks its neighbours ──none answers──► deaf ──one answers, or the path is up──► not deaf
//
// What follows is unasked-handover.ts: the standby is asked to take over, and does if one of these neighbours answers it.

import type { Neighbour } from "../net/neighbours.js";

/** An uplink path that is silent for less is TCP's to ride out, ms. */
const patienceMs = 1000;
/** Then it is the standby that is cut off, and this router looks again so much later, ms. */
const answeredMs = 10_000;
/** Three solicitations a second apart, as the kernel sends them, and some time for the last answer. */
const roundMs = 3500;

export interface DeafnessParts {
  /** This router is active, protected, with a carrier, and heard by its standby on the mirror link only. */
  suspicious(): boolean;
  neighbours(): Promise<Neighbour[]>;
  anyReachable(neighbours: readonly Neighbour[], limitMs: number): Promise<boolean>;
  /** Milliseconds, monotonic. */
  now(): number;
  /** Neighbours could not be asked. */
  failed(error: unknown): void;
}

export class Deafness {
  private dueMs: number | null = null;
  private asking = false;
  private asked: Neighbour[] = [];
  private unanswered: Neighbour[] | null = null;

  constructor(private readonly parts: DeafnessParts) {}

  /** The neighbours of whom none answers; null: somebody does, or there is no reason to ask, or nobody to be asked. */
  get deafTo(): readonly Neighbour[] | null {
    return this.unanswered;
  }

  /** To be called every so often. */
  poll(): void {
    const now = this.parts.now();
    if (!this.parts.suspicious()) {
      this.dueMs = null;
      this.asked = [];
      this.unanswered = null;
      return;
    }
    this.dueMs ??= now + patienceMs;
    if (this.asking || now < this.dueMs) return;
    this.asking = true;
    void this.ask()
      .catch((error) => this.parts.failed(error))
      .finally(() => {
        this.asking = false;
      });
  }

  private async ask(): Promise<void> {
    // Who does not answer vanishes from the kernel's table: the same are asked again.
    if (this.asked.length === 0) this.asked = await this.parts.neighbours();
    const { asked } = this;
    const told = asked.length === 0 || (await this.parts.anyReachable(asked, roundMs));
    if (this.asked !== asked) return; // over meanwhile
    this.unanswered = told ? null : asked;
    if (!told) return;
    this.asked = [];
    this.dueMs = this.parts.now() + answeredMs;
  }
}
