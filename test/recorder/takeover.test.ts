// The plan of a takeover: in_end, what the kernel is given, what the injector replays; and the kernel takes it.

import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { native } from "../../addon/native.js";
import type { RestoredNews } from "../../src/recorder/messages.js";
import { Preparation } from "../../src/recorder/preparation.js";
import { Recorder, recorderDefaults } from "../../src/recorder/recorder.js";
import { planHeld, rehearse, restoreSessions } from "../../src/recorder/restoration.js";
import { heldPlanSchema, packHeldPlan, unpackHeldPlan } from "../../src/session/held-plan.js";
import { injectorFrames, nextTimestamp, planTakeover } from "../../src/session/plan.js";
import { Reason, reasonList } from "../../src/session/reasons.js";
import { TCP_ACK, TCP_FIN } from "../../src/session/segment.js";
import { before, sequenceOf } from "../../src/session/sequence.js";
import type { ServiceMode, Session } from "../../src/session/session.js";
import { batchOf, Conversation, flowOf, keyOf, offer } from "./record-builder.js";

const MAC = new Uint8Array([2, 0, 0, 0, 0, 9]);

function start(mode: ServiceMode, options = offer, isns: { isnIn?: number; isnOut?: number } = {}, id = 1) {
  const recorder = new Recorder({ ...recorderDefaults, services: new Map([[1, mode]]) });
  recorder.attend(1, true);
  const talk = new Conversation(flowOf(id), isns);
  const feed = (...samples: Uint8Array[]) => {
    const batch = batchOf(samples);
    recorder.ingest(batch, batch.length);
    recorder.endDrain(2e9);
  };
  feed(...talk.handshake(options));
  const session = recorder.find(keyOf(talk.flow)) as Session;
  if (mode === "live") recorder.attachFeed(session);
  return { recorder, talk, session, feed };
}

const data = (length: number, salt = 0) => Uint8Array.from({ length }, (_, i) => (i * 41 + salt) & 255);

/** What tcp_repair_set_window (net/ipv4/tcp.c) demands. */
function assertWindow(restore: ReturnType<typeof planTakeover>["restore"]): void {
  const window = restore.window;
  assert.ok(window);
  const rcvNxt = (restore.rcvSeq + restore.received.length) >>> 0;
  assert.ok(window.maxWindow >= window.sndWnd);
  assert.ok(!before((rcvNxt + window.rcvWnd) >>> 0, window.sndWl1));
  assert.ok(!before(rcvNxt, window.rcvWup));
}

function frameFields(frame: Uint8Array) {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const l4 = 34;
  const payload = l4 + (view.getUint8(l4 + 12) >> 4) * 4;
  return {
    seq: view.getUint32(l4 + 4),
    ack: view.getUint32(l4 + 8),
    flags: view.getUint8(l4 + 13),
    payload: Buffer.from(frame.subarray(payload)),
    toUs: Buffer.from(frame.subarray(0, 6)).equals(MAC),
  };
}

/** The report, and what was told before it. */
function restoreAll(
  recorder: Recorder,
  restore: typeof native.restore,
  now: number,
  preparation: Preparation,
): ReturnType<typeof restoreSessions> & Pick<RestoredNews, "closed" | "ahead"> {
  const told: Pick<RestoredNews, "closed" | "ahead">[] = [];
  const report = restoreSessions(recorder, restore, now, preparation, (news) => told.push(news));
  const [news] = told;
  assert.ok(news && told.length === 1);
  return { ...report, ...news };
}

