// Nanoseconds that each BPF program takes a run, by the kernel's own statistics (kernel.bpf_stats), on the protected
// path under load. A run is a segment, or at the active's egress a GSO buffer.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { z } from "zod";
import { native } from "../../addon/native.js";
import { measureOnce } from "./goodput.js";
import type { ServicePath } from "./paths.js";

export interface ProgramTime {
  /** The router whose program it is: its role on the path. */
  router: "active" | "standby";
  direction: "in" | "out";
  nanosecondsPerRun: number;
  runs: number;
}

const programList = z.array(z.object({ id: z.number(), name: z.string().optional() }));
/** Fewer are not under load. */
const fewestRuns = 500;

interface Sample {
  id: number;
  name: string;
  router: "active" | "standby";
  timeNs: number;
  runs: number;
}

/** The programs that the two agents hold, as the kernel describes descriptors of programs (bpf_prog_show_fdinfo). */
function sample(agents: Record<"active" | "standby", number>): Sample[] {
  const text = execFileSync("bpftool", ["prog", "show", "-j"], { encoding: "utf8", maxBuffer: 1 << 26 });
  const names = new Map(programList.parse(JSON.parse(text)).map(({ id, name }) => [id, name ?? "?"]));
  const found: Sample[] = [];
  for (const router of ["active", "standby"] as const)
    for (const fd of readdirSync(`/proc/${agents[router]}/fdinfo`)) {
      let description: string;
      try {
        description = readFileSync(`/proc/${agents[router]}/fdinfo/${fd}`, "utf8");
      } catch {
        continue; // closed meanwhile
      }
      const number = (key: string): number =>
        Number(new RegExp(`^${key}:\\s*(\\d+)$`, "m").exec(description)?.[1] ?? 0);
      const id = number("prog_id");
      if (id === 0 || !/^run_cnt:/m.test(description)) continue; // a link of a program has its id, but no statistics
      found.push({ id, name: names.get(id) ?? "?", router, timeNs: number("run_time_ns"), runs: number("run_cnt") });
    }
  return found;
}

export async function measureBpfTime(
  path: ServicePath,
  seconds: number,
  tell: (line: string) => void,
): Promise<Record<string, ProgramTime>> {
  const { a, b } = path.pair?.agents ?? {};
  if (a === undefined || b === undefined) throw new Error("only the protected path has programs");
  const agents = { active: a.pid, standby: b.pid };
  const times: Record<string, ProgramTime> = {};
  const statistics = native.bpfStatisticsEnable();
  try {
    for (const direction of ["in", "out"] as const) {
      const before = new Map(sample(agents).map((each) => [each.id, each]));
      await measureOnce(path, { direction, streams: 1 }, seconds);
      for (const { id, name, router, timeNs, runs } of sample(agents)) {
        const more = runs - (before.get(id)?.runs ?? 0);
        if (more < fewestRuns) continue;
        times[`${direction} ${router} ${name}`] = {
          router,
          direction,
          nanosecondsPerRun: Math.round((timeNs - (before.get(id)?.timeNs ?? 0)) / more),
          runs: more,
        };
      }
    }
  } finally {
    native.closeFd(statistics);
  }
  tell(
    `BPF: ${Object.entries(times)
      .map(([name, time]) => `${name} ${time.nanosecondsPerRun} ns`)
      .join(", ")}`,
  );
  return times;
}
