// The recorder against whole conversations: what it believes, what it does not, and what it says of readiness.

import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { TD_VERDICT_FIN_CRASH, TD_VERDICT_FIN_MEANT } from "../../src/abi.gen.js";
import { Recorder, type RecorderOptions, recorderDefaults } from "../../src/recorder/recorder.js";
import { reasonList } from "../../src/session/reasons.js";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_URG } from "../../src/session/segment.js";
import type { Session } from "../../src/session/session.js";
import { batchOf, buildSample, Conversation, flowOf, keyOf, offer } from "./record-builder.js";

const LIVE = 1;
const DELIVERED = 2;

function recorderOf(options: Partial<RecorderOptions> = {}): Recorder {
  const recorder = new Recorder({
    ...recorderDefaults,
    services: new Map([
      [LIVE, "live"],
      [DELIVERED, "delivered"],
    ]),
    ...options,
  });
  recorder.attend(DELIVERED, true);
  return recorder;
}

function feed(recorder: Recorder, samples: Uint8Array[], now = 1e9): void {
  const batch = batchOf(samples);
  recorder.ingest(batch, batch.length);
  recorder.endDrain(now);
}

function sessionOf(recorder: Recorder, conversation: Conversation): Session {
  const session = recorder.find(keyOf(conversation.flow));
  assert.ok(session);
  return session;
}

function started(
  service = DELIVERED,
  options: Partial<RecorderOptions> = {},
  isns: { isnIn?: number; isnOut?: number } = {},
): { recorder: Recorder; talk: Conversation; session: Session } {
  const recorder = recorderOf(options);
  const talk = new Conversation(flowOf(1, 4, service), isns);
  feed(recorder, talk.handshake());
  return { recorder, talk, session: sessionOf(recorder, talk) };
}

function bytes(length: number, salt = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 37 + (i >> 8) + salt) & 255);
}

const text = (views: Uint8Array[]) => Buffer.concat(views).toString();
const ascii = (value: string) => new Uint8Array(Buffer.from(value));

test("a session begins with the SYN that the SYN-ACK answers, and is ready at the ACK", () => {
  const recorder = recorderOf();
  const talk = new Conversation(flowOf(1, 6, DELIVERED));
  feed(recorder, [
    talk.syn({ ...offer, wscale: 3 }, { seq: 77 }), // another ISN: not the one answered
    talk.syn({ ...offer, wscale: 5, mss: 1400 }),
    talk.synAck({ ...offer, wscale: 8 }),
  ]);
  const session = sessionOf(recorder, talk);
  assert.equal(session.state, "half-open");
  assert.deepEqual(reasonList(session.reasons), ["half-open"]);
  assert.ok(session.synAck);
  feed(recorder, [talk.in({ at: 0, ack: 0 })]);
  assert.equal(session.state, "established");
  assert.equal(session.ready, true);
  assert.deepEqual(session.scales, { peer: 5, own: 8 });
  assert.equal(session.peerOptions?.mss, 1400);
  assert.deepEqual(recorder.takeEvents().opened, [session]);
});

test("two SYNs with one ISN and different options: ambiguous handshake", () => {
  const recorder = recorderOf();
  const talk = new Conversation(flowOf(1, 4, DELIVERED));
  feed(recorder, [talk.syn(), talk.syn({ ...offer, wscale: 1 }), talk.synAck(), talk.in({ at: 0, ack: 0 })]);
  assert.deepEqual(reasonList(sessionOf(recorder, talk).reasons), ["ambiguous-handshake"]);
});

test("active open: the ACK we send picks the SYN-ACK", () => {
  const recorder = recorderOf();
  const talk = new Conversation(flowOf(1, 4, DELIVERED));
  const syn = buildSample(talk.flow, { out: true, seq: talk.isnOut, ack: 0, flags: 2, options: offer });
  const answer = (isn: number, wscale: number) =>
    buildSample(talk.flow, { out: false, seq: isn, ack: talk.seqOut(0), flags: 18, options: { ...offer, wscale } });
  feed(recorder, [syn, answer(1, 1), answer(talk.isnIn, 6)]);
  const session = sessionOf(recorder, talk);
  assert.equal(session.state, "half-open");
  feed(recorder, [talk.out({ at: 0, ack: 0 }), talk.in({ at: 0, ack: 0, payload: ascii("hello") })]);
  assert.equal(session.ready, true);
  assert.equal(session.scales?.peer, 6);
  assert.equal(text(session.input.read(0, 5)), "hello");
});

