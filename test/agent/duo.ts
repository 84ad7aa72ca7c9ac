// What the tests of one voice share: a lab with a router pair whose servers run on both routers, interactive sessions
// of both families, and a capture at the peer of everything that speaks for the service.

import assert from "node:assert/strict";
import type { CaptureSummary } from "../../src/lab/capture.js";
import type { EchoReport } from "../../src/lab/echo-session.js";
import { addressPlan, devices, Lab, type LabOptions, type RouterName } from "../../src/lab/lab.js";
import { labPorts, RouterPair, type RouterPairOptions } from "../../src/lab/router-pair.js";
import { type Sessions, socatSessions } from "../../src/lab/traffic.js";

export const skip = process.getuid?.() === 0 ? false : "needs root";

const { v4, v6 } = addressPlan.service;

/** The lab's services with these settings. */
export function servicesWith(settings: Record<string, unknown>): RouterPairOptions {
  const services = Object.entries(labPorts).map(([name, port]) => ({ name, addresses: [v4, v6], port, ...settings }));
  return { overrides: { services } };
}
/** From the service: its packets of any kind, ARP about it, and neighbour advertisements for it. */
const voiceFilter =
  `src host ${v4} or src host ${v6} or (arp and arp[14:4] = 0x0a4d0001) or ` +
  "(icmp6 and ip6[40] = 136 and ip6[48:4] = 0xfd770000 and ip6[52:4] = 0 and ip6[56:4] = 0 and ip6[60:4] = 1)";

export class Duo {
  private constructor(
    readonly lab: Lab,
    readonly pair: RouterPair,
  ) {}

  /** Router a is active, router b stands by, and a server on each takes part. `prepare` is what the lab needs before, and
   * after the agents were started. */
  static async start(
    labOptions: LabOptions = {},
    options: RouterPairOptions = {},
    prepare?: (lab: Lab) => Promise<{ options: RouterPairOptions; started?: (pair: RouterPair) => Promise<void> }>,
  ): Promise<Duo> {
    const lab = Lab.create(labOptions);
    try {
      const prepared = await prepare?.(lab);
      // The lease is not what is measured here; a noisy machine must not look like a dead router.
      const duo = new Duo(lab, new RouterPair(lab, { heartbeat: { deadMs: 300 }, ...options, ...prepared?.options }));
      for (const router of ["a", "b"] as const) duo.pair.startAgent(router);
      await prepared?.started?.(duo.pair);
      await duo.untilProtected("a", "b");
      for (const router of ["a", "b"] as const) await duo.pair.startServer(router, true);
      return duo;
    } catch (error) {
      lab.destroy();
      throw error;
    }
  }

  async untilProtected(active: RouterName, standby: RouterName): Promise<void> {
    await this.pair.untilRole(active, "active");
    await this.pair.untilRole(standby, "standby");
  }

  /** As after a repair: links up, agent and server anew. */
  async repair(router: RouterName): Promise<void> {
    this.lab.repower(router);
    this.pair.startAgent(router);
    await this.pair.until(`the agent of ${router} answers`, async () => (await this.pair.status(router)) !== null);
    await this.pair.startServer(router, true);
  }

  mac(router: RouterName): string {
    const links: unknown = JSON.parse(this.lab.run(router, ["ip", "-j", "link", "show", devices.uplink]));
    const mac = Array.isArray(links) ? (links[0] as { address?: unknown }).address : undefined;
    assert.ok(typeof mac === "string");
    return mac;
  }

  captureVoice(): ReturnType<Lab["capture"]> {
    return this.lab.capture("peer", devices.peer, { filter: voiceFilter });
  }

  /** Four interactive sessions of each family, all ready at the standby. `crashed`: former sessions whose application
   * died, which the standby keeps. */
  async openSessions(standby: RouterName, crashed = 0): Promise<Chats> {
    const known = async () => (await this.pair.status(standby)).sessions;
    const ready = async () => (await known()).ready;
    // Ready or not: also one that is over and was not told to be would be lost at a takeover.
    await this.pair.until("the former sessions are over", async () => (await known()).total <= crashed);
    const before = await ready();
    const chats = new Chats(
      [v4, v6].map((host) => socatSessions(this.lab, host, labPorts.echo, { count: 4, intervalMs: 20 })),
    );
    await this.pair.until("the new sessions are ready", async () => (await ready()) === before + 8);
    return chats;
  }

  /** Eight sessions that nobody protects. */
  openUnprotected(): Chats {
    return new Chats(
      [v4, v6].map((host) => socatSessions(this.lab, host, labPorts.echo, { count: 4, intervalMs: 20 })),
    );
  }
}

export class Chats {
  constructor(private readonly parts: Sessions[]) {}

  async finish(): Promise<EchoReport[]> {
    return (await Promise.all(this.parts.map((part) => part.finish()))).flat();
  }

  /** Ends them; every byte must have come back once, and none of them was broken. */
  async assertExact(): Promise<void> {
    const reports = await this.finish();
    for (const { sent, received, lost, duplicated, changed, brokenBy, sentSha256, receivedSha256 } of reports) {
      assert.equal(brokenBy, null);
      assert.deepEqual({ received, lost, duplicated, changed }, { received: sent, lost: 0, duplicated: 0, changed: 0 });
      assert.equal(receivedSha256, sentSha256);
      assert.ok(sent > 0);
    }
  }
}

/** The last word of `before` was said before the first of `after`, and both spoke. */
export function assertOneVoice(summary: CaptureSummary, before: string, after: string): void {
  const [old, successor] = [before, after].map((mac) => summary.senders.find((sender) => sender.mac === mac));
  const seen = JSON.stringify(summary.senders);
  assert.ok(old && successor, `both routers (${before}, ${after}) spoke: ${seen}`);
  assert.ok(old.last < successor.first, `${before} fell silent before ${after} spoke: ${seen}`);
}

/** Nobody but this router spoke, and it did. */
export function assertSoleVoice(summary: CaptureSummary, mac: string): void {
  assert.deepEqual(
    summary.senders.map((sender) => sender.mac),
    [mac],
  );
}

/** No reset of the service, and as many FINs as it meant. */
export function assertNoResets(summary: CaptureSummary): void {
  assert.deepEqual(
    summary.flagged.filter(({ rst, from }) => rst && (from === v4 || from === v6)),
    [],
  );
}

/** FINs and RSTs of the service. */
export function ends(summary: CaptureSummary): string[] {
  return summary.flagged
    .filter(({ from, fin, rst }) => (from === v4 || from === v6) && (fin || rst))
    .map(({ from, fin }) => `${from} ${fin ? "FIN" : "RST"}`);
}
