// The arbiter external: nothing is said of a router that nobody names, by an operator's word and by a real keepalived.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { addressPlan, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import type { RouterPair } from "../../src/lab/router-pair.js";
import { arbiterCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import { assertNoResets, assertOneVoice, Duo, skip } from "./duo.js";

/** A busy machine starts programs slowly. */
const patienceMs = 5000;
const arbiter = { kind: "external", patienceMs };
const routers = ["a", "b"] as const;

function say(pair: RouterPair, router: RouterName, statement: "granted" | "revoked"): Promise<unknown> {
  return ask(path.join(pair.runDirectory(router), "agent.sock"), arbiterCommand, { statement });
}

const answers = async (pair: RouterPair, router: RouterName): Promise<void> =>
  pair.until(`the agent of ${router} answers`, async () => (await pair.status(router)) !== null);

describe("arbiter external: an operator", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start({}, { arbiter }, async () => ({
      options: {},
      started: async (pair) => {
        for (const router of routers) await answers(pair, router);
        await pair.until("they hear each other", async () => (await pair.status("a")).partner !== null);
        await delay(3000);
        for (const router of routers)
          assert.notEqual((await pair.status(router)).role, "solo", "nobody has named anybody");
        await say(pair, "a", "granted");
      },
    }));
  });
  after(() => duo?.lab.destroy());

  test("the active dies: its standby waits to be named, and then takes over", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(200);
    lab.kill("a");
    await pair.until("the standby says what it waits for", async () =>
      /nobody takes over: the arbiter refused/.test((await pair.status("b")).reason),
    );
    await delay(1000);
    assert.equal((await pair.status("b")).role, "standby");
    await say(pair, "b", "granted");
    await pair.untilRole("b", "solo");
    await delay(300);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("a"), duo.mac("b"));
    assertNoResets(summary);
    const file = path.join(pair.runDirectory("a"), "arbiter");
    assert.equal(readFileSync(file, "utf8"), "granted", "of before it died: a reboot would have removed it");
    writeFileSync(file, "revoked");
    await duo.repair("a");
    await duo.untilProtected("b", "a");
  });

  test("the voice is moved: revoked here, granted there, and nothing is lost", async () => {
    const { pair } = duo;
    const sessions = await duo.openSessions("a");
    const capture = await duo.captureVoice();
    await delay(200);
    await say(pair, "b", "revoked");
    const revoked = await pair.status("b");
    assert.deepEqual([revoked.role, revoked.gate], ["fenced", "fenced"], "when the answer comes it is done");
    await say(pair, "a", "granted");
    await pair.untilRole("a", "solo");
    await duo.untilProtected("a", "b");
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("b"), duo.mac("a"));
    assertNoResets(summary);
  });

  test("a standby that is named although its active is well takes over in order", async () => {
    const { pair } = duo;
    const sessions = await duo.openSessions("b");
    await say(pair, "b", "granted");
    await pair.untilRole("b", "solo");
    await say(pair, "a", "revoked");
    await duo.untilProtected("b", "a");
    await sessions.assertExact();
    assert.match(JSON.stringify((await pair.status("b")).lastTakeover), /The arbiter named the standby/);
  });

  test("named too late a standby has nothing any more that it could go on with", async () => {
    const { lab, pair } = duo;
    const { lastTakeover } = await pair.status("a");
    lab.kill("b");
    await pair.until("it gives up", async () => (await pair.status("a")).role === "fenced");
    assert.match((await pair.status("a")).reason, /may have gone on alone|must not speak alone/);
    await say(pair, "a", "granted");
    await pair.untilRole("a", "solo");
    assert.deepEqual((await pair.status("a")).lastTakeover, lastTakeover);
  });
});

const keepalivedAbsent: string | false = spawnSync("keepalived", ["--version"]).error
  ? "keepalived is not installed"
  : false;

describe("arbiter external: keepalived", { skip: skip || keepalivedAbsent }, () => {
  let duo: Duo;
  const processes: Partial<Record<RouterName, LabProcess>> = {};

  function deployed(file: string): string {
    let directory = path.dirname(fileURLToPath(import.meta.url));
    while (!existsSync(path.join(directory, "deploy", "keepalived"))) directory = path.dirname(directory);
    return path.join(directory, "deploy", "keepalived", file);
  }

  /** The example, with this lab's addresses and paths, and faster. */
  function startKeepalived(pair: RouterPair, router: RouterName): void {
    const own = path.join(pair.lab.directory, router);
    const { a, b } = addressPlan.uplink;
    const [here, there] = router === "a" ? [a.v4, b.v4] : [b.v4, a.v4];
    const text = readFileSync(deployed("keepalived.conf"), "utf8")
      .replaceAll(a.v4, "HERE")
      .replaceAll(b.v4, "THERE")
      .replaceAll("HERE", here)
      .replaceAll("THERE", there)
      .replace("/run/tandem-keepalived.fifo", path.join(own, "keepalived.fifo"))
      .replace("/usr/share/tandem/keepalived/notify.sh", deployed("notify.sh"));
    writeFileSync(path.join(own, "keepalived.conf"), text);
    const cli = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));
    processes[router] = pair.lab.spawn(
      router,
      [
        ...["keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file", path.join(own, "keepalived.conf")],
        ...["--pid", path.join(own, "keepalived.pid"), "--vrrp_pid", path.join(own, "vrrp.pid")],
      ],
      { env: { ...process.env, TANDEM: `${process.execPath} ${cli}`, TANDEM_CONFIG: pair.configFile(router) } },
    );
  }

  before(async () => {
    duo = await Duo.start({}, { arbiter }, async () => ({
      options: {},
      started: async (pair) => {
        for (const router of routers) await answers(pair, router);
        startKeepalived(pair, "a");
        await pair.untilRole("a", "solo");
        startKeepalived(pair, "b");
      },
    }));
  });
  after(() => duo?.lab.destroy());

  test("the active dies: keepalived names the standby, and the sessions go on", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(200);
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(500);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("a"), duo.mac("b"));
    assertNoResets(summary);
  });

  test("the router that returns is backup, and stands by", async () => {
    const { lab, pair } = duo;
    writeFileSync(path.join(pair.runDirectory("a"), "arbiter"), "revoked"); // as after a reboot
    await duo.repair("a");
    startKeepalived(pair, "a");
    await duo.untilProtected("b", "a");
    await delay(2000);
    await duo.untilProtected("b", "a");
    assert.equal((await pair.status("a")).arbiter.lastAnswer, "This router must not speak alone.");
    assert.equal(lab.run("b", ["ip", "-br", "link", "show", "up0"]).includes("UP"), true);
  });

  test("keepalived is stopped at the active: revoked here, granted there", async () => {
    const { pair } = duo;
    const sessions = await duo.openSessions("a");
    const capture = await duo.captureVoice();
    await delay(200);
    processes.b?.signal("SIGTERM");
    await pair.untilRole("a", "solo");
    await duo.untilProtected("a", "b");
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("b"), duo.mac("a"));
    assertNoResets(summary);
  });
});
