// Failback and repetition: the returning router joins the sessions in mid-stream as standby without being told to, and
// the roles change again and again under load.

import assert from "node:assert/strict";
import test from "node:test";
import type { RouterName } from "../../src/lab/lab.js";
import { MillScene, other, skip } from "./mill-scene.js";

const changes = Number(process.env.TANDEM_ROLE_CHANGES ?? 20);

test(`the roles change ${changes} times in a row under load, and every byte is exact`, { skip }, async () => {
  const scene = MillScene.create(1);
  try {
    await scene.startRouter("a");
    await scene.startRouter("b");
    await scene.untilProtected("a");
    const peers = await scene.peers(10, 60);
    let active: RouterName = "a";
    for (let change = 0; change < changes; change++) {
      await scene.untilReady(other(active), 10);
      await scene.failOver(active);
      await scene.repair(active);
      active = other(active);
      await scene.untilProtected(active);
    }
    await scene.untilReady(other(active), 10);
    const reports = await peers.assertExact(scene);
    assert.equal(reports.length, 10);
  } finally {
    scene.destroy();
  }
});
