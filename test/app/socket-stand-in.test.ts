// A socket that is there before its connection is: it becomes that connection, with what has arrived on it, or goes.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import net from "node:net";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { native } from "../../addon/native.js";
import { SocketStandIn } from "../../src/sdk/socket-stand-in.js";

const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

/** A connection over loopback: the far end as a stream, the near one as a descriptor, as an agent hands it over. */
async function connection(): Promise<{ far: net.Socket; fd: number; port: number; close: () => void }> {
  const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const far = net.connect({ port: (server.address() as net.AddressInfo).port, host: "127.0.0.1", allowHalfOpen: true });
  const [near] = (await once(server, "connection")) as [net.Socket];
  const { fd } = (near as unknown as { _handle: { fd: number } })._handle;
  const handedOver = native.dupFd(fd);
  const port = far.localPort ?? 0;
  near.destroy();
  return { far, fd: handedOver, port, close: () => server.close() };
}

test("it becomes the connection: what has arrived already, what comes, what is sent, and both ends", async () => {
  const standIn = SocketStandIn.make();
  assert.ok(standIn);
  await delay(20); // nothing is read, and nothing fails, before there is a connection
  const { far, fd, port, close } = await connection();
  far.write("already here, ");
  await delay(20);
  const socket = standIn.become(fd);
  assert.equal(socket.remotePort, port);
  assert.equal(socket.remoteFamily, "IPv4");
  const heard: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => heard.push(chunk));
  far.end("and the rest");
  await once(socket, "end");
  assert.equal(Buffer.concat(heard).toString(), "already here, and the rest");
  const answer = once(far, "data");
  socket.end("answer");
  assert.equal(String((await answer)[0]), "answer");
  if (!far.readableEnded) await once(far, "end");
  far.destroy();
  close();
});

test("an end or a reset of the connection is noticed although nobody reads", async () => {
  const standIn = SocketStandIn.make();
  assert.ok(standIn);
  const { far, fd, close } = await connection();
  const socket = standIn.become(fd);
  const failed = once(socket, "error");
  far.resetAndDestroy();
  assert.equal(((await failed)[0] as NodeJS.ErrnoException).code, "ECONNRESET");
  close();
});

test("one that gets no connection leaves no descriptor", async () => {
  const before = openDescriptors();
  const standIns = Array.from({ length: 50 }, () => SocketStandIn.make());
  assert.equal(openDescriptors(), before + 50);
  for (const standIn of standIns) standIn?.drop();
  for (let turn = 0; openDescriptors() > before && turn < 100; turn++) await delay(5);
  assert.equal(openDescriptors(), before);
});
