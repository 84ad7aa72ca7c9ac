// Takeovers of few and of many sessions, with default timers: how long each step takes, how long each session was
// without the service, and that no answer was lost or wrong.

import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { addressPlan, Lab } from "../../src/lab/lab.js";
import { labPorts, RouterPair } from "../../src/lab/router-pair.js";
import { type TakeoverReport, type TakeoverStep, takeoverSteps } from "../../src/takeover/takeover.js";
import { quantile, type Spread, spreadOf } from "./statistics.js";

export interface TakeoverResult {
  sessions: number;
  /** How often each session asks, ms. */
  intervalMs: number;
  stepsMs: Record<TakeoverStep | "total", Spread>;
  restoreMicrosecondsPerSession: Spread;
  /** From the kill to a session's first answer, less the usual round trip (blackout-client.ts). */
  blackoutMs: { p50: Spread; p99: Spread; max: Spread };
  /** What a request waited longer than usual. */
  waitedMs: { p50: Spread; p99: Spread };
  usualMs: Spread;
  /** Over all runs; each has to be 0. */
  broken: number;
  wrong: number;
}

const reportSchema = z.object({
  usualMs: z.number(),
  blackoutMs: z.array(z.number()),
  waitedMs: z.array(z.number()),
  broken: z.number(),
  wrong: z.number(),
});

interface Run {
  stepsMs: Record<TakeoverStep, number>;
  totalMs: number;
  report: z.infer<typeof reportSchema>;
}

const clockMs = (): number => Number(process.hrtime.bigint()) / 1e6;
const client = fileURLToPath(new URL("./blackout-client.js", import.meta.url));

async function runOnce(count: number, intervalMs: number): Promise<Run> {
  const lab = Lab.create();
  try {
    const pair = new RouterPair(lab);
    await pair.start();
    const target = [addressPlan.service.v4, String(labPorts.echo), String(count), String(intervalMs)];
    const load = lab.spawn("peer", [process.execPath, client, ...target], { stdio: ["pipe", "pipe", "pipe"] });
    let output = "";
    let complaint = "";
    load.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    load.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      complaint += text;
    });
    await pair.until("all sessions are ready", async () => {
      if (load.child.exitCode !== null) throw new Error(complaint);
      const { sessions } = await pair.status("b");
      return output.startsWith("connected") && sessions.ready === count;
    });
    await delay(1500);
    if ((await pair.status("b")).role !== "standby") throw new Error(`a false failover:\n${pair.said()}`);
    const { atMs: killMs } = lab.kill("a");
    const deadMs = clockMs();
    await delay(1500);
    load.child.stdin?.write(`report ${killMs} ${deadMs}\n`);
    const { code } = await load.exited;
    if (code !== 0) throw new Error(`blackout-client: ${complaint}`);
    const lastTakeover = (await pair.status("b")).lastTakeover as TakeoverReport | null;
    if (lastTakeover === null) throw new Error(`no takeover:\n${pair.said()}`);
    return {
      stepsMs: lastTakeover.stepsMs,
      totalMs: lastTakeover.totalMs,
      report: reportSchema.parse(JSON.parse(output.slice("connected\n".length))),
    };
  } finally {
    lab.destroy();
  }
}

export async function measureTakeover(
  count: number,
  intervalMs: number,
  runs: number,
  tell: (line: string) => void,
): Promise<TakeoverResult> {
  const done: Run[] = [];
  for (let run = 0; run < runs; run++) done.push(await runOnce(count, intervalMs));
  const spread = (of: (run: Run) => number, digits = 1): Spread => spreadOf(done.map(of), digits);
  const stepsMs = { total: spread(({ totalMs }) => totalMs) } as TakeoverResult["stepsMs"];
  for (const step of takeoverSteps) stepsMs[step] = spread((run) => run.stepsMs[step], 2);
  const result: TakeoverResult = {
    sessions: count,
    intervalMs,
    stepsMs,
    restoreMicrosecondsPerSession: spread((run) => (run.stepsMs.restore * 1000) / count),
    blackoutMs: {
      p50: spread(({ report }) => quantile(report.blackoutMs, 0.5)),
      p99: spread(({ report }) => quantile(report.blackoutMs, 0.99)),
      max: spread(({ report }) => Math.max(...report.blackoutMs)),
    },
    waitedMs: {
      p50: spread(({ report }) => quantile(report.waitedMs, 0.5)),
      p99: spread(({ report }) => quantile(report.waitedMs, 0.99)),
    },
    usualMs: spread(({ report }) => report.usualMs, 2),
    broken: done.reduce((sum, { report }) => sum + report.broken, 0),
    wrong: done.reduce((sum, { report }) => sum + report.wrong, 0),
  };
  tell(
    `takeover of ${count}: ${stepsMs.total.median} ms (restore ${stepsMs.restore.median}, release ` +
      `${stepsMs.release.median}); blackout p50 ${result.blackoutMs.p50.median}, p99 ${result.blackoutMs.p99.median} ms`,
  );
  return result;
}
