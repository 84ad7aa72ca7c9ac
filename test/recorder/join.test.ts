// Joins, hand-overs, confirms and logged output against a model of the active: whatever the order of segments, snapshots
// and messages, no session is ready while a byte that a takeover needs is missing, and what is planned is the truth.

import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Recorder, recorderDefaults } from "../../src/recorder/recorder.js";
import { anchorOf, type SnapshotEntry } from "../../src/session/join.js";
import type { JoinSnapshot } from "../../src/session/join-snapshot.js";
import { planTakeover } from "../../src/session/plan.js";
import { Reason, reasonList } from "../../src/session/reasons.js";

import { TCP_ACK, TCP_FIN } from "../../src/session/segment.js";
import type { ServiceMode, Session } from "../../src/session/session.js";
import { batchOf, Conversation, flowOf, keyOf, offer } from "./record-builder.js";

const SERVICE = 1;
const byteIn = (offset: number): number => (offset * 37 + (offset >> 7)) & 255;
const byteOut = (offset: number): number => (offset * 59 + (offset >> 6) + 3) & 255;
const slice = (byte: (offset: number) => number, from: number, to: number): Uint8Array =>
  Uint8Array.from({ length: Math.max(0, to - from) }, (_, i) => byte(from + i));
const inputs = (from: number, to: number) => slice(byteIn, from, to);
const outputs = (from: number, to: number) => slice(byteOut, from, to);

function assertBytes(got: Uint8Array, truth: Uint8Array, what: string): void {
  assert.ok(Buffer.compare(got, truth) === 0, `${what}: ${got.length} bytes for ${truth.length}, or others`);
}

/** Both ends of one session, the path between them, and the two agents' channel; offsets are stream offsets. */
class World {
  readonly recorder: Recorder;
  readonly talk: Conversation;
  readonly key: Uint8Array;
  readonly base: { input: number; output: number };
  now = 1e9;
  // The peer.
  peerSent: number;
  peerAcked: number;
  peerReceived: number;
  // The active: its TCP, and its application.
  received: number;
  early: { from: number; to: number }[] = [];
  copied: number;
  acked: number;
  sent: number;
  written: number;
  processed: { input: number; output: number };
  knownAdoption = 0;
  knownRecorded = 0;
  asked = false;
  logging = false;
  forged = false;
  // On its way.
  ring: Uint8Array[] = [];
  channel: (() => void)[] = [];
  // What the standby's agent has stored.
  stored: { inputOffset: number; outputOffset: number } | null = null;
  promised = 0;
  feed: number[] | null = null;
  feedStart = 0;
  readyOnce = false;

  constructor(
    readonly mode: ServiceMode,
    readonly fromSyn: boolean,
    wrap: boolean,
  ) {
    this.recorder = new Recorder({ ...recorderDefaults, services: new Map([[SERVICE, mode]]) });
    const start = fromSyn ? { input: 0, output: 0 } : { input: 9000, output: 7000 };
    this.base = fromSyn ? { input: 0, output: 0 } : { input: 4000, output: 6500 };
    const isns = wrap ? { isnIn: (-start.input - 900) >>> 0, isnOut: (-start.output - 700) >>> 0 } : {};
    this.talk = new Conversation(flowOf(7, 4, SERVICE), isns);
    this.key = keyOf(this.talk.flow);
    this.peerSent = this.peerAcked = this.received = this.copied = start.input;
    this.peerReceived = this.acked = this.sent = this.written = start.output;
    this.processed = { ...start };
    if (fromSyn) {
      this.ring.push(...this.talk.handshake());
      this.drain();
      this.stored = { inputOffset: 0, outputOffset: 0 };
      if (mode === "live" && this.session && this.recorder.attachFeed(this.session)) this.feed = [];
    }
  }

  get session(): Session | undefined {
    return this.recorder.find(this.key);
  }

  drain(): void {
    const batch = batchOf(this.ring);
    this.ring = [];
    this.recorder.ingest(batch, batch.length);
    this.recorder.endDrain(this.now);
    this.listen();
  }

  /** The standby's agent hears the recorder, and the active's agent hears it. */
  listen(): void {
    for (const session of this.recorder.takeEvents().joins) this.knownAdoption = session.adoption;
    const { session } = this;
    if (!session) return;
    this.knownRecorded = Math.max(this.knownRecorded, session.tracked && session.outputProven ? session.output.end : 0);
    this.asked = session.held;
    if (!session.tracked) {
      this.feed = null;
      this.promised = 0;
    }
    this.check();
  }

