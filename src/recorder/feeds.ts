// The live feeds: mirrored input on its way to standby applications, as each takes it. A full descriptor is tried again
// at the next tick; nothing is queued here, the session's own input window is the queue.

import type { Native } from "../../addon/native.js";
import type { Session } from "../session/session.js";
import type { FromRecorder } from "./messages.js";
import type { Recorder } from "./recorder.js";

/** Bytes for one feed in one round, so that all get their turn. */
const ROUND_BYTES = 1 << 20;
/** Feeds ended in one round: some, and this part of those that wait. Each end wakes its application, and at a takeover
 * all feeds end together, when the applications have more urgent things to do. */
const ENDS_IN_ROUND = 4;
const ENDS_PART = 1 / 256;

type FeedWhat = Extract<FromRecorder, { type: "feed" }>["what"];

export class Feeds {
  readonly #fds = new Map<Session, number>();
  /** Sessions whose feed ends at their inEnd. */
  readonly #ending = new Set<Session>();
  /** Those of them that have it all. */
  readonly #complete = new Set<Session>();

  constructor(
    readonly native: Pick<Native, "writeSome" | "closeFd">,
    readonly tell: (session: Session, what: FeedWhat, offset: number) => void,
  ) {}

  get size(): number {
    return this.#fds.size;
  }

  has(session: Session): boolean {
    return this.#fds.has(session);
  }

  /** Takes over `fd`, whatever the answer is. */
  attach(recorder: Recorder, session: Session, fd: number): boolean {
    if (this.#fds.has(session) || !recorder.attachFeed(session)) {
      this.native.closeFd(fd);
      this.tell(session, "refused", 0);
      return false;
    }
    this.#fds.set(session, fd);
    this.tell(session, "attached", session.fed);
    return true;
  }

  /** Closes at once; what was not written is gone. */
  drop(recorder: Recorder, session: Session, what: FeedWhat | null): void {
    const fd = this.#fds.get(session);
    if (fd === undefined) return;
    this.#fds.delete(session);
    this.#ending.delete(session);
    this.#complete.delete(session);
    recorder.feedable.delete(session);
    this.native.closeFd(fd);
    const offset = session.fed;
    recorder.detachFeed(session);
    if (session.closedAt !== 0) session.input.release();
    if (what !== null) this.tell(session, what, offset);
  }

  /** Ends the feed when it has all up to the session's inEnd. */
  end(recorder: Recorder, session: Session): void {
    if (!this.#fds.has(session)) return;
    this.#ending.add(session);
    recorder.feedable.add(session);
  }

  /** One round over the sessions that have something. Returns how many bytes were written. */
  write(recorder: Recorder): number {
    let total = 0;
    for (const session of recorder.feedable) {
      const fd = this.#fds.get(session);
      if (fd === undefined) {
        recorder.feedable.delete(session);
        continue;
      }
      let wanted = 0;
      let written = 0;
      try {
        for (const view of recorder.takeFeed(session, ROUND_BYTES)) {
          wanted += view.length;
          const taken = this.native.writeSome(fd, view, 0, view.length);
          written += taken;
          if (taken < view.length) break;
        }
      } catch {
        // EPIPE, ECONNRESET: the application closed its end.
        this.drop(recorder, session, "lost");
        continue;
      }
      if (written > 0) {
        recorder.fed(session, written);
        recorder.progressed.add(session);
        total += written;
      }
      if (written < wanted || wanted >= ROUND_BYTES) continue;
      if (this.#ending.has(session)) {
        if (session.fed < session.inEnd) continue;
        this.#complete.add(session);
      }
      recorder.feedable.delete(session);
    }
    this.#endSome(recorder);
    return total;
  }

  #endSome(recorder: Recorder): void {
    let left = ENDS_IN_ROUND + Math.floor(this.#complete.size * ENDS_PART);
    for (const session of this.#complete) {
      if (left-- === 0) return;
      this.drop(recorder, session, null);
    }
  }

  /** Closes all feeds. */
  close(recorder: Recorder): void {
    for (const session of [...this.#fds.keys()]) this.drop(recorder, session, null);
  }
}
