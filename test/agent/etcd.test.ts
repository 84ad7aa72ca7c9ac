// The arbiter etcd, with a real cluster: a takeover goes by its register, two routers that do not hear each other are
// one voice, and without a majority nobody newly speaks, and what goes on goes on.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { TandemError } from "../../src/errors.js";
import type { RouterName } from "../../src/lab/lab.js";
import { switchoverCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import { assertNoResets, assertOneVoice, Duo, skip } from "./duo.js";
import { EtcdCluster, etcdAbsent } from "./etcd-cluster.js";

describe("arbiter etcd", { skip: skip || etcdAbsent }, () => {
  let duo: Duo;
  let cluster: EtcdCluster;
  before(async () => {
    // A router that hears the other one answer for the addresses would not even ask; here the register is to decide.
    duo = await Duo.start(
      { mirror: "switch", host: true },
      { overrides: { onDuplicateAddress: "warn" } },
      async (lab) => {
        cluster = await EtcdCluster.start(lab);
        return { options: { arbiter: cluster.arbiter() } };
      },
    );
  });
  after(() => duo?.lab.destroy());

  /** The routers do not hear each other, and still reach everybody else. */
  function part(): void {
    duo.lab.cut("mirror");
    for (const router of ["a", "b"] as const)
      duo.lab.run(
        router,
        ["nft", "-f", "-"],
        "table inet parted {\n chain in {\n type filter hook input priority 0;\n udp dport 7401 drop\n }\n}\n",
      );
  }

  function join(): void {
    for (const router of ["a", "b"] as const) duo.lab.run(router, ["nft", "delete", "table", "inet", "parted"]);
    duo.lab.heal("mirror");
  }

  async function epochOf(router: RouterName): Promise<number> {
    return (await duo.pair.status(router)).epoch;
  }

  test("who speaks has the register's word", async () => {
    const { arbiter, epoch } = await duo.pair.status("a");
    assert.deepEqual([arbiter.kind, arbiter.reachable, arbiter.leaseMs], ["etcd", true, null], "it reflects now");
    const register = cluster.register() as { epoch: number; router: string };
    assert.deepEqual([register.epoch, register.router], [epoch, "a"]);
  });

  test("the active dies: the standby takes over by the register, within milliseconds of asking", async (t) => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(200);
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(300);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("a"), duo.mac("b"));
    assertNoResets(summary);
    const { lastTakeover, arbiter, epoch } = await pair.status("b");
    const { stepsMs } = lastTakeover as { stepsMs: Record<string, number> };
    t.diagnostic(`the fence step, with etcd's answer: ${stepsMs.fence?.toFixed(1)} ms`);
    assert.ok((arbiter.leaseMs ?? 0) > 0, "a lease bounds it now");
    assert.equal((cluster.register() as { epoch: number }).epoch, epoch);
    await duo.repair("a");
    await duo.untilProtected("b", "a");
    assert.equal((await pair.status("b")).arbiter.leaseMs, null);
  });

  test("parted while both live and reach everybody: one of the two speaks, and the sessions go on there", async () => {
    const { pair } = duo;
    const sessions = await duo.openSessions("a");
    const capture = await duo.captureVoice();
    const former = await epochOf("b");
    await delay(200);
    part();
    await pair.until("one of them speaks alone", async () => {
      const [a, b] = await Promise.all([pair.status("a"), pair.status("b")]);
      return (a.role === "solo") !== (b.role === "solo");
    });
    // Longer than the term: the other one keeps asking, and must be refused as long as the first one lives.
    await delay(5000);
    const [a, b] = await Promise.all([pair.status("a"), pair.status("b")]);
    const winner: RouterName = a.role === "solo" ? "a" : "b";
    const loser = winner === "a" ? b : a;
    assert.notEqual(loser.role, "solo");
    assert.match(loser.reason, /etcd knows of a later voice|may be speaking alone/);
    assert.ok((await epochOf(winner)) > former);
    const summary = await capture.stop();
    if (winner === "a") assertOneVoice(summary, duo.mac("b"), duo.mac("a"));
    else
      assert.deepEqual(
        summary.senders.map(({ mac }) => mac),
        [duo.mac("b")],
      );
    assertNoResets(summary);
    await sessions.assertExact();
    join();
    await duo.untilProtected(winner, winner === "a" ? "b" : "a");
  });

  test("etcd without a majority: the pair goes on, nobody takes over, and who is asked says why", async () => {
    const { lab, pair } = duo;
    const active: RouterName = (await pair.status("a")).role === "active" ? "a" : "b";
    const standby = active === "a" ? "b" : "a";
    const sessions = await duo.openSessions(standby);
    const former = await epochOf(active);
    await cluster.killMajority();
    await pair.until("both have noticed", async () => {
      const [a, b] = await Promise.all([pair.status("a"), pair.status("b")]);
      return !a.arbiter.reachable && !b.arbiter.reachable;
    });
    await delay(4000);
    await duo.untilProtected(active, standby);
    assert.equal(await epochOf(active), former, "a reflecting pair needs nobody");
    await assert.rejects(
      ask(path.join(pair.runDirectory(active), "agent.sock"), switchoverCommand, {}),
      (error) => error instanceof TandemError && error.exitCode === 5 && /etcd cannot be reached/.test(error.message),
    );
    lab.freeze(active);
    await pair.until("the standby says why it does not take over", async () =>
      /lease has run out; nobody takes over: the arbiter cannot be reached/.test((await pair.status(standby)).reason),
    );
    assert.equal((await pair.status(standby)).role, "standby");
    assert.equal(await epochOf(standby), former);
    lab.thaw(active);
    await duo.untilProtected(active, standby);
    await sessions.assertExact();

    const newer = await duo.openSessions(standby);
    lab.kill(active);
    await delay(2000);
    assert.equal((await pair.status(standby)).role, "standby");
    await cluster.revive();
    await pair.untilRole(standby, "solo");
    await newer.assertExact();
    await duo.repair(active);
    await duo.untilProtected(standby, active);
  });

  test("who speaks alone and loses etcd speaks until its lease is over, and no longer", async () => {
    const { lab, pair } = duo;
    const active: RouterName = (await pair.status("a")).role === "active" ? "a" : "b";
    const standby = active === "a" ? "b" : "a";
    lab.kill(standby);
    await pair.untilRole(active, "solo");
    await cluster.killMajority();
    await pair.until("it is still speaking", async () => {
      const { role, arbiter } = await pair.status(active);
      return role === "solo" && !arbiter.reachable && (arbiter.leaseMs ?? 0) > 0;
    });
    await pair.untilRole(active, "fenced");
    assert.match((await pair.status(active)).reason, /voice|must not speak alone/);
    const capture = await duo.captureVoice();
    const silenced = duo.openUnprotected();
    await delay(1500);
    assert.deepEqual((await capture.stop()).senders, []);
    await cluster.revive();
    await pair.untilRole(active, "solo");
    await silenced.finish();
  });
});
