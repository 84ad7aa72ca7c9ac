// Hooks with real scripts: what they are told and in which order, and that nothing they do, or do not do, holds up more
// than its budget.

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import { Hooks } from "../../src/agent/hooks.js";
import { parseConfig } from "../../src/config/load.js";
import type { Config } from "../../src/config/schema.js";
import { switchoverCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import { takeoverSteps } from "../../src/takeover/report.js";
import { Duo, skip } from "./duo.js";

function writeHook(directory: string, name: string, lines: string, mode = 0o755): void {
  const file = path.join(directory, name);
  writeFileSync(file, `#!/bin/sh\n${lines}\n`);
  chmodSync(file, mode);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !readFileSync(`/proc/${pid}/stat`, "latin1").includes(") Z ");
  } catch {
    return false;
  }
}

describe("hooks", () => {
  function begin(t: TestContext, settings: Partial<Config["hooks"]> = {}) {
    const directory = mkdtempSync(path.join(tmpdir(), "tandem-hooks-"));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const said: string[] = [];
    const log = pino({}, { write: (line: string) => void said.push(line) });
    const hooks = new Hooks(
      { directory, timeoutMs: 10_000, before: [], beforeMs: 300, ...settings },
      { router: "a", addresses: "10.77.0.1 fd77::1" },
      log,
    );
    const told = path.join(directory, ".told");
    const lines = () => (existsSync(told) ? readFileSync(told, "utf8").trim().split("\n") : []);
    return { directory, told, lines, said: () => said.join(""), hooks };
  }

  test("all executables, by name, get the event as arguments and the facts in the environment", async (t) => {
    const { directory, told, lines, hooks, said } = begin(t);
    writeHook(directory, "20-second", `echo "second $*" >>${told}`);
    writeHook(
      directory,
      "10-first",
      `sleep 0.1; echo "first $* $TANDEM_ROUTER $TANDEM_EPOCH $TANDEM_ADDRESSES" >>${told}; echo spoken`,
    );
    writeHook(directory, "30-plain-file", `echo "not me" >>${told}`, 0o644);
    hooks.after("announce", { epoch: 7 });
    hooks.after("role", { epoch: 8 });
    await hooks.stop();
    assert.deepEqual(lines(), [
      "first after announce a 7 10.77.0.1 fd77::1",
      "second after announce",
      "first after role a 8 10.77.0.1 fd77::1",
      "second after role",
    ]);
    assert.match(said(), /"output":"spoken"/);
  });

  test("what others could have written is not run, and said", async (t) => {
    const { directory, told, lines, hooks, said } = begin(t);
    writeHook(directory, "hook", `echo run >>${told}`, 0o777);
    hooks.after("role", {});
    await hooks.stop();
    assert.deepEqual(lines(), []);
    assert.match(said(), /others than root could have written it/);
  });

  test("before: only for the events asked for, and no longer than the budget, with all that was started", async (t) => {
    const { directory, told, lines, hooks, said } = begin(t, { before: ["announce"] });
    writeHook(directory, "1", `echo "$1 $2 $$" >>${told}; sleep 60 & echo $! >>${told}; sleep 60`);
    writeHook(directory, "2", `echo never >>${told}`);
    await hooks.before("fence", {});
    assert.deepEqual(lines(), []);
    const began = performance.now();
    await hooks.before("announce", {});
    const took = performance.now() - began;
    assert.ok(took < 10_000, `${took} ms`);
    const [first = "", background = ""] = lines();
    assert.match(first, /^before announce \d+$/);
    assert.equal(lines().length, 2);
    assert.match(said(), /was ended after/);
    assert.match(said(), /was left out/);
    for (const pid of [Number(first.split(" ")[2]), Number(background)]) {
      for (let tries = 0; isAlive(pid) && tries < 200; tries++) await delay(10);
      assert.equal(isAlive(pid), false);
    }
  });

  test("a hook that fails, cannot be run, or leaves something running: said, and the next one runs", async (t) => {
    const { directory, told, lines, hooks, said } = begin(t);
    writeHook(directory, "1-fails", "echo why >&2; exit 3");
    writeFileSync(path.join(directory, "2-no-program"), "#!/nowhere\n", { mode: 0o755 });
    writeHook(directory, "3-daemon", "sleep 5 &");
    writeHook(directory, "4-last", `echo last >>${told}`);
    hooks.after("role", {});
    await hooks.stop();
    assert.deepEqual(lines(), ["last"]);
    assert.match(said(), /"code":3.*"output":"why".*1-fails after role failed/);
    assert.match(said(), /ENOENT|no such file/i);
  });

  test("no directory is no hooks", async (t) => {
    const { hooks, said } = begin(t, { directory: "/nonexistent/hooks.d", before: ["fence"] });
    await hooks.before("fence", {});
    hooks.after("role", {});
    await hooks.stop();
    assert.equal(said(), "");
  });

  test("before-hooks that could outlast the voice are refused", () => {
    const text = (before: string): string =>
      `router: a
pair:
  keys: /k
  routers:
    a: {mirror: {device: m, address: 10.0.0.1}, uplinks: [{device: u, address: 10.1.0.1}]}
    b: {mirror: {device: m, address: 10.0.0.2}, uplinks: [{device: u, address: 10.1.0.2}]}
services: [{name: s, addresses: [10.1.0.9], port: 1}]
hooks: {beforeMs: 400, before: ${before}}
`;
    assert.equal(parseConfig(text("[announce, fence]"), "c").hooks.before.length, 2);
    assert.throws(() => parseConfig(text("[announce, fence, nudge]"), "c"), /controllerMs/);
  });
});

