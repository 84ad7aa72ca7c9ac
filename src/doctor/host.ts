// The machine: kernel settings, clock, memory, disk.
import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import path from "node:path";
import type { Config } from "../config/schema.js";
import { bytes } from "../observe/format.js";
import type { Device } from "./devices.js";
import { type Finding, found, ok } from "./finding.js";

export function checkSysctls(config: Config, devices: Device[]): Finding[] {
  const wrong: Finding[] = [];
  const expect = (
    key: string,
    bad: (value: string) => boolean,
    level: "problem" | "warning",
    what: string,
    want: string,
  ) => {
    const value = readSetting(`/proc/sys/${key.replaceAll(".", "/")}`);
    if (value !== null && bad(value))
      wrong.push(found(level, "sysctl", `${key} is ${value}: ${what}.`, `sysctl -w ${key}=${want}`));
  };
  expect("net.core.bpf_jit_enable", (value) => value === "0", "warning", "BPF programs are interpreted, and slow", "1");
  const ipv6 = config.services.some(({ addresses }) => addresses.some((address) => address.includes(":")));
  for (const { name, use } of devices) {
    if (use === "uplink" && ipv6)
      expect(
        // A dot in a device's name is a slash in a sysctl's.
        `net.ipv6.conf.${name.replaceAll(".", "/")}.disable_ipv6`,
        (value) => value === "1",
        "problem",
        "IPv6 service addresses cannot live there",
        "0",
      );
  }
  // The larger of both counts (Documentation/networking/ip-sysctl.rst, rp_filter); 1 refuses what would leave elsewhere.
  const uplinks = devices.filter(({ use }) => use === "uplink");
  if (uplinks.length > 1)
    for (const name of ["all", ...uplinks.map((each) => each.name)])
      expect(
        `net.ipv4.conf.${name.replaceAll(".", "/")}.rp_filter`,
        (value) => value === "1",
        "warning",
        "with several uplinks what comes by the other one is dropped",
        "2",
      );
  return wrong.length > 0 ? wrong : [ok("sysctl", "The kernel's settings are right.")];
}

/** Heartbeats measure milliseconds with it. */
export function checkClock(): Finding[] {
  const source = readSetting("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  if (source === null) return [];
  if (["tsc", "kvm-clock", "arch_sys_counter", "xen", "hyperv_clocksource_tsc_page"].includes(source))
    return [ok("clock", `The kernel's clock source is ${source}.`)];
  return [
    found(
      "warning",
      "clock",
      `The kernel's clock source is ${source}: slow to read, and it may drift.`,
      "dmesg | grep -i clocksource    # says why the kernel left tsc",
    ),
  ];
}

export function checkMemory(config: Config): Finding[] {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readSetting("/proc/meminfo") ?? "");
  if (!match) return [];
  const available = Number(match[1]) * 1024;
  const wanted = config.recorder.totalBytes + config.recorder.ringBytes;
  return available >= wanted
    ? [ok("memory", `${bytes(available)} are available; the recorder takes ${bytes(wanted)} at most.`)]
    : [
        found(
          "warning",
          "memory",
          `${bytes(available)} are available, but the recorder may take ${bytes(wanted)}.`,
          `Set recorder.totalBytes to ${Math.floor(available / 2)} or less, or give the machine more memory`,
        ),
      ];
}

export function checkState(config: Config): Finding[] {
  let there = config.paths.state;
  while (!existsSync(there)) there = path.dirname(there);
  try {
    accessSync(there, constants.W_OK);
    return [ok("state", `${config.paths.state} can be written.`)];
  } catch {
    return [found("problem", "state", `${there} cannot be written: the epoch could not be kept.`, `ls -ld ${there}`)];
  }
}

function readSetting(file: string): string | null {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return null;
  }
}
