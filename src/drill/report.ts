// What a drill found: its JSON document (the schema is the contract of --json; its keys are the demo's), and the verdict.

import { z } from "zod";
import type { Sender } from "../lab/capture.js";
import { spreadOf } from "../lab/demo-report.js";
import type { EchoReport } from "../lab/echo-session.js";
import { pastTakeovers } from "../observe/history.js";
import type { JournalEntry } from "../observe/journal.js";
import { type TakeoverReport, takeoverReportSchema, takeoverSteps } from "../takeover/report.js";
import { drillName, type Expectation, type Scenario, type Side } from "./scenario.js";

const count = z.int().min(0);
const milliseconds = z.number().min(0);
/** Null: live, where the traffic is not the drill's own. */
const own = count.nullable();
const role = z.enum(["fenced", "joining", "standby", "active", "solo"]);
export type SeenRole = z.infer<typeof role> | null;

export const drillReportSchema = z.strictObject({
  name: drillName,
  title: z.string(),
  where: z.enum(["lab", "live"]),
  verdict: z.enum(["passed", "failed"]),
  breaches: z.array(z.string()).describe("One sentence for each thing that is not as it has to be; empty: passed."),
  startedAt: z.iso.datetime().describe("When its first step began, UTC."),
  durationMs: milliseconds.describe("From the first step to the last one's end."),
  sessions: count.describe("Of the drill's own in the lab; live: what the standby held at the begin."),
  bytesIn: own.describe("Application bytes from the peer to the service; null: live, where the traffic is others'."),
  bytesOut: own.describe("And back."),
  lost: own.describe("Lines that never came back."),
  duplicated: own.describe("Lines that came back twice."),
  changed: own.describe("Lines that came back altered, and sessions whose SHA-256 differs between their two ends."),
  sameHash: own.describe("Sessions whose SHA-256 is the same at both ends."),
  broken: own.describe("Sessions that ended before their peer ended them."),
  peerResets: own.describe("RST on the wire at the peer, in either direction."),
  oneVoice: z
    .boolean()
    .nullable()
    .describe("At the peer, the last segment of one router came before the first of the other; null: not known."),
  blackoutMs: z
    .strictObject({ p50: milliseconds, p99: milliseconds, max: milliseconds })
    .describe("Each session's longest wait for an answer that was owed; live: what each takeover took."),
  stepsMs: z
    .strictObject(Object.fromEntries(takeoverSteps.map((step) => [step, milliseconds])))
    .nullable()
    .describe("Of the longest takeover, by step; null: there was none."),
  takeoverMs: milliseconds.nullable().describe("All of it."),
  takeovers: z.array(takeoverReportSchema).describe("All of them, in their order."),
  notReady: count.describe("Sessions that takeovers had to give up."),
  auditBreaches: count.describe("Sessions in which a byte passed that the standby had not recorded."),
  timeline: z
    .strictObject({
      steps: z.array(
        z.strictObject({
          atMs: milliseconds,
          tookMs: milliseconds,
          sentence: z.string(),
          failure: z.string().nullable(),
        }),
      ),
      roles: z
        .array(z.strictObject({ atMs: milliseconds, a: role.nullable(), b: role.nullable() }))
        .describe("From then on, until the next; null: it does not answer."),
      answers: z
        .array(z.strictObject({ atMs: milliseconds, total: count }))
        .describe("Lines that had come back by then; live: none."),
    })
    .describe("Milliseconds since the first step began."),
  evidence: z.array(z.string()).describe("Files: the capture at the peer, what the agents logged."),
});
export type DrillReport = z.infer<typeof drillReportSchema>;

/** What the traffic of the drill's own saw. */
export type TrafficFindings = Record<
  "bytesIn" | "bytesOut" | "lost" | "duplicated" | "changed" | "sameHash" | "broken" | "peerResets",
  number
> & { oneVoice: boolean | null; longestGapsMs: number[] };

export interface Findings {
  where: DrillReport["where"];
  startedAt: string;
  durationMs: number;
  sessions: number;
  /** Null: live. */
  traffic: TrafficFindings | null;
  takeovers: TakeoverReport[];
  auditBreaches: number;
  /** Who had the voice at the end, as at the begin; null: nobody, or both. */
  voice: "active" | "standby" | null;
  timeline: DrillReport["timeline"];
  evidence: string[];
}

/** What a scenario is said to have come to. */
export function reportOf(scenario: Scenario, findings: Findings): DrillReport {
  const { where, startedAt, durationMs, sessions, traffic, takeovers, auditBreaches, timeline, evidence } = findings;
  const longest = [...takeovers].sort((one, other) => other.totalMs - one.totalMs)[0];
  const { longestGapsMs, ...seen } = traffic ?? {
    ...{ bytesIn: null, bytesOut: null, lost: null, duplicated: null, changed: null },
    ...{ sameHash: null, broken: null, peerResets: null, oneVoice: null },
    longestGapsMs: takeovers.map(({ totalMs }) => totalMs),
  };
  const breaches = breachesOf(scenario.expect, findings);
  return {
    name: scenario.name,
    title: scenario.title,
    where,
    verdict: breaches.length === 0 ? "passed" : "failed",
    breaches,
    startedAt,
    durationMs,
    sessions,
    ...seen,
    blackoutMs: spreadOf(longestGapsMs),
    stepsMs: longest?.stepsMs ?? null,
    takeoverMs: longest?.totalMs ?? null,
    takeovers,
    notReady: lostBy(takeovers),
    auditBreaches,
    timeline,
    evidence,
  };
}

