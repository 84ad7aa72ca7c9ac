// How long joins take: from when the recorder adopts a session that is older than it, to when that is ready.

import type { RecorderNotice } from "../recorder/client.js";

export class JoinClock {
  /** When each join began, by session, milliseconds. */
  readonly #began = new Map<number, number>();

  /** `joined` is called for each session that has become ready, with the seconds it took. */
  constructor(private readonly joined: (seconds: number) => void) {}

  /** What the recorder tells. `now`: milliseconds of a clock that does not go back. */
  notice(notice: RecorderNotice, now: number): void {
    if (notice.type !== "events") return;
    for (const { id, joined, ready } of notice.opened) {
      if (!joined || this.#began.has(id)) continue;
      this.#began.set(id, now);
      if (ready) this.#end(id, now);
    }
    for (const { id, ready, final } of notice.readiness) {
      if (ready) this.#end(id, now);
      else if (final) this.#began.delete(id);
    }
    for (const { id } of notice.closed) this.#began.delete(id);
  }

  /** The recorder begins anew. */
  forgetAll(): void {
    this.#began.clear();
  }

  #end(id: number, now: number): void {
    const began = this.#began.get(id);
    if (began === undefined) return;
    this.#began.delete(id);
    this.joined((now - began) / 1e3);
  }
}
