// Ends sockets whose sessions live elsewhere, or are to be restored here: their retransmissions would meet the peer, and
// their tuples would be in the way of a restore. What this makes them send must be kept here: by the closed gate, or by the
// verdict that their application crashed.
import { native } from "../../addon/native.js";
import type { Config } from "../config/schema.js";
import { readKey } from "../session/flow-key.js";

/** Those that applications of this router still hold of the services' sessions; they see ECONNABORTED, as they should. The
 * gate must be closed. Listeners stay. Throws NativeError where the kernel (CONFIG_INET_DIAG_DESTROY) cannot. */
export function abandonSockets(config: Pick<Config, "services">): void {
  native.socketsEnd(
    config.services.flatMap(({ addresses, port = 0, remotePort = 0 }) =>
      addresses.map((localIp) => ({ localIp, localPort: port, peerPort: remotePort })),
    ),
  );
}

/** What is left of these sessions' sockets (td_flow_key), whose application crashed. Throws likewise. */
export function endSockets(keys: readonly Uint8Array[]): void {
  native.socketsEnd(keys.map(readKey));
}
