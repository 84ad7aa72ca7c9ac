// A drill's stage on a live pair, by the operator socket of one of its agents. The traffic is others': so a guard looks
// first, and a step that failed is followed by an attempt to give the voice back to who had it.

import { execFile } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import type { RouterName } from "../lab/lab.js";
import {
  drillResultCommand,
  historyCommand,
  resyncCommand,
  sessionsCommand,
  statusCommand,
  switchoverCommand,
} from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import type { AgentStatus } from "../observe/status.js";
import { type TakeoverReport, takeoverReportSchema } from "../takeover/report.js";
import { type DrillReport, type SeenRole, takeoversSince } from "./report.js";
import type { PairLook, Stage } from "./run.js";
import type { Scenario, Side, Step } from "./scenario.js";

export interface LivePair {
  /** The operator socket of this router's agent. */
  socket: string;
  /** Restarts this router's agent in order; rejects when it cannot. */
  restartAgent: () => Promise<void>;
  /** How long a step may take to come true; default two minutes. */
  patienceMs?: number;
}

const defaultPatienceMs = 120_000;
const pollMs = 100;

/** The agent as systemd runs it. */
export async function restartUnit(): Promise<void> {
  try {
    await promisify(execFile)("systemctl", ["restart", "tandem.service"]);
  } catch (error) {
    throw new Error(sentenceOf(error).trim().replaceAll("\n", "; "), { cause: error });
  }
}

/** What the standby holds, whichever of the two is asked. */
export interface HeldSessions {
  total: number;
  notReady: number;
}

/** Why this drill must not begin; null: it may. */
export function objectionTo(scenario: Scenario, status: AgentStatus, held: HeldSessions): string | null {
  const { role, router, partner, agreed, paused, paths, arbiter, recorder } = status;
  if (!scenario.where.includes("live")) return "it is for the lab only: it would break what it is done to";
  if (!(role === "active" && partner?.role === "standby") && !(role === "standby" && partner?.role === "active"))
    return `router ${router} is ${role} and its partner ${partner?.role ?? "is not heard"}: one must be active and the other stand by`;
  if (!agreed) return "the routers do not agree in version or configuration";
  if (paused !== null) return `automatic takeover is paused: ${paused}`;
  const down = paths.filter(({ up }) => !up).map(({ name }) => name);
  if (down.length > 0) return `the heartbeat's path ${down.join(" and ")} is down`;
  if (!arbiter.reachable) return "the arbiter cannot be reached";
  const atStandby = scenario.steps.some(({ do: what }) => what === "rejoin" || what === "restart-agent");
  if (atStandby && role !== "standby") return "it acts on the standby's agent: run it on that router";
  if (held.notReady > 0)
    return `${held.notReady} of ${held.total} sessions are not ready, and a takeover would lose them`;
  if (recorder.auditBreaches > 0) return "the audit has found bytes that the standby had not recorded";
  return null;
}

export class LiveStage implements Stage {
  readonly where = "live";
  readonly #switchovers: TakeoverReport[] = [];
  readonly #since = Date.now();

  private constructor(
    private readonly pair: LivePair,
    readonly sides: Record<Side, RouterName>,
    private readonly router: RouterName,
    readonly sessions: number,
  ) {}

  /** Throws TandemError DRILL_REFUSED (exit code 5) when the pair is not ready for it, or AGENT_UNREACHABLE. */
  static async enter(scenario: Scenario, pair: LivePair): Promise<LiveStage> {
    const status = await ask(pair.socket, statusCommand, {});
    const held = await heldSessions(pair.socket);
    const objection = objectionTo(scenario, status, held);
    if (objection !== null)
      throw new TandemError(
        "DRILL_REFUSED",
        `The drill ${scenario.name} is not done on this pair: ${objection}.`,
        "Mend that first (tandem status, tandem doctor), or rehearse in the lab: without --live.",
        exitCodes.refused,
      );
    const other = status.router === "a" ? "b" : "a";
    const sides: Record<Side, RouterName> =
      status.role === "active" ? { active: status.router, standby: other } : { active: other, standby: status.router };
    return new LiveStage(pair, sides, status.router, held.total);
  }

