// The demo: a router pair in the lab, files and sessions by programs nobody here wrote, and in the middle of it the
// active router dies. What the peer's programs, and a capture beside them, saw becomes the report.

import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { TakeoverReport } from "../takeover/report.js";
import { type CaptureSummary, flagsFilter } from "./capture.js";
import { type DemoReport, type DemoTransfer, spreadOf } from "./demo-report.js";
import type { EchoReport } from "./echo-session.js";
import { addressPlan, devices, Lab } from "./lab.js";
import { labPorts, RolesReversed, RouterPair } from "./router-pair.js";
import {
  authority,
  download,
  type Sessions,
  socatSessions,
  type Transfer,
  type TransferReport,
  upload,
  writeTransferFile,
} from "./traffic.js";

export interface DemoOptions {
  /** Of the lab; default: random. */
  id?: string;
  /** Bytes of each file: one up and one down over each address family. */
  fileBytes?: number;
  /** Interactive sessions, half of them over each address family. */
  interactive?: number;
  /** How long an active may be unheard, ms; default: the product's default, and a longer one when the machine is too
   * busy for it. */
  leaseMs?: number;
}

const defaultLeaseMs = 50;
const patientLeaseMs = 300;

/** The router dies when every file has come this far, or when the first has come the farther. */
const killWhenAll = 0.35;
const killWhenOne = 0.65;
/** Bytes a second of each file. All of them together are about a gigabit link; without a limit the programs here would
 * fight for the CPU, and the blackout would show who waits for whom. */
const transferRate = 30_000_000;
/** Each socat asks so often. */
const lineIntervalMs = 50;
const transferLimitMs = 60_000;
const pollMs = 150;
/** Nobody asks router b anything while it takes over. */
const quietMs = 400;
/** So long the sessions are watched alone before the files begin, and after the router's death. */
const interactiveMs = 1000;
/** From the pair's start to the report; whatever hangs, the demo ends. */
const demoLimitMs = 130_000;

type Findings = Omit<DemoReport, "leaseMs">;

interface TransferUnderWay extends Transfer {
  address: string;
  direction: TransferReport["direction"];
  localPort: number;
  share: number;
}

/** Runs it in a lab of its own, which is gone when this settles. `say` gets one line of progress at a time. */
export async function runDemo(options: DemoOptions, say: (line: string) => void): Promise<DemoReport> {
  try {
    return await runOnce(options, options.leaseMs ?? defaultLeaseMs, say);
  } catch (error) {
    // Heartbeats that come too late are a failover, as they should be; it is just not the one to be shown.
    if (!(error instanceof RolesReversed) || options.leaseMs !== undefined) throw error;
    say(
      `${error.message} This machine is too busy for a lease of ${defaultLeaseMs} ms: again, with ${patientLeaseMs} ms`,
    );
    return await runOnce(options, patientLeaseMs, say);
  }
}

async function runOnce(options: DemoOptions, leaseMs: number, say: (line: string) => void): Promise<DemoReport> {
  const { fileBytes = 200_000_000, interactive = 32 } = options;
  say("building the lab: a peer, two routers and their links");
  const lab = Lab.create({ id: options.id });
  const running: Sessions[] = [];
  try {
    say("starting both agents and their applications");
    const pair = new RouterPair(lab, { heartbeat: { deadMs: leaseMs } });
    await pair.start();
    say("router a is active, router b stands by");
    const findings = demonstrate(pair, { fileBytes, interactive }, running, say);
    return { ...(await within(findings, demoLimitMs, "the demo ends")), leaseMs };
  } finally {
    for (const sessions of running) sessions.abandon();
    lab.destroy();
  }
}

