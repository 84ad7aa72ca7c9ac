// pulse.cc: two real heartbeat threads on the loopback device of a namespace of their own. Who may speak, and who not.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import dgram from "node:dgram";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";
import { Worker } from "node:worker_threads";
import { native, type Pulse, type PulseEvent } from "../../addon/native.js";
import { inOwnNamespace, u32, until } from "./fixture.js";

const STANDBY = 2;
const ACTIVE = 3;
const GRANT = 1;
const millisecond = 1_000_000n;
const lease = 150n * millisecond;
const key = randomBytes(16);

interface End {
  pulse: Pulse;
  events: PulseEvent[];
  voice: () => bigint;
  stop: () => void;
}

let nextIncarnation = 1n;

function start(
  which: 0 | 1,
  options: { paths?: number; petLimitNs?: bigint; key?: Uint8Array; flags?: number } = {},
): End {
  // 0x400: BPF_F_MMAPABLE
  const map = native.bpfMapCreate({
    type: 2,
    name: "voice",
    keySize: 4,
    valueSize: 8,
    maxEntries: 1,
    flags: options.flags ?? 0x400,
  });
  const events: PulseEvent[] = [];
  const paths = [7101, 7102].slice(0, options.paths ?? 2).map((port, index) => ({
    localIp: index === 0 ? `127.0.0.${1 + which}` : which === 0 ? "fd00::1" : "fd00::2",
    partnerIp: index === 0 ? `127.0.0.${2 - which}` : which === 0 ? "fd00::2" : "fd00::1",
    port,
    device: "lo",
  }));
  const pulse = native.pulseStart(
    {
      paths,
      key: options.key ?? key,
      incarnation: nextIncarnation++,
      intervalNs: 10n * millisecond,
      leaseNs: lease,
      petLimitNs: options.petLimitNs ?? 600_000n * millisecond,
      driftPpm: 1000,
      voiceMapFd: map,
    },
    (event) => events.push(event),
  );
  const voice = (): bigint => {
    const value = native.bpfMapLookup(map, u32(0), 8);
    assert.ok(value);
    return new DataView(value.buffer).getBigUint64(0, true);
  };
  let stopped = false;
  const stop = (): void => {
    if (stopped) return;
    stopped = true;
    pulse.stop();
    native.closeFd(map);
  };
  return { pulse, events, voice, stop };
}