  peerSends(again: boolean, size: number, fate: Fate, recorded: boolean, where = 0): void {
    const from = again ? this.peerAcked + Math.floor((this.peerSent - this.peerAcked) * where) : this.peerSent;
    const to = again ? Math.min(from + size, this.peerSent) : from + size;
    this.peerSent = Math.max(this.peerSent, to);
    if (fate === "lost before") return;
    if (recorded) this.ring.push(this.talk.in({ at: from, ack: this.peerReceived, payload: inputs(from, to) }));
    if (fate === "lost after") return;
    this.acked = Math.max(this.acked, this.peerReceived);
    this.early.push({ from, to });
    for (let moved = true; moved; ) {
      moved = false;
      for (const piece of this.early)
        if (piece.from <= this.received && piece.to > this.received) {
          this.received = piece.to;
          moved = true;
        }
    }
    this.early = this.early.filter((piece) => piece.from > this.received);
  }

  /** In the window or a little below, never taken by the active. */
  forges(ahead: number, size: number): void {
    const from = this.received + ahead;
    const payload = inputs(from, from + size).map((byte) => byte ^ 0x55);
    this.forged = true;
    this.ring.push(this.talk.in({ at: from, ack: this.peerReceived, payload }));
  }

  activeSends(again: boolean, size: number, fate: Fate, recorded: boolean, where = 0): void {
    const from = again ? this.acked + Math.floor((this.sent - this.acked) * where) : this.sent;
    const to = Math.min(from + size, again ? this.sent : this.written);
    this.sent = Math.max(this.sent, to);
    if (fate === "lost before") return;
    const { talk } = this;
    const stamp = {
      copied: talk.seqIn(this.copied),
      written: talk.seqOut(this.written),
      received: talk.seqIn(this.received),
    };
    if (recorded) this.ring.push(this.talk.out({ at: from, ack: this.received, payload: outputs(from, to), stamp }));
    if (fate === "lost after") return;
    this.peerAcked = Math.max(this.peerAcked, this.received);
    if (from <= this.peerReceived) this.peerReceived = Math.max(this.peerReceived, to);
  }

  snapshot(): JoinSnapshot {
    const { talk } = this;
    return {
      bytesReceived: this.received - this.base.input,
      bytesAcked: this.acked - this.base.output,
      rcvNxt: talk.seqIn(this.received),
      copiedSeq: talk.seqIn(this.copied),
      sndUna: talk.seqOut(this.acked),
      sndNxt: talk.seqOut(this.sent),
      writeSeq: talk.seqOut(this.written),
      rcvWup: talk.seqIn(this.received),
      rcvWnd: 65535 * 128,
      sndWnd: 65535 * 128,
      sndWl1: talk.seqIn(this.received),
      maxWindow: 65535 * 128,
      tsRecent: 0,
      tsval: 0,
      mss: 1460,
      state: "established",
      sndWscale: 7,
      rcvWscale: 7,
      flags: {
        sack: true,
        timestamps: false,
        wscale: true,
        outOfOrder: this.early.length > 0,
        urgent: false,
        finReceived: false,
        finSent: false,
        finAcked: false,
        mptcp: false,
        md5: false,
      },
      options: {} as JoinSnapshot["options"],
    };
  }

  takesSnapshot(): void {
    const entry: SnapshotEntry = {
      key: this.key,
      service: SERVICE,
      passive: true,
      base: this.base,
      adoption: this.knownAdoption,
      snapshot: this.snapshot(),
    };
    this.channel.push(() => this.recorder.snapshot(entry, this.now));
  }

  fills(): void {
    const { copied, received } = this;
    this.channel.push(() => this.recorder.fill(this.key, this.talk.seqIn(copied), inputs(copied, received)));
  }

  tellsCopied(): void {
    const seq = this.talk.seqIn(this.copied);
    this.channel.push(() => this.recorder.copied(this.key, seq));
  }

  /** The application stands at a point of its own choosing that is not behind an earlier one. */
  handsOver(back: number): void {
    if (!this.asked) return;
    const inputOffset = Math.max(this.processed.input, this.copied - back);
    const outputOffset = Math.max(this.processed.output, this.written - back);
    this.processed = { input: inputOffset, output: outputOffset };
    const outputStart = Math.min(this.knownRecorded, outputOffset);
    const handover = {
      inputOffset,
      outputOffset,
      input: inputs(inputOffset, this.copied),
      outputStart,
      output: outputs(outputStart, this.written),
    };
    this.channel.push(() => {
      const { session } = this;
      if (!session || this.recorder.handover(session, handover) !== null) return;
      this.stored = { inputOffset, outputOffset };
      if (this.mode !== "live") return;
      assert.ok(this.recorder.attachFeed(session));
      this.feed = [];
      this.feedStart = inputOffset;
    });
  }

