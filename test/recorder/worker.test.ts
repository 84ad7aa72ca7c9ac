// The recorder's thread as the agent uses it: frames through the real XDP program into the real ring, a feed over a
// real socket, and a takeover that ends with kernel sockets.

import assert from "node:assert/strict";
import { once } from "node:events";
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
const joinedPort = port + 1;

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
    this.rig.service(service, "passive", joinedPort, 4);
    this.client = await RecorderClient.start(
      {
        ringFd: this.rig.map("records"),
        md5Keys: [],
        services: [
          [3, "live"],
          [4, "confirmed"],
        ],
        limits,
      },
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
    destinationPort = port,
  ): void {
    const inner = frame({
      source: peer,
      destination: service,
      sourcePort: peerPort,
      destinationPort,
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
    sourcePort = port,
  ): void {
    const inner = outward({
      source: service,
      destination: peer,
      sourcePort,
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
    const report = await stand.client.takeover().report;
    fds.push(...report.sessions.map(({ fd }) => fd));
    assert.deepEqual(
      report.sessions.map(({ id, inputOffset, outputOffset }) => ({ id, inputOffset, outputOffset })),
      [{ id: first, inputOffset: 11, outputOffset: 11 }],
    );
    assert.deepEqual(
      report.lost.map(({ id, reasons, reset }) => ({ id, reasons, reset })),
      [{ id: second, reasons: ["no-application"], reset: { seqs: [2000], ack: 1000, md5: null } }],
    );
    assert.equal(native.outQueue(report.sessions[0]!.fd).unacked, 11);
    assert.equal(Buffer.from(report.sessions[0]!.unacked!.bytes).toString(), "answer more");
    await until("the end of the feed", () => ended);
    assert.equal(got, "hello world");
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
  const options = { ringFd: notARing, services: [], md5Keys: [], limits: {} };
  const ignore = (): void => {};
  try {
    await assert.rejects(RecorderClient.start(options, ignore, ignore), /EINVAL|Invalid argument/);
  } finally {
    native.closeFd(notARing);
    native.closeFd(other);
  }
});

test("a session joined in its middle: snapshots, fill, hand-over, confirm, log, and the kernel's socket goes on", {
  skip: needsRoot,
}, async () => {
  const stand = new Stand();
  const fds: number[] = [];
  const peerPort = 1009;
  const key = flowKey(service, joinedPort, peer, peerPort);
  const last = <Notice>(pick: (notice: RecorderNotice) => Notice | undefined): Notice | undefined =>
    stand.notices.map(pick).findLast((found) => found !== undefined);
  const join = () => last((notice) => (notice.type === "events" ? notice.joins.at(-1) : undefined));
  // 70,000 bytes lie unread in the active's socket; offset 1,000,000 is its first byte.
  const unread = Buffer.alloc(70_000, "unread ");
  const snapshot = (adoption: number): void =>
    stand.client.tell({
      type: "snapshot",
      entries: [
        {
          key,
          service: 4,
          passive: true,
          base: { input: 1_000_000, output: 2_000_000 },
          adoption,
          snapshot: {
            bytesReceived: unread.length,
            bytesAcked: 0,
            rcvNxt: 1000 + unread.length,
            copiedSeq: 1000,
            sndUna: 2000,
            sndNxt: 2000,
            writeSeq: 2000,
            rcvWup: 1000 + unread.length,
            rcvWnd: 1 << 20,
            sndWnd: 1 << 20,
            sndWl1: 1000 + unread.length,
            maxWindow: 1 << 20,
            tsRecent: 500,
            tsval: 900,
            mss: 1460,
            state: "established",
            sndWscale: 7,
            rcvWscale: 7,
            flags: {
              sack: true,
              timestamps: true,
              wscale: true,
              outOfOrder: false,
              urgent: false,
              finReceived: false,
              finSent: false,
              finAcked: false,
              mptcp: false,
              md5: false,
            },
            options: {
              ttl: 77,
              minTtl: 0,
              tos: 0,
              noDelay: true,
              keepAlive: false,
              keepIdle: null,
              keepInterval: null,
              keepCount: null,
              userTimeout: 0,
              congestion: "",
              maxSegment: null,
              device: null,
              sendBuffer: null,
              receiveBuffer: null,
              priority: 0,
              mark: 0,
              linger: null,
            },
          },
        },
      ],
    });
  try {
    await stand.start();
    stand.client.tell({ type: "application", service: 4, present: true });
    snapshot(0);
    const adopted = await until("the adoption", () => join());
    snapshot(adopted.adoption);
    await until("what is unread is asked for", () => join()?.needsFill);
    stand.client.tell({ type: "fill", key, seq: 1000, bytes: unread });
    snapshot(adopted.adoption);
    const { id } = await until("both directions are proven", () =>
      join()?.input && join()?.output ? join() : undefined,
    );
    stand.client.tell({ type: "watch", id, md5: null });
    const none = new Uint8Array(0);
    const handover = {
      inputOffset: 1_000_000,
      outputOffset: 2_000_000,
      input: none,
      outputStart: 2_000_000,
      output: none,
    };
    stand.client.tell({ type: "handover", id, ...handover });
    const handedOver = await until("the hand-over", () =>
      last((notice) => (notice.type === "handedOver" ? notice : undefined)),
    );
    assert.deepEqual(handedOver, { type: "handedOver", id, refused: null });
    await until("it is ready", () =>
      last((notice) =>
        notice.type === "events" ? notice.readiness.find((entry) => entry.id === id)?.ready : undefined,
      ),
    );
    // The application reads 60,000 bytes, answers, confirms that, answers again, and logs what comes next.
    stand.out(peerPort, 2000, 71_000, "first second", ACK, TIMESTAMPS(901, 500), joinedPort);
    stand.in(peerPort, 71_000, 2012, "more", ACK, TIMESTAMPS(501, 901), joinedPort);
    stand.client.tell({
      type: "confirm",
      id,
      ...handover,
      inputOffset: 1_060_000,
      outputOffset: 2_000_005,
      outputStart: 2_000_012,
    });
    stand.client.tell({ type: "log", id, outputStart: 2_000_012, output: Buffer.from(" third") });
    await until("progress", () =>
      last((notice) =>
        notice.type === "progress"
          ? notice.entries.find((entry) => entry[0] === id && entry[1] === 2_000_012)
          : undefined,
      ),
    );
    const status = await stand.client.status(true);
    const summary = status.sessions.find((session) => session.id === id);
    assert.deepEqual(
      { key: summary?.key, joined: summary?.joined, ready: summary?.ready, resume: summary?.resume },
      {
        key: Buffer.from(key).toString("hex"),
        joined: true,
        ready: true,
        resume: { inputOffset: 1_060_000, outputOffset: 2_000_005, source: "confirmed" },
      },
    );
    const report = await stand.client.takeover().report;
    fds.push(...report.sessions.map(({ fd }) => fd));
    const [taken] = report.sessions;
    assert.ok(taken, JSON.stringify(report.lost));
    assert.deepEqual(
      {
        ...taken,
        fd: 0,
        key: 0,
        id: 0,
        sinceConfirm: String(Buffer.from(taken.sinceConfirm)),
        logged: String(Buffer.from(taken.logged)),
      },
      {
        id: 0,
        key: 0,
        fd: 0,
        service: 4,
        mode: "confirmed",
        inputOffset: 1_070_000,
        received: 10_000,
        outputOffset: 2_000_018,
        resume: { inputOffset: 1_060_000, outputOffset: 2_000_005, source: "confirmed" },
        base: { input: 1_060_000, output: 2_000_012 },
        sinceConfirm: " second third",
        logged: " third",
        gap: null,
        clean: true,
        inputFin: false,
        outputFin: false,
        outputFinAcked: false,
        unacked: null,
        synAck: null,
      },
    );
    stand.client.tell({ type: "handover", id, ...handover });
    await until(
      "the answer of one that is no standby any more",
      () => last((notice) => (notice.type === "handedOver" ? notice.refused : undefined)) === "not-recorded",
    );
    native.restoreRelease([taken.fd], false);
    const socket = new net.Socket({ fd: taken.fd });
    fds.length = 0;
    const [chunk] = (await once(socket, "data")) as [Buffer];
    assert.equal(chunk.subarray(0, 10).toString(), unread.subarray(60_000, 60_010).toString());
    socket.destroy();
  } finally {
    for (const fd of fds) native.closeFd(fd);
    await stand.stop();
  }
});
