// Whether it is this router that is cut off on the uplink: what is asked when, and what counts. In the lab: links.test.ts.

import assert from "node:assert/strict";
import test from "node:test";
import { setImmediate as settle } from "node:timers/promises";
import { Deafness } from "../../src/agent/deafness.js";
import type { Neighbour } from "../../src/net/neighbours.js";

const [one, other]: Neighbour[] = [
  { uplink: 0, address: "10.77.0.10" },
  { uplink: 0, address: "fd77::10" },
];
assert.ok(one && other);

function scene() {
  const state = { suspicious: true, now: 0, known: [one, other] as Neighbour[], answers: false, rounds: 0 };
  const failures: unknown[] = [];
  const deafness = new Deafness({
    suspicious: () => state.suspicious,
    neighbours: async () => state.known,
    anyReachable: async () => {
      state.rounds++;
      return state.answers;
    },
    now: () => state.now,
    failed: (error) => failures.push(error),
  });
  const poll = async (milliseconds: number) => {
    state.now += milliseconds;
    deafness.poll();
    await settle();
    assert.deepEqual(failures, []);
    return deafness.deafTo;
  };
  return { state, poll };
}

test("an uplink path that is back soon is nobody's deafness", async () => {
  const { state, poll } = scene();
  await poll(0);
  await poll(900);
  state.suspicious = false;
  await poll(50);
  state.suspicious = true;
  await poll(900);
  await poll(900);
  assert.equal(state.rounds, 0);
});

test("deaf when none of the neighbours answers, and not any more when one does; those that vanished are asked again", async () => {
  const { state, poll } = scene();
  await poll(0);
  assert.deepEqual(await poll(1000), [one, other]);
  state.known = [];
  assert.deepEqual(await poll(100), [one, other]);
  assert.equal(state.rounds, 2);
  state.answers = true;
  assert.equal(await poll(100), null);
});

test("who is answered, or has nobody to ask, asks again after a while only", async () => {
  for (const known of [[one], []]) {
    const { state, poll } = scene();
    Object.assign(state, { known, answers: true });
    await poll(0);
    assert.equal(await poll(1000), null);
    const { rounds } = state;
    assert.equal(await poll(5000), null);
    assert.equal(state.rounds, rounds);
    Object.assign(state, { known: [one], answers: false });
    assert.deepEqual(await poll(6000), [one]);
  }
});
