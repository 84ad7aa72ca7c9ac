// The metrics: names and units as Prometheus wants them, every series there from the start, and no series a peer.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import * as abi from "../../src/abi.gen.js";
import { classifyReason, Metrics } from "../../src/observe/metrics.js";
import type { Observation } from "../../src/observe/observation.js";
import { roles } from "../../src/observe/observation.js";
import { takeoverCauses } from "../../src/role/role.js";
import { reasonNames } from "../../src/session/reasons.js";
import { takeoverSteps } from "../../src/takeover/takeover.js";
import { programNamed } from "./browser.js";
import { look, report } from "./looks.js";

async function scrape(seen: Observation = look(), prepare: (metrics: Metrics) => void = () => {}) {
  const metrics = new Metrics({ version: "1.2.3", observe: async () => seen });
  prepare(metrics);
  const text = await metrics.scrape();
  const values = new Map<string, number>();
  for (const line of text.split("\n")) {
    const [, series, value] = /^([a-z_]+(?:\{.*\})?) (\S+)$/.exec(line) ?? [];
    if (series !== undefined) values.set(series, Number(value));
  }
  return { text, values };
}

test("what was seen is what is said, in base units", async () => {
  const { values } = await scrape();
  const expected: Record<string, number> = {
    'tandem_build_info{version="1.2.3",abi="1"}': 1,
    'tandem_router_info{router="b"}': 1,
    'tandem_role{role="standby"}': 1,
    'tandem_role{role="active"}': 0,
    tandem_voice: 0,
    tandem_epoch: 7,
    tandem_paused: 0,
    tandem_lease_seconds: 0.05,
    'tandem_partner_role{role="active"}': 1,
    'tandem_heartbeat_path_up{path="mirror"}': 1,
    'tandem_heartbeat_path_up{path="uplink"}': 0,
    'tandem_heartbeat_round_trip_seconds{path="mirror"}': 80e-6,
    'tandem_heartbeat_refused_total{path="uplink"}': 1,
    'tandem_sessions{state="ready"}': 1,
    'tandem_sessions{state="not-ready"}': 1,
    'tandem_sessions_not_ready{reason="memory"}': 1,
    'tandem_sessions_not_ready{reason="urgent"}': 0,
    'tandem_segments_total{stage="recorded",direction="in"}': 5,
    'tandem_segment_bytes_total{stage="recorded",direction="in"}': 500,
    'tandem_segments_total{stage="solo",direction="out"}': 0,
    'tandem_dropped_frames_total{reason="ring-full"}': 3,
    'tandem_dropped_frames_total{reason="cookie"}': 0,
    'tandem_passed_frames_total{reason="transit"}': 2,
    'tandem_recorder_disbelieved_total{reason="out-of-window"}': 4,
    'tandem_recorder_payload_bytes_total{direction="out"}': 2000,
    tandem_recorder_lag_seconds: 0.002,
    tandem_resume_point_age_seconds: 1.5,
    tandem_resume_point_behind_bytes: 567,
    tandem_ring_used_bytes: 1 << 20,
    tandem_ring_highest_bytes: 1 << 22,
    tandem_audit_breaches_total: 0,
  };
  assert.deepEqual(Object.fromEntries(Object.keys(expected).map((series) => [series, values.get(series)])), expected);
});

test("each role, reason, cause and step has its series before anything happened", async () => {
  const { values } = await scrape();
  const sum = (name: string) => [...values].filter(([series]) => series.startsWith(`${name}{`));
  assert.equal(sum("tandem_role").length, roles.length);
  assert.equal(
    sum("tandem_role").reduce((total, [, value]) => total + value, 0),
    1,
  );
  for (const reason of Object.values(reasonNames))
    assert.ok(values.has(`tandem_sessions_not_ready{reason="${reason}"}`));
  for (const cause of Object.keys(takeoverCauses))
    assert.equal(values.get(`tandem_takeovers_total{cause="${cause}"}`), 0);
  for (const step of takeoverSteps) assert.equal(values.get(`tandem_takeover_step_seconds_count{step="${step}"}`), 0);
});