test("live: in_end is what was vouched for; the rest goes through the injector; output is sent again", () => {
  const { recorder, talk, session, feed } = start("live");
  const input = data(6000);
  const output = data(3000, 5);
  feed(
    talk.in({ at: 0, ack: 0, payload: input.subarray(0, 1000), timestamps: { value: 700, echo: 1000 } }),
    talk.out({
      at: 0,
      ack: 1000,
      payload: output.subarray(0, 1400),
      timestamps: { value: 1100, echo: 700 },
      window: 500,
    }),
    talk.out({
      at: 1400,
      ack: 1000,
      payload: output.subarray(1400),
      timestamps: { value: 1101, echo: 700 },
      window: 500,
    }),
    talk.in({ at: 1000, ack: 1400, payload: input.subarray(1000, 2400), timestamps: { value: 701, echo: 1101 } }),
    talk.in({ at: 3000, ack: 1400, payload: input.subarray(3000, 6000), timestamps: { value: 701, echo: 1101 } }),
  );
  recorder.finish(2e9);
  const plan = planTakeover(session, 2e9);
  assert.equal(plan.inputOffset, 1000);
  assert.equal(plan.outputOffset, 3000);
  assert.equal(plan.restore.rcvSeq, talk.seqIn(1000));
  assert.equal(plan.restore.received.length, 0);
  assert.equal(plan.restore.sndUna, talk.seqOut(1400));
  assert.deepEqual(Buffer.from(plan.restore.unacked), Buffer.from(output.subarray(1400)));
  assert.deepEqual([plan.restore.mss, plan.restore.sndWscale, plan.restore.rcvWscale], [1460, 7, 7]);
  assert.ok(before(1101, plan.restore.timestamp!));
  assert.equal(plan.restore.window!.rcvWnd, 65535 - 1000, "the SYN-ACK's window reached further than 500 × 128");
  assertWindow(plan.restore);
  const frames = injectorFrames(session, plan, MAC, MAC).map(frameFields);
  assert.deepEqual(
    { ...frames[0], payload: 0 },
    { seq: talk.seqIn(1000), ack: talk.seqOut(1400), flags: TCP_ACK, payload: 0, toUs: true },
  );
  const replayed = Buffer.alloc(6000);
  for (const { seq, payload } of frames) replayed.set(payload, (seq - talk.seqIn(0)) >>> 0);
  assert.deepEqual(replayed.subarray(1000, 2400), Buffer.from(input.subarray(1000, 2400)));
  assert.deepEqual(replayed.subarray(3000), Buffer.from(input.subarray(3000)));
  assert.equal(plan.unacked.segmentBytes, 1600);
});

test("delivered: what the application has not read is in the receive queue; clean only if all it wrote is recorded", () => {
  const { recorder, talk, session, feed } = start("delivered");
  const stamp = (copied: number, written: number) => ({
    copied: talk.seqIn(copied),
    written: talk.seqOut(written),
    received: talk.seqIn(900),
  });
  const input = data(1000);
  feed(
    talk.in({ at: 0, ack: 0, payload: input }),
    talk.out({ at: 0, ack: 900, payload: data(10), stamp: stamp(300, 10) }),
  );
  recorder.finish(2e9);
  let plan = planTakeover(session, 2e9);
  assert.equal(plan.restore.rcvSeq, talk.seqIn(300));
  assert.deepEqual(Buffer.from(plan.restore.received), Buffer.from(input.subarray(300, 900)));
  assert.equal(plan.clean, true);
  feed(talk.out({ at: 10, ack: 900, stamp: stamp(300, 50) }));
  recorder.finish(2e9);
  plan = planTakeover(session, 2e9);
  assert.equal(plan.clean, false);
  assertWindow(plan.restore);
});

