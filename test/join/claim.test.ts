// Claim 1 of US 8,700,952, element by element, on one session that existed before its standby: the two applications and
// the peer are in the hands of the test, through the SDK and a plain socket; agents, kernels and wire are real.
//
//   input   ━━━ processed ━━━┃━━ input buffer ━━┃━━ unread in the kernel ━━┃━━ sent after the notification ━━
//   output  ━━━ with the peer ━━━┃━━ output buffer: written, and the peer's window is closed ━━┃

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readlinkSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { z } from "zod";
import { native } from "../../addon/native.js";
import { type Capture, flagsFrom } from "../../src/lab/capture.js";
import { addressPlan, devices, Lab, type RouterName } from "../../src/lab/lab.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { sessionsCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import type { SessionView } from "../../src/observe/sessions.js";
import {
  type Agent,
  connectAgent,
  type ProtectedSession,
  type StandbySession,
  type Takeover,
} from "../../src/sdk/index.js";
import { SocketLender } from "./lent-sockets.js";
import { skip } from "./mill-scene.js";

const { v4 } = addressPlan.service;
const port = 7001;
/** Input that the active application has taken from its socket, and how much of that it has processed. */
const taken = 2500;
const processed = 2000;
/** Input that is unread when the standby comes: more than the stream in front of the application reads ahead. And what
 * the peer sends when the standby is there. */
const unread = 100_000;
const later = 30_000;
/** Output that is written before the standby comes: more than the peer's window, less than the SDK keeps. */
const written = 60_000;
/** What the other application writes when it has the connection. */
const further = 10_000;
const state = Buffer.from("two messages");

/** Bytes of which no stretch is like another. */
function stream(name: string, bytes: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(bytes / 32) }, (_, at) =>
    createHash("sha256").update(`${name}${at}`).digest(),
  );
  return Buffer.concat(blocks).subarray(0, bytes);
}
const input = stream("input", taken + unread + later);
const output = stream("output", written + further);

/** Everything that a stream delivers, as it grows. */
function gather(source: net.Socket): { bytes: () => Buffer } {
  const pieces: Buffer[] = [];
  source.on("data", (piece: Buffer) => pieces.push(piece));
  return { bytes: () => Buffer.concat(pieces) };
}

const socketOf = (fd: number) => new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
const applicationSocket = (pair: RouterPair, router: RouterName) => path.join(pair.runDirectory(router), "app.sock");
const takeoverReport = z.object({ sessions: z.number(), lost: z.object({ count: z.number() }) });

