// descriptors.cc and sd_notify.cc: channels with descriptors over real Unix sockets, in order, under a full socket.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import test from "node:test";
import { Worker } from "node:worker_threads";
import { type NativeError, native } from "../../addon/native.js";
import { run, temporaryDirectory, until } from "./fixture.js";

interface Received {
  bytes: Buffer;
  fds: number[];
  closed: NativeError | null | undefined;
}

function collect(fd: number): { channel: ReturnType<typeof native.unixChannel>; received: Received } {
  const received: Received = { bytes: Buffer.alloc(0), fds: [], closed: undefined };
  const channel = native.unixChannel(fd, {
    onData: (data, fds) => {
      received.bytes = Buffer.concat([received.bytes, data]);
      received.fds.push(...fds);
    },
    onClose: (error) => {
      received.closed = error;
    },
  });
  return { channel, received };
}

const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

test("bytes and descriptors arrive; the sender may close its own at once", async () => {
  const file = path.join(temporaryDirectory(), "file");
  writeFileSync(file, "through the socket");
  const [left, right] = native.socketPair();
  const sender = collect(left);
  const receiver = collect(right);
  const fd = openSync(file, "r");
  const inode = fstatSync(fd).ino;
  sender.channel.send(Buffer.from("hello"), [fd, fd]);
  closeSync(fd);
  await until("both", () => receiver.received.fds.length === 2);
  assert.equal(receiver.received.bytes.toString(), "hello");
  for (const got of receiver.received.fds) {
    assert.equal(fstatSync(got).ino, inode);
    closeSync(got);
  }
  sender.channel.end();
  await until("end", () => receiver.received.closed === null);
  assert.throws(() => sender.channel.send(Buffer.from("more")), { code: "EPIPE" });
  assert.throws(() => receiver.channel.send(Buffer.from("more")), { code: "EPIPE" });
});

test("of a hundred descriptors, each with its message, a few are read in each of the first turns, then all", async () => {
  const [left, right] = native.socketPair();
  const sender = collect(left);
  for (let index = 0; index < 100; index++) sender.channel.send(Buffer.from("x"), [0]);
  const turns: number[] = [];
  let inThisTurn = 0;
  const receiver = native.unixChannel(right, {
    onData: (_data, fds) => {
      if (inThisTurn === 0)
        setImmediate(() => {
          turns.push(inThisTurn);
          inThisTurn = 0;
        });
      inThisTurn += fds.length;
      for (const fd of fds) native.closeFd(fd);
    },
    onClose: () => {},
  });
  try {
    await until("all of them", () => turns.reduce((sum, count) => sum + count, 0) === 100);
    assert.deepEqual(turns, [2, 2, 2, 2, 2, 2, 88]);
  } finally {
    receiver.destroy();
    sender.channel.destroy();
  }
});

test("a full socket queues, keeps the order and the descriptors' places, and leaks none", async () => {
  const before = openDescriptors();
  const [left, right] = native.socketPair();
  const sender = native.unixChannel(left, { onData: () => assert.fail(), onClose: () => {} });
  const sent = createHash("sha256");
  let total = 0;
  for (let index = 0; index < 200; index++) {
    const message = Buffer.alloc(20_000 + index, index);
    const fd = index % 10 === 0 ? native.dupFd(0) : -1;
    sender.send(message, fd < 0 ? [] : [fd]);
    if (fd >= 0) native.closeFd(fd);
    sent.update(message);
    total += message.length;
  }
  assert.ok(sender.pending() > 1_000_000);
  sender.end();
  const { received } = collect(right);
  await until("all", () => received.closed === null);
  assert.equal(received.bytes.length, total);
  assert.equal(createHash("sha256").update(received.bytes).digest("hex"), sent.digest("hex"));
  assert.equal(received.fds.length, 20);
  for (const fd of received.fds) native.closeFd(fd);
  await until("closed", () => openDescriptors() <= before);
});

test("destroy with a queue drops it and its descriptors; a vanished reader is told as an error or an end", async () => {
  const before = openDescriptors();
  const [left, right] = native.socketPair();
  const sender = collect(left);
  for (let index = 0; index < 50; index++) sender.channel.send(Buffer.alloc(50_000), [0]);
  sender.channel.destroy();
  sender.channel.destroy();
  assert.equal(sender.channel.pending(), 0);
  native.closeFd(right);
  await until("closed", () => openDescriptors() <= before);

  const [near, far] = native.socketPair();
  const writer = collect(near);
  for (let index = 0; index < 50; index++) writer.channel.send(Buffer.alloc(50_000));
  native.closeFd(far);
  await until("told", () => writer.received.closed !== undefined);
});

test("what cannot be sent is refused", () => {
  const [left, right] = native.socketPair();
  const { channel } = collect(left);
  assert.throws(() => channel.send(new Uint8Array(0), [0]), { code: "EINVAL" });
  assert.throws(() => channel.send(new Uint8Array(1), new Array(65).fill(0)), { code: "EMSGSIZE" });
  assert.throws(() => channel.send(new Uint8Array(1), [99999]), { code: "EBADF" });
  channel.destroy();
  native.closeFd(right);
});

test("a handler's exception is an uncaught one, and the channel goes on", async () => {
  const script = `
    const { native } = await import(${JSON.stringify(new URL("../../addon/native.js", import.meta.url).href)});
    const [left, right] = native.socketPair();
    const seen = [];
    process.on("uncaughtException", (error) => { seen.push(error.message); sender.send(Buffer.from("b")); });
    const receiver = native.unixChannel(right, { onData: (data) => {
      if (data[0] === 97) throw new Error("mine");
      console.log(seen.join()); sender.destroy(); receiver.destroy();
    }, onClose: () => {} });
    const sender = native.unixChannel(left, { onData: () => {}, onClose: () => {} });
    sender.send(Buffer.from("a"));`;
  assert.equal(run(process.execPath, "--input-type=module", "-e", script).trim(), "mine");
});

