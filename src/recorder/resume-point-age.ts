// How far and for how long resume points have stood behind the input that is recorded beyond them.
//
// Looked at from time to time, not at every record: an age is exact to the pause between two looks.

import type { Session } from "../session/session.js";

export interface ResumePointAge {
  /** Bytes of vouched-for input beyond the resume point, all sessions together. */
  behindBytes: number;
  /** How long the resume point that has not moved for the longest has had input beyond it, ns; 0: none has. */
  oldestNs: number;
}

/** Where a session's resume point stood when it was seen behind, and since when, ns. */
interface Waiting {
  point: number;
  since: number;
}

type Progress = Pick<Session, "id" | "mode" | "vouched" | "copied" | "fed" | "resume">;

/** Bytes of input that the session's application has, by its own reading (live), its confirms, or the active's socket;
 * -1: it has no application. */
export function resumePointOf(session: Progress): number {
  if (session.mode === "confirmed") return session.resume.inputOffset;
  return session.mode === "live" ? session.fed : session.copied;
}

export class ResumePointWatch {
  #behind = new Map<number, Waiting>();

  /** `now`: any clock that does not go back, ns. Sessions without an application have no resume point to watch. */
  look(sessions: Iterable<Progress>, now: number): ResumePointAge {
    const behind = new Map<number, Waiting>();
    const age = { behindBytes: 0, oldestNs: 0 };
    for (const session of sessions) {
      const point = resumePointOf(session);
      if (point < 0 || session.vouched <= point) continue;
      const before = this.#behind.get(session.id);
      const entry = before?.point === point ? before : { point, since: now };
      behind.set(session.id, entry);
      age.behindBytes += session.vouched - point;
      age.oldestNs = Math.max(age.oldestNs, now - entry.since);
    }
    this.#behind = behind;
    return age;
  }
}