  confirms(back: number): void {
    if (this.mode !== "confirmed" || this.logging) return;
    const inputOffset = Math.max(this.processed.input, this.copied - back);
    const outputOffset = Math.max(this.processed.output, this.written - back);
    this.processed = { input: inputOffset, output: outputOffset };
    const outputStart = this.knownRecorded;
    const confirm = { inputOffset, outputOffset, outputStart, output: outputs(outputStart, this.written) };
    this.channel.push(() => {
      const { session } = this;
      if (!session) return;
      const counts = session.tracked && !session.awaitsHandover;
      this.recorder.confirm(session, confirm);
      if (counts) this.stored = { inputOffset, outputOffset };
    });
  }

  logs(size: number): void {
    if (this.logging) return;
    this.logging = true;
    const outputStart = this.knownRecorded;
    const end = this.written + size;
    const output = outputs(outputStart, end);
    this.channel.push(() => {
      const { session } = this;
      if (session?.ready) {
        this.recorder.log(session, outputStart, output);
        this.promised = end;
      }
      this.written = end;
      this.logging = false;
    });
  }

  feeds(size: number): void {
    const { session } = this;
    if (!session || this.feed === null) return;
    let bytes = 0;
    for (const view of this.recorder.takeFeed(session, size)) {
      this.feed.push(...view);
      bytes += view.length;
    }
    this.recorder.fed(session, bytes);
  }

  /** One message of the active's agent; what was recorded before it is in the ring by then. */
  hears(): void {
    const message = this.channel.shift();
    if (!message) return;
    this.drain();
    message();
    this.listen();
  }

  /** Everything that is recorded is ingested, and the active is gone. */
  check(): void {
    const { session } = this;
    if (!session?.ready || session.closedAt !== 0) return;
    this.readyOnce = true;
    assert.ok(session.proven && !session.awaitsHandover);
    const plan = planTakeover(session, this.now, Math.min(session.vouched, session.input.end));
    const { resume } = plan;
    assert.ok(plan.inputOffset <= this.received, "nothing the active did not have");
    if (this.ring.length === 0) {
      assert.ok(plan.inputOffset >= this.peerAcked, "all that the peer may have forgotten");
      assert.ok(plan.outputOffset >= this.peerReceived, "all that the peer has");
    }
    assertBytes(plan.restore.received, inputs(resume.inputOffset, plan.inputOffset), "receive queue");
    assert.equal(plan.restore.rcvSeq, this.talk.seqIn(resume.inputOffset));
    assert.equal(plan.restore.sndUna, this.talk.seqOut(session.peerAck));
    assert.ok(session.peerAck <= this.peerReceived);
    assertBytes(plan.restore.unacked, outputs(session.peerAck, session.output.end), "unacknowledged output");
    assertBytes(plan.logged, outputs(session.output.end, plan.outputOffset), "logged output");
    assert.deepEqual(plan.base, { input: resume.inputOffset, output: session.peerAck });
    assert.ok(plan.outputOffset >= this.promised, "what was logged");
    if (!this.forged)
      for (const { offset, bytes } of plan.candidates)
        assertBytes(bytes, inputs(offset, offset + bytes.length), "candidates");
    if (this.mode === "delivered") assert.ok(resume.inputOffset <= this.copied);
    else assert.ok(plan.outputOffset >= (this.stored?.outputOffset ?? 0), "what the state has behind it");
    if (this.mode === "confirmed") {
      assert.deepEqual({ inputOffset: resume.inputOffset, outputOffset: resume.outputOffset }, this.stored);
      assertBytes(plan.sinceConfirm, outputs(resume.outputOffset, plan.outputOffset), "output since the confirm");
    }
    if (this.mode === "live") {
      assert.ok(this.feed);
      const rest = session.input.copy(session.fed, plan.inputOffset);
      assertBytes(
        Uint8Array.from([...this.feed, ...rest]),
        inputs(this.feedStart, plan.inputOffset),
        "the feed to its end",
      );
    }
  }
}

type Fate = "arrives" | "lost before" | "lost after";
interface Step {
  what: string;
  again?: boolean;
  size?: number;
  fate?: Fate;
  present?: boolean;
}

