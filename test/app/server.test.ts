// The agent's server and the SDK's connection over a real Unix socket: registration, refusals, what is told, and what
// happens when one of the two is slow or goes away.

import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, openSync, readdirSync, readlinkSync } from "node:fs";
import type net from "node:net";
import path from "node:path";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import { native } from "../../addon/native.js";
import { MessageReader } from "../../src/app/framing.js";
import { TO_APPLICATION } from "../../src/app/messages.js";
import type { TandemError } from "../../src/errors.js";
import { connectAgent } from "../../src/sdk/agent.js";
import { serveReplicated } from "../../src/sdk/serve.js";
import type { StandbySession } from "../../src/sdk/session.js";
import { collect, liveTakeover, nextSession, registeredPair, TestAgent, tcpPair } from "./agent.js";

/** What an application in another language sees: raw lines. Resolves when the agent closes or `count` messages came. */
function rawClient(path: string): {
  say: (text: string | Uint8Array, fds?: number[]) => void;
  seen: () => number;
  heard: (count: number) => Promise<{ type: string; code?: string; fatal?: boolean }[]>;
  closed: Promise<void>;
  close: () => void;
} {
  const messages: { type: string }[] = [];
  const reader = new MessageReader(TO_APPLICATION);
  let changed = () => {};
  let onClosed = () => {};
  let open = true;
  const closed = new Promise<void>((resolve) => {
    onClosed = resolve;
  });
  const channel = native.unixChannel(native.unixConnect(path), {
    onData: (data, fds) => {
      reader.push(data, fds, (raw) => messages.push(raw.body as { type: string }));
      changed();
    },
    onClose: () => {
      open = false;
      onClosed();
      changed();
    },
  });
  return {
    say: (text, fds) => channel.send(Buffer.from(text), fds),
    heard: async (count) => {
      while (messages.length < count && open) await new Promise<void>((resolve) => (changed = resolve));
      return messages;
    },
    seen: () => messages.length,
    closed,
    close: () => channel.destroy(),
  };
}

/** What this process has open, by name. */
function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // the descriptor of the listing itself
    }
  });
}

const waitFor = async (condition: () => boolean) => {
  for (let round = 0; round < 500 && !condition(); round++) await delay(10);
  assert.ok(condition(), "waited in vain");
};

test("registration: welcome, one application for a service, refusals with stable codes", async () => {
  const agent = new TestAgent();
  try {
    const first = connectAgent({ path: agent.path, application: "first" });
    await once(first, "connected");
    assert.equal(first.router, "a");
    assert.equal(first.role, "standby");
    assert.deepEqual(first.modes, ["live", "confirmed", "delivered"]);
    await first.register("web", "live");
    assert.deepEqual(agent.registered, [
      { service: "web", mode: "live", application: "first", pid: process.pid, uid: process.getuid?.() },
    ]);
    await assert.rejects(first.register("web", "live"), { code: "already-registered" });
    await assert.rejects(first.register("none", "live"), { code: "unknown-service" });
    await assert.rejects(first.register("delivered-only", "live"), { code: "mode-not-supported" });
    const second = connectAgent({ path: agent.path });
    await assert.rejects(second.register("web", "live"), { code: "service-taken", remedy: /Stop the other/ });
    await second.register("shell", "delivered");
    assert.deepEqual(
      agent.server
        .registrations()
        .map((entry) => entry.service)
        .sort(),
      ["shell", "web"],
    );
    const role = once(second, "role");
    agent.server.setRole("active");
    assert.deepEqual(await role, ["active"]);
    first.close();
    await waitFor(() => agent.gone.length === 1);
    assert.equal(agent.gone[0]?.registration.service, "web");
    await second.register("web", "live"); // free again
    second.close();
  } finally {
    agent.close();
  }
});

