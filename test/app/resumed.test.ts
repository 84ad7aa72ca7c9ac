// The standby's side of sessions that were handed over or confirmed, over a real agent socket: state and streams begin
// where they were handed over, and at the takeover the application goes on, protected again.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { OfferedTakeover } from "../../src/app/server.js";
import {
  connectAgent,
  type Replica,
  type ServedConnection,
  serveProtected,
  serveReplicated,
  type Takeover,
} from "../../src/sdk/index.js";
import { collect, nextSession, registeredPair, TestAgent, tcpPair } from "./agent.js";

/** State at input 10, output 20; the active has sent up to output 26. */
const resumed: OfferedTakeover = {
  inputOffset: 10,
  outputOffset: 26,
  confirmed: { inputOffset: 10, outputOffset: 20 },
  base: { input: 10, output: 24 },
  clean: null,
  state: Buffer.from("the state"),
  outputSinceConfirm: Buffer.from("abcdef"),
};

async function takenOver(mode: "confirmed" | "delivered", takeover: OfferedTakeover) {
  const agent = new TestAgent();
  const application = connectAgent({ path: agent.path });
  await application.register("ledger", mode);
  const arrives = nextSession(application);
  const id = agent.offer("ledger", mode, { inputOffset: 3, outputOffset: 2, recorded: 9, joined: true });
  const session = await arrives;
  const { peer, fd } = await tcpPair();
  const comes = once(session, "takeover");
  assert.ok(agent.server.takeover(id, takeover, fd));
  const [taken] = (await comes) as [Takeover];
  const close = () => {
    application.close();
    taken.socket.destroy();
    peer.destroy();
    agent.close();
  };
  return { agent, application, session, taken, peer, close };
}

test("a confirmed session: no feed, then socket, state and output since the confirm", async () => {
  const at = await takenOver("confirmed", resumed);
  try {
    const { mode, feed, inputOffset, outputOffset, recorded, joined } = at.session;
    assert.deepEqual(
      { mode, feed, inputOffset, outputOffset, recorded, joined },
      { mode: "confirmed", feed: null, inputOffset: 3, outputOffset: 2, recorded: 26, joined: true },
    );
    assert.throws(() => at.session.replica(), /not live/);
    assert.equal(String(at.taken.state), "the state");
    assert.equal(String(at.taken.outputSinceConfirm), "abcdef");
    assert.deepEqual(at.taken.confirmed, { inputOffset: 10, outputOffset: 20 });
    assert.equal(at.taken.clean, null);
    // Protected again: offsets go on, and the agent learns where the kernel's counters begin.
    const session = at.taken.protect({ handover: () => null });
    const { request } = await at.agent.hears("protect");
    assert.deepEqual([request.service, request.base], ["ledger", { input: 10, output: 24 }]);
    assert.deepEqual([session.inputOffset, session.outputOffset], [10, 26]);
    at.peer.write("more");
    await once(at.taken.socket, "data");
    assert.equal(session.inputOffset, 14);
  } finally {
    at.close();
  }
});

test("replay: what is on its way is produced once more, compared, and not sent again", async () => {
  const at = await takenOver("confirmed", resumed);
  try {
    const session = at.taken.protect({
      replay: true,
      handover: () => ({ inputOffset: 10, outputOffset: session.outputOffset }),
    });
    const { id } = await at.agent.hears("protect");
    assert.equal(session.outputOffset, 20);
    void session.write("abcd");
    assert.equal(session.outputOffset, 24);
    // A standby that joins now lacks everything from the state on.
    at.agent.server.standbyReady(id, 26);
    const { handover } = await at.agent.hears("handover");
    assert.deepEqual([handover.outputOffset, handover.outputStart, String(handover.output)], [24, 24, "ef"]);
    const heard = once(at.peer, "data");
    void session.write("efgh");
    assert.equal(String((await heard)[0]), "gh");
    assert.equal(session.outputOffset, 28);
  } finally {
    at.close();
  }
});

test("replay with output held back: what is only repeated waits for no confirm, what goes beyond does", async () => {
  const at = await takenOver("confirmed", resumed);
  try {
    const session = at.taken.protect({ replay: true, holdOutput: true });
    await session.write("abcd");
    const beyond = session.write("efgh");
    assert.equal(await Promise.race([beyond, delay(50, "held")]), "held");
    const heard = once(at.peer, "data");
    await session.confirm(10, 28);
    assert.equal(String((await heard)[0]), "gh");
    await beyond;
  } finally {
    at.close();
  }
});

test("replay of other output resets the connection rather than change the stream", async () => {
  const at = await takenOver("confirmed", resumed);
  try {
    const session = at.taken.protect({ replay: true });
    const reset = once(at.peer, "error");
    await assert.rejects(session.write("abX"), { code: "replay-mismatch" });
    assert.equal((await reset)[0].code, "ECONNRESET");
  } finally {
    at.close();
  }
});

