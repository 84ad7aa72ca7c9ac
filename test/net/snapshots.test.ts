// Snapshots of real sockets in a network namespace of the test's own: which sockets they are of, and that every number,
// flag and option is the socket's; whose descriptors the sockets are; what a descriptor is; peeking.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import test, { type TestContext } from "node:test";
import { native } from "../../addon/native.js";
import * as abi from "../../src/abi.gen.js";
import { parseIp } from "../../src/net/addresses.js";
import { Snapshots, type SocketSnapshot } from "../../src/net/snapshots.js";
import { SocketOwners } from "../../src/net/socket-owners.js";
import { readKey, writeKey } from "../../src/session/flow-key.js";
import { buildFrame, type SegmentFields, TCP_ACK } from "../../src/session/segment.js";
import { socketOptions } from "../../src/session/socket-options.js";
import { inOwnNamespace, until } from "../addon/fixture.js";
import { ownServices, peerIp, remotePort, serviceIp, servicePort } from "./own-services.js";

/** Connections at which Python has both ends, driven line by line: `s` is the service's socket, `p` the peer's. */
const program = `
import fcntl, socket, struct, sys
family, service, peer, port, way = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
def make(): return socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6)
l = make()
l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind((peer if way == "active" else service, port))
l.listen()
p = make()
p.bind((service if way == "active" else peer, 0))
p.connect(l.getsockname()[:2])
s = l.accept()[0]
l.close()
if way == "active": s, p = p, s
print(s.fileno(), p.fileno(), s.getpeername()[1], flush=True)
for line in sys.stdin:
    try: print(repr(eval(line)), flush=True)
    except Exception as error: print("failed", repr(error), flush=True)
`;

interface Connection {
  child: ChildProcess;
  /** Evaluates a Python expression and returns its representation. */
  ask(expression: string): Promise<string>;
  serviceFd: number;
  peerFd: number;
  /** The port of the peer's end as the service sees it. */
  peerPort: number;
}

