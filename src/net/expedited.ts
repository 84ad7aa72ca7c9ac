// Shortens what the kernel does only when all CPUs have passed a point (RCU): an inner map that is replaced waits some
// 16 ms for that here, a packet socket that opens and closes 32 ms; told to hurry, 0.05 and 0.5 ms
// (Documentation/admin-guide/kernel-parameters.txt, rcupdate.rcu_expedited).

import { readFileSync, writeFileSync } from "node:fs";

const rcuSwitch = "/sys/kernel/rcu_expedited";

/** The action runs at once, and must not give way to anything. Where hurrying is not allowed it just waits. */
export function expedited(action: () => void): void {
  const hurries = set("0", "1");
  try {
    action();
  } finally {
    if (hurries) set("1", "0");
  }
}

/** False: it is set otherwise, perhaps by somebody else at this moment, or may not be set. */
function set(from: string, to: string): boolean {
  try {
    if (readFileSync(rcuSwitch, "utf8").trim() !== from) return false;
    writeFileSync(rcuSwitch, to);
    return true;
  } catch {
    return false;
  }
}
