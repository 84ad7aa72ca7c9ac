// A lab with a router pair, the mill on both routers, and peers that compare every byte. What the tests of joins share.

import assert from "node:assert/strict";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { addressPlan, Lab, type LabOptions, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { sessionsCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";

export const skip = process.getuid?.() === 0 ? false : "needs root";
export const millPort = 7000;
const { v4 } = addressPlan.service;
const program = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const reports = z.array(
  z.object({
    localPort: z.number(),
    messages: z.number(),
    sent: z.number(),
    received: z.number(),
    broken: z.string().nullable(),
    longestGapMs: z.number(),
  }),
);

export const other = (router: RouterName): RouterName => (router === "a" ? "b" : "a");

export class MillScene {
  readonly servers: Partial<Record<RouterName, LabProcess>> = {};
  #seed: number;

  private constructor(
    readonly lab: Lab,
    readonly pair: RouterPair,
    seed: number,
  ) {
    this.#seed = seed;
  }

  /** Nothing runs yet. */
  static create(seed: number, options: LabOptions = {}, overrides: Record<string, unknown> = {}): MillScene {
    const lab = Lab.create(options);
    const pair = new RouterPair(lab, {
      // The lease is not what is measured here; a noisy machine must not look like a dead router.
      heartbeat: { deadMs: 300, controllerMs: 5000 },
      overrides: {
        services: [{ name: "mill", addresses: [v4, addressPlan.service.v6], port: millPort, mode: "confirmed" }],
        ...overrides,
      },
    });
    return new MillScene(lab, pair, seed);
  }

  /** The mill and the agent of a router. */
  async startRouter(router: RouterName): Promise<void> {
    await this.startAgent(router);
    await this.startServer(router);
  }

  async startAgent(router: RouterName): Promise<void> {
    this.pair.startAgent(router);
    await this.pair.until(`the agent of ${router} answers`, async () => (await this.pair.status(router)) !== null);
  }

  async startServer(router: RouterName, socket = this.applicationSocket(router)): Promise<void> {
    const server = this.lab.spawn(router, [
      process.execPath,
      program("./mill-server.js"),
      ...[socket, v4, String(millPort), String(this.#seed++)],
    ]);
    this.servers[router] = server;
    await this.pair.until(`the mill on ${router} listens`, () => server.stdout().includes("listening"));
  }

  /** Where the agent of a router listens for applications. */
  applicationSocket(router: RouterName): string {
    return path.join(this.pair.runDirectory(router), "app.sock");
  }

  async untilProtected(active: RouterName): Promise<void> {
    await this.pair.untilRole(active, "active", 30_000);
    await this.pair.untilRole(other(active), "standby", 30_000);
  }

  async peers(count: number, intervalMs: number): Promise<MillPeers> {
    const peer = this.lab.spawn(
      "peer",
      [
        process.execPath,
        program("./mill-peer.js"),
        ...[v4, String(millPort), String(count), String(this.#seed++), String(intervalMs)],
      ],
      { stdio: ["pipe", "pipe", "pipe"] },
    );
    const peers = new MillPeers(peer);
    await this.pair.until("the peers are connected", () => peers.said.includes("connected"));
    return peers;
  }

  /** Waits until the standby holds so many sessions, all of them ready. */
  async untilReady(standby: RouterName, count: number, milliseconds = 20_000): Promise<void> {
    const seen = async () => (await this.pair.status(standby)).sessions;
    await this.pair
      .until(
        `${count} sessions are ready on ${standby}`,
        async () => {
          const { total, ready } = await seen();
          return total === count && ready === count;
        },
        milliseconds,
      )
      .catch(async (error: Error) => assert.fail(`${JSON.stringify(await seen())} ${error.message}\n${this.said()}`));
  }

  async sessions(router: RouterName) {
    return ask(path.join(this.pair.runDirectory(router), "agent.sock"), sessionsCommand, {});
  }

  /** Power off, and what the other one makes of it. */
  async failOver(active: RouterName): Promise<void> {
    this.lab.kill(active);
    await this.pair.untilRole(other(active), "solo");
    const status = await this.pair.status(other(active));
    assert.equal(status.recorder.auditBreaches, 0, this.said());
    const { lost } = z
      .object({ lost: z.object({ count: z.number(), reasons: z.record(z.string(), z.number()) }) })
      .parse(status.lastTakeover);
    assert.equal(lost.count, 0, `${JSON.stringify(lost)}\n${this.said()}`);
  }

  async repair(router: RouterName): Promise<void> {
    this.lab.repower(router);
    await this.startRouter(router);
  }

  said(): string {
    const servers = Object.entries(this.servers).map(
      ([router, { stdout, stderr }]) => `── mill ${router}\n${stdout().slice(-1500)}${stderr().slice(-3000)}`,
    );
    return [this.pair.said(), ...servers].join("\n");
  }

  destroy(): void {
    this.lab.destroy();
  }
}

export class MillPeers {
  said = "";

  constructor(private readonly peer: LabProcess) {
    for (const stream of [peer.child.stdout, peer.child.stderr])
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.said += text;
      });
  }

  resetGaps(): void {
    this.peer.child.stdin?.write("gap\n");
  }

  /** No more messages; each session ends when all answers have come. */
  stop(): void {
    this.peer.child.stdin?.write("stop\n");
  }

  /** Ends the sessions, when all answers have come. */
  async finish(scene: MillScene): Promise<z.infer<typeof reports>> {
    this.stop();
    const limit = setTimeout(() => this.peer.child.kill(), 60_000);
    await this.peer.exited;
    clearTimeout(limit);
    const line = this.said.split("\n")[1] ?? "";
    assert.ok(line.startsWith("["), `the peers did not end: ${this.said}\n${scene.said()}`);
    return reports.parse(JSON.parse(line));
  }

  /** Ends the sessions; every byte of every answer must have come. */
  async assertExact(scene: MillScene): Promise<z.infer<typeof reports>> {
    const result = await this.finish(scene);
    const broken = result.filter((each) => each.broken !== null);
    assert.deepEqual(broken, [], scene.said());
    for (const { messages, received } of result) assert.ok(messages > 0 && received > 0);
    return result;
  }
}
