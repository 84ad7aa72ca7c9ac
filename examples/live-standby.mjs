// One program for both routers: it answers each line with its number and the bytes read so far, on connections it
// accepts itself and on replicas of the other router's connections. Start the same command on both:
//
//   node examples/live-standby.mjs --listen 10.77.0.1:7000 --service lines
//
// What makes it fit for `live` mode: the answers depend on the input alone, not on time, chance or other connections.

import net from "node:net";
import { parseArgs } from "node:util";
import { serveReplicated } from "tandem";

const { values } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:7000" },
    service: { type: "string", default: "lines" },
    socket: { type: "string", default: "/run/tandem/app.sock" },
  },
});

/** The application: it cannot tell which of the two routers it runs on. */
function serve(connection, session) {
  // What a standby that joins in the middle is told: the lines before this one.
  let lines = session.state.length > 0 ? Number(session.state) : 0;
  let unfinished = Buffer.alloc(0);
  connection.protect(() => ({
    inputOffset: connection.inputOffset - unfinished.length,
    outputOffset: connection.outputOffset,
    state: Buffer.from(String(lines)),
    inputBuffer: unfinished,
  }));
  connection.on("data", (chunk) => {
    // Characters and lines may be cut anywhere, and elsewhere on the other router.
    unfinished = Buffer.concat([unfinished, chunk]);
    const end = unfinished.lastIndexOf("\n") + 1;
    if (end === 0) return;
    let answer = "";
    for (const line of String(unfinished.subarray(0, end - 1)).split("\n")) answer += `${++lines}: ${line}\n`;
    unfinished = unfinished.subarray(end);
    if (!connection.write(answer)) {
      connection.pause();
      connection.once("drain", () => connection.resume());
    }
  });
  connection.on("end", () => connection.end(`${lines} lines, ${connection.inputOffset} bytes\n`));
  connection.on("error", (error) => console.error(`connection: ${error.message}`));
}

// The service address is on both routers; the standby's listener hears nothing until it has taken over.
const separator = values.listen.lastIndexOf(":");
const listener = net.createServer({ allowHalfOpen: true });
listener.listen(Number(values.listen.slice(separator + 1)), values.listen.slice(0, separator), () =>
  console.log(`listening on ${values.listen}`),
);

serveReplicated({
  socketPath: values.socket,
  service: values.service,
  listener,
  onConnection(connection, session) {
    session.once("takeover", ({ inputOffset, outputOffset }) =>
      console.log(`session ${session.id} of ${session.peer.ip}: ours, input ${inputOffset}, output ${outputOffset}`),
    );
    serve(connection, session);
  },
  onState: ({ registered, error }) =>
    console.log(registered ? `registered for ${values.service}` : `not registered: ${error?.message} ${error?.remedy}`),
});
