// Request and response of 64 bytes, one after the other, through the direct and the protected path, taking turns.

import { z } from "zod";
import { pingPong, ports, type ServicePath, serviceAddress } from "./paths.js";
import { type Spread, spreadOf } from "./statistics.js";

export interface LatencyResult {
  /** Microseconds. */
  direct: { p50: Spread; p99: Spread };
  protected: { p50: Spread; p99: Spread };
  ratioP50: Spread;
  ratioP99: Spread;
}

const answer = z.object({ p50: z.number(), p99: z.number(), count: z.number() });

async function measure({ lab }: ServicePath, seconds: number): Promise<{ p50: number; p99: number }> {
  const client = lab.spawn("peer", ["python3", pingPong, "ask", serviceAddress, String(ports.echo), String(seconds)]);
  const { code } = await client.exited;
  if (code !== 0) throw new Error(`ping-pong: ${client.stderr()}`);
  return answer.parse(JSON.parse(client.stdout()));
}

export async function measureLatency(
  paths: readonly ServicePath[],
  rounds: number,
  seconds: number,
  tell: (line: string) => void,
): Promise<LatencyResult> {
  const direct: { p50: number; p99: number }[] = [];
  const shielded: { p50: number; p99: number }[] = [];
  for (let round = 0; round < rounds; round++)
    for (const path of paths) {
      if (path.name === "direct") direct.push(await measure(path, seconds));
      if (path.name === "protected") shielded.push(await measure(path, seconds));
    }
  const of = (runs: { p50: number; p99: number }[]) => ({
    p50: spreadOf(
      runs.map(({ p50 }) => p50),
      1,
    ),
    p99: spreadOf(
      runs.map(({ p99 }) => p99),
      1,
    ),
  });
  const ratio = (rank: "p50" | "p99"): Spread =>
    spreadOf(shielded.map((run, index) => run[rank] / (direct[index]?.[rank] ?? Number.NaN)));
  const result = { direct: of(direct), protected: of(shielded), ratioP50: ratio("p50"), ratioP99: ratio("p99") };
  tell(
    `latency p50: direct ${result.direct.p50.median}, protected ${result.protected.p50.median} µs; ` +
      `ratio ${result.ratioP50.median}, p99 ${result.ratioP99.median}`,
  );
  return result;
}
