// The agent's metrics, for Prometheus: read when they are asked for, in base units, and with no label whose values a
// peer or a connection could multiply. Every series exists from the start, at zero, so that rates see the first event.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import * as abi from "../abi.gen.js";
import { type TakeoverCause, takeoverCauses } from "../role/role.js";
import { reasonNames } from "../session/reasons.js";
import { type TakeoverReport, takeoverSteps } from "../takeover/takeover.js";
import type { DrillResult } from "./commands.js";
import { gates, type Observation, pathNames, recordedSessions, roles, speaks } from "./observation.js";

/** Seconds. The lease is in `detect`; the others are a fraction of a millisecond to some tens of them. */
const stepBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const joinBuckets = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** Reasons of the data plane that are stages of a segment's way: what comes before _IN and _OUT in their names. */
const stages = { REFLECT: "reflected", RECORDED: "recorded", DELIVERED: "delivered", SOLO: "solo" } as const;

type DataPlaneReason =
  | { kind: "segment"; labels: { stage: string; direction: "in" | "out" } }
  | { kind: "pass" | "drop"; labels: { reason: string } };

/** TD_DROP_RING_FULL → drop, "ring-full"; TD_PASS_RECORDED_IN → segment, recorded, in. null: no reason. */
export function classifyReason(name: string): DataPlaneReason | null {
  const [, verdict, rest] = /^TD_(PASS|DROP)_(\w+)$/.exec(name) ?? [];
  if (verdict === undefined || rest === undefined) return null;
  const [, stage, direction] = /^(\w+)_(IN|OUT)$/.exec(rest) ?? [];
  if (verdict === "PASS" && stage !== undefined && stage in stages)
    return {
      kind: "segment",
      labels: { stage: stages[stage as keyof typeof stages], direction: direction === "IN" ? "in" : "out" },
    };
  return {
    kind: verdict === "PASS" ? "pass" : "drop",
    labels: { reason: rest.toLowerCase().replaceAll("_", "-") },
  };
}

const dataPlaneReasons = Object.entries(abi.td_reason_names).flatMap(([number, name]) => {
  const classified = classifyReason(name);
  return classified === null ? [] : [{ number: Number(number), ...classified }];
});

export interface MetricsOptions {
  version: string;
  /** A look at the agent; called once a scrape. */
  observe: () => Promise<Observation>;
}

export class Metrics {
  /** One for each agent: tests run several in a process. */
  readonly #registry = new Registry();
  readonly #takeovers: Counter;
  readonly #takeoverSessions: Counter;
  readonly #takeoverSeconds: Histogram;
  readonly #takeoverStepSeconds: Histogram;
  readonly #lastTakeoverAt: Gauge;
  readonly #lastTakeoverStepSeconds: Gauge;
  readonly #joinSeconds: Histogram;
  readonly #drillPassed: Gauge;
  readonly #drillBlackoutSeconds: Gauge;
  readonly #drillAt: Gauge;
  readonly #observe: () => Promise<Observation>;
  #look: Promise<Observation> | null = null;

