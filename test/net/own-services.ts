// The service maps and iterators of the data plane in a test's own network namespace, with nothing attached; addresses
// of both ends are on its loopback device.

import path from "node:path";
import { native } from "../../addon/native.js";
import * as abi from "../../src/abi.gen.js";
import { parseIp } from "../../src/net/addresses.js";
import { objectDirectory } from "../../src/net/dataplane.js";
import { run } from "../addon/fixture.js";

export const serviceIp = { 4: "10.9.0.1", 6: "fd00::1" } as const;
export const peerIp = { 4: "10.9.0.2", 6: "fd00::2" } as const;
export const servicePort = 8080;
/** The peer's port of the active-open service. */
export const remotePort = 179;

/** Puts the addresses up and returns the descriptor of an iterator program that knows the services. */
export function ownServices(): { snapshot: number; owners: number } {
  for (const ip of [serviceIp[4], peerIp[4]]) run("ip", "addr", "add", `${ip}/32`, "dev", "lo");
  for (const ip of [serviceIp[6], peerIp[6]]) run("ip", "addr", "add", `${ip}/128`, "dev", "lo", "nodad");
  const object = native.bpfLoad(path.join(objectDirectory(), "snapshot.bpf.o"), {});
  const at = abi.offsets.td_service_key;
  for (const family of [4, 6] as const)
    for (const [kind, port] of [
      [abi.TD_SERVICE_PASSIVE, servicePort],
      [abi.TD_SERVICE_ACTIVE, remotePort],
    ] as const) {
      const key = Buffer.alloc(abi.sizes.td_service_key);
      key.set(parseIp(serviceIp[family]).bytes, at.ip);
      key.writeUInt16BE(port, at.port);
      key[at.family] = family;
      key[at.kind] = kind;
      native.bpfMapUpdate(object.maps.services!.fd, key, new Uint8Array(abi.sizes.td_service));
    }
  return { snapshot: object.programs.snapshot!.fd, owners: object.programs.owners?.fd ?? -1 };
}
