// Every option of a session, restored on a socket and read back from it: what a snapshot tells of the active's socket is
// what the standby's has after a takeover, and at the next takeover again.

import assert from "node:assert/strict";
import test from "node:test";
import { native, type RestoreSession } from "../../addon/native.js";
import { parseIp } from "../../src/net/addresses.js";
import { Snapshots } from "../../src/net/snapshots.js";
import { readKey } from "../../src/session/flow-key.js";
import type { SocketOptions } from "../../src/session/socket-options.js";
import { inOwnNamespace, run } from "../addon/fixture.js";
import { ownServices, peerIp, serviceIp, servicePort } from "./own-services.js";

const none: SocketOptions = {
  ttl: null,
  minTtl: 0,
  tos: 0,
  noDelay: false,
  keepAlive: false,
  keepIdle: null,
  keepInterval: null,
  keepCount: null,
  userTimeout: 0,
  congestion: "reno",
  maxSegment: null,
  device: null,
  sendBuffer: null,
  receiveBuffer: null,
  priority: 0,
  mark: 0,
  linger: null,
};

/** Each alone, then together. */
const each: Partial<SocketOptions>[] = [
  {},
  { ttl: 255 },
  { minTtl: 254 },
  { tos: 0xc0, priority: 7 },
  { noDelay: true },
  { keepAlive: true },
  { keepIdle: 30, keepInterval: 7, keepCount: 4 },
  { userTimeout: 9000 },
  { congestion: "cubic" },
  { maxSegment: 700 },
  { device: "lo" },
  { sendBuffer: 50_000 },
  { receiveBuffer: 60_000 },
  { priority: 0xfffffffe },
  { mark: 0xcafebabe },
  { linger: 0 },
  { linger: 3 },
];
each.push(Object.assign({}, ...each) as Partial<SocketOptions>);

inOwnNamespace(import.meta.url, "options of restored sessions", () => {
  const snapshots = new Snapshots(ownServices().snapshot);
  let peerPort = 20_000;
  const session = (family: 4 | 6, change: Partial<RestoreSession>): RestoreSession => ({
    family,
    localIp: parseIp(serviceIp[family]).bytes,
    peerIp: parseIp(peerIp[family]).bytes,
    localPort: servicePort,
    peerPort: ++peerPort,
    sndUna: 0xfffffff0,
    unacked: new Uint8Array(100),
    rcvSeq: 0xffffff00,
    received: new Uint8Array(1000),
    mss: 1460,
    sndWscale: 7,
    rcvWscale: 7,
    sackPermitted: true,
    timestamp: 1,
    window: null,
    options: null,
    md5: null,
    ...change,
  });
  const restored = (wanted: RestoreSession[]) => {
    const fds = native.restore(wanted).map((result) => {
      assert.ok("fd" in result, JSON.stringify(result));
      return result.fd;
    });
    assert.ok(native.restoreRelease(fds, false).every((code) => code === ""));
    const byPort = new Map(snapshots.take().map((snapshot) => [readKey(snapshot.key).peerPort, snapshot]));
    for (const fd of fds) native.closeFd(fd);
    return wanted.map((one) => {
      const snapshot = byPort.get(one.peerPort);
      assert.ok(snapshot, "a socket of the service");
      return snapshot;
    });
  };

  for (const family of [4, 6] as const)
    test(`IPv${family}: each option comes back, alone and with all others`, () => {
      const wanted = each.map((change) => session(family, { options: { ...none, ...change } }));
      restored(wanted).forEach(({ options }, index) => {
        // Without a clamp of the application's the peer's is kept in its place.
        assert.deepEqual(options, { ...none, maxSegment: 1460, ...each[index] });
      });
    });

  test("no options at all: a socket as the system makes it", () => {
    const [snapshot] = restored([session(4, {})]);
    assert.deepEqual(snapshot?.options, { ...none, congestion: snapshot?.options.congestion, maxSegment: 1460 });
    assert.equal(snapshot?.flags.md5, false);
  });

  test("a socket whose application is gone is closed without waiting as its linger says", () => {
    const [result] = native.restore([session(4, { received: new Uint8Array(0), options: { ...none, linger: 60 } })]);
    assert.ok(result !== undefined && "fd" in result, JSON.stringify(result));
    native.restoreRelease([result.fd], false);
    const begun = performance.now();
    native.closeAtOnce(result.fd); // 100 bytes are unacknowledged, and stay so
    assert.ok(performance.now() - begun < 30_000);
  });

  test("the smaller of both segment sizes counts", () => {
    const sizes = [700, 9000].map((maxSegment) => session(4, { options: { ...none, maxSegment } }));
    assert.deepEqual(
      restored(sizes).map(({ mss }) => mss),
      [700, 1460],
    );
  });

  test("queues larger than the application's buffers fit, and the buffers stay its own", () => {
    const big = { unacked: new Uint8Array(1_000_000), received: new Uint8Array(1_000_000) };
    const own = { sendBuffer: 20_000, receiveBuffer: 30_000 };
    const [bounded, tuned] = restored([
      session(4, { ...big, options: { ...none, ...own } }),
      session(4, { ...big, options: none }),
    ]);
    const sizes = ({ sendBuffer, receiveBuffer }: SocketOptions) => ({ sendBuffer, receiveBuffer });
    assert.deepEqual(bounded && sizes(bounded.options), own);
    assert.deepEqual(tuned && sizes(tuned.options), { sendBuffer: null, receiveBuffer: null });
    assert.ok(bounded && (bounded.rcvNxt - bounded.copiedSeq) >>> 0 === 1_000_000);
    assert.ok(bounded && (bounded.writeSeq - bounded.sndUna) >>> 0 === 1_000_000);
  });

  test("a key is on the socket", () => {
    const [short, long] = restored([
      session(4, { md5: Uint8Array.of(1) }),
      session(6, { md5: new Uint8Array(80).fill(7) }),
    ]);
    assert.ok(short?.flags.md5 && long?.flags.md5);
  });

  test("a refusal names the option", () => {
    const refused = (options: Partial<SocketOptions>): string => {
      const [result] = native.restore([session(4, { options: { ...none, ...options } })]);
      assert.ok(result && !("fd" in result));
      return `${result.code} ${result.step}`;
    };
    assert.equal(refused({ device: "nowhere0" }), "ENODEV SO_BINDTODEVICE");
    assert.equal(refused({ ttl: 256 }), "EINVAL IP_TTL");
    assert.equal(refused({ minTtl: 256 }), "EINVAL IP_MINTTL");
    assert.equal(refused({ keepIdle: 40_000 }), "EINVAL TCP_KEEPIDLE");
    assert.equal(refused({ keepCount: 200 }), "EINVAL TCP_KEEPCNT");
    for (const md5 of [new Uint8Array(0), new Uint8Array(81)])
      assert.throws(() => native.restore([session(4, { md5 })]), { code: "EINVAL" });
    const wrong = { ...none, userTimeout: 2 ** 31 };
    assert.throws(() => native.restore([session(4, { options: wrong })]), { code: "EINVAL" });
  });

  test("a congestion control that this router lacks costs no session", () => {
    const system = run("sysctl", "-n", "net.ipv4.tcp_congestion_control").trim();
    const [snapshot] = restored([session(4, { options: { ...none, congestion: "no-such-one" } })]);
    assert.equal(snapshot?.options.congestion, system);
  });
});
