// The active's agent and what the standby makes of its sockets: both come to know the same sessions again, whatever
// either of them missed.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { pino } from "pino";
import { ActiveSessions, type ActiveSessionsParts } from "../../src/agent/active-sessions.js";
import { StandbySessions } from "../../src/agent/standby-sessions.js";
import type { AppServer } from "../../src/app/server.js";
import { type Config, configSchema } from "../../src/config/schema.js";
import type { SocketSnapshot } from "../../src/net/snapshots.js";
import type { ControlMessage, ControlMessageOf } from "../../src/pair/messages.js";
import type { RecorderClient } from "../../src/recorder/client.js";
import type { SessionSummary } from "../../src/recorder/messages.js";
import { writeKey } from "../../src/session/flow-key.js";

const servicePort = 7000;
const keyOf = (peerPort: number): Uint8Array =>
  writeKey(4, Uint8Array.of(10, 0, 0, 1), servicePort, Uint8Array.of(10, 0, 0, 2), peerPort);
const nameOf = (peerPort: number): string => Buffer.from(keyOf(peerPort)).toString("hex");
const graceMs = 50;

/** Only its key and its options are looked at here. */
function socketOf(peerPort: number): SocketSnapshot {
  return { key: keyOf(peerPort), cookie: BigInt(peerPort), writeSeq: 5, sndNxt: 5, options: {} } as SocketSnapshot;
}

class Side {
  sockets: SocketSnapshot[] = [];
  private sent: ControlMessage[] = [];
  readonly sessions: ActiveSessions;

  constructor() {
    const never = (): never => assert.fail("not needed here");
    const parts: ActiveSessionsParts = {
      services: configSchema.shape.services.parse([{ name: "s", addresses: ["10.0.0.1"], port: servicePort }]),
      takeSnapshots: () => this.sockets,
      findOwners: never,
      borrowed: { with: never },
      native: { socketFacts: never, peekInput: never, tcpInfo: never, closeFd: never, closeAtOnce: never },
      applications: () => ({ standbyReady: never, ready: never, unready: never, progress: never }),
      send: (message) => {
        this.sent.push(message as ControlMessage);
        return true;
      },
      silence: never,
      onCrash: never,
      log: pino({ level: "silent" }),
    };
    this.sessions = new ActiveSessions(parts);
  }

  /** What is said in so many milliseconds. */
  said(ms: number): { shown: string[]; absent: string[] } {
    this.sent = [];
    for (let passed = 0; passed < ms; passed += graceMs) mock.timers.tick(graceMs);
    return {
      shown: this.sent.flatMap((message) =>
        message.type === "snapshots" ? message.entries.map(({ key }) => key) : [],
      ),
      absent: this.sent.flatMap((message) => (message.type === "absent" ? message.keys : [])),
    };
  }

  complete(...peerPorts: number[]): void {
    const entries = peerPorts.map((peerPort) => ({
      key: nameOf(peerPort),
      adoption: 1,
      input: true,
      output: true,
      needsFill: false,
    }));
    this.sessions.hear({ type: "joins", entries });
  }
}

function scene(t: { after: (fn: () => void) => void }): Side {
  mock.timers.enable({ apis: ["setTimeout"] });
  const side = new Side();
  side.sessions.begin(graceMs);
  t.after(() => {
    side.sessions.end("over");
    mock.timers.reset();
  });
  return side;
}

test("a socket is shown until its session is complete at the standby", (t) => {
  const side = scene(t);
  side.sockets = [socketOf(1)];
  assert.deepEqual(side.said(graceMs), { shown: [nameOf(1)], absent: [] });
  assert.equal(side.said(1000).shown.length, 10, "ten times a second");
});

test("sessions that are complete are shown again in turn: the standby may have lost one unheard", (t) => {
  const side = scene(t);
  const peerPorts = Array.from({ length: 100 }, (_, index) => index + 1);
  side.sockets = peerPorts.map(socketOf);
  side.said(graceMs);
  side.complete(...peerPorts);
  side.said(100);
  const seen = new Set<string>();
  for (let second = 0; second < 4; second++) {
    const { shown } = side.said(1000);
    assert.ok(shown.length > 0 && shown.length <= 32, `${shown.length} at a time`);
    for (const name of shown) seen.add(name);
  }
  assert.equal(seen.size, 100);
  // It did not know one: that is joined anew.
  side.sessions.hear({
    type: "joins",
    entries: [{ key: nameOf(7), adoption: 9, input: false, output: false, needsFill: false }],
  });
  side.said(1000);
  assert.deepEqual(new Set(side.said(500).shown), new Set([nameOf(7)]));
});

test("a session that the standby tells of and that has no socket is called absent, once", (t) => {
  const side = scene(t);
  side.sockets = [socketOf(1)];
  side.said(graceMs);
  side.complete(1);
  side.sessions.hear({
    type: "readiness",
    entries: [
      [nameOf(1), null],
      [nameOf(2), "joined-mid-stream"],
    ],
  });
  assert.deepEqual(side.sessions.readiness(), { total: 2, ready: 1, notReady: { "joined-mid-stream": 1 } });
  assert.deepEqual(side.said(1000).absent, [nameOf(2)]);
  assert.deepEqual(side.sessions.readiness(), { total: 1, ready: 1, notReady: {} });
  assert.deepEqual(side.said(2000).absent, []);
});

test("the number of an adoption is said again to an active that has not heard it, or has begun anew", () => {
  const said: ControlMessage[] = [];
  const told: string[] = [];
  const standby = new StandbySessions({
    config: {
      services: configSchema.shape.services.parse([{ name: "s", addresses: ["10.0.0.1"], port: 1 }]),
    } as Config,
    applications: () => ({ registrations: () => [] }) as unknown as AppServer,
    send: (message) => said.push(message as ControlMessage) > 0,
    leaked: () => {},
    log: pino({ level: "silent" }),
  });
  standby.use({ tell: ({ type }) => told.push(type) } as Partial<RecorderClient> as RecorderClient);
  const joinsSaid = (hear: () => void): ControlMessageOf<"joins">["entries"] => {
    said.length = 0;
    hear();
    return said.flatMap((message) => (message.type === "joins" ? message.entries : []));
  };
  const shown = (adoption: number) => () =>
    standby.hear(
      { type: "snapshots", parts: [], entries: [{ key: nameOf(1), adoption }] } as unknown as ControlMessage,
      [],
    );
  const summary = { id: 1, key: nameOf(1), service: 0, joined: true, ready: false, reasons: ["input-incomplete"] };
  const incomplete = { adoption: 9, input: false, output: true, needsFill: true };
  const first = joinsSaid(() =>
    standby.notice({
      type: "events",
      opened: [summary as SessionSummary],
      closed: [],
      readiness: [],
      joins: [{ id: 1, ...incomplete }],
      leaks: [],
    }),
  );
  const entry = { key: nameOf(1), ...incomplete };
  assert.deepEqual(first, [entry]);
  // The control channel may have ended under that: whoever shows the socket without the number is told again.
  assert.deepEqual(joinsSaid(shown(0)), [entry]);
  assert.deepEqual(joinsSaid(shown(8)), [entry]);
  assert.deepEqual(joinsSaid(shown(9)), [], "it knows");
  assert.deepEqual(told.filter((type) => type === "snapshot").length, 3, "each is a proof for the recorder");
});
