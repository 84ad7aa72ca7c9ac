// A lab with a router pair whose services are delivered to programs that know nothing of Tandem. What the tests of
// unmodified applications, socket options and TCP MD5 share.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { addressPlan, devices, Lab, type LabOptions, type NodeName, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { sessionsCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import type { AgentStatus } from "../../src/observe/status.js";

export const skip = process.getuid?.() === 0 ? false : "needs root";
export const { v4, v6 } = addressPlan.service;
/** The source tree's: compiled tests lie in build/js/test/join. */
const source = (name: string): string => fileURLToPath(new URL(`../../../../test/join/${name}`, import.meta.url));

const resumed = z.object({
  environment: z.record(z.string(), z.string()),
  options: z.record(z.string(), z.union([z.number(), z.string()])),
});
export type Resumed = z.infer<typeof resumed>;

/** delivered-program.py in a namespace. */
export class Program {
  readonly #process: LabProcess;
  readonly #waiting: ((line: string) => void)[] = [];
  stderr = "";

  constructor(lab: Lab, node: NodeName) {
    this.#process = lab.spawn(node, ["python3", source("delivered-program.py")], { stdio: ["pipe", "pipe", "pipe"] });
    const { stdout, stderr } = this.#process.child;
    assert.ok(stdout && stderr);
    createInterface({ input: stdout }).on("line", (line) => this.#waiting.shift()?.(line));
    stderr.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
  }

  /** Runs a line of Python. Gives the value of an expression. */
  async ask(line: string): Promise<unknown> {
    const answer = new Promise<string>((resolve) => this.#waiting.push(resolve));
    this.#process.child.stdin?.write(`${line}\n`);
    const text = await answer;
    assert.ok(!text.startsWith("failed"), `${line}: ${text}`);
    return JSON.parse(text);
  }

  async number(line: string): Promise<number> {
    return z.number().parse(await this.ask(line));
  }

  async status(name: string): Promise<{ sent: number; received: number; eof: boolean; error: string | null }> {
    const shape = z.object({ sent: z.number(), received: z.number(), eof: z.boolean(), error: z.string().nullable() });
    return shape.parse(await this.ask(`status(${JSON.stringify(name)})`));
  }

  /** It reads nothing any more. */
  async kill(): Promise<void> {
    this.#process.signal("SIGKILL");
    await this.#process.exited;
  }
}

export class DeliveredScene {
  /** Where resumed programs leave what they were told. */
  readonly directory: string;
  readonly peer: Program;

  private constructor(
    readonly lab: Lab,
    readonly pair: RouterPair,
  ) {
    this.directory = path.join(lab.directory, "resumed");
    mkdirSync(this.directory);
    this.peer = new Program(lab, "peer");
  }

  /** Nothing runs on the routers yet. `services` may need to know where things lie. */
  static create(
    services: (lab: Lab) => Record<string, unknown>[],
    options: LabOptions = {},
    overrides: Record<string, unknown> = {},
  ): DeliveredScene {
    const lab = Lab.create(options);
    try {
      const pair = new RouterPair(lab, {
        // The lease is not what is measured here; a noisy machine must not look like a dead router.
        heartbeat: { deadMs: 300, controllerMs: 5000 },
        overrides: { services: services(lab), ...overrides },
      });
      return new DeliveredScene(lab, pair);
    } catch (error) {
      lab.destroy();
      throw error;
    }
  }

  /** A service of mode delivered whose sessions delivered-resumed.py goes on with. */
  static service(lab: Lab, name: string, port: number, hello = ""): Record<string, unknown> {
    const command = ["/usr/bin/env", "python3", source("delivered-resumed.py"), path.join(lab.directory, "resumed")];
    // As inetd's programs do, it ends its session by exiting.
    const shared = { name, addresses: [v4, v6], port, mode: "delivered", exitZeroMeansClose: true };
    return { ...shared, command: hello ? [...command, hello] : command };
  }

  startAgent(router: RouterName): void {
    this.pair.startAgent(router);
  }

  /** Both agents; a is active. */
  async startPair(): Promise<void> {
    for (const router of ["a", "b"] as const) this.startAgent(router);
    await this.untilProtected();
  }

  async untilProtected(): Promise<void> {
    await this.pair.untilRole("a", "active", 30_000);
    await this.pair.untilRole("b", "standby", 30_000);
  }

  /** Waits until the standby holds so many sessions, `ready` of them ready. */
  async untilReady(total: number, ready = total): Promise<AgentStatus> {
    let status: AgentStatus | undefined;
    await this.pair
      .until(`${ready} of ${total} sessions are ready`, async () => {
        status = await this.pair.status("b");
        return status.sessions.total === total && status.sessions.ready === ready;
      })
      .catch(async (error: Error) => {
        const held = (await ask(path.join(this.pair.runDirectory("b"), "agent.sock"), sessionsCommand, {})).sessions;
        const known = held.map(
          ({ peer, service, state, reasons }) => `${service} ${peer} ${state} ${JSON.stringify(reasons)}`,
        );
        const there = this.lab.run("a", ["ss", "-Htan"]);
        assert.fail(`${JSON.stringify(status?.sessions)} ${error.message}\n${known.join("\n")}\n${there}`);
      });
    assert.ok(status);
    return status;
  }

  /** Power off, and router b goes on with all but `lost` sessions. */
  async failOver(lost = 0): Promise<void> {
    this.lab.kill("a");
    await this.pair.untilRole("b", "solo");
    const status = await this.pair.status("b");
    assert.equal(status.recorder.auditBreaches, 0, this.pair.said());
    const takeover = z.object({ lost: z.object({ count: z.number() }) }).parse(status.lastTakeover);
    assert.equal(takeover.lost.count, lost, this.pair.said());
  }

  /** What the program that goes on with the session of this peer's port was told. */
  async resumed(port: number): Promise<Resumed> {
    const file = path.join(this.directory, `${port}.json`);
    await this.pair.until(`port ${port} is resumed`, () => existsSync(file));
    return resumed.parse(JSON.parse(readFileSync(file, "utf8")));
  }

  /** What it has read so far. */
  input(port: number): Buffer {
    return readFileSync(path.join(this.directory, `${port}.input`));
  }

  /** The service addresses, before there is an agent to add them. */
  addAddresses(router: RouterName): void {
    this.lab.run(router, ["ip", "address", "add", `${v4}/32`, "dev", devices.uplink]);
    this.lab.run(router, ["ip", "address", "add", `${v6}/128`, "dev", devices.uplink, "nodad"]);
  }

  destroy(): void {
    this.lab.destroy();
  }
}
