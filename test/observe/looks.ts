// Looks at an agent that never was, for tests of what is made of them.

import * as abi from "../../src/abi.gen.js";
import type { Observation } from "../../src/observe/observation.js";
import type { SessionSummary } from "../../src/recorder/messages.js";
import type { TakeoverReport } from "../../src/takeover/takeover.js";

export function session(id: number, over: Partial<SessionSummary> = {}): SessionSummary {
  return {
    id,
    key: "00".repeat(abi.sizes.td_flow_key),
    service: 0,
    family: 4,
    localIp: "10.77.0.1",
    localPort: 8080,
    peerIp: "10.77.0.10",
    peerPort: 40_000 + id,
    mode: "live",
    state: "established",
    ready: true,
    reasons: [],
    fromStart: true,
    joined: false,
    resume: { inputOffset: 0, outputOffset: 0, source: "start" },
    inputEnd: 1_234_567,
    inputRecorded: 1_234_567,
    outputEnd: 2000,
    peerAck: 1000,
    fed: 1_234_000,
    resumePoint: 1_234_000,
    firstSequence: { input: 1, output: 2 },
    since: 0,
    memory: 4096,
    ...over,
  };
}

/** A standby that is well, with one session ready and one not. */
export function look(over: Partial<Observation> = {}): Observation {
  return {
    timeMs: Date.UTC(2026, 0, 2, 3, 4, 5),
    router: "b",
    services: ["web"],
    role: "standby",
    reason: "Both configurations agree.",
    epoch: 7,
    paused: null,
    gate: "fenced",
    leaseSeconds: 0.05,
    leaseLeftSeconds: null,
    partner: { role: "active", epoch: 7 },
    arbiter: { kind: "etcd", reachable: true, leaseMs: 4000, lastAnswer: "It can be reached." },
    agreed: true,
    paths: [
      { up: true, lastHeardNs: 1n, rttNs: 80_000n, sent: 10n, received: 9n, refused: 0n },
      { up: false, lastHeardNs: 0n, rttNs: 0n, sent: 10n, received: 0n, refused: 1n },
    ],
    counters: [
      { reason: abi.TD_PASS_RECORDED_IN, packets: 5n, bytes: 500n },
      { reason: abi.TD_DROP_RING_FULL, packets: 3n, bytes: 300n },
      { reason: abi.TD_PASS_TRANSIT, packets: 2n, bytes: 200n },
    ],
    recorder: {
      type: "status",
      request: 1,
      counters: {
        records: 100,
        bytesIn: 1000,
        bytesOut: 2000,
        badChecksum: 1,
        oldEpoch: 0,
        strays: 0,
        refused: { outOfWindow: 4, oldTimestamp: 0, ackTooOld: 0, ackBeyondOutput: 0, noAck: 0, resets: 0 },
        auditBreaches: 0,
        halfOpenEvicted: 0,
        opened: 2,
        closed: 0,
        malformed: 0,
      },
      counts: { sessions: 2, halfOpen: 0, closed: 0, ready: 1 },
      notReady: { memory: 1 },
      memory: { used: 1 << 20, limit: 1 << 30 },
      ring: { backlog: 1 << 20, size: 1 << 24, highest: 1 << 22 },
      lagNs: 2_000_000,
      resumePoint: { behindBytes: 567, oldestNs: 1_500_000_000 },
      sessions: [session(1), session(2, { ready: false, reasons: ["memory"] })],
    },
    atStandby: { ready: 0, notReady: 0 },
    duplicates: 0,
    held: 0,
    ...over,
  };
}

export const report: TakeoverReport = {
  cause: "The active's lease has run out",
  epoch: 9,
  stepsMs: { detect: 50, fence: 0.3, drain: 0.1, restore: 3, announce: 0.4, release: 0.7, nudge: 0.5 },
  totalMs: 55,
  sessions: 12,
  halfOpen: 1,
  lost: { count: 2, reasons: { memory: 2 } },
  prepared: 2,
  nudged: 3,
  handedOver: 12,
};
