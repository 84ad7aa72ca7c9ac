// The replica over a real agent socket, with a real TCP connection at the takeover: whatever the timing, the socket
// gets exactly the output from outputOffset on, and the application exactly the input.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import type net from "node:net";
import { Transform } from "node:stream";
import test from "node:test";
import { setImmediate as breathe, setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import type { Replica } from "../../src/sdk/index.js";
import { collect, liveTakeover, nextSession, registeredPair, tcpPair } from "./agent.js";

/** Deterministic applications: how they answer a stream, and the whole answer to a whole input. */
const applications: Record<string, { serve: (connection: Replica) => void; answer: (input: Buffer) => Buffer }> = {
  echo: {
    serve: (connection) => connection.pipe(connection),
    answer: (input) => input,
  },
  // More output than input, and its pieces do not follow the input's pieces.
  expand: {
    serve: (connection) => {
      const transform = new Transform({
        transform(chunk: Buffer, _encoding, callback) {
          for (const byte of chunk) this.push(Buffer.alloc(1 + (byte % 7), byte));
          callback();
        },
      });
      connection.pipe(transform).pipe(connection);
    },
    answer: (input) => Buffer.concat([...input].map((byte) => Buffer.alloc(1 + (byte % 7), byte))),
  },
  // Requests end with a byte below 40; each gets one answer, later.
  requests: {
    serve: (connection) => {
      let length = 0;
      let turn = Promise.resolve();
      connection.on("data", (chunk: Buffer) => {
        for (const byte of chunk) {
          length++;
          if (byte >= 40) continue;
          const answer = `${length};`;
          turn = turn.then(() => breathe()).then(() => void connection.write(answer));
        }
      });
      connection.on("end", () => turn.then(() => connection.end("bye")));
    },
    answer: (input) => {
      const answers: string[] = [];
      for (const [index, byte] of input.entries()) if (byte < 40) answers.push(`${index + 1};`);
      return Buffer.from(`${answers.join("")}bye`);
    },
  },
};

test("property: every byte of the output is sent once, by the active or by us; every byte of the input is read once", async () => {
  const { agent, connection, close } = await registeredPair();
  const input = fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ minLength: 1000, maxLength: 5000 }));
  const schedule = fc.record({
    application: fc.constantFrom(...Object.keys(applications)),
    input,
    /** Where the takeover comes, in parts of what is possible. */
    inputPart: fc.oneof(fc.constant(1), fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
    outputPart: fc.oneof(fc.constant(1), fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
    pieces: fc.array(fc.record({ size: fc.integer({ min: 1, max: 700 }), pause: fc.integer({ min: 0, max: 3 }) }), {
      maxLength: 12,
    }),
    progress: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 5 }),
    /** The descriptor may come before the feed is read. */
    early: fc.boolean(),
    /** The peer finished before the takeover, and that was told. */
    finTold: fc.boolean(),
    holdLimit: fc.oneof(fc.constant(1_048_576), fc.integer({ min: 1, max: 2000 })),
  });
  try {
    const property = fc.asyncProperty(schedule, async (run) => {
      const { serve, answer } = applications[run.application]!;
      const whole = Buffer.from(run.input);
      const inputOffset = run.finTold ? whole.length : Math.round(run.inputPart * whole.length);
      const finRead = run.finTold;
      const before = whole.subarray(0, inputOffset);
      // The active cannot have answered what it had not received; "bye" comes after the FIN only.
      const possible = finRead
        ? answer(before).length
        : answer(before).length - (run.application === "requests" ? 3 : 0);
      const outputOffset = Math.round(run.outputPart * possible);

      const arrives = nextSession(connection);
      const mirrored = agent.open("web");
      const session = await arrives;
      const replica = session.replica({ holdLimit: run.holdLimit });
      const read: Buffer[] = [];
      replica.on("data", (chunk: Buffer) => read.push(chunk));
      serve(replica);

      const { peer, fd } = await tcpPair();
      const sent = collect(peer);
      const takeover = () => assert.ok(agent.server.takeover(mirrored.id, liveTakeover(inputOffset, outputOffset), fd));
      const progress = [...run.progress].sort((a, b) => a - b).map((part) => Math.round(part * outputOffset));
      const feed = [...run.pieces];
      let fed = 0;
      if (run.finTold) agent.server.fin(mirrored.id, inputOffset);
      if (run.early) takeover();
      while (fed < inputOffset) {
        const next = feed.shift() ?? { size: inputOffset, pause: 0 };
        mirrored.feed.write(before.subarray(fed, fed + next.size));
        fed += next.size;
        for (let turn = 0; turn < next.pause; turn++) await breathe();
        const recorded = progress.shift();
        if (recorded !== undefined && !run.early) agent.server.progress([[mirrored.id, recorded, fed]]);
      }
      mirrored.feed.end();
      if (!run.early) takeover();
      // The peer goes on over TCP.
      const rest = whole.subarray(inputOffset);
      if (rest.length > 1) {
        peer.write(rest.subarray(0, rest.length >> 1));
        await breathe();
      }
      peer.end(rest.length > 1 ? rest.subarray(rest.length >> 1) : rest);

      const tail = await sent;
      assert.deepEqual(tail, answer(whole).subarray(outputOffset), "output from the takeover on");
      assert.deepEqual(Buffer.concat(read), whole, "input");
      if (!replica.destroyed) await once(replica, "close");
    });
    await fc.assert(property, { numRuns: 150 });
    assert.equal(connection.sessions.size, 0);
  } finally {
    close();
  }
});

