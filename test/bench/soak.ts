// `make soak`: takeovers with random loads on random bad links, and random schedules (test/join/schedules.ts), in turn,
// one after the other, for SOAK_MINUTES (default 10). Each round has a fresh pair and a seed of its own; every byte is
// checked, and that the peer saw no reset of a connection that both sides had not ended. Stops at the first failure,
// prints the round's seed and what the agents said, and exits with 1.
// SOAK=load or SOAK=schedules: only these. SOAK_SEED=<seed> repeats the round of that seed, again and again; the same
// round meets other timing each time.

import { randomInt } from "node:crypto";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { CaptureSummary } from "../../src/lab/capture.js";
import type { Impairment } from "../../src/lab/impair.js";
import { addressPlan, devices, Lab } from "../../src/lab/lab.js";
import { labPorts, RouterPair } from "../../src/lab/router-pair.js";
import {
  authority,
  download,
  manySessions,
  type Sessions,
  type Transfer,
  upload,
  writeTransferFile,
} from "../../src/lab/traffic.js";
import { drawSchedule, runSchedule } from "../join/schedules.js";

/** What a round may be; the one that is due. */
const kinds = { load: runLoad, schedules: runDrawn };
type Kind = keyof typeof kinds;
const wanted = process.env.SOAK?.split(/[ ,]+/).filter((name): name is Kind => name in kinds) ?? ["load", "schedules"];
const minutes = Number(process.env.SOAK_MINUTES ?? 10);
const fixedSeed = process.env.SOAK_SEED === undefined ? null : Number(process.env.SOAK_SEED);
const transferLimitMs = 120_000;

/** Numbers from 0 to 1 that depend on the seed only (xorshift32, Marsaglia 2003). */
function generator(seed: number): () => number {
  let state = seed >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  for (let warm = 0; warm < 8; warm++) next();
  return next;
}

interface Round {
  sessions: number;
  intervalMs: number;
  uploads: number;
  downloads: number;
  transferBytes: number;
  /** By which address each of the transfers goes. */
  families: ("v4" | "v6")[];
  killAfterMs: number;
  lan: Impairment | null;
  mirror: Impairment | null;
}

function drawRound(seed: number): Round {
  const random = generator(seed);
  const between = (low: number, high: number): number => low + Math.floor(random() * (high - low + 1));
  const often = (share: number): boolean => random() < share;
  const impairment = (): Impairment | null => {
    if (often(0.3)) return null;
    const part = (most: number): number => (often(0.5) ? random() * most : 0);
    return {
      loss: part(0.03),
      duplicate: part(0.02),
      reorder: part(0.02),
      corrupt: part(0.003),
      onlyTcp: true,
      seed: BigInt(between(1, 2 ** 31)),
    };
  };
  const [uploads, downloads] = [between(0, 2), between(0, 2)];
  return {
    sessions: often(0.2) ? between(200, 400) : between(1, 60),
    intervalMs: between(20, 300),
    uploads,
    downloads,
    transferBytes: between(5, 60) * 1_000_000,
    families: Array.from({ length: uploads + downloads }, () => (often(0.3) ? "v6" : "v4")),
    killAfterMs: between(0, 2000),
    lan: impairment(),
    mirror: impairment(),
  };
}

function tell(round: number, kind: Kind, seed: number, drawn: unknown): void {
  const text = JSON.stringify(drawn, (_, value) => (typeof value === "bigint" ? String(value) : value));
  console.error(`soak: round ${round}, ${kind}, seed ${seed}: ${text}`);
}

/** Throws with what was wrong. */
async function runDrawn(seed: number, number: number): Promise<string> {
  const schedule = drawSchedule(seed);
  tell(number, "schedules", seed, schedule);
  return runSchedule(schedule);
}

