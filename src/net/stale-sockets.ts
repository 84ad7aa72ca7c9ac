// Ends the sockets that applications of this router still hold of sessions which another router has taken over. Their
// retransmissions would meet the peer when this router speaks again, and their tuples would be in the way of a restore.
// The closed gate keeps their resets here; the applications see ECONNABORTED, as they should.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Config } from "../config/schema.js";

const run = promisify(execFile);

/** The gate must be closed. Listeners stay. Rejects when ss (iproute2) or the kernel (CONFIG_INET_DIAG_DESTROY) cannot. */
export async function abandonSockets(config: Pick<Config, "services">): Promise<void> {
  const filters = config.services.flatMap((service) =>
    service.addresses.map((address) => {
      const port = service.port === undefined ? `dport = :${service.remotePort}` : `sport = :${service.port}`;
      return `( src ${address.includes(":") ? `[${address}]` : address} and ${port} )`;
    }),
  );
  await run("ss", ["--kill", "--tcp", "--no-header", "--numeric", "state", "connected", filters.join(" or ")]);
}
