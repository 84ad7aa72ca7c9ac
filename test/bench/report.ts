// The results as a Markdown document: one table, a line a figure, with its target and whether it was met.

import { takeoverSteps } from "../../src/takeover/takeover.js";
import type { BenchResult } from "./bench.js";
import type { Spread } from "./statistics.js";

interface Row {
  what: string;
  figure: string;
  spread: string;
  target: string;
}

const range = ({ min, max, values }: Spread): string => (values.length > 1 ? `${min} to ${max}` : "");

function row(what: string, spread: Spread, unit: string, target?: { most?: number; least?: number }): Row {
  let verdict = "";
  if (target?.least !== undefined) verdict = `≥ ${target.least}: ${spread.median >= target.least ? "met" : "missed"}`;
  if (target?.most !== undefined) verdict = `≤ ${target.most}: ${spread.median <= target.most ? "met" : "missed"}`;
  return { what, figure: `${spread.median}${unit && ` ${unit}`}`, spread: range(spread), target: verdict };
}

const goodputNames = { in1: "in, 1 stream", in8: "in, 8 streams", out1: "out, 1 stream", out8: "out, 8 streams" };

function rowsOf(result: BenchResult): Row[] {
  const rows: Row[] = [];
  for (const [name, { gigabits, toDirect, toCeiling }] of Object.entries(result.goodputRatio ?? {})) {
    const what = goodputNames[name as keyof typeof goodputNames];
    rows.push(row(`goodput ${what}: protected / direct`, toDirect, "", { least: name.startsWith("in") ? 0.65 : 0.55 }));
    rows.push(row(`goodput ${what}: protected / XDP_PASS`, toCeiling, ""));
    for (const path of ["direct", "ceiling", "protected"] as const)
      rows.push(row(`goodput ${what}: ${path}`, gigabits[path], "Gbit/s"));
  }
  if (result.latency) {
    const { latency } = result;
    rows.push(row("64-byte request/response, p50: protected / direct", latency.ratioP50, "", { most: 2 }));
    rows.push(row("64-byte request/response, p99: protected / direct", latency.ratioP99, ""));
    for (const path of ["direct", "protected"] as const)
      for (const rank of ["p50", "p99"] as const)
        rows.push(row(`64-byte request/response, ${rank}: ${path}`, latency[path][rank], "µs"));
  }
  for (const [name, { nanosecondsPerRun, runs }] of Object.entries(result.bpfNsPerSegment ?? {}))
    rows.push({ what: `BPF: ${name}`, figure: `${nanosecondsPerRun} ns`, spread: `${runs} runs`, target: "" });
  for (const takeover of Object.values(result.takeover ?? {})) {
    const what = `takeover of ${takeover.sessions}`;
    const many = takeover.sessions === 1000;
    for (const step of takeoverSteps) rows.push(row(`${what}: ${step}`, takeover.stepsMs[step], "ms"));
    rows.push(row(`${what}: all steps`, takeover.stepsMs.total, "ms"));
    const restore = takeover.restoreMicrosecondsPerSession;
    if (takeover.sessions > 1) rows.push(row(`${what}: restore a session`, restore, "µs", many ? { most: 30 } : {}));
    rows.push(row(`${what}: blackout p50`, takeover.blackoutMs.p50, "ms"));
    rows.push(row(`${what}: blackout p99`, takeover.blackoutMs.p99, "ms", many ? { most: 300 } : {}));
    rows.push(row(`${what}: a request's wait, p50`, takeover.waitedMs.p50, "ms"));
    rows.push(row(`${what}: a request's wait, p99`, takeover.waitedMs.p99, "ms"));
    const { broken, wrong } = takeover;
    rows.push({
      what: `${what}: sessions broken, answers wrong`,
      figure: `${broken}, ${wrong}`,
      spread: "",
      target: "",
    });
  }
  if (result.switchover) {
    const { switchover } = result;
    const what = `switchover of ${switchover.sessions}`;
    for (const step of takeoverSteps) rows.push(row(`${what}: ${step}`, switchover.stepsMs[step], "ms"));
    rows.push(row(`${what}: all steps`, switchover.stepsMs.total, "ms"));
    rows.push(row(`${what}: longest wait of a session's requests, p50`, switchover.waitedMs.p50, "ms"));
    rows.push(row(`${what}: longest wait of a session's requests, p99`, switchover.waitedMs.p99, "ms", { most: 20 }));
    rows.push(row(`${what}: the same, p99 of the first to each router`, switchover.waitedMs.first, "ms"));
    const { broken, wrong } = switchover;
    rows.push({
      what: `${what}: sessions broken, answers wrong`,
      figure: `${broken}, ${wrong}`,
      spread: "",
      target: "",
    });
  }
  if (result.recorder) {
    const { throughput, idleSessionBytes, lab } = result.recorder;
    for (const { payloadBytes, recordsPerSecond } of throughput)
      rows.push({
        what: `recorder: records a second, ${payloadBytes}-byte payload, one thread without the ring`,
        figure: String(recordsPerSecond),
        spread: "",
        target: "",
      });
    if (lab)
      rows.push({
        what: "recorder: records a second through ring and thread, most in a round without a drop",
        figure: String(lab.recordsPerSecond),
        spread: `drops in ${lab.roundsWithDrops} of ${lab.rounds} rounds`,
        target: "",
      });
    rows.push({ what: "recorder: an idle session", figure: `${idleSessionBytes} bytes`, spread: "", target: "" });
  }
  return rows;
}

export function tableOf(result: BenchResult): string {
  const { machine } = result;
  const lines = rowsOf(result).map(
    ({ what, figure, spread, target }) => `| ${what} | ${figure} | ${spread} | ${target} |`,
  );
  return [
    "# Benchmark",
    "",
    `Kernel ${machine.kernel}, ${machine.cpu}, ${machine.cores} cores, ${machine.memoryMegabytes} MB, Node.js ${machine.node}, ` +
      `${machine.date}, load before the run ${machine.loadBefore.toFixed(2)}; ${result.seconds} s.`,
    "",
    "All roles (peer, both routers, both applications) share these cores. Figures are medians of rounds in which the",
    "compared paths take turns; the spread is the lowest and highest round. Blackout: from the kill to a session's first",
    "answer after it, less the usual round trip; a session that asks every 100 ms may show up to 100 ms of its own pause.",
    "",
    "| what | median | spread | target |",
    "|---|---|---|---|",
    ...lines,
    "",
  ].join("\n");
}
