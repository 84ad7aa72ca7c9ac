// `make bench`: everything that is measured, in one run of a few minutes. Writes build/bench.json and build/bench.md,
// prints the table to standard output and progress to standard error.
// Usage: bench.js [part ...]   parts: goodput latency bpf takeover switchover recorder; default: all

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { objectDirectory } from "../../src/net/dataplane.js";
import { measureBpfTime, type ProgramTime } from "./bpf-time.js";
import { type GoodputCase, type GoodputResult, measureGoodput } from "./goodput.js";
import { type LatencyResult, measureLatency } from "./latency.js";
import { describeMachine, type Machine } from "./machine.js";
import { buildPath, type ServicePath } from "./paths.js";
import { tableOf } from "./report.js";
import type { Spread } from "./statistics.js";
import { measureSwitchover, type SwitchoverResult } from "./switchover.js";
import { measureTakeover, type TakeoverResult } from "./takeover.js";

const goodputRounds = 5;
const goodputSeconds = 2;
const latencyRounds = 5;
const latencySeconds = 1;
const takeovers = [
  { sessions: 1, intervalMs: 100, runs: 2 },
  { sessions: 100, intervalMs: 100, runs: 2 },
  { sessions: 1000, intervalMs: 100, runs: 3 },
];

const switchover = { sessions: 100, intervalMs: 100, runs: 12 };

export interface BenchResult {
  machine: Machine;
  goodputRatio?: Record<GoodputCase["name"], GoodputResult>;
  latencyRatioP50?: Spread;
  latencyRatioP99?: Spread;
  latency?: LatencyResult;
  bpfNsPerSegment?: Record<string, ProgramTime>;
  takeover?: Record<string, TakeoverResult>;
  switchover?: SwitchoverResult;
  recorder?: RecorderResult;
  seconds: number;
}

const recorderSchema = z.object({
  /** One thread, from batches of records to streams and feeds, without ring and sockets. */
  throughput: z.array(
    z.object({ payloadBytes: z.number(), recordsPerSecond: z.number(), megabytesPerSecond: z.number() }),
  ),
  /** Bytes of heap and buffers that an idle session costs the recorder, of 10,000. */
  idleSessionBytes: z.number().nullable(),
});
export interface RecorderResult extends z.infer<typeof recorderSchema> {
  /** Ring and thread in the lab, during the goodput rounds: the most in a round without a drop at the ring, and in how
   * many rounds there were drops. */
  lab: { recordsPerSecond: number; rounds: number; roundsWithDrops: number } | null;
}

const tell = (line: string): void => console.error(`bench: ${line}`);

function measureRecorder(): z.infer<typeof recorderSchema> {
  const program = fileURLToPath(new URL("./recorder.js", import.meta.url));
  const text = execFileSync(process.execPath, ["--expose-gc", program, "--json"], { encoding: "utf8" });
  const result = recorderSchema.parse(JSON.parse(text));
  for (const each of result.throughput)
    tell(`recorder: ${each.recordsPerSecond} records/s with ${each.payloadBytes} bytes of payload`);
  return result;
}

async function measureAll(wanted: (part: string) => boolean): Promise<BenchResult> {
  const began = performance.now();
  const result: BenchResult = { machine: describeMachine(), seconds: 0 };
  let lab: RecorderResult["lab"] = null;
  if (wanted("goodput") || wanted("latency") || wanted("bpf")) {
    const paths: ServicePath[] = [];
    try {
      for (const name of ["direct", "ceiling", "protected"] as const) paths.push(await buildPath(name));
      if (wanted("latency")) {
        result.latency = await measureLatency(paths, latencyRounds, latencySeconds, tell);
        result.latencyRatioP50 = result.latency.ratioP50;
        result.latencyRatioP99 = result.latency.ratioP99;
      }
      if (wanted("goodput")) {
        const goodput = await measureGoodput(paths, goodputRounds, goodputSeconds, tell);
        result.goodputRatio = goodput.results;
        const clean = goodput.recorded.filter(({ dropped }) => dropped === 0);
        lab = {
          recordsPerSecond: Math.round(Math.max(0, ...clean.map(({ recordsPerSecond }) => recordsPerSecond))),
          rounds: goodput.recorded.length,
          roundsWithDrops: goodput.recorded.length - clean.length,
        };
      }
      const shielded = paths[2];
      if (wanted("bpf") && shielded) result.bpfNsPerSegment = await measureBpfTime(shielded, goodputSeconds, tell);
    } finally {
      for (const each of paths) each.lab.destroy();
    }
  }
  if (wanted("takeover")) {
    result.takeover = {};
    for (const { sessions, intervalMs, runs } of takeovers)
      result.takeover[String(sessions)] = await measureTakeover(sessions, intervalMs, runs, tell);
  }
  if (wanted("switchover"))
    result.switchover = await measureSwitchover(switchover.sessions, switchover.intervalMs, switchover.runs, tell);
  if (wanted("recorder")) result.recorder = { ...measureRecorder(), lab };
  result.seconds = Math.round((performance.now() - began) / 1000);
  return result;
}

const parts = process.argv.slice(2);
try {
  const result = await measureAll((part) => parts.length === 0 || parts.includes(part));
  const table = tableOf(result);
  const directory = path.dirname(objectDirectory());
  writeFileSync(path.join(directory, "bench.json"), `${JSON.stringify(result, null, 2)}\n`);
  writeFileSync(path.join(directory, "bench.md"), table);
  process.stdout.write(table, () => process.exit(0));
} catch (error) {
  console.error(error);
  process.exit(1);
}
