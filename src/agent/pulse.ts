// The heartbeat of this router, as its configuration wants it: between the mirror links and between the first uplinks.

import { randomBytes } from "node:crypto";
import { native, type Pulse, type PulseEvent } from "../../addon/native.js";
import type { Config } from "../config/schema.js";
import { sentenceOf, TandemError } from "../errors.js";

/** `voiceMapFd`: of the map that holds until when the data plane may speak. Throws TandemError PULSE_BIND. */
export function openPulse(
  config: Config,
  key: Uint8Array,
  voiceMapFd: number,
  onEvent: (event: PulseEvent) => void,
): Pulse {
  const { heartbeat, routers } = config.pair;
  const [own, partner] = config.router === "a" ? [routers.a, routers.b] : [routers.b, routers.a];
  const uplink = own.uplinks[0];
  const partnerUplink = partner.uplinks[0];
  if (!uplink || !partnerUplink) throw new Error("a router without uplinks passed the configuration check");
  const { port } = heartbeat;
  try {
    return native.pulseStart(
      {
        paths: [
          { localIp: own.mirror.address, partnerIp: partner.mirror.address, port, device: own.mirror.device },
          { localIp: uplink.address, partnerIp: partnerUplink.address, port, device: uplink.device },
        ],
        key,
        incarnation: randomBytes(8).readBigUInt64LE(),
        intervalNs: BigInt(Math.round(heartbeat.intervalMs * 1e6)),
        leaseNs: BigInt(Math.round(heartbeat.deadMs * 1e6)),
        petLimitNs: BigInt(Math.round(heartbeat.controllerMs * 1e6)),
        driftPpm: heartbeat.driftPpm,
        voiceMapFd,
      },
      onEvent,
    );
  } catch (error) {
    throw new TandemError(
      "PULSE_BIND",
      `The heartbeat cannot use ${own.mirror.address} and ${uplink.address}, UDP port ${port}: ${sentenceOf(error)}.`,
      "The addresses must be on the named devices, and the port free (ss -ulpn). Set pair.heartbeat.port otherwise.",
    );
  }
}