  constructor({ version, observe }: MetricsOptions) {
    this.#observe = observe;
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    new Gauge({
      name: "tandem_build_info",
      help: "Always 1; labels say what runs.",
      labelNames: ["version", "abi"],
      registers,
    }).set({ version, abi: String(abi.TD_ABI_VERSION) }, 1);
    this.#defineRole();
    this.#defineHeartbeat();
    this.#defineSessions();
    this.#defineDataPlane();
    this.#defineRecorder();

    this.#takeovers = new Counter({
      name: "tandem_takeovers_total",
      help: "Takeovers this router made, by cause.",
      labelNames: ["cause"],
      registers,
    });
    for (const cause of Object.keys(takeoverCauses)) this.#takeovers.inc({ cause }, 0);
    this.#takeoverSessions = new Counter({
      name: "tandem_takeover_sessions_total",
      help: "Sessions at takeovers: restored, half-open, or lost because they were not ready.",
      labelNames: ["outcome"],
      registers,
    });
    for (const outcome of ["restored", "half-open", "lost"]) this.#takeoverSessions.inc({ outcome }, 0);
    this.#takeoverSeconds = new Histogram({
      name: "tandem_takeover_seconds",
      help: "From the last heartbeat answered to the last step of a takeover.",
      buckets: stepBuckets,
      registers,
    });
    this.#takeoverStepSeconds = new Histogram({
      name: "tandem_takeover_step_seconds",
      help: "Duration of each step of a takeover.",
      labelNames: ["step"],
      buckets: stepBuckets,
      registers,
    });
    for (const step of takeoverSteps) this.#takeoverStepSeconds.zero({ step });
    this.#lastTakeoverAt = new Gauge({
      name: "tandem_last_takeover_timestamp_seconds",
      help: "When this router last took over; 0 if it has not.",
      registers,
    });
    this.#lastTakeoverStepSeconds = new Gauge({
      name: "tandem_last_takeover_step_seconds",
      help: "Duration of each step of the last takeover; 0 if there was none.",
      labelNames: ["step"],
      registers,
    });
    for (const step of takeoverSteps) this.#lastTakeoverStepSeconds.set({ step }, 0);
    this.#joinSeconds = new Histogram({
      name: "tandem_join_seconds",
      help: "How long sessions that were older than their standby took to become ready.",
      buckets: joinBuckets,
      registers,
    });
    const ofDrill = (name: string, help: string): Gauge => new Gauge({ name, help, labelNames: ["drill"], registers });
    this.#drillPassed = ofDrill("tandem_drill_last_result", "1: the last drill of this name passed; 0: it failed.");
    this.#drillBlackoutSeconds = ofDrill(
      "tandem_drill_last_blackout_seconds",
      "The longest takeover of the last drill of this name.",
    );
    this.#drillAt = ofDrill("tandem_drill_last_timestamp_seconds", "When the last drill of this name ended.");
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The text that Prometheus scrapes. Rejects when the agent cannot be looked at. */
  scrape(): Promise<string> {
    this.#look = null;
    return this.#registry.metrics();
  }

  /** A takeover of before this agent was started: its counters begin at 0 all the same. */
  lastTakeover(report: TakeoverReport, timeMs: number): void {
    for (const step of takeoverSteps) this.#lastTakeoverStepSeconds.set({ step }, report.stepsMs[step] / 1e3);
    this.#lastTakeoverAt.set(timeMs / 1e3);
  }

  takeover(report: TakeoverReport, cause: TakeoverCause, timeMs: number): void {
    this.lastTakeover(report, timeMs);
    this.#takeovers.inc({ cause });
    this.#takeoverSessions.inc({ outcome: "restored" }, report.sessions);
    this.#takeoverSessions.inc({ outcome: "half-open" }, report.halfOpen);
    this.#takeoverSessions.inc({ outcome: "lost" }, report.lost.count);
    this.#takeoverSeconds.observe(report.totalMs / 1e3);
    for (const step of takeoverSteps) this.#takeoverStepSeconds.observe({ step }, report.stepsMs[step] / 1e3);
  }

  /** A session that the takeover could restore, and whose peer had the last word. */
  lost(): void {
    this.#takeoverSessions.inc({ outcome: "lost" });
  }

  /** A session that was older than its standby has become ready, so long after its join began. */
  joined(seconds: number): void {
    this.#joinSeconds.observe(seconds);
  }

  /** A drill was done on the pair, by way of this agent. */
  drill({ name, passed, blackoutMs }: DrillResult, timeMs: number): void {
    this.#drillPassed.set({ drill: name }, passed ? 1 : 0);
    this.#drillBlackoutSeconds.set({ drill: name }, blackoutMs / 1e3);
    this.#drillAt.set({ drill: name }, timeMs / 1e3);
  }

  #defineRole(): void {
    this.#gauge("tandem_router_info", "Always 1; which router of the pair this is.", ["router"], (set, { router }) =>
      set(1, { router }),
    );
    this.#gauge("tandem_role", "1 for the role this router has, 0 for the others.", ["role"], (set, look) => {
      for (const role of roles) set(role === look.role ? 1 : 0, { role });
    });
    this.#gauge("tandem_gate", "1 for the gate's mode, 0 for the others.", ["mode"], (set, { gate }) => {
      for (const mode of gates) set(mode === gate ? 1 : 0, { mode });
    });
    this.#gauge("tandem_voice", "1 while this router may speak for the services.", [], (set, look) =>
      set(speaks(look) ? 1 : 0),
    );
    this.#gauge("tandem_epoch", "Goes up with every change of who speaks.", [], (set, { epoch }) => set(epoch));
    this.#gauge(
      "tandem_duplicate_addresses",
      "Service addresses that somebody else was heard to answer for since this router has the voice.",
      [],
      (set, { duplicates }) => set(duplicates),
    );
    this.#gauge("tandem_paused", "1 while automatic takeover is paused by an operator.", [], (set, { paused }) =>
      set(paused === null ? 0 : 1),
    );
    this.#gauge("tandem_lease_seconds", "How long an active may be unheard.", [], (set, { leaseSeconds }) =>
      set(leaseSeconds),
    );
    this.#gauge(
      "tandem_lease_left_seconds",
      "What is left of the lease the active speaks by; no series where no lease bounds the voice.",
      [],
      (set, { leaseLeftSeconds }) => {
        if (leaseLeftSeconds !== null) set(leaseLeftSeconds);
      },
    );
    this.#gauge("tandem_arbiter_info", "Always 1; which arbiter the pair has.", ["kind"], (set, { arbiter }) =>
      set(1, { kind: arbiter.kind }),
    );
    this.#gauge("tandem_arbiter_reachable", "1 while the arbiter answers.", [], (set, { arbiter }) =>
      set(arbiter.reachable ? 1 : 0),
    );
    this.#gauge(
      "tandem_arbiter_lease_left_seconds",
      "For how long the arbiter's word still lets this router speak alone; no series where none bounds it.",
      [],
      (set, { arbiter }) => {
        if (arbiter.leaseMs !== null) set(arbiter.leaseMs / 1e3);
      },
    );
    this.#gauge("tandem_partner_heard", "1 while the partner is heard.", [], (set, { partner }) =>
      set(partner ? 1 : 0),
    );
    this.#gauge("tandem_partner_role", "1 for the role the partner says it has.", ["role"], (set, { partner }) => {
      for (const role of roles) set(role === partner?.role ? 1 : 0, { role });
    });
    this.#gauge("tandem_partner_agreed", "1 while both routers have one configuration.", [], (set, { agreed }) =>
      set(agreed ? 1 : 0),
    );
  }

  #defineHeartbeat(): void {
    this.#gauge("tandem_heartbeat_path_up", "1 while the path carries both ways.", ["path"], (set, { paths }) => {
      for (const [index, { up }] of paths.entries()) set(up ? 1 : 0, { path: pathNames[index] ?? String(index) });
    });
    this.#gauge(
      "tandem_heartbeat_round_trip_seconds",
      "Of the last heartbeat answered; no series before the first.",
      ["path"],
      (set, { paths }) => {
        for (const [index, { rttNs }] of paths.entries())
          if (rttNs > 0n) set(Number(rttNs) / 1e9, { path: pathNames[index] ?? String(index) });
      },
    );
    for (const member of ["sent", "received", "refused"] as const)
      this.#counter(`tandem_heartbeat_${member}_total`, `Heartbeats ${member}.`, ["path"], (set, { paths }) => {
        for (const [index, path] of paths.entries()) set(Number(path[member]), { path: pathNames[index] ?? "" });
      });
  }

  #defineSessions(): void {
    this.#gauge(
      "tandem_sessions",
      "Sessions the recorder holds; a takeover keeps those that are ready. The active records none.",
      ["state"],
      (set, look) => {
        for (const [state, count] of Object.entries(recordedSessions(look).counts)) set(count, { state });
      },
    );
    this.#gauge(
      "tandem_sessions_not_ready",
      "Sessions that are not ready, by reason; one may have several.",
      ["reason"],
      (set, look) => {
        const { notReady } = recordedSessions(look);
        for (const reason of Object.values(reasonNames)) set(notReady[reason] ?? 0, { reason });
      },
    );
    this.#gauge(
      "tandem_sessions_held",
      "Sessions that the active answers for because their application died (onCrash: hold).",
      [],
      (set, { held }) => set(held),
    );
    this.#counter("tandem_sessions_opened_total", "Sessions that began while recorded.", [], (set, { recorder }) =>
      set(recorder.counters.opened),
    );
    this.#counter("tandem_sessions_closed_total", "Recorded sessions that ended.", [], (set, { recorder }) =>
      set(recorder.counters.closed),
    );
  }

  #defineDataPlane(): void {
    const families = [
      ["segment", "tandem_segments", "tandem_segment_bytes", "Frames of protected sessions", ["stage", "direction"]],
      ["pass", "tandem_passed_frames", "tandem_passed_bytes", "Other frames that passed", ["reason"]],
      ["drop", "tandem_dropped_frames", "tandem_dropped_bytes", "Frames that were dropped", ["reason"]],
    ] as const;
    for (const [kind, frames, bytes, help, labels] of families)
      for (const [name, member] of [
        [`${frames}_total`, "packets"],
        [`${bytes}_total`, "bytes"],
      ] as const)
        this.#counter(
          name,
          `${help}, by ${labels.join(" and ")}: ${member === "packets" ? "frames" : member}.`,
          labels,
          (set, { counters }) => {
            const found = new Map(counters.map((counter) => [counter.reason, counter]));
            for (const reason of dataPlaneReasons)
              if (reason.kind === kind) set(Number(found.get(reason.number)?.[member] ?? 0n), reason.labels);
          },
        );
  }

  #defineRecorder(): void {
    this.#counter("tandem_recorder_records_total", "Records taken from the ring.", [], (set, { recorder }) =>
      set(recorder.counters.records),
    );
    this.#counter(
      "tandem_recorder_payload_bytes_total",
      "Payload bytes that were recorded, by direction.",
      ["direction"],
      (set, { recorder: { counters } }) => {
        set(counters.bytesIn, { direction: "in" });
        set(counters.bytesOut, { direction: "out" });
      },
    );
    this.#counter(
      "tandem_recorder_disbelieved_total",
      "Records the recorder did not believe, by reason.",
      ["reason"],
      (set, { recorder: { counters } }) => {
        const { refused, badChecksum, oldEpoch, strays, malformed } = counters;
        set(badChecksum, { reason: "bad-checksum" });
        set(oldEpoch, { reason: "old-epoch" });
        set(strays, { reason: "no-session" });
        set(malformed, { reason: "malformed" });
        for (const [reason, count] of Object.entries(refused))
          set(count, { reason: reason.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`) });
      },
    );
    this.#counter(
      "tandem_audit_breaches_total",
      "Sessions in which a byte passed that was not recorded. An alarm: it should never leave 0.",
      [],
      (set, { recorder }) => set(recorder.counters.auditBreaches),
    );
    this.#gauge("tandem_ring_size_bytes", "Size of the ring to the recorder.", [], (set, { recorder }) =>
      set(recorder.ring.size),
    );
    this.#gauge("tandem_ring_used_bytes", "Bytes that wait in the ring.", [], (set, { recorder }) =>
      set(recorder.ring.backlog),
    );
    this.#gauge("tandem_ring_highest_bytes", "The most that waited since recording began.", [], (set, { recorder }) =>
      set(recorder.ring.highest),
    );
    this.#gauge(
      "tandem_recorder_lag_seconds",
      "How long records waited in the ring: the most in the last seconds.",
      [],
      (set, { recorder }) => set(recorder.lagNs / 1e9),
    );
    this.#gauge(
      "tandem_resume_point_age_seconds",
      "How long the resume point that is behind for the longest has not moved.",
      [],
      (set, { recorder }) => set(recorder.resumePoint.oldestNs / 1e9),
    );
    this.#gauge(
      "tandem_resume_point_behind_bytes",
      "Input beyond the resume points, all sessions together.",
      [],
      (set, { recorder }) => set(recorder.resumePoint.behindBytes),
    );
    this.#gauge("tandem_recorder_memory_bytes", "What the recorded streams take.", [], (set, { recorder }) =>
      set(recorder.memory.used),
    );
    this.#gauge("tandem_recorder_memory_limit_bytes", "What they may take.", [], (set, { recorder }) =>
      set(recorder.memory.limit),
    );
  }

  #seen(): Promise<Observation> {
    this.#look ??= this.#observe();
    return this.#look;
  }

  #gauge(name: string, help: string, labelNames: readonly string[], fill: Fill): void {
    const seen = () => this.#seen();
    new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      async collect() {
        const look = await seen();
        this.reset();
        if (labelNames.length === 0) this.remove(); // reset leaves a 0
        fill((value, labels) => this.set(labels ?? {}, value), look);
      },
    });
  }

  /** The data plane and the recorder count; this only says it. */
  #counter(name: string, help: string, labelNames: readonly string[], fill: Fill): void {
    const seen = () => this.#seen();
    new Counter({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      async collect() {
        const look = await seen();
        this.reset();
        fill((value, labels) => this.inc(labels ?? {}, value), look);
      },
    });
  }
}

type Fill = (set: (value: number, labels?: Record<string, string>) => void, look: Observation) => void;
