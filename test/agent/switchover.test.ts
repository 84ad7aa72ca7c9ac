// The voice handed over in order: there and back under load, refused when a session would be lost, paused, forced upon a
// sick active, and at a restart. At the peer one voice, and every byte.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { exitCodes, TandemError } from "../../src/errors.js";
import type { RouterName } from "../../src/lab/lab.js";
import { failoverCommand, pauseCommand, resumeCommand, switchoverCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import { type TakeoverReport, takeoverReportSchema } from "../../src/takeover/report.js";
import { assertNoResets, assertOneVoice, Duo, skip } from "./duo.js";

describe("switchover", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start();
  });
  after(() => duo?.lab.destroy());

  const socketOf = (router: RouterName): string => path.join(duo.pair.runDirectory(router), "agent.sock");

  /** Asks `router`; the report of whoever took over. */
  async function handOver(
    router: RouterName,
    command: typeof switchoverCommand | typeof failoverCommand,
    force = false,
  ): Promise<TakeoverReport> {
    const { before, after: then, report } = await ask(socketOf(router), command, { force });
    assert.notEqual(before.role, then.role);
    return takeoverReportSchema.parse(report);
  }

  const partnerOf = (router: RouterName): RouterName => (router === "a" ? "b" : "a");

  /** The active one, while the other protects it. */
  async function protectedActive(): Promise<RouterName> {
    const { role } = await duo.pair.status("a");
    const active = role === "active" || role === "solo" ? "a" : "b";
    await duo.untilProtected(active, partnerOf(active));
    return active;
  }

  test("there and back, asked at either router: one voice, no byte lost, and both protect each other again", async () => {
    for (const asked of ["active", "standby"] as const) {
      const active = await protectedActive();
      const standby = partnerOf(active);
      const sessions = await duo.openSessions(standby);
      const capture = await duo.captureVoice();
      await delay(300);
      const report = await handOver(asked === "active" ? active : standby, switchoverCommand);
      assert.equal(report.cause, "An operator asked for a switchover");
      assert.deepEqual([report.sessions, report.lost.count, report.handedOver], [8, 0, 8]);
      await delay(300);
      await sessions.assertExact();
      await duo.untilProtected(standby, active);
      const summary = await capture.stop();
      assertOneVoice(summary, duo.mac(active), duo.mac(standby));
      assertNoResets(summary);
    }
  });

  test("refused with exit code 5 and by name while a session is not ready; forced it is done", async () => {
    const active = await protectedActive();
    const standby = partnerOf(active);
    duo.pair.servers[standby]?.signal("SIGKILL");
    await duo.pair.servers[standby]?.exited.catch(() => {});
    const sessions = duo.openUnprotected();
    await duo.pair.until("the sessions are there", async () => (await duo.pair.status(standby)).sessions.total >= 8);
    for (const asked of [active, standby])
      await assert.rejects(ask(socketOf(asked), switchoverCommand, {}), (error) => {
        assert.ok(error instanceof TandemError);
        assert.equal(error.exitCode, exitCodes.refused);
        assert.match(error.message, /8 of 8 sessions are not ready \(8 [a-z-]+.*\): echo with [0-9a-f.:]+ port \d+/);
        return true;
      });
    assert.equal((await duo.pair.status(active)).role, "active");
    const report = await handOver(active, switchoverCommand, true);
    assert.equal(report.lost.count, 8);
    await sessions.finish();
    await duo.untilProtected(standby, active);
    await duo.pair.startServer(standby, true);
  });

  test("paused, a standby does not take over from a dead active until it is resumed", async () => {
    const active = await protectedActive();
    const standby = partnerOf(active);
    const { after: paused } = await ask(socketOf(active), pauseCommand, {});
    assert.ok(paused.paused);
    await duo.pair.until("both are paused", async () => (await duo.pair.status(standby)).paused !== null);
    const sessions = await duo.openSessions(standby);
    const capture = await duo.captureVoice();
    await delay(200);
    duo.lab.freeze(active);
    await delay(1500);
    const status = await duo.pair.status(standby);
    assert.equal(status.role, "standby");
    assert.match(status.reason, /paused/);
    await ask(socketOf(standby), resumeCommand, {});
    await duo.pair.untilRole(standby, "solo");
    duo.lab.thaw(active);
    await duo.untilProtected(standby, active);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac(active), duo.mac(standby));
    assertNoResets(summary);
    await ask(socketOf(active), resumeCommand, {});
  });

  test("failover: from a living active, and from one whose agent does not answer", async () => {
    for (const sick of [false, true]) {
      const active = await protectedActive();
      const standby = partnerOf(active);
      const sessions = await duo.openSessions(standby);
      const capture = await duo.captureVoice();
      await delay(200);
      if (sick) duo.pair.agents[active]?.signal("SIGSTOP");
      const report = await handOver(standby, failoverCommand).finally(() => {
        if (sick) duo.pair.agents[active]?.signal("SIGCONT");
      });
      assert.equal(report.lost.count, 0);
      await duo.untilProtected(standby, active);
      await sessions.assertExact();
      const summary = await capture.stop();
      assertOneVoice(summary, duo.mac(active), duo.mac(standby));
      assertNoResets(summary);
    }
  });

  test("restarts are no failovers: the active's agent hands over before it stops, the standby's comes back", async () => {
    const active = await protectedActive();
    const standby = partnerOf(active);
    const sessions = await duo.openSessions(standby);
    const capture = await duo.captureVoice();
    await delay(200);
    duo.pair.agents[active]?.signal("SIGTERM");
    await duo.pair.agents[active]?.exited;
    assert.equal((await duo.pair.status(standby)).role, "solo");
    duo.pair.startAgent(active);
    await duo.untilProtected(standby, active);
    // Now the standby's.
    duo.pair.agents[active]?.signal("SIGTERM");
    await duo.pair.agents[active]?.exited;
    await duo.pair.untilRole(standby, "solo");
    duo.pair.startAgent(active);
    await duo.untilProtected(standby, active);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac(active), duo.mac(standby));
    assertNoResets(summary);
    const { lastTakeover } = await duo.pair.status(standby);
    assert.equal((lastTakeover as TakeoverReport).cause, "The active is being stopped");
  });
});
