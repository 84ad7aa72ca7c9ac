// The recorder's thread as the agent uses it: frames through the real XDP program into the real ring, a feed over a
// real socket, and a takeover that ends with kernel sockets.

import assert from "node:assert/strict";
import net from "node:net";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { native } from "../../addon/native.js";
import { TD_VERDICT_FIN_MEANT } from "../../src/abi.gen.js";
import { RecorderClient, type RecorderNotice } from "../../src/recorder/client.js";
import type { RecorderStart } from "../../src/recorder/messages.js";
import { ACK, encapsulated, frame, outward, SYN, SYN_OPTIONS, TIMESTAMPS } from "../bpf/frames.js";
import { flowKey, needsRoot, Rig } from "../bpf/rig.js";

const service = "127.0.0.1";
const peer = "127.88.0.2";
const port = 40_000 + (process.pid % 10_000);

/** Polls: the thread works in its own time. */
async function until<T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
  for (let round = 0; round < 1000; round++) {
    const found = await probe();
    if (found) return found;
    await sleep(5);
  }
  throw new Error(`did not happen: ${what}`);
}

class Stand {
  readonly rig = new Rig();
  readonly notices: RecorderNotice[] = [];
  client!: RecorderClient;

  async start(limits: RecorderStart["limits"] = {}): Promise<void> {
    this.rig.gate("fenced");
    this.rig.link();
    this.rig.recording(true);
    this.rig.service(service, "passive", port, 3);
    this.client = await RecorderClient.start(
      { ringFd: this.rig.map("records"), services: [[3, "live"]], limits },
      (notice) => this.notices.push(notice),
      (error) => {
        throw error;
      },
    );
  }
  async stop(): Promise<void> {
    await this.client?.stop();
    this.rig.close();
  }
  in(
    peerPort: number,
    seq: number,
    ack: number,
    payload: string,
    flags = ACK,
    tcpOptions = TIMESTAMPS(500, 900),
  ): void {
    const inner = frame({
      source: peer,
      destination: service,
      sourcePort: peerPort,
      destinationPort: port,
      seq,
      ack,
      flags,
      tcpOptions,
      payload: Buffer.from(payload),
    });
    native.bpfTestRun(this.rig.program("xdp_mirror"), { data: encapsulated(inner) });
  }
  out(
    peerPort: number,
    seq: number,
    ack: number,
    payload: string,
    flags = ACK,
    tcpOptions = TIMESTAMPS(901, 500),
  ): void {
    const inner = outward({
      source: service,
      destination: peer,
      sourcePort: port,
      destinationPort: peerPort,
      seq,
      ack,
      flags,
      tcpOptions,
      payload: Buffer.from(payload),
    });
    native.bpfTestRun(this.rig.program("xdp_mirror"), { data: encapsulated(inner, { out: true }) });
  }
  handshake(peerPort: number): void {
    this.in(peerPort, 999, 0, "", SYN, SYN_OPTIONS(500));
    this.out(peerPort, 1999, 1000, "", SYN | ACK, SYN_OPTIONS(900));
    this.in(peerPort, 1000, 2000, "");
  }
  opened(peerPort: number): Promise<number> {
    return until("session opened", () => {
      for (const notice of this.notices)
        if (notice.type === "events")
          for (const session of notice.opened) if (session.peerPort === peerPort) return session.id;
      return undefined;
    });
  }
}

