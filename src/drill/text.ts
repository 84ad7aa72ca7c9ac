// A drill's report as a person reads it on a terminal.

import type { Paint } from "../cli/terminal.js";
import { bytes, milliseconds } from "../observe/format.js";
import { takeoverSteps } from "../takeover/report.js";
import type { DrillReport } from "./report.js";

const barColumns = 40;

/** Ends with a newline. */
export function renderReport(report: DrillReport, paint: Paint): string {
  const { blackoutMs, where, breaches } = report;
  const spread = [blackoutMs.p50, blackoutMs.p99, blackoutMs.max].map(milliseconds).join(" / ");
  const rows: [string, string][] = [
    ["drill", `${report.name}, ${where === "lab" ? "in the lab" : "on the live pair"}`],
    ["sessions", String(report.sessions)],
    ...ownTraffic(report, paint),
    [
      "takeovers",
      report.takeovers.map(({ cause, totalMs }) => `${cause} (${milliseconds(totalMs)})`).join("; ") || "none",
    ],
    ["blackout p50 / p99 / max", where === "lab" ? spread : `${spread} (the takeovers; what peers saw is not known)`],
    ["sessions lost at takeovers", zero(report.notReady, paint)],
    ["bytes passed unrecorded in", `${zero(report.auditBreaches, paint)} sessions`],
    ...report.evidence.map((file, index): [string, string] => [index === 0 ? "evidence" : "", file]),
  ];
  const verdict =
    report.verdict === "passed" ? paint("green", "passed") : `${paint("red", "failed")}: ${breaches.join("; ")}`;
  return `${[
    "",
    paint("bold", report.title),
    ...rows.map(([name, value]) => `  ${name.padEnd(30)}${value}`),
    ...steps(report, paint),
    "",
    `${paint("bold", "verdict")} ${verdict}`,
  ].join("\n")}\n`;
}

function zero(value: number, paint: Paint): string {
  return value === 0 ? paint("green", "0") : paint("red", String(value));
}

function yes(right: boolean, paint: Paint): string {
  return right ? paint("green", "yes") : paint("red", "no");
}

function ownTraffic(report: DrillReport, paint: Paint): [string, string][] {
  const { bytesIn, bytesOut, lost, duplicated, changed, sameHash, broken, peerResets, oneVoice } = report;
  // All of them are there, or none.
  if (bytesIn === null || bytesOut === null || sameHash === null) return [];
  const zeros = (...values: (number | null)[]): string => values.map((value) => zero(value ?? 0, paint)).join(" / ");
  return [
    ["bytes to / from the service", `${bytes(bytesIn)} / ${bytes(bytesOut)}`],
    ["lost / duplicated / changed", zeros(lost, duplicated, changed)],
    ["same SHA-256 at both ends", `${sameHash} of ${report.sessions}`],
    ["sessions broken / RST", zeros(broken, peerResets)],
    ["one voice at the peer", oneVoice === null ? "not known: it moved more than once" : yes(oneVoice, paint)],
  ];
}

function steps({ stepsMs, takeoverMs }: DrillReport, paint: Paint): string[] {
  if (stepsMs === null || takeoverMs === null) return [];
  const scale = barColumns / Math.max(takeoverMs, 1e-9);
  let start = 0;
  const lines = takeoverSteps.map((step) => {
    const took = stepsMs[step] ?? 0;
    const from = Math.min(barColumns - 1, Math.floor(start * scale));
    start += took;
    const length = Math.min(barColumns - from, Math.max(1, Math.round(took * scale)));
    return `  ${step.padEnd(9)} ${milliseconds(took).padStart(9)}  ${" ".repeat(from)}${"▇".repeat(length)}`;
  });
  return ["", paint("bold", "The longest takeover"), ...lines];
}
