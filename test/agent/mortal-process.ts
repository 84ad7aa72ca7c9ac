// A server that ends in a chosen way when its standard input ends: mortal-process HOW PORT ADDRESS ...
//   killed  waits to be killed; reads everything
//   unread  aborts with data in its receive queues
//   unsent  aborts with more output than the peer, who does not read, has room for
//   exit    process.exit() without close()
//   close   ends its connections, which it means

import net from "node:net";

const [how, port, ...addresses] = process.argv.slice(2);
const sockets: net.Socket[] = [];

await Promise.all(
  addresses.map(
    (host) =>
      new Promise<void>((resolve) => {
        net
          .createServer({ pauseOnConnect: true }, (socket) => {
            sockets.push(socket);
            socket.on("error", () => {});
            if (how === "unsent") socket.write(Buffer.alloc(8 << 20));
            else if (how !== "unread") socket.resume();
            console.log("open");
          })
          .listen({ host, port: Number(port) }, resolve);
      }),
  ),
);
console.log("listening");
process.stdin.resume().on("end", () => {
  if (how === "exit") process.exit(1);
  if (how !== "close") process.abort();
  for (const socket of sockets) socket.end();
  setTimeout(() => process.exit(0), 500);
});
