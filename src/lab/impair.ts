// Loss, duplication, reordering and corruption on a port of one of the lab's bridges, by a TC program of the lab's
// own (bpf/impair.bpf.c): the kernels this must run on may lack netem.

import { existsSync } from "node:fs";

/** Each the share of frames it happens to, 0 to 1, in both directions. */
export interface Impairment {
  loss?: number;
  duplicate?: number;
  reorder?: number;
  corrupt?: number;
}

export class ImpairUnavailable extends Error {}

export class Impairments {
  readonly #pins: string;
  constructor(pins: string) {
    this.#pins = pins;
  }
  set(_namespace: string, _device: string, _impairment: Impairment): void {
    if (!existsSync(this.#pins)) throw new ImpairUnavailable("impair.bpf.o is not built");
  }
}
