// A takeover of a thousand sessions, and one while the ring between data plane and recorder overflows.

import assert from "node:assert/strict";
import path from "node:path";
import test, { after, before, describe } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { addressPlan } from "../../src/lab/lab.js";
import {
  authority,
  download,
  manySessions,
  type Sessions,
  type Transfer,
  upload,
  writeTransferFile,
} from "../../src/lab/traffic.js";
import { echo4, echo6, ports, Scene, skip } from "./scene.js";

const { service } = addressPlan;

async function assertExact(loads: Sessions[], sessions: number): Promise<void> {
  const reports = (await Promise.all(loads.map((load) => load.finish()))).flat();
  assert.equal(reports.length, sessions);
  for (const report of reports) {
    assert.ok(report.sent > 0);
    assert.deepEqual(
      { ...report, longestGapMs: 0 },
      { ...report, received: report.sent, lost: 0, duplicated: 0, changed: 0, brokenBy: null, longestGapMs: 0 },
    );
  }
}

describe("a thousand sessions", { skip }, () => {
  let scene: Scene;
  before(async () => {
    scene = await Scene.start();
  });
  after(() => scene?.destroy());

  test("go on, in both families, and nothing else was heard", async () => {
    const { lab } = scene;
    const loads = [
      await manySessions(lab, service.v4, ports.echo, { count: 500, intervalMs: 400 }),
      await manySessions(lab, service.v6, ports.echo, { count: 500, intervalMs: 400 }),
    ];
    await scene.untilReady(1000);
    await delay(500);
    await scene.failOver();
    await delay(1000);
    await assertExact(loads, 1000);
    await scene.assertSilence();
  });
});

describe("a ring that overflows", { skip }, () => {
  let scene: Scene;
  before(async () => {
    scene = await Scene.start({ recorder: { ringBytes: 1 << 16 } });
  });
  after(() => scene?.destroy());

  test("slows sessions down, loses nothing, and a takeover is exact", async (context) => {
    const { lab, pair, peer } = scene;
    const bytes = 30_000_000;
    const file = path.join(lab.directory, "upload");
    const sha256 = await writeTransferFile(file, bytes);
    // Several: some have a gap in the recorded output at the kill, which the peer has later output beyond.
    const talks = Array.from({ length: 8 }, (_, index) => `talk-${index}`);
    for (const [index, name] of talks.entries()) await peer.open(name, index % 2 === 0 ? echo4 : echo6);
    const interactive = [await manySessions(lab, service.v4, ports.echo, { count: 20, intervalMs: 50 })];
    const transfers: Transfer[] = [service.v4, service.v6].flatMap((host) => {
      const target = authority(host, ports.web);
      return [upload(lab, target, file, bytes, sha256), download(lab, target, bytes, sha256)];
    });
    for (const name of talks) await peer.change(name, { sendTo: 2_000_000_000 });
    const dropped = async () => (await pair.status("b")).packets.TD_DROP_RING_FULL ?? 0;
    await pair.until("the ring overflows", async () => (await dropped()) > 0);
    await delay(500);
    await scene.failOver();
    for (const name of talks) await peer.change(name, { sendTo: 0 });
    for (const name of talks) await peer.conclude([name], (await peer.session(name)).sent + 100_000);
    for (const { done } of transfers) {
      const report = await done;
      assert.ok(report.ok, JSON.stringify(report));
    }
    await assertExact(interactive, 20);
    const { TD_DROP_RING_FULL, TD_PASS_ACK_AHEAD } = (await pair.status("b")).packets;
    context.diagnostic(`dropped: ${TD_DROP_RING_FULL}, acknowledgements ahead of us: ${TD_PASS_ACK_AHEAD ?? 0}`);
    await scene.assertSilence();
  });
});