const size = fc.integer({ min: 0, max: 1200 });
const fate = fc.constantFrom<Fate>("arrives", "arrives", "arrives", "lost before", "lost after");
const steps = (weights: Record<string, number>): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.oneof(
      ...Object.entries(weights).map(([what, weight]) => ({
        weight,
        arbitrary: fc.record({ what: fc.constant(what), again: fc.boolean(), size, fate, present: fc.boolean() }),
      })),
    ),
    { maxLength: 120, size: "max" },
  );
const before = steps({ peer: 4, active: 4, read: 2, write: 2 });
const during = steps({
  peer: 6,
  active: 6,
  read: 4,
  write: 3,
  snapshot: 4,
  hear: 8,
  drain: 4,
  fill: 2,
  copied: 1,
  application: 1,
  handover: 2,
  confirm: 2,
  log: 1,
  feed: 2,
  lose: 1,
  forge: 1,
});

function perform(world: World, step: Step, recorded: boolean): void {
  const { what, again = false, size = 0, fate = "arrives", present = false } = step;
  world.now += 3e6;
  const where = present ? 0 : 0.5;
  if (what === "peer") world.peerSends(again, size, fate, recorded, where);
  else if (what === "active") world.activeSends(again, size, fate, recorded, where);
  else if (what === "read") world.copied = Math.min(world.received, world.copied + size);
  else if (what === "write") world.written += world.logging ? 0 : size;
  else if (what === "snapshot") world.takesSnapshot();
  else if (what === "hear") world.hears();
  else if (what === "drain") world.drain();
  else if (what === "fill") world.fills();
  else if (what === "copied") world.tellsCopied();
  else if (what === "application") {
    world.recorder.attend(SERVICE, present);
    world.listen();
  } else if (what === "handover") world.handsOver(size);
  else if (what === "confirm") world.confirms(size);
  else if (what === "log") world.logs(size);
  else if (what === "feed") world.feeds(size);
  else if (what === "forge") world.forges(present ? size : -size, 30 + size);
  else if (what === "lose" && world.session?.tracked) {
    world.session.giveUp(Reason.Memory);
    world.now += 2e9;
    world.listen();
  }
}

/** Nothing is lost or forged any more, the application reads on, and the agents do all they do for a join. */
function settle(world: World): void {
  world.recorder.attend(SERVICE, true);
  for (let round = 0; round < 20; round++) {
    for (let part = 0; part < 4; part++) {
      world.peerSends(true, 50_000, "arrives", true);
      world.activeSends(true, 50_000, "arrives", true);
      world.activeSends(false, 50_000, "arrives", true);
    }
    world.peerSends(false, 300, "arrives", true);
    if (round > 3) world.copied = world.received;
    world.takesSnapshot();
    world.fills();
    world.drain();
    while (world.channel.length > 0) world.hears();
    if (world.asked) world.handsOver(10);
    while (world.channel.length > 0) world.hears();
    world.confirms(0);
    world.now += 2e9;
    world.drain();
    world.feeds(1e6);
  }
}

for (const mode of ["live", "confirmed", "delivered"] as const)
  test(`property: ${mode} sessions are never ready without what a takeover needs, and become ready`, () => {
    fc.assert(
      fc.property(fc.boolean(), fc.boolean(), before, during, (fromSyn, wrap, earlier, later) => {
        const world = new World(mode, fromSyn, wrap);
        if (!fromSyn) for (const step of earlier) perform(world, step, false);
        for (const step of later) perform(world, step, true);
        settle(world);
        const { session } = world;
        assert.ok(session);
        // Of a doubtful live session only the active knows the bytes, and it has been asked.
        assert.equal(session.ready, true, reasonList(session.reasons).join());
        assert.equal(world.recorder.counters.auditBreaches, 0);
        // The crash: what is on the channel is gone, what is in the ring is not.
        world.channel = [];
        world.drain();
        world.recorder.finish(world.now);
        world.check();
      }),
      { numRuns: 150, includeErrorInReport: true },
    );
  });

/** A session in the middle of things that the standby hears of for the first time. */
function joining(mode: ServiceMode, prepare: (world: World) => void = () => {}): World {
  const world = new World(mode, false, false);
  prepare(world);
  world.recorder.attend(SERVICE, true);
  return world;
}

function joinOnce(world: World): void {
  world.takesSnapshot();
  world.hears();
}

const reasonsOf = (world: World): string[] => reasonList(world.session?.reasons ?? 0);

