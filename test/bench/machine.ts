// What the figures were measured on.

import { readFileSync } from "node:fs";
import os from "node:os";

export interface Machine {
  kernel: string;
  cpu: string;
  cores: number;
  memoryMegabytes: number;
  node: string;
  date: string;
  /** Load average of the last minute before the run: other work on the machine spoils the figures. */
  loadBefore: number;
}

export function describeMachine(): Machine {
  const cpu = /^model name\s*:\s*(.+)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  return {
    kernel: os.release(),
    cpu: cpu ?? os.arch(),
    cores: os.cpus().length,
    memoryMegabytes: Math.round(os.totalmem() / 2 ** 20),
    node: process.version,
    date: new Date().toISOString(),
    loadBefore: os.loadavg()[0] ?? 0,
  };
}