/** Throws with what was wrong. */
async function runLoad(seed: number, number: number): Promise<string> {
  const round = drawRound(seed);
  tell(number, "load", seed, round);
  const lab = Lab.create({ mirror: round.mirror ? "switch" : "cable" });
  // The lease is not what is tried here; a busy machine must not look like a dead router.
  const pair = new RouterPair(lab, { heartbeat: { deadMs: 300, controllerMs: 5000 } });
  try {
    await pair.start();
    if (round.lan) lab.impair("lan", round.lan);
    if (round.mirror) lab.impair("mirror", round.mirror);
    const capture = await lab.capture("peer", devices.peer);
    const file = path.join(lab.directory, "upload");
    const sha256 = await writeTransferFile(file, round.transferBytes);
    const { sessions: count, intervalMs } = round;
    const sessions: Sessions = await manySessions(lab, addressPlan.service.v4, labPorts.echo, { count, intervalMs });
    const transfers: Transfer[] = round.families.map((family, index) => {
      const target = authority(addressPlan.service[family], labPorts.web);
      return index < round.uploads
        ? upload(lab, target, file, round.transferBytes, sha256)
        : download(lab, target, round.transferBytes, sha256);
    });
    await pair.until("all sessions are ready", async () => {
      const { total, ready } = (await pair.status("b")).sessions;
      return ready === total && ready >= count;
    });
    await delay(round.killAfterMs);
    const before = await pair.status("b");
    if (before.role !== "standby") throw new Error(`router b is ${before.role} before the kill: ${before.reason}`);
    if (before.recorder.auditBreaches > 0) throw new Error(`the audit found a breach: ${JSON.stringify(before)}`);
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(1000);
    const late = new AbortController();
    const limit = delay(transferLimitMs, null, { signal: late.signal });
    limit.catch(() => {});
    for (const { done } of transfers) {
      const report = await Promise.race([done, limit]);
      if (report === null) throw new Error("a transfer hangs");
      if (!report.ok) throw new Error(`a transfer failed: ${JSON.stringify(report)}`);
    }
    late.abort();
    for (const report of await sessions.finish()) {
      const { lost, duplicated, changed, brokenBy, received, sent } = report;
      if (lost + duplicated + changed > 0 || brokenBy !== null || received !== sent)
        throw new Error(`a session is not exact: ${JSON.stringify(report)}`);
    }
    const seen = await capture.stop();
    const resets = resetsOfOpen(seen);
    if (resets.length > 0) throw new Error(`the peer saw resets: ${JSON.stringify(resets)}`);
    return `${before.sessions.ready} sessions`;
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${pair.said()}`, { cause: error });
  } finally {
    lab.destroy();
  }
}

/** Resets by the service of connections that had not been ended by both sides: after that, a duplicate of the last
 * acknowledgement is answered with one, as by any TCP (RFC 9293, section 3.10.7.1). */
function resetsOfOpen({ flagged }: CaptureSummary): CaptureSummary["flagged"] {
  const service: readonly string[] = Object.values(addressPlan.service);
  const ended = new Map<string, Set<string>>();
  return flagged.filter((segment) => {
    const { from, fromPort, to, toPort, syn, fin, rst } = segment;
    const ours = service.includes(from);
    const connection = ours ? `${to} ${toPort} ${from} ${fromPort}` : `${from} ${fromPort} ${to} ${toPort}`;
    if (syn) ended.delete(connection);
    const sides = ended.get(connection) ?? new Set();
    ended.set(connection, sides);
    if (fin) sides.add(from);
    return rst && ours && sides.size < 2;
  });
}

const end = performance.now() + minutes * 60_000;
let rounds = 0;
while (performance.now() < end) {
  const seed = fixedSeed ?? randomInt(1, 2 ** 31);
  const kind = wanted[rounds++ % wanted.length] ?? "load";
  const began = performance.now();
  try {
    const said = await kinds[kind](seed, rounds);
    console.error(`soak: round ${rounds} exact, ${said}, ${((performance.now() - began) / 1000).toFixed(1)} s`);
  } catch (error) {
    console.error((error as Error).message);
    console.log(`soak failed in round ${rounds}; repeat with SOAK=${kind} SOAK_SEED=${seed} make soak`);
    process.exit(1);
  }
}
console.log(`soak: ${rounds} rounds, every byte exact, no reset seen`);
process.exit(0);
