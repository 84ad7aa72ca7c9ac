// The witnesses of the arbiter pair, with real pings: of two routers that are parted the one that is cut off from
// everybody stays silent.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { addressPlan } from "../../src/lab/lab.js";
import { Duo, skip } from "./duo.js";

describe("arbiter pair with witnesses", { skip }, () => {
  let duo: Duo;
  before(async () => {
    const { v4, v6 } = addressPlan.host;
    duo = await Duo.start(
      { mirror: "switch", host: true },
      { arbiter: { kind: "pair", witnesses: ["192.0.2.1", v4, v6] } },
    );
  });
  after(() => duo?.lab.destroy());

  test("a standby that is cut off from everybody does not take over, and its active goes on alone", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(200);
    lab.cut("b");
    lab.cut("mirror");
    await pair.until("the standby says why", async () =>
      /nobody takes over: .*None of the witnesses answers/.test((await pair.status("b")).reason),
    );
    await pair.untilRole("a", "solo");
    assert.equal((await pair.status("a")).arbiter.lastAnswer, "A witness answered.");
    await delay(1500);
    assert.equal((await pair.status("b")).gate, "fenced");
    lab.heal("b");
    lab.heal("mirror");
    await duo.untilProtected("a", "b");
    await sessions.assertExact();
    assert.deepEqual(
      (await capture.stop()).senders.map(({ mac }) => mac),
      [duo.mac("a")],
    );
  });

  test("with one witness that answers, by IPv6 for that matter, the standby takes over from a dead active", async () => {
    const { lab, pair } = duo;
    lab.run("host", ["ip", "addr", "del", `${addressPlan.host.v4}/24`, "dev", "eth0"]);
    const sessions = await duo.openSessions("b");
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(300);
    await sessions.assertExact();
  });
});