test("an idle session is adopted by its first snapshot and proven by the next one", () => {
  const world = joining("delivered");
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), ["input-incomplete", "output-incomplete"]);
  assert.equal(world.session?.joined, true);
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), []);
});

test("a snapshot from before the adoption proves nothing, however late it comes", () => {
  const world = joining("delivered");
  for (let count = 0; count < 4; count++) world.takesSnapshot();
  for (let count = 0; count < 4; count++) world.hears();
  assert.deepEqual(reasonsOf(world), ["input-incomplete", "output-incomplete"]);
});

test("a segment is untracked until the adoption: the same session under the same id", () => {
  const world = joining("delivered", ({ ring, talk, received, sent }) => {
    ring.push(talk.out({ at: sent, ack: received }));
  });
  world.drain();
  assert.deepEqual(reasonsOf(world), ["joined-mid-stream"]);
  const { id } = world.session as Session;
  joinOnce(world);
  assert.equal(world.session?.id, id);
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), []);
});

test("unread input is asked for, filled in, and delivered from the receive queue", () => {
  const world = joining("delivered", (world) => world.peerSends(false, 5000, "arrives", false));
  joinOnce(world);
  assert.equal(world.session?.needsFill, false, "not before it is known from where on input is recorded");
  joinOnce(world);
  assert.equal(world.session?.needsFill, true);
  assert.deepEqual(reasonsOf(world), ["input-incomplete"]);
  for (const [from, to] of [
    [9000, 10_000],
    [10_000, 13_000],
    [13_000, 14_000],
  ] as const) {
    assert.equal(world.session?.needsFill, true);
    world.recorder.fill(world.key, world.talk.seqIn(from), inputs(from, to));
    joinOnce(world);
  }
  assert.equal(world.session?.ready, true);
  world.check();
  const plan = planTakeover(world.session as Session, 9e9, world.received);
  assert.equal(plan.restore.received.length, 5000);
  assert.equal(plan.inputOffset, 14_000);
});

test("unread input that the application reads needs no fill", () => {
  const world = joining("delivered", (world) => world.peerSends(false, 5000, "arrives", false));
  joinOnce(world);
  joinOnce(world);
  world.copied = world.received;
  joinOnce(world);
  assert.equal(world.session?.ready, true);
});

test("input beyond a gap of the active delays the proof; what the standby never saw is never assumed", () => {
  const world = joining("delivered", (world) => {
    world.peerSends(false, 100, "lost before", false);
    world.peerSends(false, 100, "arrives", false);
  });
  for (let count = 0; count < 5; count++) joinOnce(world);
  assert.deepEqual(reasonsOf(world), ["input-incomplete"]);
  world.peerSends(true, 100, "arrives", true); // the gap alone: the rest was SACKed
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), ["input-incomplete"]);
  world.fills();
  world.hears();
  joinOnce(world);
  assert.equal(world.session?.ready, true);
});

test("unacknowledged output is waited for until it is sent again or acknowledged", () => {
  for (const acknowledged of [false, true]) {
    const world = joining("delivered", (world) => {
      world.written += 3000;
      world.activeSends(false, 3000, acknowledged ? "arrives" : "lost after", false);
    });
    for (let count = 0; count < 3; count++) joinOnce(world);
    assert.deepEqual(reasonsOf(world), ["output-incomplete"]);
    if (acknowledged) world.peerSends(false, 0, "arrives", true);
    else world.activeSends(true, 3000, "lost after", true);
    joinOnce(world);
    assert.equal(world.session?.ready, true);
  }
});

test("a forged copy of what passed before the adoption is not believed", () => {
  const world = joining("delivered");
  world.takesSnapshot();
  world.peerSends(false, 400, "arrives", true);
  world.drain(); // not stored: nothing is known of the session yet
  world.hears();
  world.forges(-400, 400);
  joinOnce(world);
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), ["input-incomplete"]);
  world.fills();
  world.hears();
  joinOnce(world);
  assert.equal(world.session?.ready, true);
  world.check();
});

test("from when the hand-over may be asked for, nothing that it may need is let go of", () => {
  const world = joining("confirmed");
  joinOnce(world);
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), ["awaiting-handover"]);
  assert.equal(world.asked, true);
  // It hands over, and goes on before the message is there.
  world.written += 200;
  world.handsOver(1000);
  world.peerSends(false, 700, "arrives", true);
  world.copied = world.received;
  world.activeSends(false, 200, "arrives", true);
  world.peerSends(false, 0, "arrives", true);
  world.drain();
  world.tellsCopied();
  world.channel.reverse();
  world.hears();
  world.hears();
  assert.equal(world.session?.ready, true);
  const plan = planTakeover(world.session as Session, 9e9, world.received);
  assertBytes(plan.restore.received, inputs(9000, 9700), "receive queue");
  assertBytes(plan.sinceConfirm, outputs(plan.resume.outputOffset, 7200), "output since the hand-over");
});