async function demonstrate(
  pair: RouterPair,
  { fileBytes, interactive }: { fileBytes: number; interactive: number },
  running: Sessions[],
  say: (line: string) => void,
): Promise<Findings> {
  const { lab } = pair;
  const hosts = Object.values(addressPlan.service);
  const file = path.join(lab.directory, "file");
  const sha256 = await writeTransferFile(file, fileBytes);
  // Besides the flags, plain acknowledgements of the files: they say when bytes arrive, and are small.
  const capture = await lab.capture("peer", devices.peer, {
    filter: `${flagsFilter} or (less 110 and tcp port ${labPorts.web})`,
  });

  const perHost = Math.ceil(interactive / hosts.length);
  say(`opening ${perHost * hosts.length} interactive sessions (socat), half IPv4, half IPv6`);
  for (const host of hosts)
    running.push(socatSessions(lab, host, labPorts.echo, { count: perHost, intervalMs: lineIntervalMs }));
  await pair.until(
    "router b holds every interactive session ready",
    async () => (await pair.status("b")).sessions.ready === perHost * hosts.length,
  );
  await delay(interactiveMs);

  say(`moving ${2 * hosts.length} files of ${fileBytes / 1e6} MB (curl), up and down, IPv4 and IPv6`);
  const transfers: TransferUnderWay[] = [];
  for (const host of hosts) {
    const target = authority(host, labPorts.web);
    const under = { address: host, localPort: 0, share: 0 };
    transfers.push(
      { ...upload(lab, target, file, fileBytes, sha256, transferRate), direction: "upload", ...under },
      { ...download(lab, target, fileBytes, sha256, transferRate), direction: "download", ...under },
    );
  }
  await untilMidway(pair, transfers, fileBytes);

  await pair.expectRoles();
  const { sessions: held } = await pair.status("b");
  say(`router b holds ${held.ready} of ${held.total} sessions ready`);
  for (const sessions of running) sessions.resetGaps();
  capture.resetGaps();
  const killedAtMs = Date.now();
  const killed = lab.kill("a").processes;
  say(`router a dies: ${killed} processes killed, its links down`);
  await delay(quietMs);
  await pair.until("router b has taken over", async () => (await pair.status("b")).lastTakeover !== null);
  const { lastTakeover: takeover } = await pair.status("b");
  if (takeover === null) throw new Error("router b has begun anew meanwhile");
  say(`router b has taken over ${takeover.sessions} sessions in ${takeover.totalMs.toFixed(0)} ms`);

  const files = await within(Promise.all(transfers.map(({ done }) => done)), transferLimitMs, "the files arrive");
  await delay(interactiveMs);
  say("the files have arrived; ending the sessions");
  const reports = (await Promise.all(running.map((sessions) => sessions.finish()))).flat();
  await delay(300); // the last FINs are on their way
  const summary = await capture.stop();
  return report(
    transfers.map((each, index) => transferReport(each, files[index] as TransferReport, summary)),
    reports,
    summary,
    killedAtMs,
    takeover,
  );
}

/** Watches, by the peer's own sockets, how far each file has come; returns when the router should die. */
async function untilMidway(pair: RouterPair, transfers: readonly TransferUnderWay[], fileBytes: number): Promise<void> {
  let ended: TransferReport | null = null;
  for (const { done } of transfers) void done.then((result) => (ended ??= result));
  const deadline = performance.now() + transferLimitMs;
  for (;;) {
    for (const { address, direction, localPort, bytes } of await peerSockets(pair.lab)) {
      const known = transfers.find((each) => each.localPort === localPort && each.address === address);
      // A curl's connection is known by where it leads, and by which way its bytes go.
      const each =
        known ?? transfers.find((t) => t.localPort === 0 && t.address === address && t.direction === direction);
      if (each === undefined) continue;
      each.localPort = localPort;
      each.share = Math.min(1, bytes / fileBytes);
    }
    if (ended !== null) {
      const { direction, failure } = ended as TransferReport;
      throw new Error(`an ${direction} ended before the router died: ${failure ?? "the files are too small"}`);
    }
    const shares = transfers.map(({ share }) => share);
    if (Math.min(...shares) >= killWhenAll || Math.max(...shares) >= killWhenOne) return;
    if (performance.now() > deadline)
      throw new Error(`the files do not move: ${shares.map((share) => share.toFixed(2)).join(", ")}\n${pair.said()}`);
    await delay(pollMs);
  }
}

/** The peer's connections to the web service that have moved something, by ss. */
async function peerSockets(
  lab: Lab,
): Promise<{ address: string; direction: TransferReport["direction"]; localPort: number; bytes: number }[]> {
  const ss = lab.spawn("peer", ["ss", "-HtniO", "state", "established", "dport", `= :${labPorts.web}`]);
  const { code } = await ss.exited;
  if (code !== 0) throw new Error(`ss in the peer's namespace: ${ss.stderr().trim()}`);
  const text = ss.stdout();
  return text.split("\n").flatMap((line) => {
    const ends = /:(\d+)\s+\[?([0-9a-f.:]+?)\]?:\d+\s/.exec(line);
    if (ends === null) return [];
    const number = (name: string): number => Number(new RegExp(`\\b${name}:(\\d+)`).exec(line)?.[1] ?? 0);
    const [acked, received] = [number("bytes_acked"), number("bytes_received")];
    const direction = acked > received ? "upload" : "download";
    const bytes = Math.max(acked, received);
    // The request itself says nothing about the direction.
    return bytes < 10_000 ? [] : [{ address: ends[2] ?? "", direction, localPort: Number(ends[1]), bytes }];
  });
}

