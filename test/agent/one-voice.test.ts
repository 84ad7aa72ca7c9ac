// One voice, whatever is frozen, killed and restarted: at the peer nothing of the service comes from the old active
// once its successor has spoken, sessions are byte-exact, and a router that returns stands by all by itself.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { addressPlan, type RouterName } from "../../src/lab/lab.js";
import { processesIn } from "../../src/lab/namespaces.js";
import { labPorts } from "../../src/lab/router-pair.js";
import { upload, writeTransferFile } from "../../src/lab/traffic.js";
import { assertNoResets, assertOneVoice, assertSoleVoice, Duo, skip } from "./duo.js";

const { v4 } = addressPlan.service;

describe("one voice", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start();
  });
  after(() => duo?.lab.destroy());

  function socketsOf(router: RouterName): string {
    return duo.lab.run(router, ["ss", "-Htn", "state", "connected", "sport", "=", `:${labPorts.echo}`]).trim();
  }

  test("an active that is frozen and thawed says nothing any more, and stands by", async () => {
    const { lab, pair } = duo;
    const bytes = 60_000_000;
    const file = `${lab.directory}/upload`;
    const sha256 = await writeTransferFile(file, bytes);
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    const transfer = upload(lab, `${v4}:${labPorts.web}`, file, bytes, sha256, 20_000_000);
    await delay(500);
    lab.freeze("a");
    await pair.untilRole("b", "solo");
    await delay(500);
    assert.notEqual(socketsOf("a"), "", "the frozen router's kernel holds its sockets");
    lab.thaw("a");
    await duo.untilProtected("b", "a");
    assert.equal(socketsOf("a"), "", "sessions that live on b are ended on a");
    await delay(300);
    await sessions.assertExact();
    const report = await transfer.done;
    assert.ok(report.ok, JSON.stringify(report));
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("a"), duo.mac("b"));
    assertNoResets(summary);
  });

  test("new sessions become ready with the returned router, which takes over when its successor dies", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("a");
    const capture = await duo.captureVoice();
    await delay(200);
    lab.kill("b");
    await pair.untilRole("a", "solo");
    await delay(300);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("b"), duo.mac("a"));
    assertNoResets(summary);
  });

  test("an active whose agent alone is killed falls silent, kernel, BPF and application alive; the agent returns", async () => {
    const { pair } = duo;
    await duo.repair("b");
    await duo.untilProtected("a", "b");
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(200);
    pair.agents.a?.signal("SIGKILL");
    await pair.untilRole("b", "solo");
    await delay(500);
    assert.notEqual(socketsOf("a"), "", "the application lives, with its sockets");
    pair.startAgent("a");
    await duo.untilProtected("b", "a");
    assert.equal(socketsOf("a"), "");
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("a"), duo.mac("b"));
    assertNoResets(summary);
  });

  test("the standby dies: the active goes on alone with all sessions, and protects new ones when it is back", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("a");
    const capture = await duo.captureVoice();
    const { epoch } = await pair.status("b");
    lab.kill("a");
    await pair.untilRole("b", "solo");
    assert.ok((await pair.status("b")).epoch > epoch, "under an epoch of its own");
    await delay(300);
    await duo.repair("a");
    await duo.untilProtected("b", "a");
    await sessions.assertExact();
    const newer = await duo.openSessions("a");
    await delay(300);
    await newer.assertExact();
    const summary = await capture.stop();
    assertSoleVoice(summary, duo.mac("b"));
    assertNoResets(summary);
  });

  test("a router alone whose agent is killed falls silent, and its partner follows it", async () => {
    const { lab, pair } = duo;
    lab.freeze("a");
    await pair.untilRole("b", "solo");
    const sessions = duo.openUnprotected();
    await delay(300);
    const capture = await duo.captureVoice();
    await delay(200);
    pair.agents.b?.signal("SIGKILL");
    lab.thaw("a");
    await pair.untilRole("a", "solo");
    assert.ok(processesIn(lab.namespace("b")).length > 0, "its application lives");
    // What the lost sessions get now is a's to say: they were not ready.
    const reports = await Promise.race([sessions.finish(), delay(3000).then(() => [])]);
    assert.ok(reports.every(({ changed, duplicated }) => changed === 0 && duplicated === 0));
    await delay(500);
    assertOneVoice(await capture.stop(), duo.mac("b"), duo.mac("a"));
  });
});
