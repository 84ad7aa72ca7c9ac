// Links that are cut and healed while everybody lives: who may speak then, and that sessions go on byte-exact.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { assertNoResets, assertOneVoice, type Chats, Duo, skip } from "./duo.js";

describe("links cut and healed", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start({ mirror: "switch" });
  });
  after(() => duo?.lab.destroy());

  async function epochs(): Promise<number[]> {
    return Promise.all((["a", "b"] as const).map(async (router) => (await duo.pair.status(router)).epoch));
  }

  test("the standby's uplink is cut: one heartbeat path less, and nothing else happens", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const before = await epochs();
    lab.cut("b");
    await pair.until("the path is down", async () => (await pair.status("a")).paths[1]?.up === false);
    await delay(1000);
    await duo.untilProtected("a", "b");
    assert.deepEqual(await epochs(), before);
    const { ready } = (await pair.status("b")).sessions;
    assert.ok(ready >= 8, `${ready} ready`);
    lab.heal("b");
    await pair.until("the path is up", async () => (await pair.status("a")).paths[1]?.up === true);
    await sessions.assertExact();
  });

  test("the active's uplink is cut: nobody takes over from a living active, and sessions go on after the heal", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const before = await epochs();
    lab.cut("a");
    await pair.until("the path is down", async () => (await pair.status("b")).paths[1]?.up === false);
    await delay(500);
    lab.heal("a");
    await pair.until("the path is up", async () => (await pair.status("b")).paths[1]?.up === true);
    await duo.untilProtected("a", "b");
    assert.deepEqual(await epochs(), before);
    await sessions.assertExact();
  });

  test("the mirror link is cut: the standby surrenders, the active goes on alone, and after the heal protects again", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(200);
    lab.cut("mirror");
    await pair.untilRole("a", "solo");
    assert.equal((await pair.status("b")).role, "joining");
    await delay(1000);
    assert.equal((await pair.status("b")).role, "joining", "until the mirror link is back");
    lab.heal("mirror");
    await duo.untilProtected("a", "b");
    await sessions.assertExact();
    const newer = await duo.openSessions("b");
    await delay(200);
    await newer.assertExact();
    const summary = await capture.stop();
    assert.deepEqual(
      summary.senders.map(({ mac }) => mac),
      [duo.mac("a")],
    );
    assertNoResets(summary);
  });

  test("a mirror link that is back soon costs a stall, not the protection", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const before = await epochs();
    lab.cut("mirror");
    await pair.until("the path is down", async () => (await pair.status("b")).paths[0]?.up === false);
    lab.heal("mirror");
    await pair.until("the path is up", async () => (await pair.status("b")).paths[0]?.up === true);
    await delay(500);
    await duo.untilProtected("a", "b");
    assert.deepEqual(await epochs(), before);
    assert.ok((await pair.status("b")).sessions.ready >= 8);
    await sessions.assertExact();
  });

  test("both links of the active are cut: the standby takes over, and the old active never speaks again by itself", async () => {
    const { lab, pair } = duo;
    const sessions: Chats = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(200);
    lab.cut("a");
    lab.cut("mirror");
    await pair.untilRole("b", "solo");
    await delay(1500);
    lab.heal("a");
    lab.heal("mirror");
    await duo.untilProtected("b", "a");
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, duo.mac("a"), duo.mac("b"));
    assertNoResets(summary);
  });
});