test("a hand-over that does not fit is refused with its reason, and changes nothing", () => {
  const world = joining("confirmed");
  const empty: Uint8Array = new Uint8Array(0);
  const handover = { inputOffset: 9000, outputOffset: 7000, input: empty, outputStart: 7000, output: empty };
  joinOnce(world);
  const offer = (change: Partial<typeof handover>) =>
    world.recorder.handover(world.session as Session, { ...handover, ...change });
  assert.equal(offer({}), "input-incomplete");
  joinOnce(world);
  assert.equal(offer({ inputOffset: 8999 }), "input-incomplete");
  assert.equal(offer({ inputOffset: 9001 }), "input-incomplete");
  assert.equal(offer({ outputOffset: 7001 }), "output-incomplete");
  assert.equal(offer({ outputStart: 7001 }), "output-incomplete");
  assert.equal(offer({ outputOffset: 6999 }), "output-incomplete");
  assert.deepEqual(reasonsOf(world), ["awaiting-handover"]);
  assert.equal(
    offer({
      inputOffset: 8990,
      input: inputs(8990, 9000),
      outputOffset: 6990,
      outputStart: 6980,
      output: outputs(6980, 7000),
    }),
    null,
  );
  assert.equal(offer({}), "not-awaited");
  const plan = planTakeover(world.session as Session, 9e9, world.received);
  assert.equal(plan.restore.rcvSeq, world.talk.seqIn(8990));
  assertBytes(plan.sinceConfirm, outputs(6990, 7000), "output since the hand-over");
});

test("a confirm is never taken back, and one that cannot be true ends the record", () => {
  const start = () => {
    const world = new World("confirmed", true, false);
    world.recorder.attend(SERVICE, true);
    world.peerSends(false, 500, "arrives", true);
    world.written = 300;
    world.activeSends(false, 300, "arrives", true);
    world.drain();
    return { world, session: world.session as Session };
  };
  const confirm = (inputOffset: number, outputOffset: number) => ({
    inputOffset,
    outputOffset,
    outputStart: outputOffset,
    output: new Uint8Array(0),
  });
  const { world, session } = start();
  world.recorder.confirm(session, confirm(400, 200));
  world.recorder.confirm(session, confirm(300, 300));
  world.recorder.confirm(session, confirm(500, 100));
  assert.deepEqual(session.resume, { inputOffset: 400, outputOffset: 200, source: "confirmed" });
  assert.equal(session.input.base, 400);
  for (const [impossible, reason] of [
    [confirm(501, 300), "audit-breach"],
    [confirm(500, 301), "output-incomplete"],
  ] as const) {
    const { world, session } = start();
    world.recorder.confirm(session, impossible);
    assert.deepEqual(reasonList(session.reasons), [reason]);
    assert.equal(session.tracked, false);
  }
});

test("logged output goes to the peer after what is recorded, and is let go of when it is recorded", () => {
  const world = new World("confirmed", true, false);
  world.recorder.attend(SERVICE, true);
  world.listen();
  world.logs(1000);
  world.hears();
  const session = world.session as Session;
  const plan = planTakeover(session, 9e9, 0);
  assertBytes(plan.logged, outputs(0, 1000), "logged output");
  assertBytes(plan.sinceConfirm, outputs(0, 1000), "output since the start");
  assert.deepEqual([plan.outputOffset, plan.restore.unacked.length], [1000, 0]);
  world.activeSends(false, 600, "lost after", true);
  world.drain();
  assertBytes(planTakeover(session, 9e9, 0).logged, outputs(600, 1000), "what is left");
  world.activeSends(false, 400, "arrives", true);
  world.drain();
  assert.equal(session.logged, null);
  assert.equal(world.recorder.budget.used, session.input.capacity + session.output.capacity);
});

