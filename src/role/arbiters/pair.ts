// The arbiter `pair`: nobody but the two routers. Witnesses, hosts that a router with its uplinks can reach, may only
// veto: a router that has lost its partner and reaches none of them has lost the network, and stays silent.

import type { Answer, Arbiter, ArbiterStatus, Wish } from "./arbiter.js";

/** How long the witnesses are waited for. */
const witnessMs = 600;

export class PairArbiter implements Arbiter {
  #lastAnswer: string | null = null;
  #reachable = true;

  constructor(
    private readonly witnesses: readonly string[],
    /** Whether one of the addresses answers within so many milliseconds. */
    private readonly anyAnswers: (addresses: readonly string[], limitMs: number) => Promise<boolean>,
  ) {}

  async ask({ epoch, silentSinceNs }: Wish): Promise<Answer> {
    if (silentSinceNs === null || this.witnesses.length === 0) return { type: "granted", epoch };
    this.#reachable = await this.anyAnswers(this.witnesses, witnessMs).catch(() => false);
    this.#lastAnswer = this.#reachable
      ? "A witness answered."
      : `None of the witnesses answers (${this.witnesses.join(", ")}): it is this router that is cut off.`;
    return this.#reachable ? { type: "granted", epoch } : { type: "refused", why: this.#lastAnswer, stale: false };
  }

  voiceUntilNs(): null {
    return null;
  }

  release(): void {}

  objection(): null {
    return null;
  }

  status(): ArbiterStatus {
    return { kind: "pair", reachable: this.#reachable, leaseMs: null, lastAnswer: this.#lastAnswer };
  }

  close(): void {}
}