/** One session with its replica and the TCP connection that will be handed over. */
async function oneSession(options: { holdLimit?: number; allowHalfOpen?: boolean } = {}) {
  const { agent, connection, close } = await registeredPair();
  const arrives = nextSession(connection);
  const { id, feed } = agent.open("web");
  const session = await arrives;
  const replica = session.replica(options);
  // A test that expects an error listens itself; closing the pair loses the session of the others.
  replica.on("error", () => {});
  const { peer, fd } = await tcpPair();
  const takeover = (inputOffset: number, outputOffset: number) =>
    agent.server.takeover(id, liveTakeover(inputOffset, outputOffset), fd);
  const closeAll = () => {
    peer.destroy();
    feed.destroy();
    close();
  };
  return { agent, id, feed, session, replica, peer, takeover, close: closeAll };
}

test("an http.Server on a replica answers on, in mid-answer and on the same connection", async () => {
  const serve = (connection: Replica | net.Socket) => {
    const server = http.createServer((request, response) => {
      response.sendDate = false;
      let received = 0;
      request.on("data", (chunk: Buffer) => (received += chunk.length));
      request.on("end", () => {
        const body = Buffer.alloc(Number(request.url?.slice(1)), `${request.method} ${received} `);
        response.writeHead(200, { "content-length": body.length });
        response.end(body);
      });
    });
    server.keepAliveTimeout = 0;
    server.emit("connection", connection);
  };
  const requests = Buffer.from(
    "GET /10 HTTP/1.1\r\nhost: x\r\n\r\n" +
      "PUT /3000000 HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n0123456789" +
      "GET /5 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
  );
  // What the active sends: the same server on a plain connection.
  const { replica, feed, peer, takeover, close } = await oneSession();
  try {
    const reference = await oneSession();
    serve(reference.replica);
    assert.ok(reference.takeover(0, 0));
    reference.peer.end(requests);
    const whole = await collect(reference.peer);
    reference.close();
    assert.ok(whole.length > 3_000_000);

    serve(replica);
    const first = requests.length - 60;
    feed.end(requests.subarray(0, first));
    await delay(20);
    const outputOffset = 1_000_000;
    assert.ok(takeover(first, outputOffset));
    peer.end(requests.subarray(first));
    assert.ok((await collect(peer)).equals(whole.subarray(outputOffset)));
  } finally {
    close();
  }
});

test("a write waits past the limit until the active's output is recorded", async () => {
  const { agent, id, replica, close } = await oneSession({ holdLimit: 1000 });
  try {
    let written = false;
    replica.write(Buffer.alloc(600));
    replica.write(Buffer.alloc(600), () => (written = true));
    await delay(30);
    assert.equal(written, false);
    agent.server.progress([[id, 300, 0]]);
    for (let round = 0; round < 500 && !written; round++) await delay(5);
    assert.ok(written);
    // An application behind the active does not wait at all.
    agent.server.progress([[id, 1_000_000, 0]]);
    await delay(30);
    for (let round = 0; round < 100; round++)
      await new Promise((resolve) => replica.write(Buffer.alloc(5000), resolve));
    assert.equal(replica.bytesWritten, 501_200);
  } finally {
    close();
  }
});

