// Both ends of the transfers in path.test.ts. `serve ADDRESS PORT` answers each connection: an upload (first byte U)
// with the SHA-256 of what it got, a download (first byte D, then 8 digits of MiB) with that much data.
// `transfer ADDRESS PORT MIB [FROM_PORT]` does one of each and prints the seconds and whether all bytes arrived.

import { createHash } from "node:crypto";
import net from "node:net";

const mebibyte = Buffer.alloc(
  1 << 20,
  Uint8Array.from({ length: 65_521 }, (_, at) => (at * 31 + (at >> 8) * 17) & 0xff),
);

async function feed(socket: net.Socket, count: number): Promise<string> {
  const hash = createHash("sha256");
  for (let sent = 0; sent < count; sent++) {
    hash.update(mebibyte);
    if (!socket.write(mebibyte)) await new Promise((resolve) => socket.once("drain", resolve));
  }
  return hash.digest("hex");
}

async function collect(socket: net.Socket): Promise<{ hash: string; text: string; bytes: number }> {
  const hash = createHash("sha256");
  let bytes = 0;
  let text = "";
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    hash.update(chunk);
    bytes += chunk.length;
    if (text.length < 64) text += chunk.toString("latin1", 0, 64);
  }
  return { hash: hash.digest("hex"), text, bytes };
}

async function answer(socket: net.Socket): Promise<void> {
  const first = await new Promise<Buffer>((resolve, reject) => socket.once("data", resolve).once("error", reject));
  if (first[0] === 0x44) {
    await feed(socket, Number(first.toString("latin1", 1, 9)));
    socket.end();
    return;
  }
  const hash = createHash("sha256").update(first.subarray(1));
  socket.on("data", (chunk) => hash.update(chunk)).on("end", () => socket.end(hash.digest("hex")));
}

const [verb, host = "", port = "", count = "1", fromPort = "0"] = process.argv.slice(2);
if (verb === "serve") {
  net
    .createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {});
      void answer(socket);
    })
    .listen(Number(port), host, () => console.log("listening"));
} else {
  const connect = (offset: number): net.Socket =>
    net.connect({
      host,
      port: Number(port),
      allowHalfOpen: true,
      ...(fromPort === "0" ? {} : { localPort: Number(fromPort) + offset }),
    });
  const up = connect(0);
  const started = performance.now();
  up.write("U");
  const answered = collect(up);
  const sent = await feed(up, Number(count));
  up.end();
  const { text } = await answered;
  const uploaded = performance.now();
  const down = connect(1);
  down.write(`D${count.padStart(8, "0")}`);
  const got = await collect(down);
  down.end();
  const ended = performance.now();
  console.log(
    JSON.stringify({
      upload: text === sent,
      download: got.hash === sent && got.bytes === Number(count) * mebibyte.length,
      upSeconds: (uploaded - started) / 1000,
      downSeconds: (ended - uploaded) / 1000,
    }),
  );
}