test("a listener accepts, knows its caller, has its mode, replaces a dead socket but no live one", async () => {
  const where = path.join(temporaryDirectory(), "socket");
  const accepted: number[] = [];
  const listener = native.unixListen(where, 0o660, (fd) => accepted.push(fd));
  assert.equal(statSync(where).mode & 0o777, 0o660);
  assert.throws(() => native.unixListen(where, 0o600, () => {}), { code: "EADDRINUSE" });
  const client = native.unixConnect(where);
  const server = await until("accept", () => accepted[0]);
  assert.deepEqual(native.unixPeer(server), { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  native.closeFd(client);
  native.closeFd(server);
  listener.close();
  listener.close();
  assert.ok(!existsSync(where));
  assert.throws(() => native.unixConnect(where), { code: "ENOENT" });
  assert.throws(() => native.unixConnect("x".repeat(200)), { code: "ENAMETOOLONG" });

  run("python3", "-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", where);
  assert.ok(existsSync(where));
  native.unixListen(where, 0o600, () => {}).close();
});

test("a worker thread is terminated with busy channels and a listener, and leaves nothing", async () => {
  const code = `
    const { parentPort, workerData } = require("node:worker_threads");
    import(workerData.url).then(({ native }) => {
      const [left, right] = native.socketPair();
      native.unixChannel(left, { onData() {}, onClose() {} });
      native.unixChannel(right, { onData() {}, onClose() {} }).send(Buffer.from("x"));
      const [busy, other] = native.socketPair();
      const echo = native.unixChannel(other, { onData(data) { echo.send(data); }, onClose() {} });
      const ping = native.unixChannel(busy, { onData(data) { ping.send(data); }, onClose() {} });
      ping.send(Buffer.alloc(1000));
      native.unixListen(workerData.where, 0o600, (fd) => { native.closeFd(fd); parentPort.postMessage("ready"); });
      native.unixChannel(native.unixConnect(workerData.where), { onData() {}, onClose() {} });
    });`;
  const before = openDescriptors();
  const workerData = {
    url: new URL("../../addon/native.js", import.meta.url).href,
    where: path.join(temporaryDirectory(), "worker"),
  };
  for (let round = 0; round < 10; round++) {
    const worker = new Worker(code, { eval: true, workerData });
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    await worker.terminate();
    await until("its descriptors closed", () => openDescriptors() <= before);
  }
  assert.ok(!existsSync(workerData.where));
});

test("single calls on descriptors", () => {
  const [left, right] = native.socketPair();
  assert.equal(native.writeSome(left, Buffer.from("hello"), 1, 3), 3);
  native.setBufferSizes(left, 8192, 0);
  let written = 0;
  for (let bytes = -1; bytes !== 0; written += bytes) bytes = native.writeSome(left, Buffer.alloc(4096), 0, 4096);
  assert.ok(written > 0);
  native.shutdownWrite(left);
  assert.throws(() => native.writeSome(left, Buffer.from("x"), 0, 1), { code: "EPIPE" });
  assert.throws(() => native.writeSome(left, Buffer.from("x"), 1, 1), RangeError);
  native.closeFd(left);
  native.closeFd(right);
  assert.throws(() => native.closeFd(left), { code: "EBADF" });
  const file = openSync(path.join(temporaryDirectory(), "plain"), "w");
  assert.equal(native.writeSome(file, Buffer.from("abc"), 0, 3), 3);
  closeSync(file);
});

test("sd_notify tells the service manager, or says that there is none", () => {
  delete process.env.NOTIFY_SOCKET;
  assert.equal(native.sdNotify("READY=1"), false);
  const directory = temporaryDirectory();
  const where = path.join(directory, "notify");
  const out = path.join(directory, "out");
  // A child sends, a Python datagram socket receives: Node.js has no Unix datagram sockets.
  const url = new URL("../../addon/native.js", import.meta.url).href;
  const program = `
import os, socket, subprocess, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
subprocess.run([sys.argv[3], "--input-type=module", "-e",
  "const { native } = await import(" + repr(sys.argv[4]) + "); if (!native.sdNotify('READY=1\\\\nSTATUS=here')) process.exit(1)"],
  env={**os.environ, "NOTIFY_SOCKET": sys.argv[1]}, check=True)
open(sys.argv[2], "wb").write(receiver.recv(4096))
`;
  run("python3", "-c", program, where, out, process.execPath, url);
  assert.equal(readFileSync(out, "utf8"), "READY=1\nSTATUS=here");
  process.env.NOTIFY_SOCKET = path.join(directory, "missing");
  assert.throws(() => native.sdNotify("READY=1"), { code: "ENOENT" });
  delete process.env.NOTIFY_SOCKET;
});

test("a socket takes another one's place: same number, its own stream, non-blocking, and the caller's number is free", () => {
  const before = openDescriptors();
  const old = native.tcpSocket();
  const [near, far] = native.socketPair();
  native.replaceFd(old, near);
  assert.equal(openDescriptors(), before + 2);
  assert.throws(() => native.closeFd(near), { code: "EBADF" });
  assert.equal(native.writeSome(old, Buffer.from("through"), 0, 7), 7);
  const flags = readFileSync(`/proc/self/fdinfo/${old}`, "utf8").match(/flags:\s*(\d+)/)?.[1] ?? "";
  assert.equal(Number.parseInt(flags, 8) & 0o2004000, 0o2004000, "O_NONBLOCK and O_CLOEXEC");
  native.closeFd(old);
  native.closeFd(far);
  assert.throws(() => native.replaceFd(near, near), { code: "EBADF" });
});
