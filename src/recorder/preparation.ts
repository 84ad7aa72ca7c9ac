// Sessions restored in advance. When the active is about to abdicate their sockets are made already, in repair mode behind
// the closed gate. At the takeover only those are made anew whose session has changed since; if it does not come, they are
// closed in repair mode, which nobody hears. (While a lease runs out it was tried, too: with a thousand sessions on two
// cores it delayed the end of the lease by more than it saved.)
//
//   begin ──► step, step, … (between drains of the ring) ──┬──► take, take, …   the takeover
//                                                          └──► discarded after KEPT_NS

import type { Native } from "../../addon/native.js";
import { type Plan, planTakeover } from "../session/plan.js";
import type { Session } from "../session/session.js";
import type { Recorder } from "./recorder.js";

/** Sessions in one step: a millisecond or two, in which the ring waits. So few are restored by this thread alone: with
 * both CPUs of a small router at work for it, closing the gate would wait for the kernel's threads to get their turn. */
const STEP = 48;
/** Sockets closed in one step. */
const DISCARD_STEP = 64;
/** Twice this is not more than the first retransmission timer of a restored socket, which would find the gate closed. */
const KEPT_NS = 500e6;
/** A session that keeps more, and all of them together, bytes: their copies would take memory and time. */
const SESSION_BYTES = 1 << 16;
const TOTAL_BYTES = 1 << 26;

export interface Prepared {
  plan: Plan;
  fd: number;
}

export class Preparation {
  readonly #native: Pick<Native, "restore" | "closeFd">;
  readonly #made = new Map<Session, Prepared & { revision: number; at: number }>();
  #left: Session[] = [];
  #bytes = 0;
  #beganAt = Number.NEGATIVE_INFINITY;

  constructor(native: Pick<Native, "restore" | "closeFd">) {
    this.#native = native;
  }

  /** `now`: boot clock, ns. */
  begin(recorder: Recorder, now: number): void {
    this.#beganAt = now;
    this.#bytes = 0;
    this.#left = sessionsToTake(recorder);
  }

  get busy(): boolean {
    return this.#left.length > 0;
  }

  /** Makes some of the sockets, or closes some that nobody wants any more. True while there is more to do at once. */
  step(now: number): boolean {
    if (now - this.#beganAt > KEPT_NS) {
      if (this.busy) this.#left = [];
      return this.#discardSome();
    }
    if (!this.busy) return false;
    const chosen: { session: Session; plan: Plan }[] = [];
    while (chosen.length < STEP && this.#left.length > 0) {
      const session = this.#left.pop() as Session;
      if (!session.ready || session.closedAt !== 0) continue;
      if (this.#isCurrent(session) && now - (this.#made.get(session)?.at ?? 0) < KEPT_NS) continue;
      const kept = keptBytes(session);
      if (kept > SESSION_BYTES || this.#bytes + kept > TOTAL_BYTES) continue;
      this.#bytes += kept;
      this.#close(session);
      chosen.push({ session, plan: planTakeover(session, now, Math.min(session.vouched, session.input.end)) });
    }
    this.#native.restore(chosen.map(({ plan }) => plan.restore)).forEach((result, index) => {
      const { session, plan } = chosen[index] as (typeof chosen)[number];
      if ("fd" in result) this.#made.set(session, { plan, fd: result.fd, revision: session.revision, at: now });
    });
    return this.busy;
  }

  /** After Recorder.finish: the session's socket, if nothing has changed since it was made. It is the caller's. */
  take(session: Session): Prepared | undefined {
    const made = this.#made.get(session);
    if (made === undefined || !this.#isCurrent(session) || made.plan.inputOffset !== session.inEnd) return undefined;
    this.#made.delete(session);
    return made;
  }

  /** Closes everything that was not taken: a socket that is still in the stack would be in the way of its successor. */
  discard(): void {
    this.#left = [];
    for (const session of this.#made.keys()) this.#close(session);
  }

  #isCurrent(session: Session): boolean {
    return this.#made.get(session)?.revision === session.revision;
  }

  #discardSome(): boolean {
    let left = DISCARD_STEP;
    for (const session of this.#made.keys()) {
      if (left-- === 0) return true;
      this.#close(session);
    }
    return false;
  }

  #close(session: Session): void {
    const made = this.#made.get(session);
    if (made === undefined) return;
    this.#made.delete(session);
    this.#native.closeFd(made.fd);
  }
}

/** In the order in which they are taken over: popped from the end, the newest first. */
function sessionsToTake(recorder: Recorder): Session[] {
  return [...recorder.sessions()].filter((session) => session.ready && session.closedAt === 0);
}

function keptBytes({ input, output, logged }: Session): number {
  return input.end - input.base + (output.end - output.base) + (logged === null ? 0 : logged.end - logged.base);
}