test("every reason of the data plane is in exactly one family", () => {
  const classified = Object.values(abi.td_reason_names).filter((name) => classifyReason(name) !== null);
  assert.deepEqual(
    Object.values(abi.td_reason_names).filter((name) => !classified.includes(name)),
    ["TD_REASON_MAX"],
  );
  const labels = classified.map((name) => JSON.stringify(classifyReason(name)));
  assert.equal(new Set(labels).size, labels.length);
});

test("no lease, no round trip: no series, instead of a zero that looks like one", async () => {
  const { values } = await scrape();
  assert.ok(!values.has("tandem_lease_left_seconds"));
  assert.ok(!values.has('tandem_heartbeat_round_trip_seconds{path="uplink"}'));
  const active = await scrape(look({ role: "active", gate: "reflect", leaseLeftSeconds: 0.04 }));
  assert.equal(active.values.get("tandem_lease_left_seconds"), 0.04);
  assert.equal(active.values.get("tandem_voice"), 1);
  const mute = await scrape(look({ role: "active", gate: "reflect", leaseLeftSeconds: -0.1 }));
  assert.equal(mute.values.get("tandem_voice"), 0);
});

test("once it has the voice, what a router recorded before is not counted", async () => {
  const { values } = await scrape(look({ role: "solo", gate: "solo" }));
  assert.equal(values.get('tandem_sessions{state="ready"}'), 0);
  assert.equal(values.get('tandem_sessions_not_ready{reason="memory"}'), 0);
});

test("takeovers and joins are counted, by cause, step and outcome", async () => {
  const { values } = await scrape(look(), (metrics) => {
    metrics.takeover(report, "lease", 1_700_000_000_000);
    metrics.joined(0.3);
  });
  assert.equal(values.get('tandem_takeovers_total{cause="lease"}'), 1);
  assert.equal(values.get('tandem_takeovers_total{cause="switchover"}'), 0);
  assert.equal(values.get('tandem_takeover_sessions_total{outcome="lost"}'), 2);
  assert.equal(values.get('tandem_takeover_step_seconds_sum{step="restore"}'), 0.003);
  assert.equal(values.get('tandem_takeover_step_seconds_bucket{le="0.0025",step="restore"}'), 0);
  assert.equal(values.get('tandem_takeover_step_seconds_bucket{le="0.005",step="restore"}'), 1);
  assert.equal(values.get('tandem_last_takeover_step_seconds{step="detect"}'), 0.05);
  assert.equal(values.get("tandem_last_takeover_timestamp_seconds"), 1_700_000_000);
  assert.equal(values.get("tandem_join_seconds_count"), 1);
});

test("the number of series does not depend on the number of sessions", async () => {
  const few = await scrape();
  const many = look();
  many.recorder.counts = { sessions: 10_000, halfOpen: 5, closed: 5, ready: 9_000 };
  assert.equal((await scrape(many)).values.size, few.values.size);
  assert.ok(few.values.size < 500, `${few.values.size} series`);
});

test("agents in one process do not share metrics, and one scrape looks once", async () => {
  let looks = 0;
  const observe = async () => {
    looks++;
    return look();
  };
  const [one, other] = [new Metrics({ version: "1", observe }), new Metrics({ version: "1", observe })];
  one.takeover(report, "lease", 0);
  assert.match(await one.scrape(), /^tandem_takeovers_total\{cause="lease"\} 1$/m);
  assert.equal(looks, 1);
  assert.match(await other.scrape(), /^tandem_takeovers_total\{cause="lease"\} 0$/m);
});

test("an agent that cannot be looked at gives no metrics, rather than old ones", async () => {
  const metrics = new Metrics({ version: "1", observe: () => Promise.reject(new Error("the recorder thread ended")) });
  await assert.rejects(metrics.scrape(), /the recorder thread ended/);
});

const promtool = programNamed("promtool");
test("promtool finds nothing to object to", { skip: promtool ? false : "needs promtool" }, async () => {
  const { text } = await scrape(look(), (metrics) => metrics.takeover(report, "lease", 0));
  // Node's own metrics have names of their own making.
  const own = text
    .split("\n")
    .filter((line) => /^(# (HELP|TYPE) )?tandem_/.test(line))
    .join("\n");
  const { status, stdout, stderr } = spawnSync(promtool ?? "", ["check", "metrics"], {
    input: `${own}\n`,
    encoding: "utf8",
  });
  assert.equal(status, 0, stdout + stderr);
});
