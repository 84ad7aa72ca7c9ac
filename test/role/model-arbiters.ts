// The arbiters of the model: a linearizable register as EtcdArbiter uses it (src/role/arbiters/etcd.ts), whose messages
// are late and get lost; and somebody outside who names one router at a time, and makes sure of it.

import type { Answer, Wish } from "../../src/role/arbiters/arbiter.js";

export const term = 300; // ms, as is all time here
const timeout = term / 2;
const beats = 4;

interface Entry {
  epoch: number;
  router: 0 | 1;
  holder: bigint;
  beat: number;
}

interface View {
  entry: Entry | null;
  revision: number;
  seen: number;
}

/** What the model's world is to an arbiter. */
export interface Surroundings {
  readonly now: number;
  readonly random: { below(limit: number): number };
  /** Whether each router reaches the cluster. */
  readonly reaches: [boolean, boolean];
}

/** The cluster: what arrives is carried out at once. */
export class Cluster {
  entry: Entry | null = null;
  revision = 0;
  private calls: { at: number; from: 0 | 1; run: () => () => void; answered: (reply: () => void) => void }[] = [];

  constructor(private readonly world: Surroundings) {}

  call(from: 0 | 1, run: () => () => void, answered: (reply: () => void) => void): void {
    const { random, now } = this.world;
    if (!this.world.reaches[from]) return;
    const late = random.below(10) === 0 ? random.below(2 * timeout) : random.below(4);
    this.calls.push({ at: now + 1 + late, from, run, answered });
  }

  step(): void {
    const due = this.calls.filter(({ at }) => at <= this.world.now);
    this.calls = this.calls.filter(({ at }) => at > this.world.now);
    for (const { from, run, answered } of due) {
      const reply = run();
      if (this.world.reaches[from]) answered(reply);
    }
  }
}

/** One router's side of the register; anew with each life of its agent. */
export class RegisterArbiter {
  private view: View | null = null;
  private held: { epoch: number; until: number } | null = null;
  private beat = 0;
  private nextBeat = 0;
  private mail: { at: number; reply: () => void }[] = [];
  private deadlines: { at: number; late: () => void }[] = [];

  constructor(
    private readonly index: 0 | 1,
    private readonly holder: bigint,
    private readonly world: Surroundings & { readonly cluster: Cluster },
    private readonly drift: number,
    private readonly lost: () => void,
  ) {}

  get voiceUntil(): number {
    return this.held?.until ?? 0;
  }

  release(): void {
    this.held = null;
  }

  ask(wish: Wish, answer: (answer: Answer) => void): void {
    const unreachable = () => answer({ type: "unreachable", why: "no answer" });
    let swaps = 0;
    const decide = (fresh: boolean): void => {
      const refusal = this.view && this.refusal(wish, this.view);
      if (this.view === null || (refusal !== null && !fresh)) this.read(() => decide(true), unreachable);
      else if (refusal !== null) answer(refusal);
      else if (swaps++ === 5) unreachable();
      else {
        const known = this.view.entry?.epoch ?? 0;
        const epoch = wish.continues === null ? Math.max(wish.epoch, known + 1) : wish.epoch;
        this.swap(this.view, epoch, (won) => (won ? answer({ type: "granted", epoch }) : decide(true)), unreachable);
      }
    };
    decide(false);
  }

  run(): void {
    const { now } = this.world;
    const mail = this.mail.filter(({ at }) => at <= now);
    this.mail = this.mail.filter(({ at }) => at > now);
    for (const { reply } of mail) reply();
    const late = this.deadlines.filter(({ at }) => at <= now);
    this.deadlines = this.deadlines.filter(({ at }) => at > now);
    for (const deadline of late) deadline.late();
    if (now < this.nextBeat) return;
    this.nextBeat = now + term / beats;
    if (this.held === null)
      this.read(
        () => {},
        () => {},
      );
    else this.renew(this.held.epoch);
  }

  private renew(epoch: number): void {
    if (this.held?.epoch !== epoch || this.view === null) return;
    if (this.view.entry?.holder !== this.holder) {
      this.held = null;
      this.lost();
    } else
      this.swap(
        this.view,
        epoch,
        (won) => {
          if (!won) this.renew(epoch);
        },
        () => {},
      );
  }

  private refusal({ continues, epoch }: Wish, { entry, seen }: View): Answer | null {
    if (entry === null) return null;
    if (continues !== null)
      return entry.epoch <= continues || (entry.holder === this.holder && entry.epoch === epoch)
        ? null
        : { type: "refused", why: "a later voice", stale: true };
    if (entry.router === this.index || this.world.now - seen > term * this.drift) return null;
    return { type: "refused", why: "it may be speaking", stale: false };
  }

  private swap(view: View, epoch: number, done: (won: boolean) => void, late: () => void): void {
    const { cluster, now: sent } = this.world;
    const entry: Entry = { epoch, router: this.index, holder: this.holder, beat: ++this.beat };
    this.call(() => {
      if (cluster.revision === view.revision) {
        cluster.entry = entry;
        cluster.revision++;
      }
      const found = { entry: cluster.entry, revision: cluster.revision };
      return () => {
        this.see(found);
        const won = found.entry?.holder === entry.holder && found.entry.beat === entry.beat;
        if (won) this.held = { epoch, until: sent + term };
        done(won);
      };
    }, late);
  }

  private read(done: () => void, late: () => void): void {
    const { cluster } = this.world;
    this.call(() => {
      const found = { entry: cluster.entry, revision: cluster.revision };
      return () => {
        this.see(found);
        done();
      };
    }, late);
  }

  private see(found: Omit<View, "seen">): void {
    if (this.view === null || found.revision > this.view.revision) this.view = { ...found, seen: this.world.now };
  }

  private call(run: () => () => void, late: () => void): void {
    let open = true;
    const { random } = this.world;
    this.deadlines.push({
      at: this.world.now + timeout,
      late: () => {
        if (!open) return;
        open = false;
        late();
      },
    });
    this.world.cluster.call(this.index, run, (reply) =>
      this.mail.push({
        at: this.world.now + 1 + random.below(3),
        reply: () => {
          if (!open) return;
          open = false;
          reply();
        },
      }),
    );
  }
}

/** Somebody outside, as strict as can be: nobody is named before the other one has been told, or cannot speak. */
export class Authority {
  readonly named: [boolean, boolean] = [true, false];
  private wanted: 0 | 1 | null = 0;
  private revokedAt = 0;

  constructor(
    private readonly tell: (router: 0 | 1, granted: boolean) => void,
    /** The statement was carried out: the router is awake, and not amid a takeover. */
    private readonly heeds: (router: 0 | 1) => boolean,
    private readonly controller: number,
  ) {}

  want(router: 0 | 1 | null, now: number): void {
    this.wanted = router;
    this.revokedAt = now;
    for (const each of [0, 1] as const)
      if (each !== router && this.named[each]) {
        this.named[each] = false;
        this.tell(each, false);
      }
  }

  step(now: number): void {
    const { wanted } = this;
    if (wanted === null || this.named[wanted]) return;
    const other = wanted === 0 ? 1 : 0;
    // A router that stands still, or whose agent is gone, speaks for as long as its controller may be missed.
    if (!this.heeds(other) && now - this.revokedAt <= this.controller) return;
    this.named[wanted] = true;
    this.tell(wanted, true);
  }
}