test("a gap in the recorded output: the peer of a delivered session has to say what it holds, or could not say it", () => {
  const cases = [
    ["live", offer, "goes on"],
    ["delivered", offer, "is asked"],
    ["delivered", { ...offer, sack: false }, "is lost"],
  ] as const;
  for (const [mode, options, outcome] of cases) {
    const { recorder, talk, session, feed } = start(mode, options);
    feed(
      talk.in({ at: 0, ack: 0, payload: data(100) }),
      talk.out({ at: 0, ack: 100, payload: data(10) }),
      // Bytes 10 to 30 were lost on the mirror link.
      talk.out({ at: 30, ack: 100, payload: data(10) }),
    );
    recorder.finish(2e9);
    assert.equal(session.ready, true);
    const restore = (sessions: unknown[]) => sessions.map(() => ({ fd: -1 }));
    const { sessions, lost, ahead } = restoreAll(recorder, restore, 2e9, new Preparation(native));
    if (outcome === "is lost") {
      assert.deepEqual([sessions.length, lost.map(({ reasons }) => reasons)], [0, [["output-gap"]]]);
      continue;
    }
    const [taken] = sessions;
    assert.deepEqual([sessions.length, lost.length, taken?.outputOffset], [1, 0, 10]);
    assert.deepEqual(taken?.gap?.lost.reasons ?? null, outcome === "is asked" ? ["output-gap"] : null);
    assert.deepEqual(ahead, [{ key: session.key, seq: sequenceOf(40, session.firstOut) }]);
  }
});

test("FINs: one that was acknowledged is injected at the end; ours is named; a candidate is left to the kernel", () => {
  const { recorder, talk, session, feed } = start("live");
  feed(
    talk.in({ at: 0, ack: 0, payload: data(5), flags: TCP_ACK | TCP_FIN }),
    talk.out({ at: 0, ack: 6, payload: data(7), flags: TCP_ACK | TCP_FIN }),
  );
  recorder.finish(2e9);
  const plan = planTakeover(session, 2e9);
  assert.equal(plan.inputOffset, 5);
  assert.equal(plan.inputFin, true);
  assert.equal(plan.outputFin, true);
  assert.equal(plan.unacked.fin, true);
  assert.equal(plan.unacked.ack, talk.seqIn(6));
  assert.equal(plan.restore.unacked.length, 7);
  const last = injectorFrames(session, plan, MAC, MAC).map(frameFields).at(-1);
  assert.deepEqual([last?.seq, last?.flags], [talk.seqIn(5), TCP_ACK | TCP_FIN]);

  const open = start("live");
  open.feed(open.talk.in({ at: 0, ack: 0, payload: data(5), flags: TCP_ACK | TCP_FIN }));
  open.recorder.finish(2e9);
  const other = planTakeover(open.session, 2e9);
  assert.deepEqual([other.inputOffset, other.inputFin, other.finCandidate], [0, false, 5]);
});

test("differing candidates beyond in_end are dropped, within it they cost readiness", () => {
  for (const vouched of [0, 4]) {
    const { recorder, talk, session, feed } = start("live");
    feed(talk.in({ at: 0, ack: 0, payload: data(4) }), talk.in({ at: 0, ack: 0, payload: data(4, 1) }));
    feed(talk.out({ at: 0, ack: vouched }));
    recorder.finish(2e9);
    assert.equal(session.ready, vouched === 0);
    if (vouched === 0) assert.deepEqual(planTakeover(session, 2e9).candidates, []);
  }
});

test("the timestamp clock goes on ahead of the last value, in milliseconds and in microseconds", () => {
  for (const perMs of [1, 1000]) {
    const { talk, session, feed } = start("live", { ...offer, timestamps: { value: 0xffff_ff00, echo: 0 } });
    talk.clockNs = 1.5e9;
    const last = (0xffff_ff00 + 500 * perMs) >>> 0;
    feed(talk.out({ at: 0, ack: 0, timestamps: { value: last, echo: 1 } }));
    const step = (nextTimestamp(session, 1.6e9) - last) >>> 0;
    assert.ok(step >= 100 * perMs && step <= 100 * perMs + 1000, `${step}`);
  }
  const { session } = start("live");
  assert.ok((nextTimestamp(session, 1e18) - 1000) >>> 0 < 2 ** 31, "never so far that it seems to be behind");
});

