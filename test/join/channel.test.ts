// The control channel ends in the middle of a join, so that what the routers said to each other last is lost: they say it
// again, and all sessions become ready.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { DeliveredScene, Program, skip, v4, v6 } from "./delivered-scene.js";

const port = 7400;
const controlPort = 7402;
const perFamily = 12;
const sessions = 2 * perFamily;

describe("the control channel ends while sessions are joined", { skip }, () => {
  let scene: DeliveredScene;

  before(async () => {
    scene = DeliveredScene.create((lab) => [DeliveredScene.service(lab, "plain", port)]);
    const { lab, peer, pair } = scene;
    scene.startAgent("a");
    await pair.untilRole("a", "solo", 30_000);
    const server = new Program(lab, "a");
    for (const host of [v4, v6]) {
      await server.ask(`listen("${host}", ${port})`);
      for (let index = 0; index < perFamily; index++) {
        const name = `${host} ${index}`;
        const local = await peer.number(`connect("${name}", "${host}", ${port})`);
        await pair.until("it is accepted", async () => (await server.ask(`"${local}" in conns`)) === true);
        // What is not read has to be filled in.
        await peer.ask(`conns["${name}"].send(20000)`);
        await server.ask(`conns["${local}"].read(10000)`);
      }
    }
  });
  after(() => scene?.destroy());

  test("all sessions become ready", async () => {
    const { lab, pair } = scene;
    scene.startAgent("b");
    await pair.untilRole("b", "standby", 30_000);
    let ended = 0;
    for (let once = 0; once < 3; once++) {
      await pair.until("sessions are adopted", async () => (await pair.status("b")).sessions.total === sessions);
      const { notReady } = (await pair.status("b")).sessions;
      if ((notReady["input-incomplete"] ?? 0) === 0) break;
      if (lab.run("b", ["ss", "-HtnK", "dport", "=", `:${controlPort}`]).includes(`:${controlPort}`)) ended++;
      await delay(30);
    }
    assert.ok(ended > 0, "the channel never ended in mid-join");
    await scene.untilReady(sessions);
    await pair.until("the active knows it", async () => (await pair.status("a")).sessions.ready === sessions);
  });
});