test("malformed clients are told why, and only what breaks the stream ends it", async () => {
  const agent = new TestAgent();
  try {
    const cases: [text: string, code: string, fatal: boolean][] = [
      ['{"type":"register","service":"web","mode":"live"}\n', "hello-first", true],
      ['{"type":"invented"}\n', "hello-first", true],
      ['{"type":"hello","version":0}\n', "version", true],
      ['{"type":"hello"}\n', "bad-message", true],
      ["GET / HTTP/1.1\r\n\r\n", "bad-json", true],
      ["a".repeat(70_000), "line-too-long", true],
      ['{"type":"hello","version":1,"fds":1}\n', "unexpected-descriptors", true],
    ];
    for (const [text, code, fatal] of cases) {
      const client = rawClient(agent.path);
      client.say(text);
      const [answer] = await client.heard(1);
      assert.deepEqual(
        { type: answer?.type, code: answer?.code, fatal: answer?.fatal },
        { type: "error", code, fatal },
      );
      await client.closed;
    }
    const client = rawClient(agent.path);
    client.say('{"type":"hello","version":7,"new":true}\n{"type":"invented"}\n');
    const answers = await client.heard(2);
    assert.deepEqual(answers[0], {
      type: "welcome",
      version: 1,
      router: "a",
      role: "standby",
      modes: ["live", "confirmed", "delivered"],
    });
    assert.equal(answers[1]?.code, "unknown-type");
    // A descriptor that can be recognised: that of this agent's directory.
    const directory = path.dirname(agent.path);
    const descriptor = openSync(directory, "r");
    client.say('{"type":"register","service":"web","mode":"live","request":5}\n', [descriptor]);
    await client.closed;
    assert.equal((await client.heard(9)).at(-1)?.code, "unexpected-descriptors");
    closeSync(descriptor);
    assert.deepEqual(
      openFiles().filter((name) => name === directory),
      [],
      "the refused descriptor is closed",
    );
    assert.deepEqual(agent.server.registrations(), []);
  } finally {
    agent.close();
  }
});

test("what is said about sessions: believed only of one's own, within its limits, and never fatal to the others", async () => {
  const agent = new TestAgent();
  const { peer, fd } = await tcpPair();
  try {
    const client = rawClient(agent.path);
    client.say('{"type":"hello","version":1}\n');
    client.say('{"type":"protect","request":1,"fds":1}\n', [fd]);
    const id = (await agent.hears("protect")).id;
    const refusedAs = async (messages: [string, Buffer, string][], from = client) => {
      for (const [fields, parts, code] of messages) {
        from.say(Buffer.concat([Buffer.from(`{${fields}}\n`), parts]));
        const answers = await from.heard(from.seen() + 1);
        assert.deepEqual([answers.at(-1)?.code, answers.at(-1)?.fatal], [code, false], fields.slice(0, 80));
      }
    };
    await client.heard(2);
    const at = `"id":${id},"inputOffset":50,"outputOffset":40`;
    const zeros = (size: number) => Buffer.alloc(size);
    const confirm = `"type":"confirm",${at}`;
    const handover = `"type":"handover",${at},"outputStart":0`;
    await refusedAs([
      [`${confirm},"outputStart":0,"parts":[0,39]`, zeros(39), "confirm-beyond"],
      [`${confirm},"outputStart":0,"parts":[262145,40]`, zeros(262_185), "state-too-large"],
      [`${confirm},"outputStart":0,"parts":[0,524289]`, zeros(524_289), "buffer-too-large"],
      [`${handover},"parts":[0,262145,40]`, zeros(262_185), "buffer-too-large"],
      [`"type":"log","id":${id},"outputStart":0,"parts":[524289]`, zeros(524_289), "buffer-too-large"],
      [`"type":"log","id":${id + 1},"outputStart":0,"parts":[0]`, zeros(0), "unknown-session"],
    ]);
    client.say(Buffer.concat([Buffer.from(`{${confirm},"outputStart":0,"parts":[0,40],"request":9}\n`), zeros(40)]));
    const answers = await client.heard(client.seen() + 1);
    assert.deepEqual(answers.at(-1), { type: "confirmed", id, stored: true, request: 9 });
    await refusedAs([
      [
        `"type":"confirm","id":${id},"inputOffset":49,"outputOffset":40,"outputStart":40,"parts":[0,0]`,
        zeros(0),
        "confirm-behind",
      ],
      [
        `"type":"handover","id":${id},"inputOffset":50,"outputOffset":39,"outputStart":39,"parts":[0,0,0]`,
        zeros(0),
        "confirm-behind",
      ],
    ]);
    const stranger = rawClient(agent.path);
    stranger.say('{"type":"hello","version":1}\n');
    await stranger.heard(1);
    await refusedAs([[`"type":"release","id":${id},"how":"abort"`, zeros(0), "unknown-session"]], stranger);
    stranger.say('{"type":"log","parts":[2000000]}\n');
    assert.equal((await stranger.heard(3)).at(-1)?.code, "parts-too-large");
    await stranger.closed;
    assert.deepEqual(
      agent.said.map(({ what }) => what),
      ["confirm"],
    );
    client.close();
    assert.deepEqual((await agent.hears("gone")).ids, [id]);
  } finally {
    native.closeFd(fd);
    peer.destroy();
    agent.close();
  }
});