test("what was closed before the takeover is still sent, then FIN", async () => {
  const { replica, feed, peer, takeover, close } = await oneSession();
  try {
    replica.write("hello ");
    replica.end("world");
    replica.destroySoon();
    feed.write("not read by anyone");
    await delay(10);
    assert.equal(replica.writableFinished, false, "finished only when the active's bytes are recorded");
    assert.ok(takeover(18, 2));
    feed.end();
    assert.equal((await collect(peer)).toString(), "llo world");
    if (!replica.destroyed) await once(replica, "close");
  } finally {
    close();
  }
});

test("destroyed before the takeover: what it wrote gets out, as from a closed socket", async () => {
  const { replica, peer, takeover, close } = await oneSession();
  try {
    replica.write("last words");
    replica.destroy();
    await once(replica, "close");
    assert.ok(takeover(0, 5));
    assert.equal((await collect(peer)).toString(), "words");
  } finally {
    close();
  }
});

test("a meant reset is a reset after the takeover as well", async () => {
  const { replica, peer, takeover, close } = await oneSession();
  try {
    replica.resetAndDestroy();
    const failed = once(peer, "error");
    assert.ok(takeover(0, 0));
    const [error] = await failed;
    assert.equal(error.code, "ECONNRESET");
  } finally {
    close();
  }
});

test("half-closed by the peer before the takeover: the application goes on writing", async () => {
  const { agent, id, replica, feed, peer, takeover, close } = await oneSession();
  try {
    const ended = collect(replica);
    feed.end("question");
    agent.server.fin(id, 8);
    assert.equal((await ended).toString(), "question");
    assert.ok(takeover(8, 0));
    peer.end();
    replica.write("answer");
    await delay(10);
    replica.end(" done");
    assert.equal((await collect(peer)).toString(), "answer done");
    if (!replica.destroyed) await once(replica, "close");
  } finally {
    close();
  }
});

test("half-closed by us before the takeover: the input goes on", async () => {
  const { agent, id, replica, feed, peer, takeover, close } = await oneSession();
  try {
    replica.end("all I say");
    agent.server.progress([[id, 9, 0]]);
    await once(replica, "finish");
    const received = collect(replica);
    feed.end("one ");
    assert.ok(takeover(4, 9));
    assert.equal((await collect(peer)).toString(), "", "only the FIN");
    peer.end("two");
    assert.equal((await received).toString(), "one two");
  } finally {
    close();
  }
});

test("the session ends on the active: the rest of the input comes, then the end or the reset", async () => {
  const orderly = await oneSession();
  try {
    orderly.feed.end("bye");
    orderly.agent.server.fin(orderly.id, 3);
    orderly.agent.server.closed(orderly.id, "closed");
    orderly.replica.write("nobody hears this");
    assert.equal((await collect(orderly.replica)).toString(), "bye");
  } finally {
    orderly.close();
  }
  const reset = await oneSession();
  try {
    const failed = once(reset.replica, "error");
    reset.replica.resume();
    reset.feed.end("abc");
    reset.agent.server.closed(reset.id, "reset");
    const [error] = await failed;
    assert.equal(error.code, "ECONNRESET");
    assert.equal(reset.replica.bytesRead, 3);
  } finally {
    reset.close();
  }
});

test("a peer that resets after the takeover: ECONNRESET, as on a net.Socket", async () => {
  const { replica, feed, peer, takeover, close } = await oneSession();
  try {
    replica.resume();
    feed.end();
    assert.ok(takeover(0, 0));
    replica.write("x");
    await once(peer, "data");
    const failed = once(replica, "error");
    peer.resetAndDestroy();
    const [error] = await failed;
    assert.equal(error.code, "ECONNRESET");
  } finally {
    close();
  }
});

