// A drill's stage in the lab: a router pair with real agents, an application on both routers, interactive sessions by
// socat, and a capture of all that passes at the peer.

import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import type { Capture } from "../lab/capture.js";
import { addressPlan, devices, Lab, type LinkName, type RouterName } from "../lab/lab.js";
import { labPorts, RouterPair } from "../lab/router-pair.js";
import { type CountedSessions, socatSessions } from "../lab/traffic.js";
import { historyCommand, resyncCommand, switchoverCommand } from "../observe/commands.js";
import type { JournalEntry } from "../observe/journal.js";
import { ask } from "../observe/operator.js";
import type { TakeoverReport } from "../takeover/report.js";
import { onlyOneVoice, type SeenRole, type TrafficFindings, takeoversSince, trafficFindings } from "./report.js";
import type { PairLook, Stage } from "./run.js";
import type { DrillLink, Scenario, Side, Step } from "./scenario.js";

export interface LabStageOptions {
  /** Of the lab; default: random. */
  id?: string;
  /** How long an active may be unheard, ms; default: the product's. */
  leaseMs?: number;
  /** Captures and logs go there. */
  directory: string;
}

const linkList = z.array(z.object({ address: z.string() }));
const patienceMs = 40_000;
/** So long the sessions are watched before the first step. */
const quietMs = 300;
/** For the last FINs. */
const lastMs = 200;

export class LabStage implements Stage {
  readonly where = "lab";
  readonly sides = { active: "a", standby: "b" } as const;
  readonly #slowed = new Map<RouterName, AbortController>();
  readonly #logs: string[] = [];
  #since = 0;

  private constructor(
    private readonly lab: Lab,
    private readonly pair: RouterPair,
    private readonly scenario: Scenario,
    private readonly directory: string,
    private readonly traffic: CountedSessions[],
    private capture: Capture | null,
  ) {}

  /** Protected sessions are running when it resolves. Whoever gets it destroys it. */
  static async build(scenario: Scenario, { id, leaseMs, directory }: LabStageOptions): Promise<LabStage> {
    mkdirSync(directory, { recursive: true });
    const lab = Lab.create({ id, mirror: "switch" });
    try {
      const pair = new RouterPair(lab, leaseMs === undefined ? {} : { heartbeat: { deadMs: leaseMs } });
      const stage = new LabStage(lab, pair, scenario, directory, [], null);
      await stage.#begin();
      return stage;
    } catch (error) {
      lab.destroy();
      throw error;
    }
  }

