// Goodput of iperf3 through the three paths, both directions, one and eight streams, taking turns.

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

async function measure({ lab }: ServicePath, { direction, streams }: GoodputCase, seconds: number): Promise<number> {
  const client = lab.spawn("peer", [
    ...["iperf3", "--client", serviceAddress, "-p", String(ports.bulk), "--json", "--omit", "0.3"],
    ...["-t", String(seconds), "-P", String(streams), ...(direction === "out" ? ["-R"] : [])],
  ]);
  const { code } = await client.exited;
  if (code !== 0) throw new Error(`iperf3: ${client.stdout()} ${client.stderr()}`);
  return answer.parse(JSON.parse(client.stdout())).end.sum_received.bits_per_second / 1e9;
}

export async function measureGoodput(
  paths: readonly ServicePath[],
  rounds: number,
  seconds: number,
  tell: (line: string) => void,
): Promise<Record<GoodputCase["name"], GoodputResult>> {
  const results = {} as Record<GoodputCase["name"], GoodputResult>;
  for (const each of goodputCases) {
    const values: Record<PathName, number[]> = { direct: [], ceiling: [], protected: [] };
    for (let round = 0; round < rounds; round++)
      for (const path of paths) values[path.name].push(await measure(path, each, seconds));
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
  return results;
}
