// Runs a scenario on a stage, the lab or a live pair: one step after the other, with a look at the routers in between,
// and the stage left as it has to be whatever happens.

import { setTimeout as delay } from "node:timers/promises";
import { sentenceOf } from "../errors.js";
import type { RouterName } from "../lab/lab.js";
import type { TakeoverReport } from "../takeover/report.js";
import { type DrillReport, type Findings, reportOf, type SeenRole, type TrafficFindings } from "./report.js";
import { type Scenario, type Side, type Step, stepSentence } from "./scenario.js";

/** One look at the pair. */
export interface PairLook {
  roles: Record<RouterName, SeenRole>;
  auditBreaches: number;
}

/** Where a drill runs. */
export interface Stage {
  readonly where: DrillReport["where"];
  /** Which router was what when the drill began. */
  readonly sides: Record<Side, RouterName>;
  readonly sessions: number;
  /** Rejects when it cannot be done, or does not come true in time. */
  perform(step: Step): Promise<void>;
  look(): Promise<PairLook>;
  /** Of the drill's own sessions so far; null: it has none. */
  answers(): number | null;
  /** After a step that failed: the pair as it was, as far as that can be. Says what was done; null: nothing had to be. */
  rollBack(): Promise<string | null>;
  /** Ends the traffic of the drill's own and says what it saw; null: there was none. */
  finish(): Promise<TrafficFindings | null>;
  /** Since the drill began, in their order. */
  takeovers(): Promise<TakeoverReport[]>;
  /** Leaves its files, and names them. */
  evidence(): string[];
}

const lookEveryMs = 40;

/** `say` gets a line for each step. */
export async function runDrill(scenario: Scenario, stage: Stage, say: (line: string) => void): Promise<DrillReport> {
  const startedAt = new Date().toISOString();
  const zero = performance.now();
  const now = (): number => performance.now() - zero;
  const timeline: DrillReport["timeline"] = { steps: [], roles: [], answers: [] };
  let auditBreaches = 0;
  const note = async (): Promise<void> => {
    const askedMs = now();
    const { roles, auditBreaches: breaches } = await stage.look();
    // A router that does not answer was gone when it was asked; one that does is what it says now.
    const atMs = roles.a === null || roles.b === null ? askedMs : now();
    auditBreaches = Math.max(auditBreaches, breaches);
    const last = timeline.roles.at(-1);
    if (last?.a !== roles.a || last.b !== roles.b) timeline.roles.push({ atMs, ...roles });
  };
  const count = (): void => {
    const total = stage.answers();
    if (total !== null) timeline.answers.push({ atMs: now(), total });
  };
  await note();
  count();
  const counting = setInterval(count, lookEveryMs);
  const over = new AbortController();
  const watching = (async () => {
    while (!over.signal.aborted) {
      await note();
      await delay(lookEveryMs, undefined, { signal: over.signal }).catch(() => {});
    }
  })();
  try {
    for (const step of scenario.steps) {
      const sentence = stepSentence(step);
      say(sentence);
      const atMs = now();
      const failure = await stage.perform(step).then(() => null, sentenceOf);
      timeline.steps.push({ atMs, tookMs: now() - atMs, sentence, failure });
      if (failure === null) continue;
      say(`that failed: ${failure}`);
      const undone = await stage.rollBack().catch((error) => `it could not be rolled back: ${sentenceOf(error)}`);
      if (undone !== null) say(undone);
      break;
    }
  } finally {
    clearInterval(counting);
    over.abort();
    await watching;
  }
  const durationMs = now();
  await note();
  const takeovers = await stage.takeovers();
  const traffic = await stage.finish();
  const findings: Findings = {
    where: stage.where,
    startedAt,
    durationMs,
    sessions: stage.sessions,
    traffic,
    takeovers,
    auditBreaches,
    voice: voiceOf(timeline.roles.at(-1), stage.sides),
    timeline,
    evidence: stage.evidence(),
  };
  return reportOf(scenario, findings);
}

/** The one side that speaks. */
export function voiceOf(
  roles: Record<RouterName, SeenRole> | undefined,
  sides: Record<Side, RouterName>,
): Findings["voice"] {
  const speaking = (["active", "standby"] as const).filter((side) => {
    const role = roles?.[sides[side]];
    return role === "active" || role === "solo";
  });
  return speaking.length === 1 ? (speaking[0] ?? null) : null;
}
