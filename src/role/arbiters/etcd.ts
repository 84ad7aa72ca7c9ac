// The arbiter `etcd`: one register in an etcd cluster, which says who had the voice last, under which epoch, and
// whether it still renews it. Every change is a compare-and-swap of the whole register.
//
// - Who continues sessions (a takeover; an active whose standby is gone) must find no later epoch than the one it has
//   the sessions of, so of the two that want the next epoch one wins. The active of that epoch reflects, and is fenced
//   by its standby's taking over: nothing has to be waited for.
// - Who begins anew must find a register of its own router, or one that has not been renewed for its whole term.
// - Who speaks alone renews the register, and its voice is counted from when the renewal was *sent*. Who waits for the
//   term counts from when it has *read* a revision, by its own clock times (1 + drift), and swaps that very revision. So
//   no clocks are compared, and no lease object of etcd is believed: a leader that was stuck and goes on revokes those
//   of others (etcd issue 15247; Debian 12's 3.4.23 does), and nobody would tell us.
//
// A swap that was given up may still be carried out. It names this process and its epoch, so asked again it is known.

import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { RouterName } from "../../config/schema.js";
import { sentenceOf } from "../../errors.js";
import type { Answer, Arbiter, ArbiterNews, ArbiterStatus, Wish } from "./arbiter.js";
import type { Entry } from "./etcd-client.js";

/** The cluster, as far as the arbiter needs it. */
export interface Register {
  read(key: string): Promise<Entry>;
  swap(key: string, modRevision: string, value: string): Promise<{ revision: string } | { found: Entry }>;
  close(): void;
}

export interface EtcdArbiterSettings {
  router: RouterName;
  key: string;
  /** How long who speaks alone may be unheard of. */
  ttlMs: number;
  driftPpm: number;
  /** Boot clock. */
  now: () => bigint;
}

const recordSchema = z.object({
  epoch: z.int().min(0),
  router: z.enum(["a", "b"]),
  /** Of one life of one agent. */
  holder: z.string(),
  /** Counts renewals: no two values are alike. */
  beat: z.int().min(0),
  ttlMs: z.int().min(1),
});
type Record = z.infer<typeof recordSchema>;

interface View {
  record: Record | null;
  modRevision: string;
  /** Boot clock: when this revision was first read. */
  seenNs: bigint;
}

/** Times a term that the register is renewed, or looked at. */
const beatsPerTerm = 4;
const maxSwaps = 5;