test("property: whatever was recorded, the plan satisfies the kernel's rules", () => {
  const event = fc.record({
    out: fc.boolean(),
    at: fc.nat(3000),
    length: fc.nat(1400),
    ack: fc.nat(3000),
    window: fc.nat(65535),
    fin: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(event, { maxLength: 30 }),
      fc.constantFrom<ServiceMode>("live", "delivered"),
      (events, mode) => {
        const { recorder, talk, session, feed } = start(mode, offer, { isnIn: 0xffff_fa00, isnOut: 0xffff_f900 });
        const stream = data(5000);
        for (const { out, at, length, ack, window, fin } of events) {
          const payload = stream.subarray(at, at + length);
          const flags = TCP_ACK | (fin && at > 2500 ? TCP_FIN : 0);
          const known = Math.min(ack, out ? session.input.end : session.output.end);
          feed(
            out
              ? talk.out({ at, ack: known, payload, flags, window })
              : talk.in({ at, ack: known, payload, flags, window }),
          );
        }
        recorder.finish(2e9);
        assert.equal(recorder.counters.auditBreaches, 0);
        if (session.closedAt !== 0 || !session.tracked) return;
        const plan = planTakeover(session, 3e9);
        assertWindow(plan.restore);
        assert.equal((plan.restore.rcvSeq + plan.restore.received.length) >>> 0, talk.seqIn(plan.inputOffset));
        assert.equal((plan.restore.sndUna + plan.restore.unacked.length) >>> 0, talk.seqOut(plan.outputOffset));
        assert.deepEqual(
          Buffer.from(plan.restore.unacked),
          Buffer.from(stream.subarray(session.peerAck, plan.outputOffset)),
        );
        for (const { offset, bytes } of plan.candidates) {
          assert.ok(offset >= plan.inputOffset);
          assert.deepEqual(Buffer.from(bytes), Buffer.from(stream.subarray(offset, offset + bytes.length)));
        }
        injectorFrames(session, plan, MAC, MAC);
      },
    ),
    { numRuns: 300 },
  );
});

test("a rehearsal changes nothing, and passes over what has ended with its last words unacknowledged", () => {
  const { recorder, talk, session, feed } = start("delivered");
  feed(talk.in({ at: 0, ack: 0, payload: data(50) }), talk.out({ at: 0, ack: 50, payload: data(70) }));
  assert.equal(rehearse(session, MAC, 2e9), true);
  assert.deepEqual([session.inEnd, session.vouched, session.output.end], [-1, 50, 70]);
  recorder.socketEnded(keyOf(talk.flow), 0, null, 2e9);
  recorder.endDrain(3e9);
  assert.equal(session.state, "closed");
  assert.equal(rehearse(session, MAC, 3e9), false);
});

test("held by the active: the plan crosses the control channel unchanged, recording goes on, and a gap is refused", () => {
  const { talk, session, feed } = start("confirmed");
  const key = keyOf(talk.flow);
  const stamps = (value: number, echo: number) => ({ timestamps: { value, echo } });
  feed(
    talk.in({ at: 0, ack: 0, payload: data(500), ...stamps(700, 1000) }),
    talk.out({ at: 0, ack: 500, payload: data(900, 5), ...stamps(1100, 700) }),
    talk.in({ at: 500, ack: 300, payload: data(100, 7), ...stamps(701, 1100) }), // the active has not vouched for it
  );
  const plan = planHeld(session, 2e9);
  assert.ok(plan !== null && plan !== "ahead");
  const expected = planTakeover(session, 2e9, 500);
  assert.deepEqual(plan.restore, expected.restore);
  assert.deepEqual([plan.taken.inputOffset, plan.taken.received], [500, 500]);
  assert.deepEqual(plan.taken.unacked, expected.unacked);
  assert.equal(plan.frames.length, 1, "what was not vouched for is the peer's to send again");
  assert.deepEqual([session.inEnd, session.vouched, session.input.end], [-1, 500, 600]);

  const { plan: numbers, parts } = packHeldPlan(plan, data(20));
  const { state, ...arrived } = unpackHeldPlan(key, heldPlanSchema.parse(JSON.parse(JSON.stringify(numbers))), parts);
  assert.deepEqual(arrived, plan);
  assert.deepEqual(state, data(20));

  feed(talk.out({ at: 1000, ack: 600, payload: data(50) })); // 900 to 1000 were lost on the mirror link
  assert.equal(planHeld(session, 2e9), "ahead");
  const { recorder, session: unattended } = start("delivered");
  recorder.attend(1, false);
  assert.notEqual(planHeld(unattended, 2e9), null, "its application is back on the other router");
  unattended.giveUp(Reason.Urgent);
  assert.equal(planHeld(unattended, 2e9), null);
});

