// A service with state, in confirmed mode: each line of the peer is an amount, the answer to it is how many amounts there
// were on this connection, and their sum. Start the same command on both routers:
//
//   node examples/ledger.mjs --listen 10.77.0.1:7100 --service ledger
//
// No answer leaves before the sum it tells is on the standby; so whichever router answers, the books are right.
// examples/ledger.py is the same service in Python: each of the two goes on with what the other one confirmed.

import net from "node:net";
import { parseArgs } from "node:util";
import { connectAgent, serveProtected } from "tandem";

const { values } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:7100" },
    service: { type: "string", default: "ledger" },
    socket: { type: "string", default: "/run/tandem/app.sock" },
  },
});

function serve({ socket, takeover, protect }) {
  // The state is text: "count sum". It stands at the input offset `processed`.
  const [count, sum] = takeover?.state.length ? String(takeover.state).split(" ").map(Number) : [0, 0];
  const ledger = { count, sum };
  let processed = takeover?.inputOffset ?? 0;
  let unfinished = Buffer.alloc(0);
  const state = () => Buffer.from(`${ledger.count} ${ledger.sum}`);

  const session = protect({
    replay: true,
    holdOutput: true,
    handover: () => ({
      inputOffset: processed,
      outputOffset: session.outputOffset,
      state: state(),
      inputBuffer: unfinished,
    }),
  });
  if (takeover !== null) console.log(`taken over: input ${takeover.inputOffset}, state "${takeover.state}"`);
  session.on("ready", () => console.log("ready"));
  session.on("unready", (reason) => console.log(`not ready: ${reason}`));
  session.on("refused", (error) => console.log(`refused: ${error.message} ${error.remedy}`));

  socket.on("data", (chunk) => {
    unfinished = Buffer.concat([unfinished, chunk]);
    const end = unfinished.lastIndexOf("\n") + 1;
    if (end === 0) return;
    for (const line of String(unfinished.subarray(0, end - 1)).split("\n")) {
      ledger.count++;
      ledger.sum += Number(line);
      void session.write(`${ledger.count} ${ledger.sum}\n`);
    }
    unfinished = unfinished.subarray(end);
    processed += end;
    void session.confirm(processed, session.outputOffset, state());
  });
  socket.on("end", async () => {
    // Answers that wait for their confirm leave first.
    await session.confirm(processed, session.outputOffset, state());
    await session.close();
  });
  socket.on("error", (error) => console.log(`connection: ${error.message}`));
}

const agent = connectAgent({ path: values.socket, application: "ledger" });
// Half-open: the last answers leave after the peer's end.
const listener = net.createServer({ allowHalfOpen: true });
serveProtected({
  agent,
  service: values.service,
  mode: "confirmed",
  listener,
  onConnection: serve,
  onState: ({ registered, error }) =>
    console.log(registered ? `registered for ${values.service}` : `not registered: ${error?.message} ${error?.remedy}`),
});
const separator = values.listen.lastIndexOf(":");
listener.listen(Number(values.listen.slice(separator + 1)), values.listen.slice(0, separator), () =>
  console.log(`listening on ${values.listen.slice(0, separator)}:${listener.address().port}`),
);
