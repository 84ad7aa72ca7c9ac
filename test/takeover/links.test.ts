// A kill while links lose, repeat and reorder frames: bulk both ways and interactive sessions, byte-exact.

import assert from "node:assert/strict";
import path from "node:path";
import test, { describe } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type Impairment, ImpairUnavailable } from "../../src/lab/impair.js";
import { addressPlan, type ImpairPlace } from "../../src/lab/lab.js";
import { authority, download, manySessions, upload, writeTransferFile } from "../../src/lab/traffic.js";
import { echo4, echo6, ports, Scene, skip } from "./scene.js";

const { service } = addressPlan;

interface Case {
  name: string;
  places: ImpairPlace[];
  impairment: Impairment;
  /** Of each bulk transfer: what such a link carries in a few seconds. */
  bytes: number;
}
const cases: Case[] = [
  { name: "1 % loss on the uplink LAN", places: ["lan"], impairment: { loss: 0.01 }, bytes: 60_000_000 },
  { name: "5 % loss on the uplink LAN", places: ["lan"], impairment: { loss: 0.05 }, bytes: 12_000_000 },
  { name: "1 % loss on the mirror link", places: ["mirror"], impairment: { loss: 0.01 }, bytes: 40_000_000 },
  { name: "5 % loss on the mirror link", places: ["mirror"], impairment: { loss: 0.05 }, bytes: 4_000_000 },
  {
    name: "duplicates and reordering everywhere",
    places: ["lan", "mirror"],
    impairment: { duplicate: 0.05, reorder: 0.05 },
    bytes: 20_000_000,
  },
];

describe("a kill while links are bad", { skip }, () => {
  for (const { name, places, impairment, bytes } of cases)
    test(name, async (context) => {
      const scene = await Scene.start({ mirror: "switch" });
      try {
        const { lab, peer } = scene;
        try {
          for (const place of places) lab.impair(place, impairment);
        } catch (error) {
          if (!(error instanceof ImpairUnavailable)) throw error;
          context.skip(error.message);
          return;
        }
        const file = path.join(lab.directory, "upload");
        const sha256 = await writeTransferFile(file, bytes);
        const talks = ["talk4", "talk6"];
        await peer.open("talk4", echo4);
        await peer.open("talk6", echo6);
        await peer.exchange(talks, 50_000);
        const interactive = await manySessions(lab, service.v4, ports.echo, { count: 20, intervalMs: 50 });
        const transfers = [service.v4, service.v6].flatMap((host) => {
          const target = authority(host, ports.web);
          return [upload(lab, target, file, bytes, sha256), download(lab, target, bytes, sha256)];
        });
        for (const session of talks) await peer.change(session, { sendTo: 2_000_000_000 });
        await delay(700);
        const before = await peer.sessions();
        for (const session of talks) assert.ok((before[session]?.sent ?? 0) > (before[session]?.received ?? 0));
        await scene.failOver();
        for (const place of places) {
          const counts = lab.impaired(place);
          if (impairment.loss) assert.ok(counts.lost > 0, `${place}: nothing was lost`);
          if (impairment.duplicate) assert.ok(counts.duplicated > 0, `${place}: nothing was duplicated`);
          if (impairment.reorder) assert.ok(counts.reordered > 0, `${place}: nothing was reordered`);
        }
        for (const session of talks) await peer.change(session, { sendTo: 0 });
        for (const session of talks) await peer.conclude([session], (await peer.session(session)).sent + 100_000);
        for (const { done } of transfers) {
          const report = await done;
          assert.ok(report.ok, JSON.stringify(report));
        }
        for (const report of await interactive.finish())
          assert.deepEqual(
            { ...report, longestGapMs: 0 },
            { ...report, received: report.sent, lost: 0, duplicated: 0, changed: 0, brokenBy: null, longestGapMs: 0 },
          );
        await scene.assertSilence();
      } finally {
        scene.destroy();
      }
    });
});
