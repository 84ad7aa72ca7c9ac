// A server that ends its connection in one of many ways (argument 1), for witness.test.ts. Listens on argument 2,
// port argument 3. Prints "listening", and "connected" once the connection is in the state it is to die in; the ways
// that start with "killed" then wait for the signal.

import net from "node:net";

const [way = "", host = "", port = ""] = process.argv.slice(2);

const later = (act: () => void): void => void setTimeout(act, 50);

/** What the server does once it has its connection; a way that is not here only waits for the signal. */
const acts: Record<string, (socket: net.Socket) => void> = {
  close: (socket) => later(() => socket.destroy()),
  "close with unread data": (socket) => later(() => socket.destroy()),
  "shutdown, then close": (socket) =>
    later(() => {
      socket.end();
      later(() => socket.destroy());
    }),
  reset: (socket) => later(() => socket.resetAndDestroy()),
  "close after the peer": (socket) => socket.resume().on("end", () => socket.end()),
  "exit after the peer and a shutdown": (socket) =>
    socket
      .resume()
      .on("end", () => socket.end())
      .on("finish", () => process.exit(0)),
  "exit 0 without close": () => later(() => process.exit(0)),
  "exit 1 without close": () => later(() => process.exit(1)),
  abort: () => later(() => process.abort()),
  "killed after shutdown, with unread data": (socket) => socket.end(),
  "killed with data for a closed window": (socket) => socket.write(Buffer.alloc(16 << 20)),
};

// Nothing is read unless a way says so: the socket stays paused.
net
  .createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    console.log("connected");
    acts[way]?.(socket);
  })
  .listen(Number(port), host, () => {
    console.log("listening");
    // The connection then waits in the listener's queue.
    if (way === "killed with an unaccepted connection") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  });