const lostBy = (takeovers: readonly TakeoverReport[]): number =>
  takeovers.reduce((total, { lost }) => total + lost.count, 0);

const zeros = ["lost", "duplicated", "changed", "broken", "peerResets"] as const;

/** What is not as it has to be: of every drill, that every byte came once and unchanged and nobody was reset; of this
 * one, what its scenario expects. */
export function breachesOf(expect: Expectation, findings: Findings): string[] {
  const { traffic, takeovers, sessions, auditBreaches, timeline, voice } = findings;
  const found: string[] = [];
  for (const { sentence, failure } of timeline.steps)
    if (failure !== null) found.push(`the step "${sentence}" failed: ${failure}`);
  if (traffic !== null) {
    for (const name of zeros) if (traffic[name] !== 0) found.push(`${name} is ${traffic[name]}, not 0`);
    if (traffic.sameHash !== sessions)
      found.push(`${traffic.sameHash} of ${sessions} sessions have the same SHA-256 at both ends`);
    if (traffic.oneVoice === false) found.push("both routers spoke to the peer at the same time");
    if (traffic.bytesIn === 0 || traffic.bytesOut === 0) found.push("no byte was carried");
  }
  if (auditBreaches > 0) found.push(`auditBreaches is ${auditBreaches}, not 0`);
  if (takeovers.length !== expect.takeovers)
    found.push(`there were ${takeovers.length} takeovers, not ${expect.takeovers}`);
  for (const [index, cause] of (expect.causes ?? []).entries()) {
    const got = takeovers[index]?.cause;
    if (got !== undefined && got !== cause) found.push(`takeover ${index + 1} came because "${got}", not "${cause}"`);
  }
  const lost = lostBy(takeovers);
  if (lost > expect.lostSessions) found.push(`takeovers lost ${lost} sessions, not ${expect.lostSessions} at most`);
  if (voice !== expect.voice)
    found.push(
      voice === null
        ? "in the end no router alone has the voice"
        : `in the end the voice is with the router that was ${voice}, not with the one that was ${expect.voice}`,
    );
  const longest = Math.max(0, ...(traffic?.longestGapsMs ?? takeovers.map(({ totalMs }) => totalMs)));
  if (expect.blackoutBelowMs !== undefined && longest >= expect.blackoutBelowMs)
    found.push(`the longest blackout was ${longest.toFixed(1)} ms, not below ${expect.blackoutBelowMs} ms`);
  return found;
}

/** Of the journals of both routers, each takeover once, in their order. */
export function takeoversSince(journal: readonly JournalEntry[], timeMs: number): TakeoverReport[] {
  const byEpoch = new Map(
    pastTakeovers(journal)
      .filter((each) => each.timeMs >= timeMs)
      .map(({ report }) => [report.epoch, report]),
  );
  return [...byEpoch.values()].sort((one, other) => one.epoch - other.epoch);
}

/** A line that is lost, repeated or altered is counted as such; a hash may only differ when one was. */
export function trafficFindings(reports: readonly EchoReport[]): Omit<TrafficFindings, "peerResets" | "oneVoice"> {
  const sum = (value: (each: EchoReport) => number): number => reports.reduce((total, each) => total + value(each), 0);
  const same = (each: EchoReport): boolean => each.sentSha256 === each.receivedSha256;
  return {
    bytesIn: sum((each) => each.bytesOut),
    bytesOut: sum((each) => each.bytesIn),
    lost: sum((each) => each.lost),
    duplicated: sum((each) => each.duplicated),
    changed: sum((each) => each.changed || (each.lost + each.duplicated === 0 && !same(each) ? 1 : 0)),
    sameHash: reports.filter(same).length,
    broken: reports.filter(({ brokenBy }) => brokenBy !== null).length,
    longestGapsMs: reports.map(({ longestGapMs }) => longestGapMs),
  };
}

/** The last frame of one router came before the first of the other, by who sent them at the peer. Null: the voice was to
 * move more than once, and who sent first and last does not tell then. */
export function onlyOneVoice(
  senders: readonly Sender[],
  macs: Record<Side, string>,
  takeovers: number,
): boolean | null {
  if (takeovers > 1) return null;
  const of = (side: Side): Sender | undefined => senders.find(({ mac }) => mac === macs[side]);
  const [first, second] = [of("active"), of("standby")];
  if (first === undefined || second === undefined) return true;
  return first.last < second.first;
}