test("property: any order, duplication, overlap and re-segmentation gives both streams, also over the wrap", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6000 }),
      fc.array(fc.tuple(fc.nat(6000), fc.integer({ min: 1, max: 1460 }), fc.boolean()), { maxLength: 40 }),
      fc.integer({ min: -7000, max: 0 }),
      fc.integer({ min: -7000, max: 0 }),
      (length, cuts, nearWrapIn, nearWrapOut) => {
        const { recorder, talk, session } = started(LIVE, {}, { isnIn: nearWrapIn >>> 0, isnOut: nearWrapOut >>> 0 });
        const input = bytes(length);
        const output = bytes(length, 99);
        recorder.attachFeed(session);
        const got: Uint8Array[] = [];
        const take = () => {
          const views = recorder.takeFeed(session, 1000).map((view) => Uint8Array.from(view));
          got.push(...views);
          recorder.fed(
            session,
            views.reduce((sum, view) => sum + view.length, 0),
          );
        };
        for (const [at, size, out] of cuts) {
          const from = Math.min(at, length - 1);
          const to = Math.min(length, from + size);
          const { vouched, peerAck } = session;
          feed(recorder, [
            out
              ? talk.out({ at: from, ack: vouched, payload: output.subarray(from, to) })
              : talk.in({ at: from, ack: peerAck, payload: input.subarray(from, to) }),
            // The active and the peer acknowledge what they have in order.
            ...(out ? [] : [talk.out({ at: session.output.end, ack: session.input.end })]),
          ]);
          feed(recorder, [
            talk.out({ at: session.output.end, ack: session.input.end }),
            talk.in({ at: session.input.end, ack: session.output.end }),
          ]);
          assert.ok(session.output.end === session.peerAck && session.vouched === session.input.end);
          take();
        }
        feed(recorder, [
          talk.in({ at: 0, ack: session.peerAck, payload: input.subarray(0, Math.min(length, 60_000)) }),
          talk.out({ at: 0, ack: session.vouched, payload: output }),
        ]);
        feed(recorder, [talk.out({ at: length, ack: length })]);
        while (session.fed < length) take();
        assert.deepEqual(Buffer.concat(got), Buffer.from(input));
        assert.equal(session.output.end, length);
        assert.deepEqual(
          Buffer.from(session.output.copy(session.peerAck, length)),
          Buffer.from(output.subarray(session.peerAck)),
        );
        assert.equal(session.ready, true, reasonList(session.reasons).join());
        assert.equal(recorder.counters.auditBreaches, 0);
      },
    ),
    { numRuns: 150 },
  );
});

test("input counts only once the active vouches for it: by an ACK, or by a stamp", () => {
  const { recorder, talk, session } = started(LIVE);
  assert.deepEqual(reasonList(session.reasons), ["no-application"]);
  assert.equal(recorder.attachFeed(session), true);
  assert.equal(session.ready, true);
  feed(recorder, [talk.in({ at: 0, ack: 0, payload: ascii("abcdef") })]);
  assert.equal(text(recorder.takeFeed(session, 100)), "");
  feed(recorder, [talk.out({ at: 0, ack: 3 })]);
  assert.equal(text(recorder.takeFeed(session, 100)), "abc");
  const stamp = { copied: talk.seqIn(0), written: talk.seqOut(0), received: talk.seqIn(6) };
  feed(recorder, [talk.out({ at: 0, ack: 3, stamp })]);
  assert.equal(text(recorder.takeFeed(session, 100)), "abcdef");
  recorder.fed(session, 6);
  assert.equal(session.input.base, 6);
});

