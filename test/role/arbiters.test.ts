// The arbiters by themselves: what each grants, refuses and cannot tell; etcd's register in memory, with its failures.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { Answer, Wish } from "../../src/role/arbiters/arbiter.js";
import { EtcdArbiter, type Register } from "../../src/role/arbiters/etcd.js";
import type { Entry } from "../../src/role/arbiters/etcd-client.js";
import { ExternalArbiter } from "../../src/role/arbiters/external.js";
import { PairArbiter } from "../../src/role/arbiters/pair.js";

const takeover = (continues: number): Wish => ({
  purpose: "takeover",
  epoch: continues + 2,
  continues,
  silentSinceNs: 0n,
});
const anew = (epoch: number): Wish => ({ purpose: "alone", epoch, continues: null, silentSinceNs: 0n });

/** One key, and a member that may be away or lose its answers. */
class Memory implements Register {
  entry: Entry = { value: null, modRevision: "0" };
  away = false;
  losesAnswers = false;
  #revision = 100;

  async read(): Promise<Entry> {
    this.#arrive();
    return this.#answer(this.entry);
  }

  async swap(_key: string, modRevision: string, value: string): Promise<{ revision: string } | { found: Entry }> {
    this.#arrive();
    if (modRevision !== this.entry.modRevision) return this.#answer({ found: this.entry });
    this.entry = { value, modRevision: String(++this.#revision) };
    return this.#answer({ revision: this.entry.modRevision });
  }

  close(): void {}

  #arrive(): void {
    if (this.away) throw new Error("nobody answers");
  }

  #answer<T>(answer: T): T {
    if (this.losesAnswers) throw new Error("no answer");
    return answer;
  }
}

const ttlMs = 400;

class Bench {
  readonly memory = new Memory();
  readonly lost: string[] = [];
  readonly #arbiters: EtcdArbiter[] = [];
  now = 1_000_000_000_000n;

  arbiter(router: "a" | "b"): EtcdArbiter {
    const arbiter = new EtcdArbiter(
      this.memory,
      { router, key: "/tandem/voice", ttlMs, driftPpm: 1000, now: () => this.now },
      { lost: (why) => this.lost.push(`${router}: ${why}`), allows: () => {} },
    );
    this.#arbiters.push(arbiter);
    return arbiter;
  }

  pass(milliseconds: number): void {
    this.now += BigInt(milliseconds) * 1_000_000n;
  }