test("arbitrary bytes never hurt the server", async () => {
  const agent = new TestAgent();
  const piece = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 100 }),
    fc.json().map((json) => Buffer.from(`${json}\n`)),
    fc.constant(Buffer.from('{"type":"hello","version":1}\n')),
    fc.constant(Buffer.from('{"type":"register","service":"web","mode":"live"}\n')),
  );
  try {
    const property = fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
      const client = rawClient(agent.path);
      for (const bytes of pieces) client.say(bytes);
      await Promise.race([client.closed, delay(2)]);
      client.close();
    });
    await fc.assert(property, { numRuns: 100 });
    await waitFor(() => agent.server.registrations().length === 0);
    const connection = connectAgent({ path: agent.path });
    await connection.register("web", "live");
    connection.close();
  } finally {
    agent.close();
  }
});

test("no agent: agent-absent with the path", async () => {
  const agent = connectAgent({ path: "/tmp/tandem-no-such/app.sock", retryDelay: 5 });
  const told: TandemError[] = [];
  agent.on("disconnected", (error) => told.push(error));
  await delay(50);
  agent.close();
  assert.deepEqual(
    told.map(({ code }) => code),
    ["agent-absent"],
    "told once",
  );
  assert.match(told[0]!.message, /tandem-no-such/);
});

test("a session: feed, progress in batches, fin, closed", async () => {
  const { agent, connection, close } = await registeredPair();
  try {
    const arrives = nextSession(connection);
    const { id, feed } = agent.open("web", 17);
    const session = await arrives;
    assert.equal(session.mode, "live");
    assert.deepEqual(session.local, { ip: "10.77.0.1", port: 80 });
    assert.equal(session.recorded, 17);
    const received = collect(session.feed!);
    const seen: number[] = [];
    session.on("progress", (outputOffset) => seen.push(outputOffset));
    for (let step = 1; step <= 1000; step++) agent.server.progress([[id, 17 + step, step]]);
    await waitFor(() => seen.at(-1) === 1017);
    assert.ok(seen.length < 10, `${seen.length} messages for 1000 steps`);
    assert.equal(session.inputEnd, 1000);
    feed.end(Buffer.alloc(300_000, 0x61));
    const fin = once(session, "fin");
    agent.server.fin(id, 300_000);
    assert.deepEqual(await fin, [300_000]);
    const closed = once(session, "closed");
    agent.server.progress([[id, 5000, 5000]]);
    agent.server.closed(id, "closed");
    assert.deepEqual(await closed, ["closed"]);
    assert.equal((await received).length, 300_000);
    await delay(30);
    assert.equal(seen.at(-1), 1017, "nothing is told about a session that is over");
    assert.equal(connection.sessions.size, 0);
    // Another one is lost.
    const next = nextSession(connection);
    const other = agent.open("web");
    const lostSession = await next;
    const lost = once(lostSession, "lost");
    agent.server.notReady(other.id, "memory");
    const [error] = await lost;
    other.feed.end();
    lostSession.feed!.resume();
    assert.equal(error.code, "not-ready");
    assert.match(error.message, /memory/);
    assert.equal(agent.server.takeover(other.id, liveTakeover(0, 0), -1), false);
  } finally {
    close();
  }
});

