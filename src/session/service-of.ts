// Which service a connection belongs to, by its own end: the rule of the data plane (bpf/service.h).
import type { Service } from "../config/schema.js";
import { parseIp } from "../net/addresses.js";
import type { Endpoints } from "./flow-key.js";

export class ServiceLookup {
  readonly #services: { port: number | undefined; remotePort: number | undefined; addresses: Set<string> }[];

  constructor(services: readonly Pick<Service, "port" | "remotePort" | "addresses">[]) {
    this.#services = services.map(({ port, remotePort, addresses }) => ({
      port,
      remotePort,
      addresses: new Set(addresses.map((address) => hexOf(parseIp(address).bytes))),
    }));
  }

  /** Its number in the configuration; -1: none. */
  find({ localIp, localPort, peerPort }: Pick<Endpoints, "localIp" | "localPort" | "peerPort">): number {
    const local = hexOf(localIp);
    return this.#services.findIndex(
      ({ port, remotePort, addresses }) =>
        (port === undefined ? remotePort === peerPort : port === localPort) && addresses.has(local),
    );
  }
}

function hexOf(ip: Uint8Array): string {
  return Buffer.from(ip).toString("hex");
}