test("frames to feed to takeover, through the real ring", { skip: needsRoot }, async () => {
  const stand = new Stand();
  const fds: number[] = [];
  try {
    await stand.start();
    for (const peerPort of [1001, 1002, 1003]) stand.handshake(peerPort);
    const [first, second, third] = [await stand.opened(1001), await stand.opened(1002), await stand.opened(1003)];
    const [ours, theirs] = native.socketPair();
    const feed = new net.Socket({ fd: ours });
    let got = "";
    let ended = false;
    feed.on("data", (data: Buffer) => {
      got += data.toString();
    });
    feed.on("end", () => {
      ended = true;
    });
    stand.client.attachFeed(first, theirs);
    stand.client.attachFeed(999_999, native.socketPair()[0]);
    stand.in(1001, 1000, 2000, "hello ");
    stand.out(1001, 2000, 1006, "answer");
    stand.in(1001, 1006, 2000, "world");
    await until("the vouched-for part", () => got === "hello ");
    const progress = await until("progress", () =>
      stand.notices
        .flatMap((notice) => (notice.type === "progress" ? notice.entries : []))
        .find((entry) => entry[2] === 6),
    );
    assert.deepEqual(progress, [first, 6, 6, 6, -1]);
    stand.client.socketEnded(flowKey(service, port, peer, 1003), TD_VERDICT_FIN_MEANT, null);
    await until("the end of the third", () =>
      stand.notices.some((notice) => notice.type === "events" && notice.closed.some(({ id }) => id === third)),
    );
    const status = await stand.client.status(true);
    assert.equal(status.counts.ready, 1);
    assert.deepEqual(status.notReady, { "no-application": 1 });
    assert.equal(status.sessions.find(({ id }) => id === first)?.state, "established");
    assert.equal(status.counters.badChecksum, 0);

    // The last words before the takeover: still in the ring when it is asked for.
    stand.out(1001, 2006, 1011, " more");
    const report = await stand.client.takeover();
    fds.push(...report.sessions.map(({ fd }) => fd));
    assert.deepEqual(
      report.sessions.map(({ id, inputOffset, outputOffset }) => ({ id, inputOffset, outputOffset })),
      [{ id: first, inputOffset: 11, outputOffset: 11 }],
    );
    assert.deepEqual(
      report.lost.map(({ id, reasons, reset }) => ({ id, reasons, reset })),
      [{ id: second, reasons: ["no-application"], reset: { seqs: [2000], ack: 1000 } }],
    );
    assert.equal(native.outQueue(report.sessions[0]!.fd).unacked, 11);
    assert.equal(Buffer.from(report.sessions[0]!.unacked!.bytes).toString(), "answer more");
    await until("the end of the feed", () => ended);
    assert.equal(got, "hello world");
    await until("the word of it", () =>
      stand.notices.some((notice) => notice.type === "feed" && notice.what === "ended" && notice.offset === 11),
    );
    assert.ok(stand.notices.some((notice) => notice.type === "feed" && notice.what === "refused"));

    await stand.client.reset();
    stand.handshake(1004);
    await stand.opened(1004);
    assert.equal((await stand.client.status(false)).counts.sessions, 1);
    feed.destroy();
  } finally {
    for (const fd of fds) native.closeFd(fd);
    await stand.stop();
  }
});

test("a feed nobody reads stops at the memory bound, and the application's leaving is noticed", {
  skip: needsRoot,
}, async () => {
  const stand = new Stand();
  try {
    await stand.start({ sessionBytes: 64 << 10 });
    for (const peerPort of [1001, 1002]) stand.handshake(peerPort);
    const [slow, left] = [await stand.opened(1001), await stand.opened(1002)];
    const [slowEnd, slowFeed] = native.socketPair();
    const [leftEnd, leftFeed] = native.socketPair();
    native.setBufferSizes(slowFeed, 4096, 4096);
    stand.client.attachFeed(slow, slowFeed);
    stand.client.attachFeed(left, leftFeed);
    native.closeFd(leftEnd);
    stand.in(1002, 1000, 2000, "x");
    stand.out(1002, 2000, 1001, "");
    await until("the second feed is lost", () =>
      stand.notices.some((notice) => notice.type === "feed" && notice.what === "lost" && notice.id === left),
    );
    for (let at = 0; at < 200_000; at += 1000) {
      stand.in(1001, 1000 + at, 2000, "y".repeat(1000));
      stand.out(1001, 2000, 2000 + at, "");
      if (at % 20_000 === 0) await sleep(5);
    }
    const status = await until("the bound", async () => {
      const now = await stand.client.status(true);
      return now.sessions.find(({ id }) => id === slow)?.reasons.includes("memory") ? now : undefined;
    });
    assert.equal(status.counters.auditBreaches, 0);
    assert.equal(
      status.memory.used,
      status.sessions.reduce((sum, { memory }) => sum + memory, 0),
    );
    native.closeFd(slowEnd);
  } finally {
    await stand.stop();
  }
});

test("a thread that cannot open its ring says why", { skip: needsRoot }, async () => {
  const [notARing, other] = native.socketPair();
  const options = { ringFd: notARing, services: [], limits: {} };
  const ignore = (): void => {};
  try {
    await assert.rejects(RecorderClient.start(options, ignore, ignore), /EINVAL|Invalid argument/);
  } finally {
    native.closeFd(notARing);
    native.closeFd(other);
  }
});
