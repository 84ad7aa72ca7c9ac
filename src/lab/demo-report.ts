// What the demo found: its JSON document (the schema is the contract of --json), the verdict, and the tables a person
// reads.

import { styleText } from "node:util";
import { z } from "zod";
import { takeoverSteps } from "../takeover/report.js";

const count = z.int().min(0);
const milliseconds = z.number().min(0);
const spread = z.strictObject({ p50: milliseconds, p99: milliseconds, max: milliseconds });
const wireCount = z.strictObject({ expected: count, seen: count });
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const transfer = z.strictObject({
  direction: z.enum(["upload", "download"]),
  address: z.string(),
  bytes: count,
  receivedBytes: count,
  sentSha256: sha256,
  receivedSha256: z
    .string()
    .regex(/^([0-9a-f]{64})?$/)
    .describe("Empty: it did not arrive."),
  shareAtKill: z.number().min(0).max(1).describe("How much of it had been acknowledged when the router died, 0 to 1."),
  blackoutMs: milliseconds.describe(
    "Longest time, around the router's death, in which no byte of it was acknowledged.",
  ),
  failure: z.string().nullable().describe("What curl said when it failed."),
});

export const demoReportSchema = z.strictObject({
  sessions: count.describe(
    "TCP connections that the peer's programs held when the router died: interactive + transfers.",
  ),
  interactive: count,
  bytesIn: count.describe("Application bytes from the peer to the service, whole sessions."),
  bytesOut: count.describe("And back."),
  lost: count.describe("Lines of interactive sessions and bytes of files."),
  duplicated: count,
  changed: count.describe("Lines that came back altered, and streams whose SHA-256 differs between their two ends."),
  broken: count.describe("Sessions and programs of the peer that did not end normally."),
  peerResets: count.describe("RST on the wire at the peer, in either direction."),
  peerFins: wireCount.describe("Sessions that the service ended with a FIN: expected one each."),
  earlyFins: count.describe("FIN of the service before the peer's own."),
  peerSyns: wireCount.describe("SYN-ACK of the service: expected one for each session."),
  lateSyns: count.describe("SYN, either direction, after the router's death."),
  blackoutMs: spread.describe(
    "Longest time without an answer that was owed (interactive) or without progress (files), around the death.",
  ),
  blackoutInteractiveMs: spread,
  blackoutTransfersMs: spread,
  leaseMs: milliseconds.describe("How long router a may be unheard before router b takes over."),
  stepsMs: z
    .strictObject(Object.fromEntries(takeoverSteps.map((step) => [step, milliseconds])))
    .describe("Of the takeover, by step, from the last heartbeat of the active that was answered."),
  takeoverMs: milliseconds,
  restored: count.describe("Sessions that router b went on with."),
  notReady: count.describe("Sessions that it had to give up."),
  transfers: z.array(transfer),
});
export type DemoReport = z.infer<typeof demoReportSchema>;
export type DemoTransfer = z.infer<typeof transfer>;

/** Nearest rank; 0 of nothing. */
export function spreadOf(values: readonly number[]): z.infer<typeof spread> {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

const zeros = ["lost", "duplicated", "changed", "broken", "peerResets", "earlyFins", "lateSyns", "notReady"] as const;

/** One sentence for each number that is not what it has to be; empty: the demo succeeded. */
export function breaches(report: DemoReport): string[] {
  const found: string[] = zeros.filter((name) => report[name] !== 0).map((name) => `${name} is ${report[name]}, not 0`);
  for (const name of ["peerFins", "peerSyns"] as const) {
    const { expected, seen } = report[name];
    if (seen !== expected) found.push(`${name} is ${seen}, not ${expected}`);
  }
  if (report.restored !== report.sessions) found.push(`restored is ${report.restored}, not ${report.sessions}`);
  return found;
}

type Style = Parameters<typeof styleText>[0];
type Paint = (style: Style, text: string) => string;

const ms = (value: number): string => `${value.toFixed(1)} ms`;
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const barColumns = 40;

/** `colour`: the output is a terminal. Ends with a newline. */
export function renderDemo(report: DemoReport, colour: boolean): string {
  const paint: Paint = (style, text) => (colour ? styleText(style, text, { validateStream: false }) : text);
  return `${[
    "",
    paint("bold", "Takeover") + paint("dim", "  from the last heartbeat of router a that was answered"),
    ...timeline(report, paint),
    "",
    paint("bold", "Files") + paint("dim", "  SHA-256 at both ends"),
    ...report.transfers.map((each) => transferLine(each, paint)),
    "",
    paint("bold", "What the peer saw"),
    ...table(report, paint),
  ].join("\n")}\n`;
}

function timeline(report: DemoReport, paint: Paint): string[] {
  const scale = barColumns / Math.max(report.takeoverMs, 1e-9);
  let start = 0;
  const lines = takeoverSteps.map((step) => {
    const took = report.stepsMs[step] ?? 0;
    const from = Math.min(barColumns - 1, Math.floor(start * scale));
    start += took;
    const length = Math.max(1, Math.round(took * scale));
    const bar = " ".repeat(from) + "▇".repeat(Math.min(length, barColumns - from));
    return `  ${step.padEnd(9)} ${ms(took).padStart(9)}  ${paint("cyan", bar)}`;
  });
  return [...lines, `  ${"together".padEnd(9)} ${paint("bold", ms(report.takeoverMs).padStart(9))}`];
}

function transferLine(each: DemoTransfer, paint: Paint): string {
  const same = each.failure === null && each.sentSha256 === each.receivedSha256;
  const verdict = same
    ? paint("green", "same")
    : paint("red", each.failure ?? `got ${each.receivedSha256.slice(0, 12)}…`);
  const share = `${Math.round(each.shareAtKill * 100)} %`.padStart(5);
  return `  ${each.direction.padEnd(8)}  ${each.address.padEnd(9)}  ${megabytes(each.receivedBytes).padStart(9)}  ${share} when a died  ${each.sentSha256.slice(0, 12)}…  ${verdict}`;
}

function table(report: DemoReport, paint: Paint): string[] {
  const good = (value: string, right: boolean): string => paint(right ? "green" : ["red", "bold"], value);
  const zero = (value: number): string => good(String(value), value === 0);
  const of = ({ expected, seen }: { expected: number; seen: number }): string =>
    `${good(String(seen), seen === expected)} of ${expected}`;
  const blackout = ({ p50, p99, max }: DemoReport["blackoutMs"]): string => `${ms(p50)} / ${ms(p99)} / ${ms(max)}`;
  const rows: [string, string][] = [
    ["sessions", `${report.sessions}: ${report.interactive} socat, ${report.transfers.length} curl`],
    ["carried on by router b", of({ expected: report.sessions, seen: report.restored })],
    ["bytes to / from the service", `${megabytes(report.bytesIn)} / ${megabytes(report.bytesOut)}`],
    ["lost / duplicated / changed", `${zero(report.lost)} / ${zero(report.duplicated)} / ${zero(report.changed)}`],
    ["programs that failed", zero(report.broken)],
    ["RST", zero(report.peerResets)],
    ["FIN of the service", `${of(report.peerFins)}, ${zero(report.earlyFins)} before the peer's own`],
    ["SYN-ACK", `${of(report.peerSyns)}, ${zero(report.lateSyns)} SYN after the death`],
    ["blackout p50 / p99 / max", blackout(report.blackoutMs)],
    ["  interactive", blackout(report.blackoutInteractiveMs)],
    ["  files", blackout(report.blackoutTransfersMs)],
  ];
  return rows.map(([name, value]) => `  ${name.padEnd(30)}${value}`);
}