  async #begin(): Promise<void> {
    const { lab, pair, scenario } = this;
    for (const router of ["a", "b"] as const) pair.startAgent(router);
    await pair.untilRole("a", "active");
    await pair.untilRole("b", "standby");
    for (const router of ["a", "b"] as const) await pair.startServer(router, true, true);
    this.capture = await lab.capture("peer", devices.peer, {
      filter: `port ${labPorts.echo}`,
      file: path.join(this.directory, "peer.pcap"),
    });
    const hosts = Object.values(addressPlan.service);
    for (const host of hosts)
      this.traffic.push(
        socatSessions(lab, host, labPorts.echo, {
          count: Math.ceil(scenario.sessions / hosts.length),
          intervalMs: scenario.askEveryMs,
        }),
      );
    await this.#untilProtected();
    await delay(quietMs);
    for (const sessions of this.traffic) sessions.resetGaps();
    this.#since = Date.now();
  }

  get sessions(): number {
    return 2 * Math.ceil(this.scenario.sessions / 2);
  }

  async #startAgent(router: RouterName): Promise<void> {
    this.#keepLog(router);
    this.pair.startAgent(router);
    await this.pair.until(`the agent of ${router} answers`, async () => (await this.pair.status(router)) !== null);
  }

  /** What an agent said that is about to be followed by another one. */
  #keepLog(router: RouterName): void {
    this.#logs.push(`── router ${router}\n${this.pair.agents[router]?.stderr() ?? ""}`);
  }

  #socket(router: RouterName): string {
    return path.join(this.pair.runDirectory(router), "agent.sock");
  }

  async #untilProtected(): Promise<void> {
    await this.pair.until(
      `all ${this.sessions} sessions are protected`,
      async () => {
        const both = await Promise.all([this.pair.status("a"), this.pair.status("b")]);
        const standby = both.find(({ role }) => role === "standby");
        return both.some(({ role }) => role === "active") && standby?.sessions.ready === this.sessions;
      },
      patienceMs,
    );
  }

  /** The router that stands by just now, when each has found its place. */
  async #standbyNow(): Promise<RouterName> {
    const { role } = await this.pair.status("a");
    return role === "standby" ? "a" : "b";
  }

  async perform(step: Step): Promise<void> {
    const { lab, pair, sides } = this;
    const of = (side: Side): RouterName => sides[side];
    switch (step.do) {
      case "switchover":
        await ask(this.#socket(await this.#standbyNow()), switchoverCommand, {}, { silenceMs: patienceMs });
        return;
      case "rejoin":
        await ask(this.#socket(await this.#standbyNow()), resyncCommand, { force: true });
        return;
      case "kill-application": {
        const running = pair.servers[of(step.of)];
        running?.signal("SIGKILL");
        await running?.exited;
        return;
      }
      case "start-application":
        return pair.startServer(of(step.of), true, true);
      case "kill-agent": {
        const running = pair.agents[of(step.of)];
        running?.signal("SIGKILL");
        await running?.exited;
        return;
      }
      case "start-agent":
        return this.#startAgent(of(step.of));
      case "restart-agent": {
        const running = pair.agents[of(step.of)];
        running?.signal("SIGTERM");
        await running?.exited;
        return this.#startAgent(of(step.of));
      }
      case "freeze":
        return lab.freeze(of(step.of));
      case "thaw":
        return lab.thaw(of(step.of));
      case "power-off":
        lab.kill(of(step.of));
        return;
      case "power-on":
        lab.repower(of(step.of));
        await this.#startAgent(of(step.of));
        return pair.startServer(of(step.of), true, true);
      case "cut":
        return lab.cut(this.#link(step.link));
      case "heal":
        return lab.heal(this.#link(step.link));
      case "impair-mirror":
        return lab.impair("mirror", { loss: step.loss, duplicate: step.duplicate, reorder: step.reorder });
      case "slow":
        return this.#slow(of(step.of), step.stopMs, step.runMs);
      case "steady":
        this.#slowed.get(of(step.of))?.abort();
        return;
      case "wait":
        await delay(step.ms);
        return;
      case "await-voice":
        return pair.until(
          `router ${of(step.of)} has the voice`,
          async () => ["active", "solo"].includes((await pair.status(of(step.of))).role),
          patienceMs,
        );
      case "await-alone":
        return pair.untilRole(of(step.of), "solo", patienceMs);
      case "await-protected":
        return this.#untilProtected();
    }
  }

  #link(link: DrillLink): LinkName {
    if (link === "mirror") return "mirror";
    return this.sides[link === "uplink-of-active" ? "active" : "standby"];
  }

  /** Stops the agent and lets it go on, in turns, until `steady`. */
  #slow(router: RouterName, stopMs: number, runMs: number): void {
    const agent = this.pair.agents[router];
    if (agent === undefined) throw new Error(`router ${router} has no agent`);
    const over = new AbortController();
    this.#slowed.set(router, over);
    void (async () => {
      while (!over.signal.aborted) {
        agent.signal("SIGSTOP");
        await delay(stopMs);
        agent.signal("SIGCONT");
        await delay(runMs);
      }
    })();
  }

  async look(): Promise<PairLook> {
    const [a, b] = await Promise.all((["a", "b"] as const).map((router) => this.#answerOf(router)));
    return {
      roles: { a: a?.role ?? null, b: b?.role ?? null },
      auditBreaches: Math.max(a?.breaches ?? 0, b?.breaches ?? 0),
    };
  }

  answers(): number {
    return this.traffic.reduce((total, sessions) => total + sessions.answered(), 0);
  }

  /** Null: the agent is dead or stands still. */
  async #answerOf(router: RouterName): Promise<{ role: SeenRole; breaches: number } | null> {
    const silent = delay(lookLimitMs).then(() => null);
    const answer = this.pair.status(router).then(
      ({ role, recorder }) => ({ role, breaches: recorder.auditBreaches }),
      () => null,
    );
    return Promise.race([answer, silent]);
  }

  /** The lab is thrown away as it is. */
  async rollBack(): Promise<null> {
    return null;
  }

  async takeovers(): Promise<TakeoverReport[]> {
    const journals = await Promise.all(
      (["a", "b"] as const).map((router) =>
        ask(this.#socket(router), historyCommand, { limit: 1000 }).then(
          ({ entries }) => entries,
          (): JournalEntry[] => [],
        ),
      ),
    );
    return takeoversSince(journals.flat(), this.#since);
  }

  async finish(): Promise<TrafficFindings> {
    for (const over of this.#slowed.values()) over.abort();
    const reports = (await Promise.all(this.traffic.map((sessions) => sessions.finish()))).flat();
    await delay(lastMs);
    const { flagged, senders } = (await this.capture?.stop()) ?? { flagged: [], senders: [] };
    const macs = { active: this.#mac(this.sides.active), standby: this.#mac(this.sides.standby) };
    return {
      ...trafficFindings(reports),
      peerResets: flagged.filter(({ rst }) => rst).length,
      oneVoice: onlyOneVoice(senders, macs, this.scenario.expect.takeovers),
    };
  }

  /** Of the uplink: who sends what the peer hears. */
  #mac(router: RouterName): string {
    const links = linkList.parse(JSON.parse(this.lab.run(router, ["ip", "-j", "link", "show", devices.uplink])));
    return links[0]?.address ?? "";
  }

  evidence(): string[] {
    for (const router of ["a", "b"] as const) this.#keepLog(router);
    const log = path.join(this.directory, "agents.log");
    writeFileSync(log, this.#logs.join("\n"));
    return [path.join(this.directory, "peer.pcap"), log];
  }

  destroy(): void {
    for (const over of this.#slowed.values()) over.abort();
    for (const sessions of this.traffic) sessions.abandon();
    this.lab.destroy();
  }
}

/** An agent that does not answer a look for so long is not there. */
const lookLimitMs = 300;
