// The control channel: only the pair's two certificates, only TLS 1.3, only messages of the schema.
import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import tls from "node:tls";
import { TandemError } from "../../src/errors.js";
import { ControlChannel } from "../../src/pair/control.js";
import { createPairKeys, type PairKeys, readPairKeys } from "../../src/pair/keys.js";
import type { ControlMessage } from "../../src/pair/messages.js";

const hello: ControlMessage = {
  type: "hello",
  version: 1,
  abi: 1,
  router: "b",
  agreement: { "pair.heartbeat": "x" },
  recordMax: 1914,
};

function inDirectory(run: (directory: string) => Promise<void> | void) {
  return async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "tandem-pair-"));
    try {
      await run(directory);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  };
}

// A port of this process, and a loopback address for each test.
let nextAddress = 1;
const portOf = () => 20_000 + (process.pid % 10_000);
const freshAddress = () => `127.77.${process.pid % 250}.${nextAddress++}`;

function channel(router: "a" | "b", address: string, keys: PairKeys): ControlChannel {
  return new ControlChannel({ router, localIp: address, partnerIp: address, port: portOf(), keys });
}

test(
  "keys are made once, for their owner only, and never overwritten",
  inDirectory((directory) => {
    const keys = path.join(directory, "keys");
    createPairKeys(keys);
    assert.deepEqual(readdirSync(keys).sort(), ["a.crt", "a.key", "b.crt", "b.key", "secret"]);
    for (const name of ["a.key", "b.key", "secret"]) assert.equal(statSync(path.join(keys, name)).mode & 0o077, 0);
    assert.throws(() => createPairKeys(keys), { code: "KEYS_EXIST" });
    // A directory that was there is somebody's: its mode stays.
    chmodSync(directory, 0o755);
    createPairKeys(directory);
    assert.equal(statSync(directory).mode & 0o777, 0o755);
    assert.throws(() => createPairKeys(path.join(keys, "secret")), { code: "KEYS_FAILED" });
    assert.throws(() => createPairKeys("/proc/tandem/keys"), { code: "KEYS_FAILED" });
    const [a, b] = [readPairKeys(keys, "a"), readPairKeys(keys, "b")];
    assert.deepEqual(a.cookie, b.cookie);
    assert.deepEqual(a.pulseKey, b.pulseKey);
    assert.equal(a.partnerCertificate, b.certificate);
    chmodSync(path.join(keys, "secret"), 0o644);
    assert.throws(() => readPairKeys(keys, "a"), { code: "KEYS_EXPOSED" });
    rmSync(path.join(keys, "secret"));
    assert.throws(
      () => readPairKeys(keys, "a"),
      (error) => error instanceof TandemError && error.code === "KEYS_MISSING" && error.exitCode === 3,
    );
  }),
);

test(
  "the two routers find each other, in either order, and again after a break",
  inDirectory(async (directory) => {
    createPairKeys(directory);
    const address = freshAddress();
    const b = channel("b", address, readPairKeys(directory, "b"));
    await b.start();
    const a = channel("a", address, readPairKeys(directory, "a"));
    const heard = once(a, "message");
    b.on("up", () => b.send(hello));
    await a.start();
    try {
      assert.deepEqual((await heard)[0], hello);
      const down = once(b, "down");
      a.stop();
      await down;
      assert.equal(b.connected, false);
      assert.equal(b.send(hello), false);
      const next = channel("a", address, readPairKeys(directory, "a"));
      const reheard = once(next, "message");
      await next.start();
      assert.deepEqual((await reheard)[0], hello);
      next.stop();
    } finally {
      a.stop();
      b.stop();
    }
  }),
);

test(
  "a stranger, an old TLS, a self-made message: refused, and the partner stays connected",
  inDirectory(async (directory) => {
    const [ours, theirs] = [path.join(directory, "ours"), path.join(directory, "theirs")];
    createPairKeys(ours);
    createPairKeys(theirs);
    const address = freshAddress();
    const a = channel("a", address, readPairKeys(ours, "a"));
    const refusals: string[] = [];
    a.on("refused", (reason) => refusals.push(reason));
    await a.start();
    const b = channel("b", address, readPairKeys(ours, "b"));
    const up = once(a, "up");
    await b.start();
    await up;
    let messages = 0;
    a.on("message", () => messages++);
    let ups = 0;
    a.on("up", () => ups++);
    const attempt = async (options: tls.ConnectionOptions) => {
      const socket = tls.connect({ host: address, port: portOf(), rejectUnauthorized: false, ...options });
      socket.on("error", () => {});
      socket.on("secureConnect", () => socket.write(`${JSON.stringify(hello)}\n`));
      await new Promise((resolve) => socket.once("close", resolve));
    };
    const stranger = readPairKeys(theirs, "b");
    await attempt({ key: stranger.privateKey, cert: stranger.certificate });
    await attempt({});
    const right = readPairKeys(ours, "b");
    await attempt({ key: right.privateKey, cert: right.certificate, maxVersion: "TLSv1.2" });
    assert.equal(refusals.length >= 3, true, refusals.join("; "));
    assert.equal(messages, 0);
    assert.equal(ups, 0);
    const still = once(a, "message");
    b.send(hello);
    assert.deepEqual((await still)[0], hello);

    // The certified partner itself, gone mad: what is no message ends the connection, and b comes back by itself.
    const down = once(a, "down");
    const back = once(a, "up");
    b.send({ type: "nonsense" } as unknown as ControlMessage);
    await down;
    await back;
    b.stop();
    a.stop();
  }),
);

test(
  "a connection in which nothing moves any more begins anew once the path carries again; one that works stays",
  inDirectory(async (directory) => {
    createPairKeys(directory);
    const [address, behind] = [freshAddress(), freshAddress()];
    // Between the two: it hands on all bytes until it is told to swallow those for b, as a link that was cut does.
    let swallows = false;
    const relay = net.createServer((fromB) => {
      const toA = net.connect({ host: behind, port: portOf(), localAddress: address });
      fromB.on("error", () => toA.destroy()).pipe(toA);
      toA.on("error", () => fromB.destroy());
      toA.on("data", (chunk) => {
        if (!swallows) fromB.write(chunk);
      });
      fromB.on("close", () => toA.destroy());
      toA.on("close", () => fromB.destroy());
    });
    await new Promise<void>((resolve) => relay.listen(portOf(), address, resolve));
    const [keysA, keysB] = [readPairKeys(directory, "a"), readPairKeys(directory, "b")];
    const a = new ControlChannel({ router: "a", localIp: behind, partnerIp: address, port: portOf(), keys: keysA });
    const b = channel("b", address, keysB);
    const downs: string[] = [];
    b.on("down", (reason) => downs.push(reason));
    const messages: string[] = [];
    for (const each of [a, b]) each.on("message", ({ type }) => messages.push(type));
    try {
      await a.start();
      const up = once(b, "up");
      await b.start();
      await up;

      b.carriesAgain();
      a.carriesAgain();
      await new Promise((resolve) => setTimeout(resolve, 1500));
      assert.deepEqual(downs, []);
      assert.equal(b.connected, true);

      swallows = true;
      b.carriesAgain();
      await once(b, "down");
      assert.match(String(downs), /stood still/);
      swallows = false;
      await once(b, "up");
      const heard = once(b, "message");
      const again = setInterval(() => a.send(hello), 50);
      assert.deepEqual((await heard)[0], hello);
      clearInterval(again);
      assert.deepEqual(
        messages.filter((type) => type !== "hello"),
        [],
        "pings are the channel's own affair",
      );
    } finally {
      a.stop();
      b.stop();
      relay.close();
    }
  }),
);