  get #patienceMs(): number {
    return this.pair.patienceMs ?? defaultPatienceMs;
  }

  async perform(step: Step): Promise<void> {
    switch (step.do) {
      case "switchover":
        return this.#switchOver();
      case "rejoin":
        await ask(this.pair.socket, resyncCommand, { force: true });
        return;
      case "restart-agent":
        return this.pair.restartAgent();
      case "wait":
        await delay(step.ms);
        return;
      case "await-voice":
        return this.#until(
          `router ${this.sides[step.of]} has the voice`,
          ({ role, partner }) =>
            speaks(this.sides[step.of] === this.router ? role : partner?.role) &&
            !speaks(this.sides[step.of] === this.router ? partner?.role : role),
        );
      case "await-protected":
        return this.#untilProtected();
      default:
        throw new Error(`${step.do} is not for a live pair`); // the schema of scenarios has refused it
    }
  }

  async #switchOver(): Promise<void> {
    const silenceMs = this.#patienceMs;
    const { report } = await ask(this.pair.socket, switchoverCommand, {}, { silenceMs });
    const { data } = takeoverReportSchema.safeParse(report);
    if (data) this.#switchovers.push(data);
  }

  #untilProtected(): Promise<void> {
    return this.#until("every session is protected", async ({ role, partner, agreed }) => {
      const roles = [role, partner?.role];
      if (!agreed || !roles.includes("active") || !roles.includes("standby")) return false;
      const { notReady } = await heldSessions(this.pair.socket);
      return notReady === 0;
    });
  }

  async #until(what: string, holds: (status: AgentStatus) => boolean | Promise<boolean>): Promise<void> {
    const deadline = performance.now() + this.#patienceMs;
    let last = "";
    while (performance.now() < deadline) {
      try {
        if (await holds(await ask(this.pair.socket, statusCommand, {}))) return;
        last = "";
      } catch (error) {
        last = ` ${sentenceOf(error)}`; // it may be starting just now
      }
      await delay(pollMs);
    }
    throw new Error(`not within ${this.#patienceMs / 1000} s: ${what}.${last}`);
  }

  async look(): Promise<PairLook> {
    const status = await ask(this.pair.socket, statusCommand, {}).catch(() => null);
    const role = (name: string | undefined): SeenRole => roleNames.find((each) => each === name) ?? null;
    const [own, partner] = [role(status?.role), role(status?.partner?.role)];
    return {
      roles: this.router === "a" ? { a: own, b: partner } : { a: partner, b: own },
      auditBreaches: status?.recorder.auditBreaches ?? 0,
    };
  }

  answers(): null {
    return null;
  }

  async rollBack(): Promise<string | null> {
    const { role, partner } = await ask(this.pair.socket, statusCommand, {});
    const back = this.sides.active === this.router ? role : partner?.role;
    if (speaks(back)) return null;
    await this.#untilProtected();
    await this.#switchOver();
    return `switched back: router ${this.sides.active} has the voice again`;
  }

  async finish(): Promise<null> {
    return null;
  }

  async takeovers(): Promise<TakeoverReport[]> {
    const { entries } = await ask(this.pair.socket, historyCommand, { limit: 1000 });
    const known = takeoversSince(entries, this.#since);
    // The partner's are in its own journal; of a switchover its answer tells.
    const others = this.#switchovers.filter(({ epoch }) => known.every((each) => each.epoch !== epoch));
    return [...known, ...others].sort((one, other) => one.epoch - other.epoch);
  }

  evidence(): string[] {
    return [];
  }

  /** Tells the agent, for its metrics and its journal. */
  async tell({ name, verdict, blackoutMs }: DrillReport): Promise<void> {
    await ask(this.pair.socket, drillResultCommand, { name, passed: verdict === "passed", blackoutMs: blackoutMs.max });
  }
}

const roleNames = ["fenced", "joining", "standby", "active", "solo"] as const;
const speaks = (role: string | undefined): boolean => role === "active" || role === "solo";

async function heldSessions(socket: string): Promise<HeldSessions> {
  const { total } = await ask(socket, sessionsCommand, { limit: 1 });
  const { total: notReady } = await ask(socket, sessionsCommand, { limit: 1, notReady: true });
  return { total, notReady };
}