describe("hooks of a pair", { skip }, () => {
  test("a switchover and a takeover are told in order on both routers; a hook that hangs costs its budget, and no byte", async (t) => {
    const directory = mkdtempSync(path.join(tmpdir(), "tandem-hooks-"));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const told = (router: string): string[] =>
      readFileSync(path.join(directory, `.told-${router}`), "utf8")
        .trim()
        .split("\n");
    const file = `${directory}/.told-$TANDEM_ROUTER`;
    writeHook(directory, "tell", `echo "$1 $2 \${TANDEM_FORMER:+$TANDEM_FORMER }$TANDEM_ROLE" >>${file}`);
    const beforeMs = 200;
    const hooks = { directory, before: ["abdicate", "announce"], beforeMs };
    const duo = await Duo.start({}, { overrides: { hooks } });
    const { lab, pair } = duo;
    t.after(() => lab.destroy());
    const sessions = await duo.openSessions("b");
    await ask(path.join(pair.runDirectory("a"), "agent.sock"), switchoverCommand, {});
    await duo.untilProtected("b", "a");
    await sessions.assertExact();
    const ofTakeover = (before: string) => [`before ${before}`, ...takeoverSteps.map((step) => `after ${step}`)];
    const events = (router: string) => told(router).map((line) => line.split(" ").slice(0, 2).join(" "));
    await pair.until("b's hooks know that it is active", () => told("b").includes("after role solo active"));
    await pair.until("a's hooks know that it stands by", () => told("a").includes("after role joining standby"));
    assert.deepEqual(
      events("a").filter((event) => event.endsWith("abdicate")),
      ["before abdicate", "after abdicate"],
    );
    assert.deepEqual(
      events("b").filter((event) => !event.endsWith("role")),
      ofTakeover("announce"),
    );
    assert.ok(
      told("b").indexOf("after role standby solo") > told("b").findIndex((line) => line.startsWith("after nudge")),
    );

    writeHook(directory, "hangs", `[ "$1" = after ] || sleep 60`);
    const others = await duo.openSessions("a");
    lab.kill("b");
    await pair.untilRole("a", "solo");
    await others.assertExact();
    const { lastTakeover } = await pair.status("a");
    assert.ok(lastTakeover !== null);
    const { stepsMs } = lastTakeover;
    assert.ok(stepsMs.announce >= beforeMs * 0.9, JSON.stringify(stepsMs));
    assert.ok(stepsMs.announce < 5 * beforeMs, JSON.stringify(stepsMs));
  });
});