test("a delivered session says whether the other application had answered all it had read", async () => {
  const at = await takenOver("delivered", {
    ...resumed,
    outputOffset: 20,
    outputSinceConfirm: new Uint8Array(),
    state: new Uint8Array(),
    clean: true,
  });
  try {
    assert.deepEqual([at.taken.clean, at.taken.state.length, at.session.mode], [true, 0, "delivered"]);
  } finally {
    at.close();
  }
});

test("a live session that was joined: the feed begins at the hand-over, the replica is protected after the takeover", async () => {
  const { agent, connection, close } = await registeredPair();
  try {
    const arrives = nextSession(connection);
    const state = Buffer.from("42");
    const { id, feed } = agent.open("web", 30, { inputOffset: 100, outputOffset: 20, joined: true, state });
    const session = await arrives;
    assert.deepEqual([String(session.state), session.joined], ["42", true]);
    const replica = session.replica();
    replica.protect(() => ({
      inputOffset: replica.inputOffset,
      outputOffset: replica.outputOffset,
      state: session.state,
    }));
    assert.deepEqual([replica.inputOffset, replica.outputOffset], [100, 20]);
    const read: string[] = [];
    replica.on("data", (chunk: Buffer) => read.push(String(chunk)));
    replica.write("0123456789AB"); // 20 to 32; the active has sent up to 31
    feed.end("xyz");
    const { peer, fd } = await tcpPair();
    const base = { input: 103, output: 31 };
    const position = { inputOffset: 103, outputOffset: 31 };
    const nothing = new Uint8Array();
    const took = { ...position, confirmed: position, base, clean: null, state: nothing, outputSinceConfirm: nothing };
    const first = once(peer, "data");
    assert.ok(agent.server.takeover(id, took, fd));
    assert.equal(String((await first)[0]), "B");
    const asked = await agent.hears("protect");
    assert.deepEqual(asked.request.base, base);
    peer.write("more");
    while (read.join("") !== "xyzmore") await once(replica, "data");
    agent.server.standbyReady(asked.id, 32);
    const { handover } = await agent.hears("handover");
    assert.deepEqual([handover.inputOffset, handover.outputOffset, String(handover.state)], [107, 32, "42"]);
    agent.server.ready(asked.id);
    const received = collect(peer);
    replica.end("CD");
    assert.equal(String(await received), "CD");
    peer.end();
  } finally {
    close();
  }
});

test("serveProtected: one handler for what is accepted and what is taken over", async () => {
  const agent = new TestAgent();
  const application = connectAgent({ path: agent.path });
  const served: ServedConnection[] = [];
  serveProtected({
    agent: application,
    service: "ledger",
    mode: "confirmed",
    onConnection: (connection) => served.push(connection),
  });
  try {
    await once(application, "registered");
    const arrives = nextSession(application);
    const id = agent.offer("ledger", "confirmed");
    await arrives;
    const { peer, fd } = await tcpPair();
    assert.ok(agent.server.takeover(id, resumed, fd));
    while (served.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    const [connection] = served as [ServedConnection];
    assert.equal(String(connection.takeover?.state), "the state");
    const session = connection.protect({ replay: true });
    void session.write("abcdefg");
    assert.equal(String((await once(peer, "data"))[0]), "g");
    await session.close();
  } finally {
    application.close();
    agent.close();
  }
});

test("serveReplicated: what the listener accepts runs the same handler, and can be joined with what it has not read", async () => {
  const agent = new TestAgent();
  const listener = net.createServer({ allowHalfOpen: true });
  const served: Replica[] = [];
  const service = serveReplicated({
    socketPath: agent.path,
    service: "web",
    listener,
    onConnection: (connection) => {
      connection.protect(() => ({ inputOffset: connection.inputOffset, outputOffset: connection.outputOffset }));
      served.push(connection);
      connection.once("data", (chunk: Buffer) => {
        connection.pause();
        connection.write(`heard ${chunk}`);
      });
    },
  });
  try {
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    while (agent.registered.length === 0) await delay(2);
    const peer = net.connect((listener.address() as net.AddressInfo).port, "127.0.0.1");
    peer.write("one");
    assert.equal(String((await once(peer, "data"))[0]), "heard one");
    const { id, request } = await agent.hears("protect");
    assert.equal(request.service, "web");
    peer.write("two");
    const [replica] = served as [Replica];
    while (replica.readableLength < 3) await delay(2);
    agent.server.standbyReady(id, 4);
    const { handover } = await agent.hears("handover");
    assert.deepEqual(
      [handover.inputOffset, String(handover.input), handover.outputOffset, String(handover.output)],
      [3, "two", 9, "d one"],
    );
    const ended = once(peer, "end");
    replica.end();
    replica.resume();
    peer.end();
    await ended;
    assert.equal((await agent.hears("release")).how, "close");
  } finally {
    service.close();
    listener.close();
    agent.close();
  }
});
