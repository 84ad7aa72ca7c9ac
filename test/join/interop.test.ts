// BGP daemons nobody here wrote, unmodified, at the peer of a small speaker with the SDK (examples/bgp-speaker.mjs): when
// its router dies their sessions stay established, and no route flaps. Then the routers change places again.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { addressPlan, devices, Lab, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { assertSilence } from "../takeover/scene.js";

const { v4 } = addressPlan.service;
const speaker = fileURLToPath(new URL("../../../../examples/bgp-speaker.mjs", import.meta.url));
/** The shortest that there is (RFC 4271, 4.2). */
const holdSeconds = 3;
const peerRoutes = ["198.51.100.0/24", "192.0.2.0/25"];
const laterRoute = "192.0.2.128/25";

/** What a daemon says of its session with the speaker. */
interface Seen {
  established: boolean;
  /** When it was established, in the daemon's own words. */
  since: string;
  /** Prefixes it has from the speaker. */
  prefixes: number;
  /** Updates it got in all. */
  updates: number;
}

interface Daemon {
  name: string;
  program: string;
  start(lab: Lab): LabProcess;
  look(lab: Lab): Seen;
  announceLater(lab: Lab): void;
}

const directoryOf = (lab: Lab): string => path.join(lab.directory, "daemon");

const bird: Daemon = {
  name: "BIRD",
  program: "/usr/sbin/bird",
  start(lab) {
    const directory = directoryOf(lab);
    mkdirSync(directory);
    const statics = peerRoutes.map((prefix) => `route ${prefix} blackhole;`).join(" ");
    writeFileSync(
      path.join(directory, "bird.conf"),
      `router id ${addressPlan.peer.v4};
      protocol device {}
      protocol static now { ipv4; ${statics} }
      protocol static later { disabled; ipv4; route ${laterRoute} blackhole; }
      protocol bgp speaker {
        local ${addressPlan.peer.v4} as 65010;
        neighbor ${v4} as 65001;
        hold time ${holdSeconds};
        connect delay time 1; connect retry time 1; error wait time 1, 1;
        ipv4 { import all; export all; };
      }`,
    );
    return lab.spawn("peer", [
      "bird",
      "-f",
      "-c",
      `${directory}/bird.conf`,
      "-s",
      `${directory}/ctl`,
      "-P",
      `${directory}/pid`,
    ]);
  },
  look(lab) {
    const said = lab.run("peer", ["birdc", "-s", `${directoryOf(lab)}/ctl`, "show", "protocols", "all", "speaker"]);
    return {
      established: /BGP state: +Established/.test(said),
      since: /^speaker +BGP +--- +up +(\S+)/m.exec(said)?.[1] ?? "",
      prefixes: Number(/Routes: +(\d+) imported/.exec(said)?.[1] ?? 0),
      updates:
        Number(/Import updates: +(\d+)/.exec(said)?.[1] ?? 0) + Number(/Import withdraws: +(\d+)/.exec(said)?.[1] ?? 0),
    };
  },
  announceLater(lab) {
    lab.run("peer", ["birdc", "-s", `${directoryOf(lab)}/ctl`, "enable", "later"]);
  },
};

const frrPeer = z.object({
  bgpState: z.string(),
  bgpTimerUpEstablishedEpoch: z.number().optional(),
  connectionsEstablished: z.number(),
  messageStats: z.object({ updatesRecv: z.number() }),
  addressFamilyInfo: z.object({ ipv4Unicast: z.object({ acceptedPrefixCounter: z.number().default(0) }) }).optional(),
});

const frr: Daemon = {
  name: "FRR bgpd",
  program: "/usr/lib/frr/bgpd",
  start(lab) {
    const directory = directoryOf(lab);
    mkdirSync(directory);
    writeFileSync(
      path.join(directory, "bgpd.conf"),
      `router bgp 65010
 bgp router-id ${addressPlan.peer.v4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp ${holdSeconds / 3} ${holdSeconds}
 neighbor ${v4} remote-as 65001
 neighbor ${v4} timers connect 1
 neighbor ${v4} advertisement-interval 0
 address-family ipv4 unicast
${peerRoutes.map((prefix) => `  network ${prefix}\n`).join("")} exit-address-family
`,
    );
    return lab.spawn("peer", [
      ...["/usr/lib/frr/bgpd", "-S", "-n", "-Z", "-f", `${directory}/bgpd.conf`],
      ...["-i", `${directory}/pid`, "--vty_socket", directory, "-P", "0"],
    ]);
  },
  look(lab) {
    const said = vtysh(lab, `show bgp neighbors ${v4} json`);
    const peer = frrPeer.parse(z.record(z.string(), z.unknown()).parse(JSON.parse(said))[v4]);
    return {
      established: peer.bgpState === "Established",
      since: `${peer.connectionsEstablished}`,
      prefixes: peer.addressFamilyInfo?.ipv4Unicast.acceptedPrefixCounter ?? 0,
      updates: peer.messageStats.updatesRecv,
    };
  },
  announceLater(lab) {
    vtysh(lab, "configure terminal", "router bgp 65010", "address-family ipv4 unicast", `network ${laterRoute}`);
  },
};