test("the kernel restores what is ready and half-open; the rest is named with its reason and numbers", (context) => {
  if (process.getuid?.() !== 0) return context.skip("needs root (TCP_REPAIR)");
  const recorder = new Recorder({
    ...recorderDefaults,
    services: new Map([
      [1, "live"],
      [2, "delivered"],
    ]),
  });
  recorder.attend(2, true);
  // Loopback addresses: in repair mode nothing is sent, so nobody has to be there.
  const talkTo = (port: number, service: number) => {
    const flow = { ...flowOf(port, 4, service), localPort: 50_000 + (process.pid % 5000), peerPort: port };
    flow.localIp = Uint8Array.from({ length: 16 }, (_, i) => [127, 0, 0, 1][i] ?? 0);
    flow.peerIp = Uint8Array.from({ length: 16 }, (_, i) => [127, 77, 0, 2][i] ?? 0);
    return new Conversation(flow);
  };
  const [ready, halfOpen, midStream, unattended, closed] = [1, 2, 3, 4, 5].map((port) =>
    talkTo(port, port === 4 ? 1 : 2),
  ) as [Conversation, Conversation, Conversation, Conversation, Conversation];
  const batch = batchOf([
    ...ready.handshake(),
    ready.in({ at: 0, ack: 0, payload: data(100) }),
    ready.out({ at: 0, ack: 100, payload: data(3000) }),
    halfOpen.syn(),
    halfOpen.synAck(),
    midStream.out({ at: 0, ack: 0, payload: data(10) }),
    ...unattended.handshake(),
    ...closed.handshake(),
    closed.in({ at: 0, ack: 0, flags: TCP_ACK | TCP_FIN }),
    closed.out({ at: 0, ack: 1, flags: TCP_ACK | TCP_FIN }),
    closed.in({ at: 1, ack: 1 }),
  ]);
  recorder.ingest(batch, batch.length);
  recorder.finish(2e9);
  const report = restoreAll(recorder, native.restore, 2e9, new Preparation(native));
  try {
    const ports = (entries: { key: Uint8Array }[]) => entries.map(({ key }) => (key[34]! << 8) | key[35]!).sort();
    assert.deepEqual(
      report.lost.map(({ detail }) => detail),
      ["", ""],
    );
    assert.deepEqual(ports(report.sessions), [1, 2]);
    assert.deepEqual(ports(report.lost), [3, 4]);
    assert.deepEqual(ports(report.closed), [5]);
    const restored = report.sessions.find(({ synAck }) => synAck === null)!;
    assert.equal(native.outQueue(restored.fd).unacked, 3000);
    assert.equal(restored.received, 100);
    assert.deepEqual(
      report.restored.map(({ session }) => session.id),
      [restored.id],
      "the injector has nothing to say to a half-open session",
    );
    const lost = report.lost.find(({ reasons }) => reasons.includes("joined-mid-stream"))!;
    assert.deepEqual(lost.reset, {
      seqs: [midStream.seqOut(0), midStream.seqOut(10)],
      ack: midStream.seqIn(0),
      md5: null,
    });
    const waiting = recorder.find(keyOf(unattended.flow))!;
    assert.deepEqual(reasonList(waiting.reasons), ["no-application"]);
  } finally {
    for (const { fd } of report.sessions) native.closeFd(fd);
  }
});

