// Doctor: looks at all that protection rests on, and says what is wrong with the command that mends it.
import { native } from "../../addon/native.js";
import type { Config } from "../config/schema.js";
import { sentenceOf } from "../errors.js";
import {
  checkAddresses,
  checkLinks,
  checkMtus,
  checkOffloads,
  checkTc,
  checkVirtualMac,
  checkXdp,
  devicesOf,
} from "./devices.js";
import { type Finding, found } from "./finding.js";
import { checkClock, checkMemory, checkState, checkSysctls } from "./host.js";
import {
  checkBpfFileSystem,
  checkCapabilities,
  checkNftables,
  checkRestore,
  checkTracing,
  withPrograms,
} from "./kernel.js";
import { checkKeys } from "./keys.js";
import { checkPair } from "./pair.js";

/** All findings about this router and, through its agent, about the pair. Changes nothing that stays. */
export async function examine(config: Config): Promise<Finding[]> {
  const devices = devicesOf(config);
  return [
    ...surroundings(config),
    ...guarded("bpf", () =>
      withPrograms(config, (programs) => [
        ...guarded("tracing", () => checkTracing(programs)),
        ...guarded("xdp", () => checkXdp(config, devices, programs)),
      ]),
    ),
    ...guarded("tcp-repair", checkRestore),
    ...guarded("nftables", checkNftables),
    ...(await checkPair(config).catch((error: unknown) => [failed("agent", error)])),
  ];
}

/** What an agent looks at when it starts: all but what it is about to try itself. */
export function surroundings(config: Config): Finding[] {
  const devices = devicesOf(config);
  return [
    ...guarded("capabilities", checkCapabilities),
    ...guarded("bpffs", () => checkBpfFileSystem(config)),
    ...guarded("keys", () => checkKeys(config)),
    ...guarded("state", () => checkState(config)),
    ...guarded("link", () => checkLinks(devices)),
    ...guarded("address", () => checkAddresses(config, devices)),
    ...guarded("virtual-mac", () => checkVirtualMac(config, native.links())),
    ...guarded("mtu", () => checkMtus(devices)),
    ...guarded("offloads", () => checkOffloads(devices)),
    ...guarded("tc", () => checkTc(devices)),
    ...guarded("sysctl", () => checkSysctls(config, devices)),
    ...guarded("clock", checkClock),
    ...guarded("memory", () => checkMemory(config)),
  ];
}

/** A check that fails says so, and the others go on. */
function guarded(check: string, look: () => Finding[]): Finding[] {
  try {
    return look();
  } catch (error) {
    return [failed(check, error)];
  }
}

function failed(check: string, error: unknown): Finding {
  return found("warning", check, `This could not be looked at: ${sentenceOf(error)}.`, "Run it as root");
}