test("what TCP rejects is not believed: checksum, RST, SYN, out of window, PAWS, impossible ACKs", () => {
  const { recorder, talk, session } = started(LIVE);
  recorder.attachFeed(session);
  const ts = { value: 5000, echo: 1 };
  feed(recorder, [
    talk.in({ at: 0, ack: 0, payload: ascii("good"), timestamps: { value: 50, echo: 9 } }),
    talk.out({ at: 0, ack: 4, payload: ascii("answer"), timestamps: { value: 10, echo: 50 }, window: 100 }),
  ]);
  const before = { end: session.input.end, peerAck: session.peerAck };
  const evil = ascii("evil");
  feed(recorder, [
    talk.in({ at: 4, ack: 0, payload: evil, timestamps: ts, checksumOk: false }),
    talk.in({ at: 4, ack: 0, payload: evil, flags: TCP_RST | TCP_ACK }),
    talk.in({ at: 4, ack: 0, flags: TCP_RST }),
    talk.syn(offer, { seq: 123_456 }),
    talk.in({ at: 4, ack: 0, payload: evil, flags: 0 }),
    talk.in({ at: 2_000_000, ack: 0, payload: evil, timestamps: ts }),
    talk.in({ at: 4, ack: 0, payload: evil, timestamps: { value: 48, echo: 9 } }),
    talk.in({ at: 4, ack: 1_000_000_000, payload: evil, timestamps: ts }),
    talk.in({ at: 4, ack: -200_000_000, payload: evil, timestamps: ts }),
    talk.in({ at: -1, ack: 6, payload: ascii("x"), timestamps: ts }), // a keepalive; only answered
  ]);
  assert.deepEqual({ end: session.input.end, peerAck: session.peerAck }, before);
  assert.deepEqual(recorder.counters.refused, {
    outOfWindow: 2,
    oldTimestamp: 1,
    ackTooOld: 1,
    ackBeyondOutput: 1,
    noAck: 1,
    resets: 2,
  });
  assert.equal(recorder.counters.badChecksum, 1);
  assert.equal(session.ready, true);
  feed(recorder, [talk.in({ at: 4, ack: 6, payload: ascii("more"), timestamps: ts })]);
  feed(recorder, [talk.out({ at: 6, ack: 8, timestamps: { value: 11, echo: 5000 } })], 5e9);
  assert.equal(text(recorder.takeFeed(session, 100)), "goodmore");
  assert.equal(session.ready, true);
});

test("two copies that differ: ambiguous until the resume point passes; vouched-for bytes are safe from late forgeries", () => {
  const { recorder, talk, session } = started(DELIVERED);
  feed(recorder, [
    talk.in({ at: 0, ack: 0, payload: ascii("abcd") }),
    talk.out({ at: 0, ack: 4 }),
    talk.in({ at: 0, ack: 0, payload: ascii("XXXXefgh") }),
  ]);
  assert.equal(session.ready, true, "the forged part was vouched for before");
  feed(recorder, [talk.in({ at: 4, ack: 0, payload: ascii("eFgh") })]);
  assert.deepEqual(reasonList(session.reasons), ["ambiguous-input"]);
  const stamp = (copied: number) => ({ copied: talk.seqIn(copied), written: talk.seqOut(0), received: talk.seqIn(8) });
  feed(recorder, [talk.out({ at: 0, ack: 8, stamp: stamp(5) })]);
  assert.equal(session.ready, false);
  feed(recorder, [talk.out({ at: 0, ack: 8, stamp: stamp(6) })]);
  assert.equal(session.ready, true);
});

test("a live feed stops before ambiguous bytes", () => {
  const { recorder, talk, session } = started(LIVE);
  recorder.attachFeed(session);
  feed(recorder, [
    talk.in({ at: 0, ack: 0, payload: ascii("abcd") }),
    talk.in({ at: 0, ack: 0, payload: ascii("abXd") }),
    talk.out({ at: 0, ack: 4 }),
  ]);
  assert.equal(text(recorder.takeFeed(session, 100)), "ab");
  assert.equal(session.ready, false);
});

