// A router pair in a lab: configuration files, keys, the real agents and the demo server on both routers.

import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { statusCommand } from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import type { AgentStatus } from "../observe/status.js";
import { createPairKeys } from "../pair/keys.js";
import { addressPlan, devices, type Lab, type RouterName } from "./lab.js";
import type { LabProcess } from "./namespaces.js";

export const labPorts = { web: 8080, echo: 8081 } as const;
/** The configuration's default. */
const controlPort = 7402;

const program = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export interface RouterPairOptions {
  /** Deep-merged into the configuration of both routers at top level. */
  overrides?: Record<string, unknown>;
  heartbeat?: { intervalMs?: number; deadMs?: number; controllerMs?: number };
  arbiter?: Record<string, unknown>;
}

/** The configuration that makes a lab a router pair, for one of the routers. */
export function labConfig(lab: Lab, router: RouterName, options: RouterPairOptions = {}): Record<string, unknown> {
  const side = (name: RouterName) => ({
    mirror: { device: devices.mirror, address: addressPlan.mirror[name] },
    uplinks: [{ device: devices.uplink, address: addressPlan.uplink[name].v4 }],
  });
  const addresses = [addressPlan.service.v4, addressPlan.service.v6];
  return {
    router,
    pair: {
      keys: path.join(lab.directory, "keys"),
      routers: { a: side("a"), b: side("b") },
      startAloneMs: 1500,
      ...(options.heartbeat ? { heartbeat: options.heartbeat } : {}),
      ...(options.arbiter ? { arbiter: options.arbiter } : {}),
    },
    services: [
      { name: "web", addresses, port: labPorts.web },
      { name: "echo", addresses, port: labPorts.echo },
    ],
    // IPv6 answers neighbour solicitations only for addresses of the device they come in by: not for lo's.
    paths: {
      state: path.join(lab.directory, router, "state"),
      run: path.join(lab.directory, router, "run"),
      bpf: path.join(lab.pins, router),
    },
    ...options.overrides,
  };
}

/** The other router has the voice although nothing was done to the first: heartbeats came too late. */
export class RolesReversed extends Error {}

export class RouterPair {
  readonly agents: Partial<Record<RouterName, LabProcess>> = {};
  readonly servers: Partial<Record<RouterName, LabProcess>> = {};

  constructor(
    readonly lab: Lab,
    private readonly options: RouterPairOptions = {},
  ) {
    const keys = path.join(lab.directory, "keys");
    createPairKeys(keys);
    for (const router of ["a", "b"] as const) {
      mkdirSync(path.join(lab.directory, router), { recursive: true });
      writeFileSync(this.configFile(router), stringify(labConfig(lab, router, this.options)));
    }
  }

  configFile(router: RouterName): string {
    return path.join(this.lab.directory, router, "tandem.yaml");
  }

  runDirectory(router: RouterName): string {
    return path.join(this.lab.directory, router, "run");
  }

  startAgent(router: RouterName): LabProcess {
    const agent = this.lab.spawn(router, [
      process.execPath,
      program("../cli/tandem.js"),
      "agent",
      "--config",
      this.configFile(router),
    ]);
    this.agents[router] = agent;
    return agent;
  }

  /** The same program on both routers; `replica`: it takes part in what the agent mirrors; `handover`: and hands its echo
   * sessions over to a standby that joins. */
  async startServer(router: RouterName, replica: boolean, handover = false): Promise<void> {
    const { v4, v6 } = addressPlan.service;
    const server = this.lab.spawn(router, [
      process.execPath,
      program("./demo-server.js"),
      ...["--listen", `${v4}:${labPorts.web},${labPorts.echo}`],
      ...["--listen", `[${v6}]:${labPorts.web},${labPorts.echo}`],
      ...(replica ? ["--replica", path.join(this.runDirectory(router), "app.sock")] : []),
      ...(handover ? ["--handover"] : []),
    ]);
    this.servers[router] = server;
    await this.until(`the server on ${router} listens`, () => server.stdout().includes("listening"));
  }

  /** What the routers say to each other last is lost; router b connects anew. False: there was no connection. */
  endControlChannel(): boolean {
    return this.lab.run("b", ["ss", "-HtnK", "dport", "=", `:${controlPort}`]).includes(`:${controlPort}`);
  }

  status(router: RouterName): Promise<AgentStatus> {
    return ask(path.join(this.runDirectory(router), "agent.sock"), statusCommand, {});
  }

  /** Agents and servers on both routers, until a is active and b stands by; `failback`: echo sessions can go back to a,
   * whose server does not know of Tandem otherwise. Throws RolesReversed. */
  async start(failback = false): Promise<void> {
    for (const router of ["a", "b"] as const) this.startAgent(router);
    await this.until("router a is active and router b stands by", async () => {
      const [a, b] = await Promise.all([this.status("a"), this.status("b")]);
      return (a.role === "active" && b.role === "standby") || b.role === "solo";
    });
    await this.expectRoles();
    await this.startServer("a", failback, failback);
    await this.startServer("b", true, failback);
  }

  /** Throws RolesReversed when b has, or is about to have, the voice. */
  async expectRoles(): Promise<void> {
    const { role, reason } = await this.status("b");
    if (role !== "standby") throw new RolesReversed(`router b is ${role} although router a lives. ${reason}`);
  }

  async untilRole(router: RouterName, role: AgentStatus["role"], milliseconds = 20_000): Promise<void> {
    await this.until(
      `router ${router} is ${role}`,
      async () => (await this.status(router)).role === role,
      milliseconds,
    );
  }

  /** Polls; fails with what the agents said when it takes too long, or when an agent that should run has ended. */
  async until(what: string, holds: () => boolean | Promise<boolean>, milliseconds = 20_000): Promise<void> {
    const deadline = performance.now() + milliseconds;
    for (;;) {
      let problem = "";
      try {
        if (await holds()) return;
      } catch (error) {
        problem = (error as Error).message;
      }
      if (performance.now() > deadline)
        throw new Error(`not within ${milliseconds} ms: ${what}. ${problem}\n${this.said()}`);
      await delay(10);
    }
  }

  /** What agents and servers wrote, for a failed test to show. */
  said(): string {
    const parts: string[] = [];
    for (const [kind, processes] of Object.entries({ agent: this.agents, server: this.servers }))
      for (const [router, child] of Object.entries(processes)) {
        const text = `${child.stdout()}${child.stderr()}`.trim();
        if (text) parts.push(`── ${kind} ${router}\n${text.slice(-4000)}`);
      }
    return parts.join("\n");
  }
}
