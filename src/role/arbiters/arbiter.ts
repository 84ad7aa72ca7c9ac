// Who says that a router may speak alone: what the role machine asks an arbiter, and what it hears from it.
//
// A pair that reflects needs nobody: reflection fences. An arbiter is asked when a router wants to speak alone, newly:
// at a takeover, when its standby is gone, when it starts.

/** What a router wants. */
export interface Wish {
  /** To take over from the active, or to speak alone without having recorded anything. */
  purpose: "takeover" | "alone";
  /** Under which it would speak; without `continues` the arbiter may answer with a later one. */
  epoch: number;
  /** The epoch of which it has the sessions: who had the voice later has them now. null: it has none. */
  continues: number | null;
  /** Boot clock, the last sign of life; null: the partner is heard. */
  silentSinceNs: bigint | null;
}

export type Answer =
  | { type: "granted"; epoch: number }
  /** One sentence. `stale`: somebody has, or may have, had the voice since; what this router keeps is of the past. */
  | { type: "refused"; why: string; stale: boolean }
  | { type: "unreachable"; why: string }
  /** Not an arbiter's: somebody else answers for a service address. One sentence. */
  | { type: "occupied"; why: string };

export interface ArbiterStatus {
  kind: "pair" | "etcd" | "external";
  reachable: boolean;
  /** Milliseconds for which what it granted still lets this router speak alone; null: without limit, or not granted. */
  leaseMs: number | null;
  /** What it said last, one sentence. */
  lastAnswer: string | null;
}

/** What an arbiter says unasked. */
export interface ArbiterNews {
  /** What it had granted is over. */
  lost(why: string): void;
  /** It would grant now what it has not granted before. */
  allows(): void;
}

export interface Arbiter {
  /** Never rejects. A later question may be asked before this one is answered. */
  ask(wish: Wish): Promise<Answer>;
  /** Boot clock: until when this router may speak alone by what was granted; null: as long as its controller lives. */
  voiceUntilNs(): bigint | null;
  /** This router does not speak alone (any more). */
  release(): void;
  /** Why it would not grant a takeover to this router now, as far as is known; null: nothing speaks against it. */
  objection(): string | null;
  status(): ArbiterStatus;
  close(): void;
}