test("FINs that were there before, and that pass during a join", () => {
  const finished = joining("delivered");
  const snapshot = (
    world: World,
    flags: Partial<JoinSnapshot["flags"]>,
    change: Partial<JoinSnapshot>,
  ): SnapshotEntry => {
    const taken = world.snapshot();
    return {
      key: world.key,
      service: SERVICE,
      passive: true,
      base: world.base,
      adoption: world.knownAdoption,
      snapshot: { ...taken, ...change, flags: { ...taken.flags, ...flags } },
    };
  };
  const { talk } = finished;
  // Both FINs, the peer's counted in rcv_nxt and bytes_received, ours sent and not acknowledged.
  const both = () =>
    snapshot(
      finished,
      { finReceived: true, finSent: true },
      {
        state: "close-wait",
        rcvNxt: talk.seqIn(9001),
        copiedSeq: talk.seqIn(9001),
        bytesReceived: 5001,
        sndNxt: talk.seqOut(7001),
      },
    );
  finished.recorder.snapshot(both(), 1e9);
  finished.listen();
  finished.recorder.snapshot(both(), 1e9);
  const session = finished.session as Session;
  assert.equal(session.ready, true);
  assert.deepEqual([session.finIn, session.finOut, session.finOutAcked, session.vouched], [9000, 7000, false, 9000]);
  assert.equal(session.nextIn, talk.seqIn(9001));
  assert.equal(session.nextOut, talk.seqOut(7001));
  const plan = planTakeover(session, 9e9, 9000);
  assert.deepEqual([plan.inputOffset, plan.inputFin, plan.outputFin], [9000, true, true]);

  // The peer's FIN passes while its place cannot be known: a gap before it.
  const during = joining("delivered", (world) => world.peerSends(false, 50, "arrives", false));
  joinOnce(during);
  during.ring.push(
    during.talk.in({ at: 9100, ack: 7000, flags: TCP_ACK | TCP_FIN }),
    during.talk.out({ at: 7000, ack: 9101 }),
  );
  during.drain();
  during.received = during.copied = 9100;
  const closing = () =>
    snapshot(
      during,
      { finReceived: true },
      { state: "close-wait", rcvNxt: during.talk.seqIn(9101), copiedSeq: during.talk.seqIn(9101), bytesReceived: 5101 },
    );
  during.recorder.snapshot(closing(), 1e9);
  assert.deepEqual([during.session?.finIn, during.session?.vouched], [9100, 9100]);
  assert.equal(during.session?.ready, true, reasonsOf(during).join());
  during.drain();
  assert.equal(during.recorder.counters.auditBreaches, 0);
});

test("offsets go on where a former active left them; a SYN or FIN that the kernel counted is no byte", () => {
  const world = new World("delivered", false, true);
  const snapshot = world.snapshot();
  const anchor = anchorOf({ passive: true, base: world.base, snapshot });
  assert.deepEqual(anchor, {
    firstIn: world.talk.seqIn(0),
    firstOut: world.talk.seqOut(0),
    received: 9000,
    copied: 9000,
    acked: 7000,
    sent: 7000,
  });
  const opened = anchorOf({
    passive: false,
    base: { input: 0, output: 0 },
    snapshot: {
      ...snapshot,
      bytesReceived: 11,
      rcvNxt: 5,
      copiedSeq: 5,
      bytesAcked: 12,
      sndUna: 3,
      sndNxt: 3,
      flags: { ...snapshot.flags, finReceived: true, finSent: true, finAcked: true },
    },
  });
  assert.deepEqual(opened, {
    firstIn: 2 ** 32 - 6,
    firstOut: 2 ** 32 - 8,
    received: 10,
    copied: 10,
    acked: 10,
    sent: 10,
  });
});

test("a session that a former active opened keeps its offsets through takeovers and joins", () => {
  const world = new World("delivered", false, false);
  const entry = { key: world.key, service: SERVICE, passive: false, adoption: 0 };
  // Its first kernel counted the SYN.
  const snapshot = { ...world.snapshot(), bytesAcked: 501 };
  world.recorder.snapshot({ ...entry, base: world.base, snapshot }, world.now);
  const session = world.session as Session;
  assert.equal(session.peerAck, 7000);
  const { base } = planTakeover(session, 9e9, 9000);
  assert.equal(anchorOf({ ...entry, base, snapshot: { ...snapshot, bytesReceived: 0, bytesAcked: 0 } }).acked, 7000);
});

