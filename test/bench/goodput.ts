// Goodput of iperf3 through the three paths, both directions, one and eight streams, taking turns.

import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { type PathName, ports, type ServicePath, serviceAddress } from "./paths.js";
import { type Spread, spreadOf } from "./statistics.js";

export const goodputCases = [
  { name: "in1", direction: "in", streams: 1 },
  { name: "in8", direction: "in", streams: 8 },
  { name: "out1", direction: "out", streams: 1 },
  { name: "out8", direction: "out", streams: 8 },
] as const;
export type GoodputCase = (typeof goodputCases)[number];

export interface GoodputResult {
  /** What the receiver got, Gbit/s. */
  gigabits: Record<PathName, Spread>;
  /** Of each round: protected by direct, and by the ceiling. */
  toDirect: Spread;
  toCeiling: Spread;
}

const answer = z.object({ end: z.object({ sum_received: z.object({ bits_per_second: z.number() }) }) });

/** What the standby recorded in a measurement, and what its ring had no room for. */
export interface Recorded {
  recordsPerSecond: number;
  dropped: number;
}

/** Gbit/s at the receiver; whole seconds. On the protected path every session must have been ready while it was measured. */
export async function measureOnce(
  { lab, pair }: ServicePath,
  { direction, streams }: Pick<GoodputCase, "direction" | "streams">,
  seconds: number,
): Promise<number> {
  const client = lab.spawn("peer", [
    ...["iperf3", "--client", serviceAddress, "-p", String(ports.bulk), "--json"],
    ...["-t", String(seconds), "-P", String(streams), ...(direction === "out" ? ["-R"] : [])],
  ]);
  if (pair !== null) {
    await Promise.race([client.exited, delay(seconds * 600)]);
    const { total, notReady } = (await pair.status("b")).sessions;
    // A stream that has only just begun may still be without its feed; one that was given up stays so.
    const givenUp = Object.keys(notReady).filter((reason) => reason !== "half-open" && reason !== "no-application");
    if (total === 0 || givenUp.length > 0) throw new Error(`not all sessions are held: ${JSON.stringify(notReady)}`);
  }
  const { code } = await client.exited;
  if (code !== 0) throw new Error(`iperf3: ${client.stdout()} ${client.stderr()}`);
  return answer.parse(JSON.parse(client.stdout())).end.sum_received.bits_per_second / 1e9;
}

async function counted({ pair }: ServicePath): Promise<{ records: number; dropped: number } | null> {
  if (pair === null) return null;
  const { packets, recorder } = await pair.status("b");
  return { records: recorder.records, dropped: packets.TD_DROP_RING_FULL ?? 0 };
}

export async function measureGoodput(
  paths: readonly ServicePath[],
  rounds: number,
  seconds: number,
  tell: (line: string) => void,
): Promise<{ results: Record<GoodputCase["name"], GoodputResult>; recorded: Recorded[] }> {
  const results = {} as Record<GoodputCase["name"], GoodputResult>;
  const recorded: Recorded[] = [];
  for (const each of goodputCases) {
    const values: Record<PathName, number[]> = { direct: [], ceiling: [], protected: [] };
    for (let round = 0; round < rounds; round++)
      for (const path of paths) {
        const before = await counted(path);
        const began = performance.now();
        values[path.name].push(await measureOnce(path, each, seconds));
        const after = await counted(path);
        if (before === null || after === null) continue;
        recorded.push({
          recordsPerSecond: ((after.records - before.records) * 1000) / (performance.now() - began),
          dropped: after.dropped - before.dropped,
        });
      }
    const ratios = (to: PathName): number[] =>
      values.protected.map((value, index) => value / (values[to][index] ?? Number.NaN));
    const gigabits = {
      direct: spreadOf(values.direct, 2),
      ceiling: spreadOf(values.ceiling, 2),
      protected: spreadOf(values.protected, 2),
    };
    results[each.name] = { gigabits, toDirect: spreadOf(ratios("direct")), toCeiling: spreadOf(ratios("ceiling")) };
    const medians = Object.entries(gigabits).map(([name, { median }]) => `${name} ${median}`);
    tell(`goodput ${each.name}: ${medians.join(", ")} Gbit/s; ratio ${results[each.name].toDirect.median}`);
  }
  return { results, recorded };
}
