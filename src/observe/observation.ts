// What metrics, health and status page are made of: one look at the agent.

import type { PulseSnapshot } from "../../addon/native.js";
import type { RouterName } from "../config/schema.js";
import type { Counter } from "../net/dataplane.js";
import type { RecorderStatus, SessionSummary } from "../recorder/messages.js";
import type { ArbiterStatus } from "../role/arbiters/arbiter.js";
import type { Mode, Role } from "../role/role.js";

export const roles: readonly Role[] = ["fenced", "joining", "standby", "active", "solo"];
export const gates: readonly Mode[] = ["fenced", "reflect", "solo", "yield"];
/** The heartbeat's paths, by index. */
export const pathNames = ["mirror", "uplink"] as const;

export interface Observation {
  /** Milliseconds since the epoch of Unix. */
  timeMs: number;
  router: RouterName;
  /** Names of the services by their number. */
  services: string[];
  role: Role;
  /** One sentence: why it has this role. */
  reason: string;
  epoch: number;
  /** Why an operator has paused automatic takeover; null: he has not. */
  paused: string | null;
  gate: Mode;
  /** The configured lease. */
  leaseSeconds: number;
  /** What is left of the lease that lets this router speak, negative when it has run out; null: no lease bounds it. */
  leaseLeftSeconds: number | null;
  partner: { role: Role; epoch: number } | null;
  arbiter: ArbiterStatus;
  /** Both routers have the same configuration and version. */
  agreed: boolean;
  paths: PulseSnapshot["paths"];
  /** Service addresses that somebody else answers for, too. */
  duplicates: number;
  counters: Counter[];
  recorder: RecorderStatus;
  /** The active's: sessions as its standby says it holds them. */
  atStandby: { ready: number; notReady: number };
  /** The active's: sessions that it answers for because their application died. */
  held: number;
}

/** The data plane lets the service's segments out. */
export function speaks({ gate, leaseLeftSeconds }: Pick<Observation, "gate" | "leaseLeftSeconds">): boolean {
  return gate === "solo" || (gate === "reflect" && (leaseLeftSeconds ?? 0) > 0);
}

export interface RecordedSessions {
  counts: Record<"ready" | "not-ready" | "half-open" | "closed", number>;
  /** By reason; a session may have several. */
  notReady: Record<string, number>;
  /** Not all of them: as many as were asked for. */
  sessions: SessionSummary[];
}

const nothingRecorded: RecordedSessions = {
  counts: { ready: 0, "not-ready": 0, "half-open": 0, closed: 0 },
  notReady: {},
  sessions: [],
};

/** Established sessions by whether a takeover would keep them, and those around them. Once this router has the voice,
 * what its recorder still holds is the past, and counts as nothing. */
export function recordedSessions({ role, recorder }: Pick<Observation, "role" | "recorder">): RecordedSessions {
  if (role !== "standby" && role !== "joining") return nothingRecorded;
  const { sessions, halfOpen, closed, ready } = recorder.counts;
  const notReady = Math.max(0, sessions - halfOpen - closed - ready);
  return {
    counts: { ready, "not-ready": notReady, "half-open": halfOpen, closed },
    notReady: recorder.notReady,
    sessions: recorder.sessions,
  };
}