test("half-closed either way, then closed: kept for a while with what to answer, then forgotten", () => {
  for (const peerFirst of [true, false]) {
    const { recorder, talk, session } = started(DELIVERED);
    const finIn = [
      talk.in({ at: 0, ack: 0, payload: ascii("bye"), flags: TCP_ACK | TCP_FIN }),
      talk.out({ at: 0, ack: 4 }),
    ];
    if (peerFirst) {
      feed(recorder, finIn);
      assert.equal(session.state, "peer-finished");
      feed(recorder, [talk.out({ at: 0, ack: 4, payload: ascii("data"), flags: TCP_ACK | TCP_FIN })]);
      assert.equal(session.state, "closing");
      feed(recorder, [talk.in({ at: 4, ack: 5 })]);
    } else {
      feed(recorder, [talk.out({ at: 0, ack: 0, payload: ascii("data"), flags: TCP_ACK | TCP_FIN })]);
      feed(recorder, [talk.in({ at: 0, ack: 5 })]);
      assert.equal(session.state, "active-finished");
      assert.equal(session.finOutAcked, true);
      feed(recorder, [
        talk.in({ at: 0, ack: 5, payload: ascii("bye"), flags: TCP_ACK | TCP_FIN }),
        talk.out({ at: 5, ack: 4 }),
      ]);
    }
    assert.equal(session.state, "closed");
    assert.deepEqual(recorder.closedEntry(session), { ack: talk.seqIn(4), seq: talk.seqOut(5) });
    assert.equal(recorder.budget.used, 0);
    recorder.endDrain(50e9);
    assert.ok(recorder.get(session.id));
    recorder.endDrain(62e9);
    assert.equal(recorder.get(session.id), undefined);
    assert.deepEqual(recorder.counts, { sessions: 0, halfOpen: 0, closed: 0 });
  }
});

test("a FIN is a candidate until it is acknowledged; a forged one gives way to data", () => {
  const { recorder, talk, session } = started(LIVE);
  recorder.attachFeed(session);
  feed(recorder, [talk.in({ at: 0, ack: 0, flags: TCP_ACK | TCP_FIN })]); // forged: the active never has it
  assert.equal(session.finIn, -1);
  feed(recorder, [talk.in({ at: 0, ack: 0, payload: ascii("abc") }), talk.out({ at: 0, ack: 1 })]);
  assert.equal(session.finIn, -1);
  assert.equal(text(recorder.takeFeed(session, 9)), "a");
  feed(recorder, [talk.in({ at: 3, ack: 0, flags: TCP_ACK | TCP_FIN }), talk.out({ at: 0, ack: 4 })]);
  assert.equal(session.finIn, 3);
  assert.equal(text(recorder.takeFeed(session, 9)), "abc");
  feed(recorder, [talk.in({ at: 3, ack: 0, payload: ascii("zzz") })]);
  assert.equal(session.input.end, 3, "nothing follows a FIN");
});

test("a session that only a last segment made known ends when the active has no such socket; a recorded one does not", () => {
  const { recorder, talk, session } = started(DELIVERED);
  const late = new Conversation(flowOf(2, 4, DELIVERED));
  feed(recorder, [late.out({ at: 500, ack: 700, flags: TCP_ACK | TCP_FIN })]);
  assert.deepEqual(reasonList(sessionOf(recorder, late).reasons), ["joined-mid-stream"]);
  for (const { flow } of [late, talk]) recorder.absent(keyOf(flow), 2e9);
  assert.equal(sessionOf(recorder, late).state, "closed");
  assert.equal(session.state, "established");
  feed(recorder, [late.out({ at: 500, ack: 700, flags: TCP_ACK | TCP_FIN })], 3e9);
  assert.equal(sessionOf(recorder, late).state, "closed", "nor does the same segment, sent again, open one");
});

