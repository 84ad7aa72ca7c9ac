// The control channel ends in the middle of a join, so that what the routers said to each other last is lost: they say it
// again, and all sessions become ready.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Lab } from "../../src/lab/lab.js";
import { labPorts, RouterPair } from "../../src/lab/router-pair.js";
import { DeliveredScene, Program, skip, v4, v6 } from "./delivered-scene.js";

const port = 7400;
const perFamily = 12;
const sessions = 2 * perFamily;

/** Ends it as often as that, while router b says that sessions lack something of a join. */
async function endWhileJoining(pair: RouterPair, most: number): Promise<void> {
  await pair.untilRole("b", "standby", 30_000);
  await pair.until("sessions are adopted", async () => (await pair.status("b")).sessions.total === sessions);
  let ended = 0;
  while (ended < most) {
    const { notReady } = (await pair.status("b")).sessions;
    const joining = ["input-incomplete", "output-incomplete", "awaiting-handover"].some((reason) => reason in notReady);
    if (!joining) break;
    if (pair.endControlChannel()) ended++;
    await delay(10);
  }
  assert.ok(ended > 0, "the channel never ended in mid-join");
}

async function connectAll(peer: Program, to: number): Promise<number[]> {
  const ports: number[] = [];
  for (const host of [v4, v6])
    for (let index = 0; index < perFamily; index++)
      ports.push(await peer.number(`connect("${host} ${index}", "${host}", ${to})`));
  return ports;
}

async function untilAllReady(pair: RouterPair): Promise<void> {
  for (const [router, who] of [
    ["b", "the standby holds them"],
    ["a", "the active knows it"],
  ] as const)
    await pair
      .until(who, async () => (await pair.status(router)).sessions.ready === sessions)
      .catch(async (error: Error) =>
        assert.fail(`${JSON.stringify((await pair.status(router)).sessions)} ${error.message}`),
      );
}

describe("the control channel ends while sessions of unmodified applications are joined", { skip }, () => {
  let scene: DeliveredScene;

  before(async () => {
    scene = DeliveredScene.create((lab) => [DeliveredScene.service(lab, "plain", port)]);
    const { lab, peer, pair } = scene;
    scene.startAgent("a");
    await pair.untilRole("a", "solo", 30_000);
    const server = new Program(lab, "a");
    for (const host of [v4, v6]) await server.ask(`listen("${host}", ${port})`);
    for (const local of await connectAll(peer, port)) {
      await pair.until("it is accepted", async () => (await server.ask(`"${local}" in conns`)) === true);
      // What is not read has to be filled in.
      await peer.ask(`next(c for c in conns.values() if c.s.getsockname()[1] == ${local}).send(20000)`);
      await server.ask(`conns["${local}"].read(10000)`);
    }
  });
  after(() => scene?.destroy());

  test("all sessions become ready", async () => {
    const { pair } = scene;
    scene.startAgent("b");
    await endWhileJoining(pair, 3);
    await untilAllReady(pair);
  });
});

describe("the control channel ends while sessions are handed over", { skip }, () => {
  let lab: Lab;
  let pair: RouterPair;

  before(async () => {
    lab = Lab.create();
    pair = new RouterPair(lab, { heartbeat: { deadMs: 300, controllerMs: 5000 } });
    pair.startAgent("a");
    await pair.untilRole("a", "solo", 30_000);
    await pair.startServer("a", true, true);
    const peer = new Program(lab, "peer");
    await connectAll(peer, labPorts.echo);
    for (const host of [v4, v6])
      for (let index = 0; index < perFamily; index++) await peer.ask(`conns["${host} ${index}"].send(5000)`);
  });
  after(() => lab?.destroy());

  test("all sessions become ready", async () => {
    pair.startAgent("b");
    await pair.untilRole("b", "standby", 30_000);
    await pair.startServer("b", true, true);
    await endWhileJoining(pair, 20);
    await untilAllReady(pair);
  });
});