function vtysh(lab: Lab, ...commands: string[]): string {
  const each = commands.flatMap((command) => ["-c", command]);
  return lab.run("peer", ["vtysh", "-d", "bgpd", "--vty_socket", directoryOf(lab), ...each]);
}

function needs(program: string): string | false {
  if (process.getuid?.() !== 0) return "needs root";
  return existsSync(program) ? false : `needs ${program}`;
}

for (const daemon of [bird, frr])
  test(`${daemon.name} notices nothing when its neighbour's router dies`, { skip: needs(daemon.program) }, async () => {
    const lab = Lab.create();
    try {
      const pair = new RouterPair(lab, {
        heartbeat: { deadMs: 300, controllerMs: 5000 },
        overrides: { services: [{ name: "bgp", addresses: [v4], port: 179, mode: "confirmed" }] },
      });
      const speakers: Partial<Record<RouterName, LabProcess>> = {};
      const startRouter = async (router: RouterName): Promise<void> => {
        pair.startAgent(router);
        await pair.until(`the agent of ${router} answers`, async () => (await pair.status(router)) !== null);
        const socket = path.join(pair.runDirectory(router), "app.sock");
        const announced = ["203.0.113.0/24", "203.0.112.0/24"].flatMap((prefix) => ["--announce", prefix]);
        const own = ["--listen", `${v4}:179`, "--socket", socket, ...announced];
        speakers[router] = lab.spawn(router, [process.execPath, speaker, ...own]);
        await pair.until(
          `the speaker on ${router} listens`,
          () => speakers[router]?.stdout().includes("listening") ?? false,
        );
      };
      const said = (): string =>
        Object.entries(speakers)
          .map(([router, { stdout, stderr }]) => `── speaker ${router}\n${stdout()}${stderr()}`)
          .join("\n");
      const untilReady = async (standby: RouterName): Promise<void> => {
        await pair
          .until("the session is ready", async () => (await pair.status(standby)).sessions.ready === 1)
          .catch((error: Error) => assert.fail(`${error.message}\n${said()}`));
      };
      await startRouter("a");
      await startRouter("b");
      await pair.untilRole("a", "active");
      await pair.untilRole("b", "standby");
      const capture = await lab.capture("peer", devices.peer);
      const running = daemon.start(lab);
      let seen: Seen | null = null;
      await pair
        .until("the session is established, with all routes", () => {
          seen = daemon.look(lab);
          return seen.established && seen.prefixes === 2;
        })
        .catch((error: Error) =>
          assert.fail(`${JSON.stringify(seen)} ${running.stderr()} ${error.message}\n${said()}`),
        );
      await untilReady("b");
      const before = daemon.look(lab);

      lab.kill("a");
      await pair.untilRole("b", "solo");
      // Past the hold time: what keeps it up is the successor.
      await delay(1.5 * holdSeconds * 1000);
      assert.deepEqual(daemon.look(lab), before, said());

      daemon.announceLater(lab);
      const all = JSON.stringify({ routes: [...peerRoutes, laterRoute].sort() });
      await pair
        .until("the successor learns a new route", () => speakers.b?.stdout().includes(all) ?? false)
        .catch((error: Error) => assert.fail(`${error.message}\n${said()}`));

      lab.repower("a");
      await startRouter("a");
      await pair.untilRole("a", "standby");
      await untilReady("a");
      lab.kill("b");
      await pair.untilRole("a", "solo");
      await delay(1.5 * holdSeconds * 1000);
      assert.deepEqual(daemon.look(lab), before, said());
      assertSilence(await capture.stop());
    } finally {
      lab.destroy();
    }
  });
