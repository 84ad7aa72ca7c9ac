// The mill's application, run on both routers: an SDK application in confirmed mode that does everything as awkwardly as
// it may: reads of odd sizes, messages in pieces, confirms now and then, logged and plain writes mixed, answers late.
//   mill-server.js APP_SOCKET HOST PORT SEED
// Tells on standard output, a JSON line each: {"listening"}, {"registered"}, {"accepted"}, {"taken": messages processed
// before the resume point}, {"ready"}, {"unready": reason}, {"refused": code}, {"ended": messages}.

import net from "node:net";
import { connectAgent, type ServedConnection, serveProtected } from "../../src/sdk/index.js";
import { grind, packState, randomFrom, unpackState } from "./mill.js";

const [socketPath = "", host = "", port = "", seed = "1"] = process.argv.slice(2);
const random = randomFrom(Number(seed));

function say(event: string, value: unknown = true): void {
  process.stdout.write(`${JSON.stringify({ [event]: value })}\n`);
}

function serve({ socket, takeover, protect }: ServedConnection): void {
  let state = unpackState(takeover?.state ?? Buffer.alloc(0));
  /** Read and not processed: it begins at input offset `processed`. */
  let pending = Buffer.alloc(0);
  let processed = takeover?.inputOffset ?? 0;
  let inputEnded = false;
  let busy = false;
  const session = protect({
    replay: true,
    handover: () => ({
      inputOffset: processed,
      outputOffset: session.outputOffset,
      state: packState(state),
      inputBuffer: pending,
    }),
  });
  if (takeover === null) say("accepted");
  else say("taken", state.count);
  session.on("ready", () => say("ready"));
  session.on("unready", (reason) => say("unready", reason));
  session.on("refused", (error) => say("refused", error.code));
  socket.on("error", (error) => say("error", error.message));
  socket.on("readable", () => {
    for (;;) {
      const chunk: Buffer | null = socket.read(1 + Math.floor(random() * 3000)) ?? socket.read();
      if (chunk === null) break;
      pending = Buffer.concat([pending, chunk]);
      if (random() < 0.2) break;
    }
    void work();
  });
  socket.on("end", () => {
    inputEnded = true;
    void work();
  });

  async function work(): Promise<void> {
    if (busy) return;
    busy = true;
    while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32BE()) {
      const length = pending.readUInt32BE();
      const ground = grind(state, pending.subarray(4, 4 + length));
      state = ground.state;
      pending = pending.subarray(4 + length);
      processed += 4 + length;
      // State, offsets and output move in one turn of the event loop.
      const written = session.write(ground.output, { logged: random() < 0.3 });
      const dice = random();
      if (dice < 0.4) void session.confirm(processed, session.outputOffset, packState(state));
      if (dice > 0.9) await written.catch(() => {});
      if (dice > 0.97) await new Promise((resolve) => setTimeout(resolve, random() * 20));
    }
    busy = false;
    if (socket.readableLength > 0) socket.emit("readable");
    if (inputEnded && pending.length === 0 && socket.readableLength === 0) {
      inputEnded = false;
      say("ended", state.count);
      await session.close();
    }
  }
}

const agent = connectAgent({ path: socketPath, retryDelay: 100 });
const listener = net.createServer({ allowHalfOpen: true });
serveProtected({
  agent,
  service: "mill",
  mode: "confirmed",
  listener,
  onConnection: serve,
  onState: ({ registered, error }) => (registered ? say("registered") : say("unregistered", error?.code)),
});
listener.listen({ host, port: Number(port), backlog: 4096 }, () => say("listening"));