describe("claim 1: a session that existed before its standby", { skip }, () => {
  let lab: Lab;
  let pair: RouterPair;
  let capture: Capture;
  let active: Agent;
  let standby: Agent;
  let peer: net.Socket;
  /** The active application's socket: descriptor, and as a stream. */
  let fd = -1;
  let socket: net.Socket;
  let session: ProtectedSession;
  /** How often the active application was told that the standby is ready; it answers from when it may. */
  let notified = 0;
  let mayAnswer = false;
  /** How far TCP had delivered input to it when it answered. */
  let delivered = -1;
  /** Sequence numbers of the streams' first bytes, as the peer saw them. */
  let first = { input: 0, output: 0 };
  let offered: StandbySession;
  let fed: { bytes: () => Buffer };

  before(async () => {
    lab = Lab.create();
    pair = new RouterPair(lab, {
      heartbeat: { deadMs: 300, controllerMs: 5000 },
      overrides: { services: [{ name: "claim", addresses: [v4], port, mode: "live" }] },
    });
    // A small window at the peer: most of the output stays with its sender.
    lab.run("peer", ["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 4096 4096"]);
    pair.startAgent("a");
    await pair.untilRole("a", "solo", 30_000);
    capture = await lab.capture("peer", devices.peer);

    const service = new SocketLender(lab, "a");
    const remote = new SocketLender(lab, "peer");
    native.closeFd(await service.lend(`socket.create_server(("${v4}", ${port}))`));
    peer = socketOf(await remote.lend(`socket.create_connection(("${v4}", ${port}))`));
    fd = await service.lend("made[0].accept()[0]");
    await Promise.all([service.end(), remote.end()]);

    socket = socketOf(fd);
    active = connectAgent({ path: applicationSocket(pair, "a"), retryDelay: 100 });
    session = active.protect(socket, {
      handover: () => {
        notified++;
        if (!mayAnswer) return null;
        delivered = socket.bytesRead;
        const inputBuffer = input.subarray(processed, taken);
        return { inputOffset: processed, outputOffset: written, state, inputBuffer };
      },
    });
    const beginning = new Promise<Buffer>((resolve) => {
      socket.on("readable", function take() {
        const piece: Buffer | null = socket.read(taken);
        if (piece === null) return;
        socket.off("readable", take);
        resolve(piece);
      });
    });
    peer.write(input.subarray(0, taken));
    assert.ok((await beginning).equals(input.subarray(0, taken)));
    peer.write(input.subarray(taken, taken + unread));
    void session.write(output.subarray(0, written));
    await pair.until("all of it is there", () => Number(native.tcpInfo(fd).bytesReceived) === taken + unread);
    assert.ok(native.peekInput(fd, 1).length > 0, "some of it lies unread in the kernel");
    assert.ok(native.outQueue(fd).unsent > 0, "output waits for the peer's window");

    pair.startAgent("b");
    await pair.untilRole("a", "active", 30_000);
    await pair.untilRole("b", "standby", 30_000);
  });

  after(() => {
    active?.close();
    standby?.close();
    for (const each of [peer, socket, offered?.takeover?.socket]) each?.destroy();
    lab?.destroy();
  });

  async function seen(): Promise<SessionView> {
    const { sessions } = await ask(`${pair.runDirectory("b")}/agent.sock`, sessionsCommand, {});
    assert.equal(sessions.length, 1);
    return sessions[0] as SessionView;
  }

  const about = (what: string, holds: () => boolean | Promise<boolean>) => pair.until(what, holds);
  const reasons = async () => (await seen()).reasons.map(({ name }) => name);

  test("the socket of the active application is duplicated", async () => {
    await about("the agent protects the session", () => session.reason !== "agent-absent");
    const { inode } = native.socketFacts(fd);
    const agent = `/proc/${pair.agents.a?.pid}/fd`;
    const descriptors = readdirSync(agent).map((each) => readlinkSync(`${agent}/${each}`));
    assert.ok(descriptors.includes(`socket:[${inode}]`), "the active's agent holds the very socket");
    await about("the standby's agent has the session", async () => (await seen()).input.firstSequence !== null);
    const view = await seen();
    assert.equal(view.local, `${v4}:${port}`);
    assert.equal(view.peer, `${addressPlan.peer.v4}:${peer.localPort}`);
    assert.equal(view.state, "established");
  });

  test("TCP's data and states are synchronised, both ways", async () => {
    await about("all that is missing is a hand-over", async () =>
      (await reasons()).every((each) => each === "awaiting-handover" || each === "no-application"),
    );
    const view = await seen();
    const kernel = native.tcpInfo(fd);
    assert.ok(native.peekInput(fd, 1).length > 0 && native.outQueue(fd).unsent > 0, "as before the standby came");
    assert.equal(view.input.recorded, Number(kernel.bytesReceived));
    assert.equal(view.output.acknowledged, Number(kernel.bytesAcked));
    assert.equal(view.output.recorded, written - native.outQueue(fd).unsent - socket.writableLength);
    // What the standby has from the wire begins where both streams stood; a SYN comes before a stream's first byte.
    const { flagged } = await capture.stop();
    const [syn, synAck] = flagged.filter((each) => each.syn);
    assert.ok(syn && synAck);
    first = { input: syn.seq + 1, output: synAck.seq + 1 };
    assert.equal(view.input.firstSequence, (first.input + taken + unread) >>> 0);
    assert.equal(view.output.firstSequence, (first.output + Number(kernel.bytesAcked)) >>> 0);
    capture = await lab.capture("peer", devices.peer);
  });

  test("the active application is notified when the standby application is ready, and not before", async () => {
    assert.equal(notified, 0);
    assert.equal(session.ready, false);
    standby = connectAgent({ path: applicationSocket(pair, "b"), retryDelay: 100 });
    standby.on("session", (each) => {
      offered = each;
    });
    await standby.register("claim", "live");
    await about("the active application is notified", () => notified > 0);
    assert.equal(session.ready, false, "it has not answered");
    assert.equal(offered, undefined);
  });

  test("its input buffer is copied to the standby application", async () => {
    mayAnswer = true;
    await about("the standby application has the session", () => offered !== undefined);
    assert.ok(delivered > taken, "some of it lies in front of the application");
    assert.equal(offered.joined, true);
    assert.equal(offered.inputOffset, processed);
    assert.ok(offered.state.equals(state));
    assert.ok(offered.feed);
    fed = gather(offered.feed);
    await about("the input buffer is there", () => fed.bytes().length >= delivered - processed);
    assert.ok(
      fed
        .bytes()
        .subarray(0, delivered - processed)
        .equals(input.subarray(processed, delivered)),
    );
  });

  test("the last byte delivered before that notification is known to the standby's TCP: the next one follows", async () => {
    // The active application reads nothing more; what it would read next comes from the standby's TCP.
    await about("what lay unread follows", () => fed.bytes().length >= taken + unread - processed);
    peer.write(input.subarray(taken + unread));
    assert.equal(socket.bytesRead >= delivered, true);
    socket.resume();
    await about("and what the peer sends from then on", () => fed.bytes().length >= input.length - processed);
    assert.ok(fed.bytes().equals(input.subarray(processed)), "no byte is missing, none comes twice");
    const view = await seen();
    assert.equal(view.input.vouched, input.length);
    assert.equal(Number(native.tcpInfo(fd).bytesReceived), input.length);
  });

  test("its output buffer is copied, too, and the last byte that left is known", async () => {
    await about("the session is ready", () => session.ready);
    assert.equal(offered.outputOffset, written, "the state stands behind all of it");
    const view = await seen();
    assert.equal(view.ready, true);
    assert.ok(view.output.recorded < written, "some of it never left the active's kernel");
    assert.equal(view.output.recorded, written - native.outQueue(fd).unsent - socket.writableLength);
  });

  test("at the switch-over both streams are complete, and the peer notices nothing", async () => {
    const takeover = new Promise<Takeover>((resolve) => offered.once("takeover", resolve));
    lab.kill("a");
    const { socket: restored, inputOffset, outputOffset } = await takeover;
    const more = gather(restored);
    assert.equal(inputOffset, input.length);
    assert.equal(outputOffset, written, "the output buffer goes first");
    const got = gather(peer);
    restored.write(output.subarray(outputOffset));
    const question = Buffer.from("one more");
    peer.end(question);
    await about("the peer has all output", () => got.bytes().length >= output.length);
    assert.ok(got.bytes().equals(output), "no byte is missing, none comes twice");
    await about("the application has the input since then", () => more.bytes().length >= question.length);
    assert.ok(more.bytes().equals(question));
    restored.end();
    await once(peer, "end");
    const status = await pair.status("b");
    const report = takeoverReport.parse(status.lastTakeover);
    assert.deepEqual([report.sessions, report.lost.count, status.recorder.auditBreaches], [1, 0, 0]);
    const summary = await capture.stop();
    assert.deepEqual(flagsFrom(summary, v4), { syn: 0, fin: 1, rst: 0 });
    // Both streams are counted on by the other kernel; the peer's FIN is one more.
    const fin = summary.flagged.find(({ from, fin }) => from === v4 && fin);
    assert.equal(fin?.seq, (first.output + output.length) >>> 0);
    assert.equal(fin?.ack, (first.input + input.length + question.length + 1) >>> 0);
  });
});