export class EtcdArbiter implements Arbiter {
  readonly #register: Register;
  readonly #settings: EtcdArbiterSettings;
  readonly #news: ArbiterNews;
  readonly #holder = randomBytes(8).toString("hex");
  #view: View | null = null;
  /** While this router speaks alone: under which epoch, and until when. */
  #held: { epoch: number; untilNs: bigint } | null = null;
  #beat = 0;
  #reachable = false;
  #lastAnswer: string | null = null;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(register: Register, settings: EtcdArbiterSettings, news: ArbiterNews) {
    this.#register = register;
    this.#settings = settings;
    this.#news = news;
    void this.#keep();
  }

  async ask(wish: Wish): Promise<Answer> {
    try {
      const answer = await this.#decide(wish);
      this.#lastAnswer = answer.type === "granted" ? `It granted epoch ${answer.epoch}.` : answer.why;
      return answer;
    } catch (error) {
      return { type: "unreachable", why: this.#failed(error) };
    }
  }

  voiceUntilNs(): bigint {
    return this.#held?.untilNs ?? 0n;
  }

  release(): void {
    this.#held = null;
  }

  objection(): string | null {
    return this.#reachable ? null : `etcd cannot be reached: ${this.#lastAnswer ?? "it was not asked yet"}`;
  }

  status(): ArbiterStatus {
    return {
      kind: "etcd",
      reachable: this.#reachable,
      leaseMs: this.#held && Number(this.#held.untilNs - this.#settings.now()) / 1e6,
      lastAnswer: this.#lastAnswer,
    };
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#register.close();
  }

  /** What is known may be old: a refusal is only given by what was read for it. */
  async #decide(wish: Wish): Promise<Answer> {
    let fresh = this.#view === null;
    let view = this.#view ?? (await this.#look());
    for (let swaps = 0; swaps < maxSwaps; ) {
      const refusal = this.#refusal(wish, view);
      if (refusal === null) {
        const { record } = view;
        const epoch = wish.continues === null ? Math.max(wish.epoch, (record?.epoch ?? 0) + 1) : wish.epoch;
        if (await this.#swap(view, epoch)) return { type: "granted", epoch };
        swaps++;
      } else if (fresh) return refusal;
      else await this.#look();
      fresh = true;
      view = this.#view ?? view;
    }
    throw new Error("the register changes all the time");
  }

  #refusal({ continues, epoch }: Wish, { record, modRevision, seenNs }: View): Answer | null {
    if (record === null) return null;
    if (continues !== null) {
      if (record.epoch <= continues || (record.holder === this.#holder && record.epoch === epoch)) return null;
      const why = `etcd knows of a later voice: router ${record.router}, epoch ${record.epoch}.`;
      return { type: "refused", why, stale: true };
    }
    if (record.router === this.#settings.router) return null;
    const waitedMs = Number(this.#settings.now() - seenNs) / 1e6;
    const termMs = record.ttlMs * (1 + this.#settings.driftPpm / 1e6);
    if (waitedMs > termMs) return null;
    const why = `Router ${record.router} may be speaking alone (epoch ${record.epoch}, revision ${modRevision} of etcd).`;
    return { type: "refused", why, stale: false };
  }

  /** Puts this router into the register in place of what `view` shows; false: it has changed, and the view with it. */
  async #swap(view: View, epoch: number): Promise<boolean> {
    const { router, key, ttlMs, now } = this.#settings;
    const record: Record = { epoch, router, holder: this.#holder, beat: ++this.#beat, ttlMs };
    const sentNs = now();
    const answer = await this.#register.swap(key, view.modRevision, JSON.stringify(record));
    this.#reachable = true;
    let won = "revision" in answer;
    if ("revision" in answer) this.#see({ record, modRevision: answer.revision, seenNs: now() });
    else {
      this.#take(answer.found);
      // What was sent to two members arrives twice.
      const found = this.#view?.record;
      won = found?.holder === record.holder && found.beat === record.beat;
    }
    if (won) this.#held = { epoch, untilNs: sentNs + BigInt(ttlMs) * 1_000_000n };
    return won;
  }

  async #look(): Promise<View> {
    const entry = await this.#register.read(this.#settings.key);
    this.#reachable = true;
    return this.#take(entry);
  }

  #take({ value, modRevision }: Entry): View {
    let record: Record | null = null;
    try {
      if (value !== null) record = recordSchema.parse(JSON.parse(value));
    } catch {
      throw new Error(`${this.#settings.key} holds something that is not a register of Tandem`);
    }
    return this.#see({ record, modRevision, seenNs: this.#settings.now() });
  }

  /** Answers may overtake each other: the later revision is the truer one, and the same one is as old as it was. */
  #see(view: View): View {
    if (this.#view === null || BigInt(view.modRevision) > BigInt(this.#view.modRevision)) this.#view = view;
    return this.#view;
  }

  async #keep(): Promise<void> {
    const reachable = this.#reachable;
    try {
      if (this.#held) await this.#renew(this.#held.epoch);
      else await this.#look();
      if (!reachable) this.#lastAnswer = "It can be reached.";
    } catch (error) {
      this.#failed(error);
    }
    if (this.#closed) return;
    if (this.#reachable && !reachable) this.#news.allows();
    this.#timer = setTimeout(() => void this.#keep(), this.#settings.ttlMs / beatsPerTerm);
  }

  async #renew(epoch: number): Promise<void> {
    for (let swaps = 0; swaps < maxSwaps; swaps++) {
      const view = this.#view;
      // A later wish of ours may have won meanwhile.
      if (this.#held?.epoch !== epoch || view === null) return;
      if (view.record?.holder !== this.#holder) {
        this.#held = null;
        this.#lastAnswer = view.record
          ? `etcd has given the voice to router ${view.record.router} (epoch ${view.record.epoch}).`
          : "etcd has lost its register.";
        this.#news.lost(this.#lastAnswer);
        return;
      }
      if (await this.#swap(view, epoch)) return;
    }
  }

  /** Gives the sentence. */
  #failed(error: unknown): string {
    this.#reachable = false;
    this.#lastAnswer = sentenceOf(error);
    return this.#lastAnswer;
  }
}
