// Peers whose TCP has other options: with and without timestamps, selective acknowledgements and window scaling, and
// with small segments. Each kind goes on after a kill in mid-transfer.

import test, { after, before, describe } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { echo4, echo6, Scene, skip } from "./scene.js";

interface Kind {
  title: string;
  sysctls: Record<string, 0 | 1>;
  segment?: number;
}
const kinds: Kind[] = [];
for (const timestamps of [0, 1] as const)
  for (const sack of [0, 1] as const)
    for (const scaling of [0, 1] as const)
      kinds.push({
        title: `timestamps ${timestamps}, SACK ${sack}, window scaling ${scaling}`,
        sysctls: { tcp_timestamps: timestamps, tcp_sack: sack, tcp_window_scaling: scaling },
      });
const allOn = { tcp_timestamps: 1, tcp_sack: 1, tcp_window_scaling: 1 } as const;
kinds.push({ title: "segments of 216 bytes", sysctls: allOn, segment: 216 });
kinds.push({
  title: "segments of 536 bytes, no options",
  sysctls: { tcp_timestamps: 0, tcp_sack: 0, tcp_window_scaling: 0 },
  segment: 536,
});

const quietOf = (kind: Kind): string[] => [`quiet4 ${kind.title}`, `quiet6 ${kind.title}`];
const busyOf = (kind: Kind): string[] => [`busy4 ${kind.title}`, `busy6 ${kind.title}`];

describe("peers with other TCP options", { skip }, () => {
  let scene: Scene;

  before(async () => {
    scene = await Scene.start();
    const { lab, peer } = scene;
    for (const kind of kinds) {
      const settings = Object.entries(kind.sysctls).map(([name, value]) => `net.ipv4.${name}=${value}`);
      lab.run("peer", ["sysctl", "-q", "-w", ...settings]);
      const segment = kind.segment === undefined ? {} : { segment: kind.segment };
      const names = [...quietOf(kind), ...busyOf(kind)];
      for (const [index, name] of names.entries())
        await peer.open(name, { ...(index % 2 ? echo6 : echo4), ...segment });
      await peer.exchange(names, 30_000);
    }
    await scene.untilReady(4 * kinds.length);
    for (const name of kinds.flatMap(busyOf)) await peer.change(name, { sendTo: 2_000_000_000 });
    await delay(1000);
    await scene.failOver();
    for (const name of kinds.flatMap(busyOf)) await peer.change(name, { sendTo: 0 });
  });
  after(() => scene?.destroy());

  for (const kind of kinds)
    test(kind.title, async () => {
      const { peer } = scene;
      await peer.conclude(quietOf(kind), 300_000);
      for (const name of busyOf(kind)) await peer.conclude([name], (await peer.session(name)).sent + 100_000);
    });

  test("the peer saw no reset, and no second handshake", async () => {
    await scene.assertSilence();
  });
});
