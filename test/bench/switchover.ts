// A planned switchover under load, there and back: what the requests of each session had to wait at the most.

import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { addressPlan, Lab, type RouterName } from "../../src/lab/lab.js";
import { labPorts, RouterPair } from "../../src/lab/router-pair.js";
import { switchoverCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import { type TakeoverStep, takeoverReportSchema, takeoverSteps } from "../../src/takeover/report.js";
import { quantile, type Spread, spreadOf } from "./statistics.js";

export interface SwitchoverResult {
  sessions: number;
  intervalMs: number;
  stepsMs: Record<TakeoverStep | "total", Spread>;
  /** The longest wait of each session's requests, less the usual round trip. first: p99 of the first switchover to each
   * router, whose programs have never done one. */
  waitedMs: { p50: Spread; p99: Spread; max: Spread; first: Spread };
  usualMs: Spread;
  /** Over all runs; each has to be 0. */
  broken: number;
  wrong: number;
}

const waitsSchema = z.object({
  usualMs: z.number(),
  waitedMs: z.array(z.number()),
  broken: z.number(),
  wrong: z.number(),
});
type Run = z.infer<typeof waitsSchema> & { report: z.infer<typeof takeoverReportSchema> };

const clockMs = (): number => Number(process.hrtime.bigint()) / 1e6;
const client = fileURLToPath(new URL("./blackout-client.js", import.meta.url));

async function runOnce(pair: RouterPair, active: RouterName, count: number, intervalMs: number): Promise<Run> {
  const standby = active === "a" ? "b" : "a";
  await pair.until(
    "the former sessions are over and the standby protects",
    async () =>
      (await pair.status(active)).role === "active" &&
      (await pair.status(standby)).role === "standby" &&
      (await pair.status(standby)).sessions.total === 0,
  );
  const target = [addressPlan.service.v4, String(labPorts.echo), String(count), String(intervalMs)];
  const load = pair.lab.spawn("peer", [process.execPath, client, ...target], { stdio: ["pipe", "pipe", "pipe"] });
  let output = "";
  load.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  await pair.until("all sessions are ready", async () => {
    const { sessions } = await pair.status(standby);
    return output.startsWith("connected") && sessions.ready === count;
  });
  await delay(1500);
  const fromMs = clockMs() - 50;
  const socket = path.join(pair.runDirectory(active), "agent.sock");
  const { report } = await ask(socket, switchoverCommand, {});
  await delay(800);
  load.child.stdin?.write(`longest ${fromMs}\n`);
  await load.exited;
  const waits = waitsSchema.parse(JSON.parse(output.slice("connected\n".length)));
  return { ...waits, report: takeoverReportSchema.parse(report) };
}

export async function measureSwitchover(
  count: number,
  intervalMs: number,
  runs: number,
  tell: (line: string) => void,
): Promise<SwitchoverResult> {
  const lab = Lab.create();
  const done: Run[] = [];
  try {
    const pair = new RouterPair(lab);
    for (const router of ["a", "b"] as const) pair.startAgent(router);
    await pair.untilRole("a", "active");
    for (const router of ["a", "b"] as const) await pair.startServer(router, true);
    for (let run = 0; run < runs; run++) done.push(await runOnce(pair, run % 2 === 0 ? "a" : "b", count, intervalMs));
  } finally {
    lab.destroy();
  }
  const p99 = ({ waitedMs }: Run): number => quantile(waitedMs, 0.99);
  const spread = (of: (run: Run) => number, digits = 1): Spread => spreadOf(done.map(of), digits);
  const stepsMs = { total: spread(({ report }) => report.totalMs) } as SwitchoverResult["stepsMs"];
  for (const step of takeoverSteps) stepsMs[step] = spread(({ report }) => report.stepsMs[step], 2);
  const result: SwitchoverResult = {
    sessions: count,
    intervalMs,
    stepsMs,
    waitedMs: {
      p50: spread(({ waitedMs }) => quantile(waitedMs, 0.5)),
      p99: spread(p99),
      max: spread(({ waitedMs }) => Math.max(...waitedMs)),
      first: spreadOf(done.slice(0, 2).map(p99), 1),
    },
    usualMs: spread(({ usualMs }) => usualMs, 2),
    broken: done.reduce((sum, { broken }) => sum + broken, 0),
    wrong: done.reduce((sum, { wrong }) => sum + wrong, 0),
  };
  tell(
    `switchover of ${count}: ${stepsMs.total.median} ms; longest wait p50 ${result.waitedMs.p50.median}, ` +
      `p99 ${result.waitedMs.p99.median}, max ${result.waitedMs.max.median} ms; broken ${result.broken}, wrong ${result.wrong}`,
  );
  return result;
}