test("a snapshot says which of two handshakes was the session's", () => {
  const world = new World("delivered", false, false);
  const talk = new Conversation(flowOf(7, 4, SERVICE));
  world.ring.push(talk.syn(), talk.syn({ ...offer, wscale: 2 }), talk.synAck(), talk.in({ at: 0, ack: 0 }));
  world.recorder.attend(SERVICE, true);
  world.drain();
  assert.deepEqual(reasonsOf(world), ["ambiguous-handshake"]);
  const snapshot = { ...world.snapshot(), sndWscale: 2, options: { ttl: 64 } as JoinSnapshot["options"] };
  const entry = { key: world.key, service: SERVICE, passive: true, base: { input: 0, output: 0 }, adoption: 0 };
  world.recorder.snapshot({ ...entry, snapshot }, world.now);
  assert.deepEqual(reasonsOf(world), []);
  assert.equal(world.session?.scales?.peer, 2);
  assert.equal(world.session?.options?.ttl, 64);
});

test("a snapshot of a complete session says how far its application has read", () => {
  const world = new World("delivered", true, false);
  world.recorder.attend(SERVICE, true);
  world.peerSends(false, 300, "arrives", true);
  world.activeSends(false, 0, "arrives", true);
  world.drain();
  const { session } = world;
  assert.ok(session?.ready);
  const resumedAt = (): number => planTakeover(session, world.now, session.vouched).resume.inputOffset;
  assert.equal(resumedAt(), 0);
  // Read without a segment that says so; the report of it was lost with the control channel.
  world.copied = 200;
  world.takesSnapshot();
  world.hears();
  assert.equal(resumedAt(), 200);
});

test("what cannot be protected is not adopted, and says why", () => {
  const world = joining("delivered");
  const offer = (flags: Partial<JoinSnapshot["flags"]>, state: JoinSnapshot["state"] = "established") => {
    const snapshot = world.snapshot();
    world.recorder.snapshot(
      {
        key: world.key,
        service: SERVICE,
        passive: true,
        base: world.base,
        adoption: 0,
        snapshot: { ...snapshot, state, flags: { ...snapshot.flags, ...flags } },
      },
      world.now,
    );
    world.listen();
  };
  offer({}, "last-ack");
  assert.equal(world.recorder.find(world.key), undefined);
  offer({ urgent: true });
  assert.deepEqual(reasonsOf(world), ["urgent"]);
  offer({ mptcp: true });
  assert.deepEqual(reasonsOf(world), ["mptcp", "urgent"]);
  offer({ md5: true });
  assert.deepEqual(reasonsOf(world), ["authenticated", "input-incomplete", "output-incomplete"]);
  world.recorder.watch(world.session as Session, Buffer.from("secret"));
  joinOnce(world);
  assert.equal(world.session?.ready, true);
  assert.deepEqual(planTakeover(world.session as Session, 9e9, world.received).restore.md5, Buffer.from("secret"));
});

test("a session that had to be given up is joined anew after a while", () => {
  const world = joining("delivered");
  joinOnce(world);
  joinOnce(world);
  world.session?.giveUp(Reason.Memory);
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), ["memory"]);
  world.now += 2e9;
  joinOnce(world);
  joinOnce(world);
  assert.deepEqual(reasonsOf(world), []);
});

test("a session that is given up is not complete any more: the active shows its socket again", () => {
  const world = new World("delivered", true, false);
  world.peerSends(false, 100, "arrives", true);
  world.activeSends(false, 0, "arrives", true);
  world.drain();
  const { recorder, session } = world;
  assert.equal(session?.proven, true);
  recorder.takeEvents();
  session?.giveUp(Reason.Memory);
  recorder.attend(SERVICE, true);
  assert.deepEqual(
    recorder.takeEvents().joins.map(({ proven, needsFill }) => [proven, needsFill]),
    [[false, false]],
  );
});

test("live input that stays ambiguous: the active's own copy settles it; without one the session is joined anew", () => {
  for (const told of [true, false]) {
    const world = new World("live", true, false);
    world.forges(10, 20);
    world.peerSends(false, 100, "arrives", true);
    world.activeSends(false, 0, "arrives", true);
    world.drain();
    assert.deepEqual(reasonsOf(world), ["ambiguous-input"]);
    assert.equal(world.session?.needsFill, true);
    if (told) {
      world.fills();
      world.hears();
      assert.deepEqual(reasonsOf(world), []);
      world.feeds(1000);
      world.check();
      assert.equal(world.feed?.length, 100);
      continue;
    }
    for (let second = 0; second < 5; second++) {
      world.now += 1e9;
      world.recorder.endDrain(world.now);
    }
    assert.equal(world.session?.tracked, false);
    world.now += 2e9;
    joinOnce(world);
    joinOnce(world);
    assert.deepEqual(reasonsOf(world), ["no-application", "input-incomplete", "awaiting-handover"]);
    world.copied = world.received;
    settle(world);
    assert.equal(world.session?.ready, true);
  }
});