async function connection(
  t: TestContext,
  {
    family = 4,
    port = servicePort,
    way = "passive",
  }: { family?: 4 | 6; port?: number; way?: "passive" | "active" } = {},
): Promise<Connection> {
  const arguments_ = [String(family), serviceIp[family], peerIp[family], String(port), way];
  const child = spawn("python3", ["-c", program, ...arguments_], { stdio: ["pipe", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  t.after(() => {
    child.kill("SIGKILL");
    return exited;
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => String((await lines.next()).value);
  const [serviceFd = -1, peerFd = -1, peerPort = -1] = (await line()).split(" ").map(Number);
  const ask = async (expression: string): Promise<string> => {
    child.stdin.write(`${expression}\n`);
    const answer = await line();
    assert.ok(!answer.startsWith("failed"), `${expression}: ${answer}`);
    return answer;
  };
  return { child, ask, serviceFd, peerFd, peerPort };
}

inOwnNamespace(import.meta.url, "snapshots of sockets", () => {
  const programs = ownServices();
  const snapshots = new Snapshots(programs.snapshot);
  const owners = new SocketOwners(programs.owners);
  const find = (peerPort: number): SocketSnapshot | undefined =>
    snapshots.take().find((snapshot) => readKey(snapshot.key).peerPort === peerPort);
  const of = ({ peerPort }: Connection): SocketSnapshot => {
    const found = find(peerPort);
    assert.ok(found, `a socket towards port ${peerPort}`);
    return found;
  };
  const when = (what: string, connection: Connection, right: (snapshot: SocketSnapshot) => boolean) =>
    until(what, () => {
      const snapshot = of(connection);
      return right(snapshot) && snapshot;
    });

  /** A segment of the peer's, as the injector composes it. */
  const segmentFrom = (
    { peerPort }: Connection,
    { key, rcvNxt, sndNxt, tsRecent, tsval }: SocketSnapshot,
    change: Partial<SegmentFields>,
  ): SegmentFields => {
    const { family } = readKey(key);
    return {
      family,
      sourceIp: parseIp(peerIp[family]).bytes,
      destinationIp: parseIp(serviceIp[family]).bytes,
      sourcePort: peerPort,
      destinationPort: servicePort,
      seq: rcvNxt,
      ack: sndNxt,
      flags: TCP_ACK,
      window: 1000,
      payload: new Uint8Array(0),
      timestamps: { value: tsRecent, echo: tsval },
      ...change,
    };
  };
  const inject = (segment: SegmentFields): void => {
    const lo = native.links().find(({ name }) => name === "lo");
    const mac = new Uint8Array(6);
    assert.equal(native.injectFrames(lo?.ifindex ?? 0, [buildFrame(segment, mac, mac)], 0), 1);
  };

  for (const family of [4, 6] as const)
    test(`numbers of both streams, IPv${family}`, async (t) => {
      const both = await connection(t, { family });
      const start = of(both);
      assert.deepEqual(readKey(start.key), {
        family,
        localIp: serviceIp[family],
        localPort: servicePort,
        peerIp: peerIp[family],
        peerPort: both.peerPort,
      });
      assert.equal(start.state, "established");
      assert.equal(start.bytesReceived, 0);
      assert.equal(start.bytesAcked, 0, "the SYN of a passive open is not counted");
      assert.equal(start.sndUna, start.sndNxt);
      assert.deepEqual(
        [start.flags.sack, start.flags.timestamps, start.flags.wscale, start.flags.outOfOrder],
        [true, true, true, false],
      );
      assert.ok(start.timeNs <= native.bootTimeNs() && native.bootTimeNs() - start.timeNs < 60_000_000_000n);

      await both.ask("p.send(b'x' * 1000)");
      await both.ask("s.recv(400)");
      await both.ask("s.send(b'y' * 300)");
      const later = await when("the output is acknowledged", both, (snapshot) => snapshot.bytesAcked === 300);
      assert.equal((later.rcvNxt - start.rcvNxt) >>> 0, 1000);
      assert.equal((later.copiedSeq - start.rcvNxt) >>> 0, 400);
      assert.equal(later.bytesReceived, 1000);
      assert.equal((later.writeSeq - start.writeSeq) >>> 0, 300);
      assert.equal((later.sndUna - start.sndUna) >>> 0, 300);
      assert.ok(later.tsval - start.tsval < 60_000);

      const fd = native.pidfdGetfd(both.child.pid ?? -1, both.serviceFd);
      t.after(() => native.closeFd(fd));
      const info = native.tcpInfo(fd);
      assert.equal(info.bytesReceived, 1000n);
      assert.equal(later.sndWnd, info.sndWnd);
      // The stack rounds its clock at its last segment, the snapshot rounds now: it may be a tick ahead.
      const step = (native.tcpTimestamp(fd) - later.tsval + 1) >>> 0;
      assert.ok(step < 60_000, `its clock has gone on by ${step}`);
      const [shift] = Buffer.from(info.raw.subarray(6, 7));
      assert.deepEqual([later.sndWscale, later.rcvWscale], [(shift ?? 0) & 15, (shift ?? 0) >> 4]);
    });

  test("an active open: the SYN counts, and the service is known by the peer's port", async (t) => {
    const both = await connection(t, { port: remotePort, way: "active" });
    assert.equal(both.peerPort, remotePort);
    const start = of(both);
    assert.equal(start.bytesAcked, 1);
    await both.ask("s.send(b'x' * 10)");
    const { sndUna, bytesAcked } = await when("acknowledged", both, (snapshot) => snapshot.sndUna === snapshot.sndNxt);
    assert.deepEqual([bytesAcked, (sndUna - start.sndUna) >>> 0], [11, 10]);
  });

  test("sockets of other services, listeners and closed ones are not told", async (t) => {
    const before = snapshots.take().length;
    const other = await connection(t, { port: servicePort + 1 });
    assert.equal(find(other.peerPort), undefined);
    assert.equal(snapshots.take().length, before);
    const both = await connection(t);
    assert.equal(snapshots.take().length, before + 1, "neither the peer's end nor the listener");
    await both.ask("[s.close(), p.close()]");
    assert.equal(find(both.peerPort), undefined, "TIME_WAIT is no socket");
  });

  test("a socket in repair mode is no session", async (t) => {
    const both = await connection(t);
    await both.ask("s.setsockopt(6, 19, 1)");
    assert.equal(find(both.peerPort), undefined);
    await both.ask("[s.setsockopt(6, 19, -1), s.setsockopt(1, 2, 1)]"); // repair mode takes SO_REUSEADDR away
    assert.ok(find(both.peerPort));
  });

  test("which FIN is counted where", async (t) => {
    const flags = ({ flags: { finReceived, finSent, finAcked } }: SocketSnapshot) => [finReceived, finSent, finAcked];
    const closing = await connection(t);
    const start = of(closing);
    await closing.ask("s.shutdown(1)");
    const acked = await when("the FIN is acknowledged", closing, (snapshot) => snapshot.state === "fin-wait-2");
    assert.deepEqual(flags(acked), [false, true, true]);
    assert.deepEqual([(acked.sndUna - start.sndUna) >>> 0, acked.bytesAcked], [1, 1]);

    const closed = await connection(t);
    await closed.ask("p.shutdown(1)");
    const half = await when("the FIN is received", closed, (snapshot) => snapshot.state === "close-wait");
    assert.deepEqual(flags(half), [true, false, false]);
    assert.equal(half.bytesReceived, 1);

    // The peer reads nothing: our FIN waits behind data that it has no window for.
    const waiting = await connection(t);
    await waiting.ask("s.setblocking(False)");
    await waiting.ask("[s.send(b'z' * 65536) for _ in range(4)]");
    await waiting.ask("p.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)");
    let sent = 1;
    while (sent > 0)
      sent = Number(await waiting.ask("s.send(b'z' * 65536) if fcntl.ioctl(s, 0x894b, bytes(4)) == bytes(4) else 0"));
    await waiting.ask("s.shutdown(1)");
    const queued = of(waiting);
    assert.equal(queued.state, "fin-wait-1");
    assert.notEqual(queued.sndNxt, queued.writeSeq);
    assert.deepEqual(flags(queued), [false, false, false]);
    assert.equal(queued.inode > 0, true);
    await waiting.ask("s.close()");
    assert.equal(of(waiting).inode, 0, "an orphan");
  });

  test("urgent data, and segments beyond a gap", async (t) => {
    const urgent = await connection(t);
    assert.equal(of(urgent).flags.urgent, false);
    await urgent.ask("p.send(b'!', socket.MSG_OOB)");
    assert.equal((await when("the urgent byte", urgent, ({ flags }) => flags.urgent)).flags.urgent, true);

    const gap = await connection(t);
    const { rcvNxt } = of(gap);
    inject(segmentFrom(gap, of(gap), { seq: rcvNxt + 100, payload: new Uint8Array(50) }));
    const beyond = await when("the piece beyond the gap", gap, ({ flags }) => flags.outOfOrder);
    assert.equal(beyond.rcvNxt, rcvNxt);
    await gap.ask("p.send(bytes(100))");
    await when("the gap is filled", gap, ({ flags }) => !flags.outOfOrder);
  });

  test("the numbers of a snapshot belong together, while both ends send as fast as they can", async (t) => {
    const both = await connection(t);
    const start = of(both);
    await both.ask("exec('import threading')");
    const loop = (text: string) =>
      `threading.Thread(daemon=True, target=lambda: [${text} for _ in iter(int, 1)]).start()`;
    for (const [from, to] of ["sp", "ps"] as const) {
      await both.ask(loop(`${from}.send(bytes(30000))`));
      await both.ask(loop(`${to}.recv(50000)`));
    }
    let moved = 0;
    let last = start;
    for (let count = 0; count < 500; count++) {
      const now = of(both);
      assert.equal((now.rcvNxt - start.rcvNxt) >>> 0, now.bytesReceived >>> 0);
      assert.equal((now.sndUna - start.sndUna) >>> 0, now.bytesAcked >>> 0);
      const distance = (from: number, to: number) => (to - from) | 0;
      assert.ok(distance(now.sndUna, now.sndNxt) >= 0 && distance(now.sndNxt, now.writeSeq) >= 0);
      assert.ok(distance(now.copiedSeq, now.rcvNxt) >= 0 && distance(now.rcvWup, now.rcvNxt) >= 0);
      assert.ok(now.bytesReceived >= last.bytesReceived && now.bytesAcked >= last.bytesAcked);
      if (now.bytesReceived > last.bytesReceived) moved++;
      last = now;
    }
    assert.ok(moved > 20, `input moved between ${moved} of 500 snapshots`);
  });

  for (const family of [4, 6] as const)
    test(`options, IPv${family}`, async (t) => {
      const both = await connection(t, { family });
      const plain = of(both).options;
      const { congestion } = plain;
      assert.deepEqual(plain, {
        ttl: null,
        minTtl: 0,
        tos: 0,
        noDelay: false,
        keepAlive: false,
        keepIdle: null,
        keepInterval: null,
        keepCount: null,
        userTimeout: 0,
        congestion,
        maxSegment: null,
        device: null,
        sendBuffer: null,
        receiveBuffer: null,
        priority: 0,
        mark: 0,
        linger: null,
      });
      assert.match(await both.ask("s.getsockopt(6, 13, 16)"), new RegExp(`'${congestion}\\\\x00`));
      const [level, ttl, minTtl, tos] = family === 4 ? [0, 2, 21, 1] : [41, 16, 73, 67];
      for (const [set, option, value] of [
        [level, ttl, 200],
        [level, minTtl, 100],
        [level, tos, 0xc0],
        [6, 1, 1],
        [6, 4, 33],
        [6, 5, 7],
        [6, 6, 5],
        [6, 18, 12345],
        [1, 9, 1],
        [1, 12, 3],
        [1, 36, 77],
        [1, 7, 100_000],
        [1, 8, 150_000],
      ])
        await both.ask(`s.setsockopt(${set}, ${option}, ${value})`);
      await both.ask("s.setsockopt(1, 13, struct.pack('ii', 1, 9))");
      await both.ask("s.setsockopt(1, 25, b'lo')");
      await both.ask("s.setsockopt(6, 13, b'reno')");
      const { options } = of(both);
      assert.deepEqual(options, {
        ttl: 200,
        minTtl: 100,
        tos: 0xc0,
        noDelay: true,
        keepAlive: true,
        keepIdle: 33,
        keepInterval: 7,
        keepCount: 5,
        userTimeout: 12_345,
        congestion: "reno",
        maxSegment: null,
        device: "lo",
        sendBuffer: 100_000,
        receiveBuffer: 150_000,
        priority: 3,
        mark: 77,
        linger: 9,
      });
      assert.deepEqual(socketOptions.parse(JSON.parse(JSON.stringify(options))), options);
    });

  test("a segment size", async (t) => {
    const both = await connection(t);
    await both.ask("s.setsockopt(6, 2, 700)");
    assert.equal(of(both).options.maxSegment, 700);
  });

  for (const family of [4, 6] as const)
    test(`an MD5 key; the kernel takes our segments signed with it, and no others, IPv${family}`, async (t) => {
      const both = await connection(t, { family });
      assert.equal(of(both).flags.md5, false);
      const peer =
        family === 4
          ? `struct.pack('=HH4s120x', 2, 0, socket.inet_aton('${peerIp[4]}'))`
          : `struct.pack('=HHI16s104x', 10, 0, 0, socket.inet_pton(10, '${peerIp[6]}'))`;
      await both.ask(`s.setsockopt(6, 14, ${peer} + struct.pack('=BBHI80s', 0, 0, 6, 0, b'secret'))`);
      await both.ask(`s.setsockopt(${family === 4 ? "0, 21" : "41, 73"}, 255)`); // GTSM
      const start = of(both);
      assert.equal(start.flags.md5, true);
      const bytes = (count: number, md5: string | null): SegmentFields =>
        segmentFrom(both, start, { payload: new Uint8Array(count), md5: md5 === null ? null : Buffer.from(md5) });
      inject(bytes(1, null));
      inject(bytes(3, "wrong"));
      inject(bytes(5, "secret"));
      await when("input", both, ({ bytesReceived }) => bytesReceived > 0);
      assert.equal(of(both).bytesReceived, 5);
      inject({ ...bytes(7, "secret"), seq: start.rcvNxt + 5, timestamps: null });
      await when("input without timestamps", both, ({ bytesReceived }) => bytesReceived === 12);
    });

  test("whose descriptor it is, and what a descriptor is", async (t) => {
    const both = await connection(t);
    const snapshot = of(both);
    const pid = both.child.pid ?? -1;
    const owner = owners.find().get(snapshot.inode);
    assert.deepEqual(owner, { pid, fd: both.serviceFd });
    const fd = native.pidfdGetfd(pid, both.serviceFd);
    const { cookie, ...facts } = native.socketFacts(fd);
    assert.deepEqual(facts, {
      tcp: true,
      mptcp: false,
      family: 4,
      localIp: parseIp(serviceIp[4]).bytes,
      localPort: servicePort,
      peerIp: parseIp(peerIp[4]).bytes,
      peerPort: both.peerPort,
      inode: snapshot.inode,
      connected: true,
    });
    assert.equal(cookie, snapshot.cookie);
    const { localIp, localPort, peerIp: remote, peerPort } = facts;
    assert.deepEqual(writeKey(4, localIp, localPort, remote, peerPort), snapshot.key);
    native.closeFd(fd);

    assert.throws(() => native.pidfdGetfd(pid, 999), { code: "EBADF" });
    assert.throws(() => native.pidfdGetfd(4_000_000, 1), { code: "ESRCH" });
    const file = openSync("/dev/null", "r");
    assert.throws(() => native.socketFacts(file), { code: "ENOTSOCK" });
    closeSync(file);
    const [unix, other] = native.socketPair();
    const { tcp, mptcp, family, connected } = native.socketFacts(unix);
    assert.deepEqual({ tcp, mptcp, family, connected }, { tcp: false, mptcp: false, family: 0, connected: true });
    native.closeFd(unix);
    native.closeFd(other);

    await both.ask("s.close()");
    assert.equal(owners.find().has(snapshot.inode), false);
  });

  test("an IPv4 session of an IPv6 socket is named as IPv4", async (t) => {
    const both = await connection(t);
    const port = servicePort + 2;
    const listens = `l = socket.socket(socket.AF_INET6); l.bind(('::', ${port})); l.listen()`;
    const connects = `p = socket.create_connection(('${serviceIp[4]}', ${port})); s = l.accept()[0]`;
    await both.ask(`exec("${listens}; ${connects}", globals())`);
    const fd = native.pidfdGetfd(both.child.pid ?? -1, Number(await both.ask("s.fileno()")));
    const { family, localIp } = native.socketFacts(fd);
    assert.deepEqual([family, localIp], [4, parseIp(serviceIp[4]).bytes]);
    native.closeFd(fd);
    const listener = native.pidfdGetfd(both.child.pid ?? -1, Number(await both.ask("l.fileno()")));
    const { connected, peerIp: none, peerPort } = native.socketFacts(listener);
    assert.deepEqual([connected, none, peerPort], [false, new Uint8Array(16), 0]);
    native.closeFd(listener);
  });

  test("peeking takes nothing, waits for nothing, and is bounded", async (t) => {
    const both = await connection(t);
    const fd = native.pidfdGetfd(both.child.pid ?? -1, both.serviceFd);
    t.after(() => native.closeFd(fd));
    assert.equal(native.peekInput(fd, 1000).length, 0, "nothing there, and the socket is a blocking one");
    await both.ask("p.sendall(bytes(range(256)) * 1000)");
    await when("all has come", both, ({ bytesReceived }) => bytesReceived >= 100_000);
    const before = of(both);
    const all = native.peekInput(fd, 1 << 20);
    assert.equal(all.length, (before.rcvNxt - before.copiedSeq) >>> 0);
    assert.ok(all.every((byte, index) => byte === (index & 255)));
    assert.deepEqual(native.peekInput(fd, 10), all.subarray(0, 10));
    assert.equal(of(both).copiedSeq, before.copiedSeq);
    assert.equal(await both.ask("s.recv(4)"), "b'\\x00\\x01\\x02\\x03'");
    assert.deepEqual(native.peekInput(fd, 3), Uint8Array.of(4, 5, 6));
    await both.ask("s.setsockopt(1, 42, 0)");
    assert.throws(() => native.peekInput(fd, 10), { code: "EBUSY" }, "the application peeks by its own offset");
  });

  test("a walk longer than its bound is refused", async (t) => {
    await connection(t);
    const link = native.bpfIteratorAttach(programs.snapshot);
    assert.throws(() => native.bpfIterate(link, abi.sizes.td_socket - 1), { code: "EFBIG" });
    native.closeFd(link);
    assert.throws(() => native.bpfIteratorAttach(link), { code: /EBADF|EINVAL/ });
  });

  process.on("exit", () => {
    snapshots.close();
    owners.close();
  });
});
