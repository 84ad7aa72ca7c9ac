// What the tests of takeovers share: a lab with a router pair, its services and a peer, a capture at the peer, and
// what the peer must never have seen.

import assert from "node:assert/strict";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { Capture, CaptureSummary, FlaggedSegment } from "../../src/lab/capture.js";
import { addressPlan, devices, Lab, type LabOptions, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { labPorts, RouterPair } from "../../src/lab/router-pair.js";
import type { AgentStatus } from "../../src/observe/status.js";
import { Peer, type Target } from "./peer.js";

export const skip = process.getuid?.() === 0 ? false : "needs root";
export const ports = { ...labPorts, halves: 8082, sleeper: 8083, out: 9000 } as const;
/** What "halves" gives back before it finishes its direction. */
export const halvesBytes = 100_000;

const { v4, v6 } = addressPlan.service;
export const echo4: Target = { host: v4, servicePort: ports.echo };
export const echo6: Target = { host: v6, servicePort: ports.echo };
export const sleeper4: Target = { host: v4, servicePort: ports.sleeper };
export const sleeper6: Target = { host: v6, servicePort: ports.sleeper };
export const halves4: Target = { host: v4, servicePort: ports.halves };

const servicesProgram = fileURLToPath(new URL("./services.js", import.meta.url));
const halvesReport = z.object({ port: z.number(), bytes: z.number(), sha256: z.string() });
export type HalvesReport = z.infer<typeof halvesReport>;

const takeoverReport = z.object({
  sessions: z.number(),
  halfOpen: z.number(),
  lost: z.object({ count: z.number(), reasons: z.record(z.string(), z.number()) }),
});

export interface SceneOptions extends LabOptions {
  /** Of the configuration's `recorder`. */
  recorder?: { ringBytes?: number };
}

/** Router a is active and b stands by, or the other way round after a failure and a repair. */
export class Scene {
  readonly services: Partial<Record<RouterName, LabProcess>> = {};

  private constructor(
    readonly lab: Lab,
    readonly pair: RouterPair,
    readonly peer: Peer,
    readonly capture: Capture,
  ) {}

  static async start({ recorder, ...labOptions }: SceneOptions = {}): Promise<Scene> {
    const lab = Lab.create(labOptions);
    try {
      const addresses = [v4, v6];
      const pair = new RouterPair(lab, {
        // The lease is not what is measured here; a noisy machine must not look like a dead router.
        heartbeat: { deadMs: 300, controllerMs: 5000 },
        overrides: {
          services: [
            { name: "web", addresses, port: ports.web },
            { name: "echo", addresses, port: ports.echo },
            { name: "halves", addresses, port: ports.halves },
            { name: "sleeper", addresses, port: ports.sleeper },
            { name: "out", addresses, remotePort: ports.out },
          ],
          ...(recorder ? { recorder } : {}),
        },
      });
      await pair.start();
      const capture = await lab.capture("peer", devices.peer);
      const scene = new Scene(lab, pair, new Peer(lab), capture);
      await scene.startServices("a", false);
      await scene.startServices("b", true);
      return scene;
    } catch (error) {
      lab.destroy();
      throw error;
    }
  }

  async startServices(router: RouterName, replica: boolean): Promise<void> {
    const argv = replica ? ["--replica", path.join(this.pair.runDirectory(router), "app.sock")] : [];
    const services = this.lab.spawn(router, [process.execPath, servicesProgram, ...argv], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.services[router] = services;
    const { stdout, stderr } = services.child;
    let output = "";
    stderr?.pipe(process.stderr, { end: false });
    stdout?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (output + text).split("\n");
      output = lines.pop() ?? "";
      for (const line of lines) {
        if (line.startsWith("{")) this.halves.push(halvesReport.parse(JSON.parse(line)));
        else this.listening.add(router);
      }
    });
    await this.pair.until(`the services on ${router} listen`, () => this.listening.has(router));
  }

  /** What "halves" has read, by either router's program, in order. */
  readonly halves: HalvesReport[] = [];
  private readonly listening = new Set<RouterName>();

  /** The active opens a session to the peer. */
  openOut(): void {
    this.services.a?.child.stdin?.write("open\n");
  }

  /** Waits until the standby holds so many sessions, all of them ready. */
  async untilReady(sessions: number): Promise<void> {
    let seen: AgentStatus["sessions"] | undefined;
    await this.pair
      .until(
        `${sessions} sessions are ready`,
        async () => {
          seen = (await this.pair.status("b")).sessions;
          return seen.total === sessions && seen.ready === sessions;
        },
        10_000,
      )
      .catch((error: Error) => assert.fail(`${JSON.stringify(seen)} ${error.message}`));
  }

  /** Kills router a and waits until b has taken over. Gives b's status then. */
  async failOver(): Promise<AgentStatus> {
    this.lab.kill("a");
    await this.pair.untilRole("b", "solo");
    const status = await this.pair.status("b");
    const { lost } = takeoverReport.parse(status.lastTakeover);
    assert.deepEqual(lost, { count: 0, reasons: {} }, this.pair.said());
    assert.equal(status.recorder.auditBreaches, 0);
    return status;
  }

  /** Invariant 5: no RST came from the service, and no handshake or end that does not belong to its session. */
  async assertSilence(): Promise<CaptureSummary> {
    const summary = await this.capture.stop();
    assertSilence(summary);
    return summary;
  }

  destroy(): void {
    this.lab.destroy();
  }
}

/** The service's SYNs, FINs and RSTs in a capture: no RST, and of each session one initial and one final sequence
 * number, however often they were sent. A session that the peer has reset itself is over: its reset may overtake its
 * last ACK (peer.py's attempts abort at once), and TCP answers that with an RST (RFC 9293, 3.10.7.1). */
export function assertSilence(summary: CaptureSummary): void {
  const numbers = new Map<string, number>();
  const resetByPeer = new Set<string>();
  for (const segment of summary.flagged) {
    if (segment.from !== v4 && segment.from !== v6) {
      const name = `${segment.from} port ${segment.fromPort} from port ${segment.toPort}`;
      if (segment.rst) resetByPeer.add(name);
      else if (segment.syn) resetByPeer.delete(name);
      continue;
    }
    // The service's port as well: to two of them the peer may go from one port of its own.
    const name = `${segment.to} port ${segment.toPort} from port ${segment.fromPort}`;
    assert.ok(
      !segment.rst || resetByPeer.has(name),
      `the peer saw an RST for ${name}: ${JSON.stringify(segment)}, among\n${ofPorts(summary, segment)}`,
    );
    const key = `${segment.syn ? "SYN" : "FIN"} to ${name}`;
    const seen = numbers.get(key) ?? segment.seq;
    if (segment.syn) assert.equal(segment.seq, seen, `a second ${key}`);
    if (!segment.rst) numbers.set(key, seen);
  }
}

/** All segments of the capture between two ports, a line each. */
function ofPorts(summary: CaptureSummary, { fromPort, toPort }: FlaggedSegment): string {
  return summary.flagged
    .filter((segment) => [segment.fromPort, segment.toPort].every((port) => port === fromPort || port === toPort))
    .map((segment) => JSON.stringify(segment))
    .join("\n");
}
