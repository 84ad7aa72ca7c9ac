// The application of a signed service in confirmed mode, on both routers: gives every byte back. Node cannot set a TCP MD5
// key on a listener, so descriptor 3 is one that has it.
//   md5-server.js APP_SOCKET KEY

import net from "node:net";
import { connectAgent, serveProtected } from "../../src/sdk/index.js";

const [socketPath = "", key = ""] = process.argv.slice(2);
const listener = net.createServer({ allowHalfOpen: true });
serveProtected({
  agent: connectAgent({ path: socketPath, retryDelay: 100 }),
  service: "own",
  mode: "confirmed",
  listener,
  onConnection: ({ socket, takeover, protect }) => {
    let processed = takeover?.inputOffset ?? 0;
    const session = protect({
      replay: true,
      md5Key: Buffer.from(key),
      handover: () => ({ inputOffset: processed, outputOffset: session.outputOffset }),
    });
    socket.on("error", (error) => console.log(error.message));
    socket.on("data", (chunk) => {
      processed += chunk.length;
      void session.write(chunk);
      void session.confirm(processed, session.outputOffset);
    });
  },
});
listener.listen({ fd: 3 }, () => console.log("listening"));