function stopAll(...ends: End[]): void {
  for (const end of ends) end.stop();
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const find = <Type extends PulseEvent["type"]>(end: End, type: Type): Extract<PulseEvent, { type: Type }> | undefined =>
  end.events.find((event): event is Extract<PulseEvent, { type: Type }> => event.type === type);

inOwnNamespace(import.meta.url, "pulse, in a namespace of its own", () => {
  native.addressAdd(1, "fd00::1", 128);
  native.addressAdd(1, "fd00::2", 128);

  test("the active's voice ends before the standby's wait does, and nobody grants unasked", async (t) => {
    const active = start(0);
    const standby = start(1);
    t.after(() => stopAll(active, standby));
    active.pulse.say({ role: ACTIVE, epoch: 5, flags: 0 });
    standby.pulse.say({ role: STANDBY, epoch: 5, flags: 2 });
    active.pulse.hold(true);
    const seen = await until("the standby's state at the active", () =>
      active.events.find((event) => event.type === "partner" && event.role === STANDBY && event.flags === 2),
    );
    assert.equal(seen.type === "partner" && seen.epoch, 5);
    await until("both paths", () => active.events.filter((event) => event.type === "path" && event.up).length === 2);
    await sleep(50);
    assert.equal(active.voice(), 0n, "a standby that was not told to grant does not");

    standby.pulse.grant(true);
    await until("voice", () => active.voice() > native.bootTimeNs());
    assert.ok(active.voice() <= native.bootTimeNs() + lease);
    const before = active.voice();
    await until("more voice", () => active.voice() > before);
    const snapshot = active.pulse.snapshot();
    assert.equal(snapshot.voiceUntilNs, active.voice());
    assert.ok(snapshot.paths.every((path) => path.up && path.rttNs > 0n && path.refused === 0n && path.sent > 0n));
    assert.ok(standby.pulse.snapshot().granting);

    active.stop();
    const voice = active.pulse.snapshot().voiceUntilNs;
    const expired = await until("expiry", () => find(standby, "expired"));
    assert.ok(expired.atNs > voice, `expired at ${expired.atNs}, voice until ${voice}`);
    assert.ok(expired.atNs - expired.lastAnsweredNs >= lease + lease / 1000n);
    assert.equal(standby.pulse.snapshot().granting, false);
    await until("silence", () => find(standby, "silent"));
    await until(
      "both paths down",
      () => standby.events.filter((event) => event.type === "path" && !event.up).length === 2,
    );
  });

  test("no grant for another epoch, for another role, or once revoked; the lost voice is told", async (t) => {
    const active = start(0, { flags: 0 });
    const standby = start(1);
    t.after(() => stopAll(active, standby));
    active.pulse.hold(true);
    standby.pulse.grant(true);
    active.pulse.say({ role: ACTIVE, epoch: 6, flags: 0 });
    standby.pulse.say({ role: STANDBY, epoch: 7, flags: 0 });
    await until("heard", () => find(active, "partner"));
    await sleep(60);
    assert.equal(active.voice(), 0n, "another epoch");
    active.pulse.say({ role: STANDBY, epoch: 7, flags: 0 });
    await sleep(60);
    assert.equal(active.voice(), 0n, "not an active");
    assert.equal(find(standby, "expired"), undefined, "no grant was given that could have run out");
    active.pulse.say({ role: ACTIVE, epoch: 7, flags: 0 });
    await until("voice", () => active.voice() > 0n);
    standby.pulse.grant(false);
    const revoked = native.bootTimeNs();
    await until("loss", () => find(active, "voiceLost"));
    assert.ok(active.voice() <= revoked + lease);
    assert.equal(active.voice(), active.pulse.snapshot().voiceUntilNs);
  });

  test("withheld grants run out, and are waited for; a watch begun before any grant waits a lease, too", async (t) => {
    const active = start(0);
    const standby = start(1);
    t.after(() => stopAll(active, standby));
    active.pulse.say({ role: ACTIVE, epoch: 3, flags: 0 });
    standby.pulse.say({ role: STANDBY, epoch: 3, flags: 0 });
    active.pulse.hold(true);
    standby.pulse.grant(true);
    await until("voice", () => active.voice() > native.bootTimeNs());
    standby.pulse.grant(false, true);
    const expired = await until("expiry", () => find(standby, "expired"));
    assert.ok(expired.atNs > active.voice(), "the living active has lost its voice by then");
    standby.events.length = 0;
    active.pulse.say({ role: ACTIVE, epoch: 4, flags: 0 });
    const watched = native.bootTimeNs();
    standby.pulse.grant(true, true);
    const second = await until("second expiry", () => find(standby, "expired"));
    assert.ok(second.atNs >= watched + lease);
  });

  test("a controller that does not pet silences its thread until it does again", async (t) => {
    const active = start(0, { petLimitNs: 300n * millisecond });
    const standby = start(1);
    t.after(() => stopAll(active, standby));
    active.pulse.say({ role: ACTIVE, epoch: 1, flags: 0 });
    standby.pulse.say({ role: STANDBY, epoch: 1, flags: 0 });
    active.pulse.hold(true);
    standby.pulse.grant(true);
    await until("missed", () => find(active, "petMissed"));
    await until("expired", () => find(standby, "expired"));
    const sent = active.pulse.snapshot().paths[0]?.sent;
    await sleep(60);
    assert.equal(active.pulse.snapshot().paths[0]?.sent, sent);
    active.pulse.pet();
    await until("sending again", () => (active.pulse.snapshot().paths[0]?.sent ?? 0n) > (sent ?? 0n));
  });

  test("a restarted partner is seen as another incarnation, and heard again after a silence", async (t) => {
    const active = start(0);
    let standby = start(1);
    t.after(() => stopAll(active, standby));
    const first = await until("first", () => active.pulse.snapshot().partner);
    standby.stop();
    await until("silent", () => find(active, "silent"));
    standby = start(1);
    const second = await until("second", () => {
      const partner = active.pulse.snapshot().partner;
      return partner && partner.incarnation !== first.incarnation ? partner : null;
    });
    await until("the event", () =>
      active.events.some((event) => event.type === "partner" && event.incarnation === second.incarnation),
    );
    assert.equal(standby.pulse.snapshot().granting, false);
  });

  test("one path cut is told, and the voice goes on by the other", async (t) => {
    const active = start(0);
    const standby = start(1, { paths: 1 });
    t.after(() => stopAll(active, standby));
    active.pulse.say({ role: ACTIVE, epoch: 1, flags: 0 });
    standby.pulse.say({ role: STANDBY, epoch: 1, flags: 0 });
    active.pulse.hold(true);
    standby.pulse.grant(true);
    await until("voice", () => active.voice() > native.bootTimeNs());
    assert.deepEqual(
      active.pulse.snapshot().paths.map((path) => path.up),
      [true, false],
    );
    assert.equal(find(active, "silent"), undefined);
  });

  test("what is forged, foreign or our own is refused and counted", async (t) => {
    const active = start(0, { paths: 1 });
    t.after(() => active.stop());
    active.pulse.hold(true);
    active.pulse.say({ role: ACTIVE, epoch: 1, flags: 0 });
    const socket = dgram.createSocket("udp4");
    t.after(() => socket.close());
    await new Promise<void>((resolve) => socket.bind(7101, "127.0.0.2", resolve));
    const heard: Buffer<ArrayBufferLike>[] = [];
    socket.on("message", (message) => heard.push(message));
    const real = await until("a heartbeat", () => heard[0]);
    assert.equal(real.length, 64);
    assert.equal(real.readUInt32BE(0), 0x54444d50);
    const forgedGrant = Buffer.from(real);
    forgedGrant[5] = 2;
    forgedGrant.writeUInt32BE(GRANT, 8);
    const refused = (): bigint => active.pulse.snapshot().paths[0]?.refused ?? 0n;
    const junk: Uint8Array[] = [
      real,
      forgedGrant,
      real.subarray(0, 63),
      Buffer.concat([real, real]),
      randomBytes(64),
      Buffer.alloc(0),
    ];
    for (const [index, bytes] of junk.entries()) {
      socket.send(bytes, 7101, "127.0.0.1");
      await until("refusal", () => refused() >= BigInt(index + 1));
    }
    const stranger = dgram.createSocket("udp4");
    t.after(() => stranger.close());
    stranger.send(real, 7101, "127.0.0.1");
    await until("refusal of a stranger", () => refused() >= BigInt(junk.length + 1));
    assert.equal(active.voice(), 0n);
    assert.equal(active.pulse.snapshot().partner, null);
  });

  test("partners with different keys do not hear each other", async (t) => {
    const left = start(0, { key: randomBytes(16) });
    const right = start(1);
    t.after(() => stopAll(left, right));
    await until("refusals", () => (left.pulse.snapshot().paths[0]?.refused ?? 0n) > 3n);
    assert.equal(left.pulse.snapshot().partner, null);
    await until("silence", () => find(left, "silent"));
  });

  test("a worker that ends without stop() takes its thread along", async () => {
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData).then(({ native }) => {
        const millisecond = 1_000_000n;
        const pulse = native.pulseStart({
          paths: [{ localIp: "127.0.0.1", partnerIp: "127.0.0.2", port: 7101, device: "lo" }],
          key: new Uint8Array(16), incarnation: 1n, intervalNs: millisecond, leaseNs: 10n * millisecond,
          petLimitNs: 1000n * millisecond, driftPpm: 0,
          voiceMapFd: native.bpfMapCreate({ type: 2, name: "voice", keySize: 4, valueSize: 8, maxEntries: 1 }),
        }, (event) => parentPort.postMessage(event.type));
        pulse.grant(true);
      });`;
    const threads = (): number =>
      readdirSync("/proc/self/task").filter(
        (id) => readFileSync(`/proc/self/task/${id}/comm`, "utf8").trim() === "tandem-pulse",
      ).length;
    const before = threads();
    const worker = new Worker(code, {
      eval: true,
      workerData: new URL("../../addon/native.js", import.meta.url).href,
    });
    const first = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    assert.ok(first === "expired" || first === "silent");
    assert.equal(threads(), before + 1);
    await worker.terminate();
    assert.equal(threads(), before);
  });

  test("bad options are refused with a reason", () => {
    const map = native.bpfMapCreate({ type: 2, name: "voice", keySize: 4, valueSize: 8, maxEntries: 1 });
    const good = {
      paths: [{ localIp: "127.0.0.1", partnerIp: "127.0.0.2", port: 7101, device: "lo" }],
      key: new Uint8Array(key),
      incarnation: 1n,
      intervalNs: 10n * millisecond,
      leaseNs: lease,
      petLimitNs: lease,
      driftPpm: 0,
      voiceMapFd: map,
    };
    const refuse = (change: Partial<typeof good>, code: string): void =>
      assert.throws(() => native.pulseStart({ ...good, ...change }, () => {}), { code });
    refuse({ key: new Uint8Array(15) }, "EINVAL");
    refuse({ paths: [] }, "EINVAL");
    refuse({ paths: [{ ...(good.paths[0] ?? assert.fail()), device: "nothere" }] }, "ENODEV");
    refuse({ paths: [{ ...(good.paths[0] ?? assert.fail()), localIp: "192.0.2.77" }] }, "EADDRNOTAVAIL");
    refuse({ intervalNs: lease * 2n }, "EINVAL");
    assert.throws(() => native.pulseStart({ ...good, voiceMapFd: 9999 }, () => {}), /EBADF/);
    native.closeFd(map);
  });
});
