// A standby application that only reads: sink-application SOCKET SERVICE... What is mirrored to it is taken and
// dropped. It answers nothing, so it can stand in for any active application, as long as nothing is taken over.

import { connectAgent } from "../../src/sdk/index.js";

const [socketPath, ...services] = process.argv.slice(2);
if (socketPath === undefined || services.length === 0) {
  console.error("usage: sink-application SOCKET SERVICE...");
  process.exit(2);
}
const connection = connectAgent({ path: socketPath });
connection.on("session", (session) => session.feed?.resume());
connection.on("disconnected", () => process.exit(1));
for (const service of services) await connection.register(service, "live");
console.log("registered");