test("a session ends when the active's socket does; not by a crash, not by another incarnation's end", () => {
  const { recorder, talk, session } = started(DELIVERED);
  const key = keyOf(talk.flow);
  recorder.socketEnded(key, TD_VERDICT_FIN_CRASH, null, 2e9);
  recorder.socketEnded(key, TD_VERDICT_FIN_MEANT, talk.seqIn(4_000_000), 2e9);
  recorder.endDrain(4e9);
  assert.equal(session.state, "established");
  recorder.socketEnded(key, TD_VERDICT_FIN_MEANT, talk.seqIn(0), 4e9);
  recorder.endDrain(4.1e9);
  assert.equal(session.state, "established", "records of it may still be on their way");
  recorder.endDrain(5e9);
  assert.equal(session.state, "closed");
  assert.equal(recorder.closedEntry(session), null);
  assert.deepEqual(
    recorder.takeEvents().closed.map(({ cause }) => cause),
    ["socket-ended"],
  );
});

test("a new incarnation begins with the active's SYN-ACK, never with a SYN", () => {
  const { recorder, talk, session } = started(DELIVERED);
  const next = new Conversation(talk.flow, { isnIn: 1, isnOut: 2 });
  feed(recorder, [next.syn()]);
  assert.equal(sessionOf(recorder, talk), session);
  feed(recorder, [talk.synAck()]); // the old one's, late: no new incarnation
  assert.equal(sessionOf(recorder, talk), session);
  feed(recorder, [next.synAck(), next.in({ at: 0, ack: 0, payload: ascii("new") }), next.out({ at: 0, ack: 3 })]);
  const second = sessionOf(recorder, talk);
  assert.notEqual(second, session);
  assert.equal(session.state, "closed");
  assert.equal(second.ready, true);
  assert.equal(second.vouched, 3);
});

test("a flow that got a new id is the same session", () => {
  const { recorder, talk, session } = started(DELIVERED);
  const renamed = new Conversation({ ...flowOf(1, 4, DELIVERED), flow: 4242 });
  feed(recorder, [renamed.in({ at: 0, ack: 0, payload: ascii("abc") }), talk.out({ at: 0, ack: 3 })]);
  assert.equal(session.vouched, 3);
  assert.equal(recorder.counts.sessions, 1);
});

test("a restored socket echoes timestamp 0 until it hears its peer: the peer is believed all the same", () => {
  const { recorder, talk, session } = started(DELIVERED);
  const value = 0xc000_0000; // before 0, by the arithmetic of timestamps
  feed(recorder, [
    talk.in({ at: 0, ack: 0, payload: ascii("question"), timestamps: { value, echo: 9 } }),
    talk.out({ at: 0, ack: 8, payload: ascii("answer"), timestamps: { value: 10, echo: value } }),
    talk.out({ at: -1, ack: 8, timestamps: { value: 11, echo: 0 } }), // its window probe
    talk.in({ at: 8, ack: 6, payload: ascii("more"), timestamps: { value: value + 5, echo: 11 } }),
    talk.out({ at: 6, ack: 12, timestamps: { value: 12, echo: value + 5 } }),
  ]);
  assert.equal(recorder.counters.refused.oldTimestamp, 0);
  assert.deepEqual(reasonList(session.reasons), []);
  assert.equal(session.input.end, 12);
});

test("audit: an ACK by the active beyond recorded input is a breach", () => {
  const { recorder, talk, session } = started(DELIVERED);
  feed(recorder, [talk.in({ at: 0, ack: 0, payload: bytes(10) }), talk.out({ at: 0, ack: 11 })]);
  assert.deepEqual(reasonList(session.reasons), ["audit-breach"]);
  assert.equal(recorder.counters.auditBreaches, 1);
  assert.deepEqual(recorder.takeEvents().leaks, [session]);
  assert.equal(session.leak, "the active has input up to 11, and recorded is up to 10");
  assert.equal(recorder.budget.used, 0);
  recorder.endDrain(9e9);
  assert.equal(recorder.counters.auditBreaches, 1, "counted once");
});

