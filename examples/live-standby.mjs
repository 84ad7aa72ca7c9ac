// One program for both routers: it answers each line with its number and the bytes read so far, on connections it
// accepts itself and on replicas of the other router's connections. Start the same command on both:
//
//   node examples/live-standby.mjs --listen 10.77.0.1:7000 --service lines
//
// What makes it fit for `live` mode: the answers depend on the input alone, not on time, chance or other connections.

import net from "node:net";
import { StringDecoder } from "node:string_decoder";
import { parseArgs } from "node:util";
import { serveReplicated } from "tandem";

const { values } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:7000" },
    service: { type: "string", default: "lines" },
    socket: { type: "string", default: "/run/tandem/app.sock" },
  },
});

/** The application: works on any Duplex, so it cannot tell which of the two it runs on. */
function serve(connection) {
  const decoder = new StringDecoder("utf8");
  let unfinished = "";
  let lines = 0;
  let bytes = 0;
  connection.on("data", (chunk) => {
    bytes += chunk.length;
    // Characters and lines may be cut anywhere, and elsewhere on the other router.
    const parts = (unfinished + decoder.write(chunk)).split("\n");
    unfinished = parts.pop();
    let answer = "";
    for (const line of parts) answer += `${++lines}: ${line}\n`;
    if (answer !== "" && !connection.write(answer)) {
      connection.pause();
      connection.once("drain", () => connection.resume());
    }
  });
  connection.on("end", () => connection.end(`${lines} lines, ${bytes} bytes\n`));
  connection.on("error", (error) => console.error(`connection: ${error.message}`));
}

// The service address is on both routers; the standby's listener hears nothing until it has taken over.
const separator = values.listen.lastIndexOf(":");
const listener = net.createServer({ allowHalfOpen: true }, serve);
listener.listen(Number(values.listen.slice(separator + 1)), values.listen.slice(0, separator), () =>
  console.log(`listening on ${values.listen}`),
);

serveReplicated({
  socketPath: values.socket,
  service: values.service,
  onConnection(connection, session) {
    session.once("takeover", ({ inputOffset, outputOffset }) =>
      console.log(`session ${session.id} of ${session.peer.ip}: ours, input ${inputOffset}, output ${outputOffset}`),
    );
    serve(connection);
  },
  onState: ({ registered, error }) =>
    console.log(registered ? `registered for ${values.service}` : `not registered: ${error?.message} ${error?.remedy}`),
});
