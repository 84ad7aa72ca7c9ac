// The clock of joins: each join is told once, when its session is ready.

import assert from "node:assert/strict";
import { test } from "node:test";
import { JoinClock } from "../../src/observe/join-clock.js";
import type { RecorderNotice } from "../../src/recorder/client.js";
import { session } from "./looks.js";

type Events = Extract<RecorderNotice, { type: "events" }>;
const events = (part: Partial<Events>): Events => ({
  type: "events",
  opened: [],
  closed: [],
  readiness: [],
  joins: [],
  leaks: [],
  ...part,
});
const readiness = (id: number, ready: boolean, final = false) => ({
  id,
  ready,
  final,
  reasons: ready ? [] : ["memory"],
});

test("a join ends when its session is ready, once; sessions recorded from their start are none", () => {
  const told: number[] = [];
  const clock = new JoinClock((seconds) => told.push(seconds));
  const adopted = session(1, { joined: true, ready: false });
  clock.notice(events({ opened: [adopted, session(2, { ready: false })] }), 1000);
  clock.notice(events({ opened: [adopted] }), 1200); // its summary once more
  clock.notice(events({ readiness: [readiness(1, false), readiness(2, true)] }), 1300);
  assert.deepEqual(told, []);
  clock.notice(events({ readiness: [readiness(1, true)] }), 1500);
  clock.notice(events({ readiness: [readiness(1, false)] }), 1600);
  clock.notice(events({ readiness: [readiness(1, true)] }), 1700);
  assert.deepEqual(told, [0.5]);
});

test("a join that cannot end is forgotten: lost, closed, or recorded anew", () => {
  const told: number[] = [];
  const clock = new JoinClock((seconds) => told.push(seconds));
  const opened = [3, 4, 5].map((id) => session(id, { joined: true, ready: false }));
  clock.notice(events({ opened }), 0);
  clock.notice(events({ readiness: [readiness(3, false, true)], closed: [{ id: 4, cause: "closed" }] }), 10);
  clock.forgetAll();
  clock.notice(events({ readiness: [3, 4, 5].map((id) => readiness(id, true)) }), 20);
  assert.deepEqual(told, []);
});