test("audit: the peer's ACK beyond recorded output is a breach once the active shows it sent that", () => {
  const { recorder, talk, session } = started(DELIVERED);
  feed(recorder, [talk.out({ at: 0, ack: 0, payload: bytes(10) }), talk.in({ at: 0, ack: 20 })]);
  assert.equal(session.peerAck, 0);
  assert.equal(session.ready, true, "it may be forged");
  feed(recorder, [talk.out({ at: 20, ack: 0, payload: bytes(10) })]);
  assert.deepEqual(reasonList(session.reasons), ["audit-breach"]);

  const forged = started(DELIVERED);
  feed(forged.recorder, [
    forged.talk.out({ at: 0, ack: 0, payload: bytes(10) }),
    forged.talk.in({ at: 0, ack: 20 }),
    forged.talk.out({ at: 10, ack: 0 }), // the challenge ACK: SND.NXT is 10
  ]);
  forged.recorder.endDrain(30e9);
  assert.equal(forged.session.ready, true);

  const silent = started(DELIVERED);
  feed(silent.recorder, [silent.talk.in({ at: 0, ack: 20 })]);
  silent.recorder.endDrain(30e9);
  assert.deepEqual(reasonList(silent.session.reasons), ["audit-breach"], "nothing of the active comes past any more");
});

test("audit: a frame of an older epoch is a breach", () => {
  const { recorder, talk, session } = started(DELIVERED);
  feed(recorder, [talk.out({ at: 0, ack: 0, epoch: 2 })]);
  assert.equal(session.ready, true);
  feed(recorder, [talk.out({ at: 0, ack: 0, epoch: 1 })]);
  assert.equal(recorder.counters.oldEpoch, 1);
  assert.deepEqual(reasonList(session.reasons), ["audit-breach"]);
});

test("memory: past the bound of a session or of all, that session is not ready and its buffers are free", () => {
  const one = started(DELIVERED, { sessionBytes: 5000 });
  for (let at = 0; at < 8000; at += 1000)
    feed(one.recorder, [one.talk.in({ at, ack: 0, payload: bytes(1000) }), one.talk.out({ at: 0, ack: at + 1000 })]);
  assert.deepEqual(reasonList(one.session.reasons), ["memory"]);
  assert.equal(one.recorder.budget.used, 0);
  assert.equal(one.recorder.counters.auditBreaches, 0);

  const recorder = recorderOf({ totalBytes: 64 * 1024 });
  for (let id = 1; id <= 100; id++) {
    const talk = new Conversation(flowOf(id, 4, DELIVERED));
    feed(recorder, [
      ...talk.handshake(),
      talk.in({ at: 0, ack: 0, payload: bytes(1000) }),
      talk.out({ at: 0, ack: 1000 }),
    ]);
  }
  assert.ok(recorder.budget.used <= 64 * 1024);
  const ready = [...recorder.sessions()].filter((session) => session.ready).length;
  assert.ok(ready > 0 && ready < 100);
  assert.equal(recorder.counts.sessions, 100);
});

test("an idle session gives its buffers back", () => {
  const { recorder, talk, session } = started(LIVE);
  recorder.attachFeed(session);
  feed(recorder, [talk.in({ at: 0, ack: 0, payload: bytes(1000) }), talk.out({ at: 0, ack: 1000 })]);
  recorder.fed(session, 1000);
  assert.ok(recorder.budget.used > 0);
  recorder.endDrain(10e9);
  assert.equal(recorder.budget.used, 0);
});

test("a SYN flood, answered or not, stays within its limit and hurts no established session", () => {
  const { recorder, talk, session } = started(DELIVERED, { halfOpenLimit: 50 });
  for (let id = 2; id < 1000; id++) {
    const flood = new Conversation(flowOf(id, 4, DELIVERED), { isnIn: id * 7919 });
    feed(recorder, id % 2 ? [flood.syn()] : [flood.syn(), flood.synAck()]);
  }
  assert.ok(recorder.counts.halfOpen <= 50);
  assert.ok(recorder.counts.sessions <= 51);
  feed(recorder, [talk.in({ at: 0, ack: 0, payload: ascii("ok") }), talk.out({ at: 0, ack: 2 })]);
  assert.equal(session.vouched, 2);
  recorder.endDrain(100e9);
  assert.deepEqual(recorder.counts, { sessions: 1, halfOpen: 0, closed: 0 });
});

