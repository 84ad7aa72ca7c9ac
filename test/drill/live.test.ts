// Drills on a live pair: the guard refuses what is not ready, what is safe is done and told to the agent, and a step that
// fails is taken back.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type LivePair, LiveStage, objectionTo } from "../../src/drill/live-stage.js";
import { runDrill } from "../../src/drill/run.js";
import { findScenario, parseScenario, type Scenario } from "../../src/drill/scenario.js";
import { exitCodes, TandemError } from "../../src/errors.js";
import type { RouterName } from "../../src/lab/lab.js";
import { historyCommand, pauseCommand, resumeCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import type { AgentStatus } from "../../src/observe/status.js";
import { Duo, skip } from "../agent/duo.js";

const tandem = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));
const switchover = findScenario("switchover");

describe("a live pair", { skip }, () => {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-live-"));
  let duo: Duo;
  before(async () => {
    duo = await Duo.start();
  });
  after(() => {
    duo?.lab.destroy();
    rmSync(directory, { recursive: true });
  });

  const socketOf = (router: RouterName): string => path.join(duo.pair.runDirectory(router), "agent.sock");
  const pairAt = (router: RouterName): LivePair => ({
    socket: socketOf(router),
    patienceMs: 10_000,
    restartAgent: async () => {
      duo.pair.agents[router]?.signal("SIGTERM");
      await duo.pair.agents[router]?.exited;
      duo.pair.startAgent(router);
    },
  });
  async function drill(scenario: Scenario, router: RouterName, over: Partial<LivePair> = {}) {
    const stage = await LiveStage.enter(scenario, { ...pairAt(router), ...over });
    const report = await runDrill(scenario, stage, () => {});
    await stage.tell(report);
    return report;
  }
  const cli = async (router: RouterName, ...words: string[]) => {
    const run = duo.lab.spawn(router, [process.execPath, tandem, "drill", "run", "switchover", "--live", ...words], {
      cwd: directory,
      env: { ...process.env, TANDEM_CONFIG: duo.pair.configFile(router) },
    });
    const { code } = await run.exited;
    return { code, stdout: run.stdout(), stderr: run.stderr() };
  };

  test("the guard refuses with exit code 5: a drill for the lab, a paused pair, nobody who confirms, the wrong router", async () => {
    const refused = (pattern: RegExp) => (error: unknown) =>
      error instanceof TandemError &&
      error.code === "DRILL_REFUSED" &&
      error.exitCode === exitCodes.refused &&
      pattern.test(error.message);
    await assert.rejects(LiveStage.enter(findScenario("power-off"), pairAt("a")), refused(/for the lab only/));
    await assert.rejects(LiveStage.enter(findScenario("rejoin"), pairAt("a")), refused(/run it on that router/));
    const unasked = await cli("a");
    assert.deepEqual([unasked.code, /NOT_CONFIRMED/.test(unasked.stderr)], [5, true], unasked.stderr);
    // The standby's application goes: what begins now nobody could take over.
    duo.pair.servers.b?.signal("SIGKILL");
    await duo.pair.servers.b?.exited;
    const sessions = duo.openUnprotected();
    await duo.pair.until("the sessions are there", async () => (await duo.pair.status("b")).sessions.total === 8);
    for (const router of ["a", "b"] as const)
      await assert.rejects(LiveStage.enter(switchover, pairAt(router)), refused(/8 of 8 sessions are not ready/));
    await sessions.finish();
    await duo.pair.startServer("b", true);
    await duo.pair.until("the sessions are over", async () => (await duo.pair.status("b")).sessions.total === 0);
    await ask(socketOf("a"), pauseCommand, {});
    const paused = await cli("a", "--yes");
    assert.deepEqual([paused.code, /DRILL_REFUSED/.test(paused.stderr)], [5, true], paused.stderr);
    await ask(socketOf("a"), resumeCommand, {});
    assert.equal((await duo.pair.status("a")).role, "active");
  });

  test("switchover, there and back, by the command line; the agent's journal and metrics tell of it", async () => {
    const { code, stdout, stderr } = await cli("a", "--yes", "--junit", "out/drill.xml");
    assert.equal(code, 0, stderr);
    assert.match(stdout, /verdict passed/);
    await duo.untilProtected("a", "b");
    const { entries } = await ask(socketOf("a"), historyCommand, {});
    assert.ok(entries.some(({ sentence }) => /^The drill switchover was done on this pair: passed/.test(sentence)));
    const metrics = duo.lab.run("a", ["curl", "-s", "--noproxy", "*", "http://127.0.0.1:9470/metrics"]);
    assert.match(metrics, /^tandem_drill_last_result\{drill="switchover"\} 1$/m);
    assert.match(metrics, /^tandem_drill_last_blackout_seconds\{drill="switchover"\} 0\.\d+$/m);
    assert.match(metrics, /^tandem_drill_last_timestamp_seconds\{drill="switchover"\} \d{10}/m);
  });

  for (const name of ["restart-standby", "rejoin"])
    test(`${name}, at the standby`, async () => {
      const report = await drill(findScenario(name), "b");
      assert.deepEqual(report.breaches, []);
      await duo.untilProtected("a", "b");
    });

  test("a step that does not come true: failed, and the voice is given back", async () => {
    const scenario = parseScenario(
      `title: Never back
description: It waits for what nobody does.
where: [live]
steps:
  - { do: switchover }
  - { do: await-protected }
  - { do: await-voice, of: active }
expect: { takeovers: 2, voice: active }
`,
      "never.yaml",
    );
    const { verdict, breaches } = await drill(scenario, "a", { patienceMs: 3000 });
    assert.equal(verdict, "failed");
    assert.match(breaches.join("; "), /"until the active has the voice" failed/);
    await duo.untilProtected("a", "b");
    const metrics = duo.lab.run("a", ["curl", "-s", "--noproxy", "*", "http://127.0.0.1:9470/metrics"]);
    assert.match(metrics, /^tandem_drill_last_result\{drill="never"\} 0$/m);
  });

  test("what the guard objects to, one by one", async () => {
    const standby = await duo.pair.status("b");
    const none = { total: 3, notReady: 0 };
    assert.equal(objectionTo(switchover, standby, none), null);
    assert.match(objectionTo(switchover, standby, { total: 3, notReady: 1 }) ?? "", /1 of 3 sessions are not ready/);
    const objections: [Partial<AgentStatus>, RegExp][] = [
      [{ role: "solo" }, /one must be active/],
      [{ partner: null }, /is not heard/],
      [{ agreed: false }, /do not agree/],
      [{ paused: "for a test" }, /paused: for a test/],
      [{ paths: standby.paths.map((each) => ({ ...each, up: false })) }, /mirror and uplink is down/],
      [{ arbiter: { ...standby.arbiter, reachable: false } }, /arbiter/],
      [{ recorder: { ...standby.recorder, auditBreaches: 1 } }, /audit/],
    ];
    for (const [over, pattern] of objections)
      assert.match(objectionTo(switchover, { ...standby, ...over }, none) ?? "", pattern);
  });
});