test("offsets that do not fit reset the connection rather than change its bytes", async () => {
  const cases: [name: string, run: (s: Awaited<ReturnType<typeof oneSession>>) => Promise<void>][] = [
    [
      "the feed is longer than the input offset",
      async ({ feed, replica, takeover }) => {
        replica.resume();
        feed.end("12345");
        while (replica.bytesRead < 5) await delay(1);
        assert.ok(takeover(3, 0));
      },
    ],
    [
      "the feed is shorter",
      async ({ feed, replica, takeover }) => {
        replica.resume();
        feed.end("12345");
        assert.ok(takeover(7, 0));
      },
    ],
    [
      "the output offset is behind what was recorded",
      async ({ agent, id, replica, takeover }) => {
        replica.write("0123456789");
        agent.server.progress([[id, 8, 0]]);
        await once(replica.session, "progress");
        assert.ok(takeover(0, 7));
      },
    ],
  ];
  for (const [name, run] of cases) {
    const session = await oneSession();
    try {
      const failed = once(session.replica, "error");
      const reset = once(session.peer, "error");
      await run(session);
      assert.equal((await failed)[0].code, "feed-mismatch", name);
      assert.equal((await reset)[0].code, "ECONNRESET", name);
    } finally {
      session.close();
    }
  }
});

test("it looks like a net.Socket; its timeout starts with the takeover", async () => {
  const { replica, feed, takeover, close } = await oneSession({ allowHalfOpen: false });
  try {
    assert.equal(replica.remoteAddress, "10.77.0.10");
    assert.equal(replica.localPort, 80);
    assert.equal(replica.remoteFamily, "IPv4");
    assert.equal(replica.readyState, "open");
    replica.setNoDelay().setKeepAlive(true, 1000).unref().ref();
    let timedOut = false;
    replica.setTimeout(20, () => (timedOut = true));
    await delay(60);
    assert.equal(timedOut, false);
    replica.resume();
    feed.end();
    assert.ok(takeover(0, 0));
    await once(replica, "timeout");
    assert.ok(timedOut && replica.takenOver);
    assert.throws(() => replica.session.replica(), /has a replica/);
  } finally {
    close();
  }
});

test("1,000 sessions taken over at once", async (t) => {
  const { agent, connection, close } = await registeredPair();
  const count = 1000;
  const peers: net.Socket[] = [];
  try {
    let opened = 0;
    connection.on("session", (session) => {
      opened++;
      const replica = session.replica();
      replica.pipe(replica);
    });
    const sessions = [];
    for (let index = 0; index < count; index++) {
      const { peer, fd } = await tcpPair();
      peers.push(peer);
      const { id, feed } = agent.open("web");
      feed.write("abc");
      sessions.push({ id, fd, feed, peer });
    }
    while (opened < count) await delay(5);
    const start = performance.now();
    const answers = sessions.map(({ peer }) => once(peer, "data"));
    for (const { id, fd, feed } of sessions) {
      feed.end();
      assert.ok(agent.server.takeover(id, liveTakeover(3, 1), fd));
    }
    const handed = performance.now();
    for (const answer of answers) assert.equal((await answer)[0].toString(), "bc");
    const end = performance.now();
    t.diagnostic(`agent's calls ${(handed - start).toFixed(1)} ms, all answered after ${(end - start).toFixed(1)} ms`);
  } finally {
    for (const peer of peers) peer.destroy();
    close();
  }
});

test("handed over in turn while its peer does not read: what waits in the stream is in the offset, and is handed over", async () => {
  const { agent, feed, replica, peer, takeover, close } = await oneSession();
  try {
    peer.pause();
    replica.protect(() => ({ inputOffset: replica.inputOffset, outputOffset: replica.outputOffset }));
    feed.end();
    assert.ok(takeover(0, 0));
    const { id } = await agent.hears("protect");
    // As long as the kernel takes it.
    let written = 0;
    for (let taken = true; taken; ) {
      replica.write(Buffer.alloc(50_000, "a"), () => (written += 50_000));
      const before = written;
      for (let round = 0; round < 40 && written === before; round++) await delay(5);
      taken = written > before;
    }
    const waiting = Buffer.from("what the peer has no room for");
    replica.write(waiting);
    const end = written + 50_000 + waiting.length;
    assert.equal(replica.outputOffset, end);
    agent.server.standbyReady(id, written);
    const { handover } = await agent.hears("handover");
    assert.equal(handover.outputOffset, end);
    assert.equal(handover.outputStart + handover.output.length, end);
    assert.deepEqual(Buffer.from(handover.output).subarray(-waiting.length), waiting);
    replica.end();
    peer.resume();
    const whole = await collect(peer);
    assert.equal(whole.length, end);
    assert.deepEqual(whole.subarray(-waiting.length), waiting);
  } finally {
    close();
  }
});