async function within<T>(promise: Promise<T>, limitMs: number, what: string): Promise<T> {
  const stop = new AbortController();
  const limit = delay(limitMs, undefined, { signal: stop.signal }).then(() => {
    throw new Error(`not within ${limitMs / 1000} s: ${what}`);
  });
  limit.catch(() => {}); // aborted
  try {
    return await Promise.race([promise, limit]);
  } finally {
    stop.abort();
  }
}

function transferReport(
  { address, direction, localPort, share }: TransferUnderWay,
  result: TransferReport,
  { gaps }: CaptureSummary,
): DemoTransfer {
  // An upload advances by the service's acknowledgements, a download by the peer's own.
  const port = direction === "upload" ? "toPort" : "fromPort";
  const gap = gaps.find(
    (each) => each[port] === localPort && (direction === "upload" ? each.from : each.to) === address,
  );
  return {
    direction,
    address,
    bytes: result.bytes,
    receivedBytes: result.receivedBytes,
    sentSha256: result.sentSha256,
    receivedSha256: result.receivedSha256,
    shareAtKill: share,
    blackoutMs: gap?.longestGapMs ?? 0,
    failure: result.failure,
  };
}

/** What the wire at the peer showed. Retransmitted segments count once: to TCP they are the same. */
function heard(
  { flagged }: CaptureSummary,
  killedAtMs: number,
  sessions: number,
): Pick<DemoReport, "peerResets" | "peerFins" | "earlyFins" | "peerSyns" | "lateSyns"> {
  const serviceAddresses: readonly string[] = Object.values(addressPlan.service);
  const endedByPeer = new Set<string>();
  const [fins, early, syns] = [new Set<string>(), new Set<string>(), new Set<string>()];
  let [peerResets, lateSyns] = [0, 0];
  for (const { timeMs, from, fromPort, to, toPort, syn, fin, rst } of flagged) {
    const fromService = serviceAddresses.includes(from);
    const session = fromService ? `${from} ${fromPort} ${toPort}` : `${to} ${toPort} ${fromPort}`;
    if (rst) peerResets++;
    if (syn && timeMs > killedAtMs) lateSyns++;
    if (syn && fromService) syns.add(session);
    if (fin && !fromService) endedByPeer.add(session);
    if (fin && fromService) fins.add(session);
    if (fin && fromService && !endedByPeer.has(session)) early.add(session);
  }
  return {
    peerResets,
    peerFins: { expected: sessions, seen: fins.size },
    earlyFins: early.size,
    peerSyns: { expected: sessions, seen: syns.size },
    lateSyns,
  };
}

function report(
  transfers: DemoTransfer[],
  interactive: EchoReport[],
  summary: CaptureSummary,
  killedAtMs: number,
  takeover: TakeoverReport,
): Findings {
  const sum = <T>(items: readonly T[], value: (item: T) => number): number =>
    items.reduce((total, item) => total + value(item), 0);
  const moved = (direction: string): number =>
    sum(transfers, (each) => (each.direction === direction ? each.receivedBytes : 0));
  // A line that is lost, repeated or altered is counted as such; a hash may only differ when one was.
  const altered = (each: EchoReport): number =>
    each.changed || (each.lost + each.duplicated === 0 && each.sentSha256 !== each.receivedSha256 ? 1 : 0);
  const interactiveGaps = interactive.map((each) => each.longestGapMs);
  const transferGaps = transfers.map((each) => each.blackoutMs);
  const sessions = interactive.length + transfers.length;
  return {
    sessions,
    interactive: interactive.length,
    bytesIn: sum(interactive, (each) => each.bytesOut) + moved("upload"),
    bytesOut: sum(interactive, (each) => each.bytesIn) + moved("download"),
    lost:
      sum(interactive, (each) => each.lost) + sum(transfers, (each) => Math.max(0, each.bytes - each.receivedBytes)),
    duplicated:
      sum(interactive, (each) => each.duplicated) +
      sum(transfers, (each) => Math.max(0, each.receivedBytes - each.bytes)),
    changed:
      sum(interactive, altered) +
      sum(transfers, (each) => (each.receivedBytes === each.bytes && each.receivedSha256 !== each.sentSha256 ? 1 : 0)),
    broken: sum(interactive, (each) => (each.brokenBy === null ? 0 : 1)) + transfers.filter((t) => t.failure).length,
    ...heard(summary, killedAtMs, sessions),
    blackoutMs: spreadOf([...interactiveGaps, ...transferGaps]),
    blackoutInteractiveMs: spreadOf(interactiveGaps),
    blackoutTransfersMs: spreadOf(transferGaps),
    stepsMs: takeover.stepsMs,
    takeoverMs: takeover.totalMs,
    restored: takeover.sessions,
    notReady: takeover.lost.count,
    transfers,
  };
}
