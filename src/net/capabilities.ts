// What the kernel must allow the agent, asked before anything is touched: the first refusal of a system call deep in
// the set-up would name a symptom, not the capability.
import { native } from "../../addon/native.js";
import { TandemError } from "../errors.js";

/** Numbers of include/uapi/linux/capability.h. */
const CAP_SYS_ADMIN = 21n;
const required = [
  { name: "CAP_NET_ADMIN", bit: 12n, coveredBySysAdmin: false },
  { name: "CAP_NET_RAW", bit: 13n, coveredBySysAdmin: false },
  { name: "CAP_PERFMON", bit: 38n, coveredBySysAdmin: true },
  { name: "CAP_BPF", bit: 39n, coveredBySysAdmin: true },
];

/** The names of those that are missing in a set of effective capabilities. CAP_SYS_ADMIN includes BPF and PERFMON
 * (include/linux/capability.h, bpf_capable and perfmon_capable). */
export function missingCapabilities(effective: bigint): string[] {
  const has = (bit: bigint) => (effective & (1n << bit)) !== 0n;
  return required
    .filter(({ bit, coveredBySysAdmin }) => !has(bit) && !(coveredBySysAdmin && has(CAP_SYS_ADMIN)))
    .map(({ name }) => name);
}

/** Throws TandemError CAPABILITY_MISSING. */
export function requireCapabilities(): void {
  const missing = missingCapabilities(native.capabilities().effective);
  if (missing.length === 0) return;
  throw new TandemError(
    "CAPABILITY_MISSING",
    `The agent lacks ${missing.join(", ")}.`,
    "Run it as root, or give these with AmbientCapabilities= and CapabilityBoundingSet= in its systemd unit.",
  );
}