  close(): void {
    for (const arbiter of this.#arbiters) arbiter.close();
  }
}

function bench(name: string, run: (bench: Bench) => Promise<void>): void {
  test(`etcd: ${name}`, async () => {
    const each = new Bench();
    try {
      await run(each);
    } finally {
      each.close();
    }
  });
}

const stale = (answer: Answer): boolean => answer.type === "refused" && answer.stale;

bench("an empty register is anybody's, and the voice is counted from when it was asked", async (each) => {
  const a = each.arbiter("a");
  assert.equal(a.voiceUntilNs(), 0n);
  const asked = each.now;
  assert.deepEqual(await a.ask(anew(4)), { type: "granted", epoch: 4 });
  assert.equal(a.voiceUntilNs(), asked + BigInt(ttlMs) * 1_000_000n);
  a.release();
  assert.equal(a.voiceUntilNs(), 0n);
});

bench("of the two that want the next epoch one wins, and the other one is of the past", async (each) => {
  const [a, b] = [each.arbiter("a"), each.arbiter("b")];
  await a.ask(anew(1));
  const answers = await Promise.all([
    b.ask(takeover(1)),
    a.ask({ purpose: "alone", epoch: 2, continues: 1, silentSinceNs: 0n }),
  ]);
  assert.equal(answers.filter(({ type }) => type === "granted").length, 1);
  assert.equal(answers.filter(stale).length, 1);
});

bench("who begins anew waits for the whole term of the other one, counted from its own reading", async (each) => {
  const [a, b] = [each.arbiter("a"), each.arbiter("b")];
  await a.ask(anew(7));
  const refused = await b.ask(anew(1));
  assert.ok(refused.type === "refused" && !refused.stale);
  each.pass(ttlMs);
  assert.equal((await b.ask(anew(1))).type, "refused", "the clocks may run apart");
  each.pass(1);
  assert.deepEqual(await b.ask(anew(1)), { type: "granted", epoch: 8 }, "above what the register knew");
  await delay(ttlMs / 2);
  assert.deepEqual(each.lost, ["a: etcd has given the voice to router b (epoch 8)."]);
  assert.equal(a.voiceUntilNs(), 0n);
});

bench("who renews is not robbed", async (each) => {
  const [a, b] = [each.arbiter("a"), each.arbiter("b")];
  await a.ask(anew(1));
  await b.ask(anew(1));
  for (let renewals = 0; renewals < 3; renewals++) {
    each.pass(ttlMs / 2);
    await delay(ttlMs / 2);
    assert.ok(a.voiceUntilNs() > each.now);
    assert.equal((await b.ask(anew(1))).type, "refused");
  }
});

bench("a swap whose answer was lost is known again when it is asked for again", async (each) => {
  const b = each.arbiter("b");
  each.memory.losesAnswers = true;
  await b.ask(takeover(3));
  each.memory.losesAnswers = false;
  assert.deepEqual(await b.ask(takeover(3)), { type: "granted", epoch: 5 });
  each.memory.losesAnswers = true;
  assert.equal((await b.ask(takeover(5))).type, "unreachable");
  each.memory.losesAnswers = false;
  assert.deepEqual(await b.ask(takeover(5)), { type: "granted", epoch: 7 });
});

bench("away, it grants nothing and says so", async (each) => {
  const a = each.arbiter("a");
  await a.ask(anew(1));
  each.memory.away = true;
  assert.deepEqual(await a.ask(anew(2)), { type: "unreachable", why: "nobody answers" });
  assert.match(a.objection() ?? "", /cannot be reached: nobody answers/);
  assert.equal(a.status().reachable, false);
  const until = a.voiceUntilNs();
  await delay(ttlMs / 2);
  assert.equal(a.voiceUntilNs(), until, "what was granted runs on, and out");
});

bench("a register that is not ours is left alone", async (each) => {
  each.memory.entry = { value: "something else", modRevision: "9" };
  const answer = await each.arbiter("a").ask(anew(1));
  assert.ok(answer.type === "unreachable" && /not a register of Tandem/.test(answer.why));
  assert.equal(each.memory.entry.modRevision, "9");
});

test("pair: witnesses veto what is said to a silent partner, and nothing else", async () => {
  let asked = 0;
  let answers = false;
  const arbiter = new PairArbiter(["192.0.2.1"], async () => {
    asked++;
    return answers;
  });
  assert.deepEqual(await arbiter.ask({ ...anew(3), silentSinceNs: null }), { type: "granted", epoch: 3 });
  assert.equal(asked, 0);
  const vetoed = await arbiter.ask(anew(3));
  assert.ok(vetoed.type === "refused" && !vetoed.stale && /192\.0\.2\.1/.test(vetoed.why));
  answers = true;
  assert.equal((await arbiter.ask(takeover(1))).type, "granted");
  assert.equal((await new PairArbiter([], async () => false).ask(anew(3))).type, "granted", "nobody to ask");
});

test("external: the last word counts, over restarts, and too late for a takeover it makes none", async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-arbiter-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const said: string[] = [];
  let now = 0n;
  const open = () =>
    new ExternalArbiter(
      { file: path.join(directory, "arbiter"), patienceMs: 1000, now: () => now },
      { lost: () => said.push("lost"), allows: () => said.push("allows") },
    );
  const first = open();
  assert.equal((await first.ask(anew(1))).type, "refused", "nobody was named");
  first.state("granted");
  first.state("granted");
  assert.deepEqual(said, ["allows"]);
  const second = open();
  assert.equal((await second.ask(takeover(1))).type, "granted");
  now = 1_000_000_001n;
  assert.ok(stale(await second.ask(takeover(1))));
  assert.equal((await second.ask(anew(1))).type, "granted", "it has nothing that could be of the past");
  second.state("revoked");
  assert.deepEqual(said, ["allows", "lost"]);
  assert.equal((await open().ask(anew(1))).type, "refused");
});