test("not ready, with the reason: mid-stream, MPTCP, urgent data, Fast Open, MD5, no recorded SYN", () => {
  const reasonsOf = (samples: (talk: Conversation) => Uint8Array[]) => {
    const recorder = recorderOf();
    const talk = new Conversation(flowOf(1, 4, DELIVERED));
    feed(recorder, samples(talk));
    return reasonList(sessionOf(recorder, talk).reasons);
  };
  const ack = (talk: Conversation) => talk.in({ at: 0, ack: 0 });
  // encodeTcpOptions has no need to make these, so the bytes are patched in where the timestamps were.
  const patch = (sample: Uint8Array, option: number[]) => {
    const at = Buffer.from(sample).indexOf(Buffer.from([4, 2, 8, 10]));
    sample.set([...option, ...new Array(12 - option.length).fill(1)], at);
    return sample;
  };
  const plain = { ...offer };
  const mptcp = [30, 12, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  assert.deepEqual(
    reasonsOf((talk) => [talk.out({ at: 500, ack: 700, payload: bytes(9) })]),
    ["joined-mid-stream"],
  );
  assert.deepEqual(
    reasonsOf((talk) => [patch(talk.syn(plain), mptcp), patch(talk.synAck(plain), mptcp), ack(talk)]),
    ["mptcp"],
  );
  assert.deepEqual(
    reasonsOf((talk) => [patch(talk.syn(plain), mptcp), talk.synAck(), ack(talk)]),
    [],
    "the active declined it",
  );
  assert.deepEqual(
    reasonsOf((talk) => [...talk.handshake(), talk.in({ at: 0, ack: 0, payload: bytes(3), flags: TCP_ACK | TCP_URG })]),
    ["urgent"],
  );
  const data = { payload: ascii("early") };
  assert.deepEqual(
    reasonsOf((talk) => [talk.syn(offer, data), talk.synAck(offer, { ack: talk.seqIn(5) }), ack(talk)]),
    ["fast-open"],
  );
  assert.deepEqual(
    reasonsOf((talk) => [talk.syn(offer, data), talk.synAck(), ack(talk)]),
    [],
    "the active declined the data",
  );
  assert.deepEqual(
    reasonsOf((talk) => [patch(talk.syn(plain), [19, 6, 0, 0, 0, 0]), talk.synAck(), ack(talk)]),
    ["authenticated"],
  );
  assert.deepEqual(
    reasonsOf((talk) => [talk.synAck(), ack(talk)]),
    ["handshake-broken"],
  );
});

test("an unknown peer's segments make no session", () => {
  const recorder = recorderOf();
  for (let id = 1; id < 100; id++)
    feed(recorder, [new Conversation(flowOf(id)).in({ at: 5, ack: 5, payload: bytes(9) })]);
  assert.equal(recorder.counts.sessions, 0);
  assert.equal(recorder.counters.strays, 99);
});

test("an application that leaves and one that comes late: only what is complete from the start is offered", () => {
  const { recorder, talk, session } = started(LIVE);
  feed(recorder, [talk.in({ at: 0, ack: 0, payload: ascii("abc") }), talk.out({ at: 0, ack: 3 })]);
  assert.equal(recorder.attachFeed(session), true);
  recorder.detachFeed(session);
  assert.deepEqual(reasonList(session.reasons), ["no-application"]);
  assert.equal(recorder.attachFeed(session), true, "nothing was let go of yet");
  recorder.fed(session, 2);
  recorder.detachFeed(session);
  assert.deepEqual(reasonList(session.reasons), ["no-application", "feed-lost"]);
  assert.equal(recorder.attachFeed(session), false);
});

test("malformed batches are counted, never read out of bounds", () => {
  const talk = new Conversation(flowOf(1));
  const good = batchOf([...talk.handshake(), talk.in({ at: 0, ack: 0, payload: bytes(50) })]);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 12 }),
      fc.nat(good.length),
      (changes, length) => {
        const batch = Uint8Array.from(good);
        for (const [at, value] of changes) batch[at] = value;
        const recorder = recorderOf();
        recorder.ingest(batch, length);
        recorder.endDrain(3e9);
        recorder.finish(4e9);
      },
    ),
    { numRuns: 1000 },
  );
});
