// Does anybody else answer for a service address? Asked before this router speaks alone without having had the voice,
// and listened for as long as it has it: from then on nobody else may, its partner included.

import { setTimeout as delay } from "node:timers/promises";

/** Somebody said that a service address is his. */
export interface Claim {
  address: string;
  /** Who sent the frame. */
  mac: string;
  /** Boot clock, the last time. */
  heardNs: bigint;
}

/** RFC 5227, section 2.1.1 has three probes; on a LAN an answer takes less than a millisecond, not a second. */
const probes = 3;
const probeEveryMs = 100;

export interface ClaimWatchParts {
  /** The last claim for each address, of whoever it was. */
  claims(): Claim[];
  /** Asks for all addresses on all uplinks; claims nothing. */
  probe(): void;
  /** Of this router's own uplinks, which may hear each other. */
  ownMacs: readonly string[];
  now(): bigint;
  /** Told once for each address and sender while the watch goes on. */
  found(claim: Claim): void;
}

export class ClaimWatch {
  /** Boot clock: who claims an address later is not entitled to; null: the partner may be. */
  private sinceNs: bigint | null = null;
  private told = new Set<string>();

  constructor(private readonly parts: ClaimWatchParts) {}

  /** This router has the voice, or takes it: from now on nobody else may answer, and somebody may be asked to. */
  begin(): void {
    if (this.sinceNs === null) this.told.clear();
    this.sinceNs ??= this.parts.now();
    this.parts.probe();
  }

  end(): void {
    this.sinceNs = null;
  }

  /** Who answers although he must not. */
  strangers(): Claim[] {
    return this.sinceNs === null ? [] : this.heardSince(this.sinceNs);
  }

  /** To be called now and then. */
  poll(): void {
    for (const claim of this.strangers()) {
      const who = `${claim.address} ${claim.mac}`;
      if (this.told.has(who)) continue;
      this.told.add(who);
      this.parts.found(claim);
    }
  }

  /** Asks, while this router is fenced, who has the addresses; resolves soon when somebody answers. Nobody: empty. */
  async ask(): Promise<Claim[]> {
    const since = this.parts.now();
    for (let probe = 0; probe < probes; probe++) {
      this.parts.probe();
      await delay(probeEveryMs);
      const heard = this.heardSince(since);
      if (heard.length > 0) return heard;
    }
    return [];
  }

  private heardSince(ns: bigint): Claim[] {
    return this.parts.claims().filter(({ mac, heardNs }) => heardNs > ns && !this.parts.ownMacs.includes(mac));
  }
}
