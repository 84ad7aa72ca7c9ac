// An unmodified application: returns each byte, after reads of odd sizes and now and then a pause.
//   schedules-echo.js SEED HOST ...   listens
//   schedules-echo.js SEED            serves its standard input, as it is resumed at a takeover

import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { randomFrom } from "./mill.js";
import { drained, readSome } from "./schedules-awkward.js";
import { servicePorts } from "./schedules-services.js";

const [seed = "1", ...hosts] = process.argv.slice(2);
const random = randomFrom(Number(seed));

async function serve(socket: net.Socket): Promise<void> {
  let ended = false;
  let wake = () => {};
  socket.on("readable", () => wake());
  socket.on("end", () => {
    ended = true;
    wake();
  });
  socket.on("close", () => {
    ended = true;
    wake();
  });
  socket.on("error", () => socket.destroy());
  while (!ended) {
    const chunk = readSome(socket, random);
    if (chunk === null) await new Promise<void>((resolve) => (wake = resolve));
    else {
      socket.write(chunk);
      if (random() < 0.1) await delay(random() * 10);
      // Its input is left alone meanwhile: what comes piles up in the kernel.
      await drained(socket);
    }
  }
  socket.end();
}

if (hosts.length === 0) void serve(new net.Socket({ fd: 0, allowHalfOpen: true }));
let listening = 0;
for (const host of hosts)
  net
    .createServer({ allowHalfOpen: true }, (socket) => void serve(socket))
    .listen({ host, port: servicePorts.delivered, backlog: 4096 }, () => {
      if (++listening === hosts.length) console.log("listening");
    });