test("an application that does not read: progress is coalesced, everything else is bounded", async () => {
  const agent = new TestAgent({ maxPending: 200_000, progressInterval: 1 });
  try {
    const fd = native.unixConnect(agent.path);
    const hello = Buffer.from('{"type":"hello","version":1}\n{"type":"register","service":"web","mode":"live"}\n');
    assert.equal(native.writeSome(fd, hello, 0, hello.length), hello.length);
    await waitFor(() => agent.registered.length === 1);
    const sessions = Array.from({ length: 100 }, () => agent.open("web"));
    // More bytes of progress than the socket and the bound could take.
    for (let round = 0; round < 400; round++) {
      agent.server.progress(sessions.map(({ id }): [number, number, number] => [id, round, 2 ** 52]));
      await delay(2);
    }
    assert.equal(agent.gone.length, 0);
    for (let round = 0; round < 20_000 && agent.gone.length === 0; round++) agent.server.fin(sessions[0]!.id, round);
    assert.equal(agent.gone.length, 1);
    assert.match(agent.gone[0]!.reason, /does not read/);
    assert.deepEqual(agent.server.registrations(), []);
    native.closeFd(fd);
    for (const { feed } of sessions) feed.destroy();
  } finally {
    agent.close();
  }
});

test("the agent goes: sessions are lost, those taken over go on; serveReplicated comes back", async () => {
  const agents = [new TestAgent()];
  const states: (string | null)[] = [];
  const service = serveReplicated({
    socketPath: agents[0]!.path,
    service: "web",
    retryDelay: 20,
    onConnection: (connection) => {
      connection.on("error", (error: Error & { code?: string }) => states.push(`session ${error.code}`));
      connection.pipe(connection);
    },
    onState: ({ registered, error }) => states.push(registered ? "registered" : (error?.code ?? null)),
  });
  try {
    const agent = agents[0]!;
    await waitFor(() => agent.registered.length === 1);
    const kept = agent.open("web");
    const lost = agent.open("web");
    const { peer, fd } = await tcpPair();
    kept.feed.end("abc");
    assert.ok(agent.server.takeover(kept.id, liveTakeover(3, 1), fd));
    assert.deepEqual((await once(peer, "data"))[0].toString(), "bc");
    agent.close();
    lost.feed.destroy();
    await waitFor(() => states.includes("session stopping"));
    peer.end("def");
    assert.equal((await collect(peer)).toString(), "def");
    await waitFor(() => states.includes("agent-absent"));
    assert.deepEqual(states.slice(0, 3), ["registered", "stopping", "session stopping"]);
  } finally {
    service.close();
    agents[0]!.close();
  }
});

test("a service is registered again when the agent is back on the same path", async () => {
  const directory = new TestAgent();
  const path = directory.path;
  directory.server.close();
  let registrations = 0;
  const service = serveReplicated({
    socketPath: path,
    service: "web",
    retryDelay: 10,
    onConnection: () => {},
    onState: ({ registered }) => {
      if (registered) registrations++;
    },
  });
  try {
    for (let life = 1; life <= 3; life++) {
      const agent = new TestAgent({ path });
      await waitFor(() => registrations === life);
      agent.close();
    }
  } finally {
    service.close();
    directory.close();
  }
});

test("takeovers that leave together: each session gets its own connection, whatever comes along", async () => {
  const { agent, connection, close } = await registeredPair();
  const ends: net.Socket[] = [];
  try {
    const sessions: StandbySession[] = [];
    connection.on("session", (session) => sessions.push(session));
    const opened = Array.from({ length: 20 }, () => agent.open("web"));
    const pairs = await Promise.all(opened.map(() => tcpPair()));
    ends.push(...pairs.map(({ peer }) => peer), ...opened.map(({ feed }) => feed));
    while (sessions.length < opened.length) await delay(2);
    for (const { feed } of sessions) feed?.resume();
    const taken = sessions.map((session) => once(session, "takeover"));
    agent.server.together(() => {
      opened.forEach(({ id }, index) => {
        const state = index === 5 ? Buffer.alloc(100_000, "s") : new Uint8Array();
        const { fd } = pairs[index] as (typeof pairs)[number];
        assert.ok(agent.server.takeover(id, { ...liveTakeover(0, 0), state }, fd));
      });
    });
    for (const [takeover] of await Promise.all(taken)) {
      const index = opened.findIndex(({ id }) => sessions.find((session) => session.takeover === takeover)?.id === id);
      assert.equal(takeover.state.length, index === 5 ? 100_000 : 0);
      const { peer } = pairs[index] as (typeof pairs)[number];
      takeover.socket.end(`session ${index}`);
      assert.equal(String(await collect(peer)), `session ${index}`);
      takeover.socket.destroy();
    }
  } finally {
    for (const end of ends) end.destroy();
    close();
  }
});
