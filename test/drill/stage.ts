// A stage that is only said: what the tests of drills use where nothing has to run.

import type { TrafficFindings } from "../../src/drill/report.js";
import type { PairLook, Stage } from "../../src/drill/run.js";
import type { Step } from "../../src/drill/scenario.js";
import type { TakeoverReport } from "../../src/takeover/report.js";

export const exact: TrafficFindings = {
  ...{ bytesIn: 1000, bytesOut: 1000, lost: 0, duplicated: 0, changed: 0, sameHash: 16, broken: 0, peerResets: 0 },
  oneVoice: true,
  longestGapsMs: [40, 80, 60],
};

export function takeover(epoch: number, over: Partial<TakeoverReport> = {}): TakeoverReport {
  return {
    cause: "An operator asked for a switchover",
    epoch,
    stepsMs: { detect: 10, fence: 2, drain: 0, restore: 8, announce: 1, release: 2, nudge: 1 },
    totalMs: 24,
    sessions: 16,
    halfOpen: 0,
    lost: { count: 0, reasons: {} },
    prepared: 2,
    nudged: 3,
    handedOver: 16,
    ...over,
  };
}

export class SaidStage implements Stage {
  readonly where = "lab";
  readonly sides = { active: "a", standby: "b" } as const;
  readonly sessions = 16;
  readonly done: string[] = [];
  roles: PairLook["roles"] = { a: "active", b: "standby" };
  rolledBack = false;

  constructor(
    private readonly said: {
      fails?: Step["do"];
      traffic?: TrafficFindings;
      takeovers?: readonly TakeoverReport[];
      auditBreaches?: number;
    } = {},
  ) {}

  async perform(step: Step): Promise<void> {
    if (step.do === this.said.fails) throw new Error("it would not");
    this.done.push(step.do);
    if (step.do === "switchover")
      this.roles = this.roles.a === "active" ? { a: "standby", b: "active" } : { a: "active", b: "standby" };
  }

  async look(): Promise<PairLook> {
    return { roles: this.roles, auditBreaches: this.said.auditBreaches ?? 0 };
  }

  answers(): number {
    return 7;
  }

  async rollBack(): Promise<string> {
    this.rolledBack = true;
    return "rolled back";
  }

  async finish(): Promise<TrafficFindings> {
    return this.said.traffic ?? exact;
  }

  async takeovers(): Promise<TakeoverReport[]> {
    return [...(this.said.takeovers ?? [takeover(2), takeover(3)])];
  }

  evidence(): string[] {
    return ["/evidence/<peer>.pcap"];
  }
}
