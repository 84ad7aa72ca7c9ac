// The active side over a real agent socket and real TCP connections: what the standby is told is always enough to go on
// from, whatever the order of things, and the session itself never notices.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import test from "node:test";
import { setImmediate as breathe, setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import { native } from "../../addon/native.js";
import type { HandoverAnswer, ProtectOptions } from "../../src/sdk/index.js";
import { type Agent, connectAgent, type ProtectedSession } from "../../src/sdk/index.js";
import { collect, TestAgent, tcpPair } from "./agent.js";

interface Stand {
  agent: TestAgent;
  application: Agent;
  socket: net.Socket;
  peer: net.Socket;
  close: () => void;
}

/** Two ends of a TCP connection; the application's has read nothing. */
async function connection(): Promise<{ socket: net.Socket; peer: net.Socket }> {
  const listener = net.createServer({ allowHalfOpen: true });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const accepted = once(listener, "connection");
  const { port } = listener.address() as net.AddressInfo;
  const peer = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const [socket] = await accepted;
  listener.close();
  return { socket, peer };
}

async function stand(): Promise<Stand> {
  const agent = new TestAgent();
  const application = connectAgent({ path: agent.path, retryDelay: 10 });
  await once(application, "connected");
  const { socket, peer } = await connection();
  const close = () => {
    application.close();
    socket.destroy();
    peer.destroy();
    agent.close();
  };
  return { agent, application, socket, peer, close };
}

/** Protected, joined and ready; what was handed over is returned. */
async function readied(at: Stand, options: ProtectOptions = {}): Promise<{ session: ProtectedSession; id: number }> {
  const session: ProtectedSession = at.application.protect(at.socket, { handover: () => empty(session), ...options });
  const { id } = await at.agent.hears("protect");
  at.agent.server.standbyReady(id, 0);
  await at.agent.hears("handover");
  const ready = once(session, "ready");
  at.agent.server.ready(id);
  await ready;
  return { session, id };
}

const empty = (session: ProtectedSession): HandoverAnswer => ({
  inputOffset: session.inputOffset,
  outputOffset: session.outputOffset,
});

test("protect: the agent gets the socket, its service, its base and its key; ready and unready are told", async () => {
  const at = await stand();
  try {
    const md5Key = Buffer.from("secret");
    const session: ProtectedSession = at.application.protect(at.socket, {
      service: "web",
      md5Key,
      handover: () => empty(session),
    });
    assert.equal(session.ready, false);
    const { id, request } = await at.agent.hears("protect");
    assert.equal(request.service, "web");
    assert.deepEqual(request.base, { input: 0, output: 0 });
    assert.deepEqual(request.md5Key, md5Key);
    assert.equal(request.process.pid, process.pid);
    assert.ok(native.tcpInfo(request.fd).state > 0);
    assert.throws(() => at.application.protect(at.socket), { code: "already-protected" });
    at.agent.server.standbyReady(id, 0);
    await at.agent.hears("handover");
    const ready = once(session, "ready");
    at.agent.server.ready(id);
    await ready;
    assert.deepEqual([session.ready, session.reason], [true, ""]);
    const unready = once(session, "unready");
    at.agent.server.unready(id, "memory");
    assert.deepEqual(await unready, ["memory"]);
    assert.deepEqual([session.ready, session.reason], [false, "memory"]);
  } finally {
    at.close();
  }
});

test("hand-over: state, what was read and is not processed, what is written and not recorded, in one message", async () => {
  const at = await stand();
  try {
    at.socket.once("data", () => at.socket.pause());
    at.peer.write("one\ntw");
    await once(at.socket, "data");
    const session: ProtectedSession = at.application.protect(at.socket, {
      handover: () => ({
        inputOffset: 4,
        outputOffset: session.outputOffset,
        state: Buffer.from("after one"),
        inputBuffer: Buffer.from("tw"),
      }),
    });
    const { id } = await at.agent.hears("protect");
    await session.write("answer 1\n");
    // Read by the process, not by the application: nobody else has these bytes.
    at.socket.resume();
    at.socket.once("data", (chunk: Buffer) => {
      assert.equal(chunk.toString(), "o\nth");
      at.socket.pause();
      at.socket.unshift(chunk);
    });
    at.peer.write("o\nth");
    await delay(20);
    at.agent.server.standbyReady(id, 3);
    const { handover } = await at.agent.hears("handover");
    assert.deepEqual(
      { ...handover, state: String(handover.state), input: String(handover.input), output: String(handover.output) },
      { inputOffset: 4, outputOffset: 9, outputStart: 3, state: "after one", input: "two\nth", output: "wer 1\n" },
    );
  } finally {
    at.close();
  }
});

test("bytes that the socket held before it was protected are awaited", async () => {
  const at = await stand();
  try {
    at.socket.once("readable", () => {});
    at.peer.write("early");
    while (at.socket.readableLength < 5) await delay(2);
    const session: ProtectedSession = at.application.protect(at.socket, { handover: () => empty(session) });
    const { id } = await at.agent.hears("protect");
    at.agent.server.standbyReady(id, 0);
    await delay(50);
    assert.deepEqual(at.agent.said, []);
    assert.equal(session.inputOffset, 0);
    assert.equal(String(at.socket.read()), "early");
    const { handover } = await at.agent.hears("handover");
    assert.deepEqual([handover.inputOffset, handover.input.length], [5, 0]);
  } finally {
    at.close();
  }
});

test("output that was written before and is not kept must be recorded first", async () => {
  const at = await stand();
  try {
    at.socket.write(Buffer.alloc(300_000));
    const session: ProtectedSession = at.application.protect(at.socket, { handover: () => empty(session) });
    const { id } = await at.agent.hears("protect");
    at.agent.server.standbyReady(id, 1000);
    // Still true, and no reason to forget that the standby waits.
    at.agent.server.unready(id, "awaiting-handover");
    await delay(30);
    assert.deepEqual(at.agent.said, []);
    at.peer.resume();
    at.agent.server.progress([[id, 300_000, 0]]);
    const { handover } = await at.agent.hears("handover");
    assert.deepEqual([handover.outputStart, handover.outputOffset, handover.output.length], [300_000, 300_000, 0]);
  } finally {
    at.close();
  }
});

test("a hand-over that says what cannot be is refused here, and taken when it is right", async () => {
  const at = await stand();
  try {
    at.socket.resume();
    at.peer.write("12345");
    let answer: HandoverAnswer = { inputOffset: 3, outputOffset: 0 };
    const session = at.application.protect(at.socket, { handover: () => answer });
    const { id } = await at.agent.hears("protect");
    while (session.inputOffset < 5) await delay(2);
    const cases: [HandoverAnswer, string][] = [
      [{ inputOffset: 3, outputOffset: 0 }, "handover-mismatch"],
      [{ inputOffset: 5, outputOffset: 1 }, "confirm-beyond"],
      [{ inputOffset: 5, outputOffset: 0, state: Buffer.alloc(262_145) }, "state-too-large"],
    ];
    at.agent.server.standbyReady(id, 0);
    for (const [given, code] of cases) {
      answer = given;
      const [error] = await once(session, "refused");
      assert.equal(error.code, code);
      assert.equal(session.reason, code);
    }
    answer = { inputOffset: 5, outputOffset: 0, state: Buffer.alloc(262_144) };
    assert.equal((await at.agent.hears("handover")).handover.state.length, 262_144);
  } finally {
    at.close();
  }
});

test("confirm: offsets, state and the output that is not recorded travel together; refusals change nothing", async () => {
  const at = await stand();
  try {
    at.socket.resume();
    const { session, id } = await readied(at);
    at.peer.write("request");
    while (session.inputOffset < 7) await delay(2);
    void session.write("reply");
    assert.deepEqual(await session.confirm(7, 3, Buffer.from("s1")), { stored: true });
    const { confirm } = await at.agent.hears("confirm");
    assert.deepEqual(
      { ...confirm, state: String(confirm.state), output: String(confirm.output) },
      { inputOffset: 7, outputOffset: 3, outputStart: 0, state: "s1", output: "rep" },
    );
    at.agent.server.progress([[id, 4, 7]]);
    await delay(30);
    await session.confirm(7, 5);
    const second = (await at.agent.hears("confirm")).confirm;
    assert.deepEqual([second.state, second.outputStart, String(second.output)], [null, 4, "y"]);
    await assert.rejects(session.confirm(8, 5), { code: "confirm-beyond" });
    await assert.rejects(session.confirm(7, 6), { code: "confirm-beyond" });
    await assert.rejects(session.confirm(6, 5), { code: "confirm-behind" });
    await assert.rejects(session.confirm(7, 4), { code: "confirm-behind" });
    await assert.rejects(session.confirm(7, 5, Buffer.alloc(262_145)), { code: "state-too-large" });
    assert.ok(session.ready);
    at.agent.stores = false;
    assert.deepEqual(await session.confirm(7, 5), { stored: false });
  } finally {
    at.close();
  }
});

test("logged writes are on the standby before they are in the socket, earlier bytes with them, order kept", async () => {
  const at = await stand();
  try {
    const { session, id } = await readied(at);
    at.agent.stores = null;
    const heard: string[] = [];
    at.peer.on("data", (chunk: Buffer) => heard.push(String(chunk)));
    void session.write("plain1 ");
    const logged = session.write("logged ", { logged: true });
    const later = session.write("plain2");
    const log = await at.agent.hears("log");
    assert.deepEqual([log.id, log.outputStart, String(log.output)], [id, 0, "plain1 logged "]);
    await delay(30);
    assert.equal(heard.join(""), "plain1 ");
    at.agent.unanswered.shift()?.(true);
    assert.deepEqual(await logged, { stored: true });
    assert.deepEqual(await later, { stored: false });
    while (heard.join("").length < 20) await delay(2);
    assert.equal(heard.join(""), "plain1 logged plain2");
    // What was logged is not sent again; what is too much for one message comes in several.
    const much = session.write(Buffer.alloc(1_300_000, 0x61), { logged: true });
    const sizes: number[] = [];
    for (let piece = 0; piece < 3; piece++) sizes.push((await at.agent.hears("log")).output.length);
    assert.deepEqual(sizes, [524_288, 524_288, 251_430]);
    for (const answer of at.agent.unanswered.splice(0)) answer(true);
    assert.deepEqual(await much, { stored: true });
  } finally {
    at.close();
  }
});

test("held output leaves with its confirm, or when there is no standby", async () => {
  const at = await stand();
  try {
    const { session, id } = await readied(at, { holdOutput: true });
    const heard: string[] = [];
    at.peer.on("data", (chunk: Buffer) => heard.push(String(chunk)));
    void session.write("first ");
    void session.write("second ");
    await delay(20);
    assert.deepEqual(heard, []);
    at.agent.stores = null;
    const confirmed = session.confirm(0, 9);
    await at.agent.hears("confirm");
    await delay(20);
    assert.deepEqual(heard, [], "not before the standby has it");
    at.agent.unanswered.shift()?.(true);
    await confirmed;
    while (heard.join("").length < 9) await delay(2);
    assert.equal(heard.join(""), "first sec");
    at.agent.server.unready(id, "not-recorded");
    await once(session, "unready");
    assert.deepEqual(await session.confirm(0, 13), { stored: false });
    while (heard.join("").length < 13) await delay(2);
    assert.equal(heard.join(""), "first second ");
  } finally {
    at.close();
  }
});

test("end: FIN behind all that was written, also what waits for its confirm; input and protection go on", async () => {
  const at = await stand();
  try {
    const { session, id } = await readied(at, { holdOutput: true });
    const received = collect(at.peer);
    const heard: string[] = [];
    at.socket.on("data", (chunk: Buffer) => heard.push(String(chunk)));
    void session.write("held ");
    void session.write("logged", { logged: true });
    const ended = session.end();
    await assert.rejects(session.write("more"), { code: "session-over" });
    await delay(30);
    assert.equal(at.peer.readableEnded, false);
    await session.confirm(0, 5);
    await ended;
    assert.equal(String(await received), "held logged");
    at.peer.write("still heard");
    while (heard.join("").length < 11) await delay(2);
    assert.deepEqual(await session.confirm(11, 11, Buffer.from("s")), { stored: true });
    assert.deepEqual([session.ready, session.over, at.agent.duplicates.has(id)], [true, false, true]);
    at.peer.end();
    await session.close();
    assert.equal((await at.agent.hears("release")).how, "close");
  } finally {
    at.close();
  }
});

test("output that is only repeated is not written, since a FIN may be behind it already", async () => {
  const agent = new TestAgent();
  const { peer, fd } = await tcpPair();
  const received = collect(peer);
  const application = connectAgent({ path: agent.path });
  try {
    await application.register("ledger", "confirmed");
    const id = agent.offer("ledger", "confirmed", { joined: true });
    const [standby] = await once(application, "session");
    native.shutdownWrite(fd);
    agent.server.takeover(
      id,
      {
        ...{ inputOffset: 0, outputOffset: 4, confirmed: { inputOffset: 0, outputOffset: 0 } },
        ...{
          base: { input: 0, output: 4 },
          clean: null,
          state: Buffer.alloc(0),
          outputSinceConfirm: Buffer.from("sent"),
        },
      },
      fd,
    );
    const [takeover] = await once(standby, "takeover");
    const session: ProtectedSession = takeover.protect({ replay: true });
    await session.write("sent");
    await session.end();
    assert.equal(String(await received), "");
    peer.write("heard");
    const [chunk] = await once(session.socket, "data");
    assert.equal(String(chunk), "heard");
  } finally {
    application.close();
    agent.close();
    peer.destroy();
  }
});

test("close and abort: the agent lets go first; a socket that ends is released", async () => {
  const at = await stand();
  try {
    const { session, id } = await readied(at);
    const received = collect(at.peer);
    void session.write("last words", { logged: true });
    await session.close();
    const release = await at.agent.hears("release");
    assert.deepEqual([release.id, release.how], [id, "close"]);
    assert.equal(String(await received), "last words");
    await assert.rejects(session.write("more"), { code: "session-over" });
    assert.deepEqual(await session.confirm(0, 0), { stored: false });

    const second = await connection();
    const aborted = at.application.protect(second.socket);
    await at.agent.hears("protect");
    await delay(10);
    const failed = once(second.peer, "error");
    await aborted.abort();
    assert.equal((await at.agent.hears("release")).how, "abort");
    assert.equal((await failed)[0].code, "ECONNRESET");

    const third = await connection();
    at.application.protect(third.socket);
    await at.agent.hears("protect");
    await delay(10);
    const ended = once(third.peer, "end");
    third.socket.destroy();
    assert.equal((await at.agent.hears("release")).how, "close");
    await ended;
    third.peer.destroy();
  } finally {
    at.close();
  }
});

test("what the agent refuses is told by its code; the session goes on", async () => {
  const at = await stand();
  try {
    for (const code of ["not-tcp", "mptcp", "not-connected", "unknown-service", "already-protected"] as const) {
      at.agent.refuseProtect = code;
      const { socket, peer } = await connection();
      const session = at.application.protect(socket);
      const [error] = await once(session, "refused");
      assert.deepEqual([error.code, session.reason], [code, code]);
      await session.write("goes on");
      assert.equal(String((await once(peer, "data"))[0]), "goes on");
      socket.destroy();
      peer.destroy();
    }
  } finally {
    at.close();
  }
});

test("the agent goes and comes back: confirms and logged writes do not wait, protection is asked for again", async () => {
  const at = await stand();
  const received = collect(at.peer);
  try {
    const { session } = await readied(at, { holdOutput: true });
    at.agent.stores = null;
    void session.write("held ");
    const confirmed = session.confirm(0, 5);
    const logged = session.write("logged", { logged: true });
    await at.agent.hears("log");
    const unready = once(session, "unready");
    at.agent.server.close();
    assert.deepEqual(await unready, ["stopping"]);
    assert.deepEqual([await confirmed, await logged], [{ stored: false }, { stored: false }]);
    const back = new TestAgent({ path: at.agent.path });
    const { id } = await back.hears("protect");
    back.server.standbyReady(id, 11);
    const { handover } = await back.hears("handover");
    assert.deepEqual([handover.outputOffset, handover.outputStart], [11, 11]);
    const ready = once(session, "ready");
    back.server.ready(id);
    await ready;
    await session.close();
    assert.equal(String(await received), "held logged");
    back.close();
  } finally {
    at.close();
  }
});

test("an application that is gone: the agent hears which sessions were its own", async () => {
  const at = await stand();
  try {
    const { id } = await readied(at);
    at.application.close();
    const gone = await at.agent.hears("gone");
    assert.deepEqual([gone.ids, gone.process.pid, gone.process.alive], [[id], process.pid, true]);
  } finally {
    at.close();
  }
});

test("an application that dies is not taken for alive, though its process is there until somebody waits for it", async () => {
  const agent = new TestAgent();
  const listener = net.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as net.AddressInfo;
  const sdk = new URL("../../src/sdk/index.js", import.meta.url);
  const program = `
    const { connectAgent } = await import("${sdk}");
    const agent = connectAgent({ path: "${agent.path}" });
    const socket = (await import("node:net")).connect(${port}, "127.0.0.1", () => agent.protect(socket));`;
  // The shell becomes a parent that never waits.
  const parent = spawn("sh", [
    "-c",
    '"$@" & exec sleep 60',
    "sh",
    process.execPath,
    "--input-type=module",
    "-e",
    program,
  ]);
  try {
    const { request } = await agent.hears("protect");
    process.kill(request.process.pid, "SIGKILL");
    const gone = await agent.hears("gone");
    assert.deepEqual(gone.process, { ...request.process, alive: false });
  } finally {
    parent.kill();
    listener.close();
    agent.close();
  }
});

test("output written around the session is noticed: it goes on unprotected", async () => {
  const at = await stand();
  try {
    const { session, id } = await readied(at);
    at.socket.write("past it");
    const refused = once(session, "refused");
    at.agent.server.progress([[id, 7, 0]]);
    assert.equal((await refused)[0].code, "written-around");
    assert.equal((await at.agent.hears("release")).how, "detach");
    assert.equal(at.socket.destroyed, false);
  } finally {
    at.close();
  }
});

test("property: whatever is written, confirmed, logged and recorded, what the standby is told has no gap and no wrong byte", async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("write" as const), size: fc.integer({ min: 0, max: 40_000 }), logged: fc.boolean() }),
    fc.record({ kind: fc.constant("confirm" as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
    fc.record({ kind: fc.constant("record" as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
    fc.record({ kind: fc.constant("rejoin" as const) }),
    fc.record({ kind: fc.constant("breathe" as const) }),
  );
  const property = fc.asyncProperty(
    fc.array(step, { maxLength: 25 }),
    fc.boolean(),
    fc.integer({ min: 0, max: 100_000 }),
    async (steps, holdOutput, before) => {
      const byte = (offset: number) => offset % 251;
      const piece = (start: number, size: number) =>
        Buffer.from(Array.from({ length: size }, (_, i) => byte(start + i)));
      const at = await stand();
      const received = collect(at.peer);
      let produced = before;
      let confirmed = 0;
      // What the standby has: recorded or told, without a gap from the start of its join.
      let has = 0;
      let from = 0;
      const told = (start: number, bytes: Uint8Array) => {
        assert.ok(start <= has, `a gap between ${has} and ${start}`);
        assert.ok(Buffer.from(bytes).equals(piece(start, bytes.length)), "a wrong byte");
        from = Math.min(from, start);
        has = Math.max(has, start + bytes.length);
      };
      try {
        at.socket.write(piece(0, before));
        const session: ProtectedSession = at.application.protect(at.socket, {
          holdOutput,
          handover: () => ({ inputOffset: 0, outputOffset: confirmed }),
        });
        const { id } = await at.agent.hears("protect");
        let recorded = 0;
        const take = () => {
          for (const said of at.agent.said.splice(0)) {
            if (said.what === "log") told(said.outputStart, said.output);
            const point = said.what === "handover" ? said.handover : said.what === "confirm" ? said.confirm : null;
            if (point === null) continue;
            told(point.outputStart, point.output);
            assert.ok(has >= point.outputOffset, "output before the resume point is missing");
            assert.ok(from <= point.outputOffset || said.what === "confirm", "output behind the state is missing");
            if (said.what === "handover") at.agent.server.ready(id);
          }
        };
        for (const step of steps) {
          if (step.kind === "write") {
            void session.write(piece(produced, step.size), { logged: step.logged });
            produced += step.size;
          } else if (step.kind === "confirm") {
            confirmed = Math.max(confirmed, Math.floor(step.part * produced));
            void session.confirm(0, confirmed);
          } else if (step.kind === "record") {
            recorded = Math.max(recorded, Math.floor(step.part * produced));
            has = Math.max(has, recorded);
            at.agent.server.progress([[id, recorded, 0]]);
          } else if (step.kind === "rejoin") {
            take();
            at.agent.server.unready(id, "joining");
            has = recorded;
            from = recorded;
            at.agent.server.standbyReady(id, recorded);
          } else await delay(12);
          await breathe();
          take();
        }
        await session.confirm(0, produced);
        take();
        await session.close();
        assert.ok((await received).equals(piece(0, produced)), "the peer's stream");
      } finally {
        at.close();
      }
    },
  );
  await fc.assert(property, { numRuns: 60 });
});