test("restored in advance: a session that has not changed keeps its socket, one that has is restored anew", (context) => {
  if (process.getuid?.() !== 0) return context.skip("needs root (TCP_REPAIR)");
  const recorder = new Recorder({ ...recorderDefaults, services: new Map([[1, "delivered"]]) });
  recorder.attend(1, true);
  const talks = [11, 12, 13].map((port) => {
    const flow = { ...flowOf(port), localPort: 50_000 + (process.pid % 5000), peerPort: port };
    flow.localIp = Uint8Array.from({ length: 16 }, (_, i) => [127, 0, 0, 1][i] ?? 0);
    flow.peerIp = Uint8Array.from({ length: 16 }, (_, i) => [127, 77, 0, 3][i] ?? 0);
    return new Conversation(flow);
  }) as [Conversation, Conversation, Conversation];
  const feed = (...samples: Uint8Array[]) => {
    const batch = batchOf(samples);
    recorder.ingest(batch, batch.length);
    recorder.endDrain(2e9);
  };
  for (const talk of talks) feed(...talk.handshake(), talk.out({ at: 0, ack: 0, payload: data(200) }));
  const closed: number[] = [];
  const made: number[] = [];
  const preparation = new Preparation({
    restore: (sessions) => {
      const results = native.restore(sessions);
      for (const result of results) if ("fd" in result) made.push(result.fd);
      return results;
    },
    closeFd: (fd) => {
      closed.push(fd);
      native.closeFd(fd);
    },
  });
  preparation.begin(recorder, 2e9);
  while (preparation.step(2e9));
  assert.equal(made.length, 3);
  // The first one goes on, the second one is over.
  feed(talks[0].in({ at: 0, ack: 200, payload: data(10) }), talks[0].out({ at: 200, ack: 10, payload: data(7) }));
  recorder.socketEnded(keyOf(talks[1].flow), 0, null, 2e9);
  recorder.finish(3e9);
  const report = restoreAll(recorder, native.restore, 2.1e9, preparation);
  try {
    assert.equal(report.prepared, 1);
    assert.deepEqual(
      report.sessions.map(({ id }) => id).sort(),
      [talks[0], talks[2]].map(({ flow }) => recorder.find(keyOf(flow))!.id).sort(),
    );
    const [first, last] = [talks[0], talks[2]].map(({ flow }) =>
      report.sessions.find(({ id }) => id === recorder.find(keyOf(flow))!.id),
    );
    assert.equal(native.outQueue(first!.fd).unacked, 7, "what the peer has acknowledged meanwhile is not in its queue");
    assert.equal(native.outQueue(last!.fd).unacked, 200);
    assert.ok(made.includes(last!.fd) && !closed.includes(last!.fd));
    assert.equal(closed.length, 2, "the others are closed, or their successors could not be made");
  } finally {
    for (const { fd } of report.sessions) native.closeFd(fd);
  }
});

test("restored in advance: not again while it is still good, and not kept for long", () => {
  const { recorder } = start("delivered");
  const open = new Set<number>();
  let next = 100;
  const preparation = new Preparation({
    restore: (sessions) =>
      sessions.map(() => {
        open.add(++next);
        return { fd: next };
      }),
    closeFd: (fd) => open.delete(fd),
  });
  const advance = (now: number) => {
    preparation.begin(recorder, now);
    while (preparation.step(now));
    return [...open];
  };
  assert.deepEqual(advance(10e9), [101]);
  assert.deepEqual(advance(10.1e9), [101], "it is still good");
  while (preparation.step(10.7e9));
  assert.deepEqual([...open], []);
  assert.deepEqual(advance(11e9), [102]);
  preparation.discard();
  assert.equal(open.size, 0);
});
