// Random schedules against real kernels: a seed gives a schedule, and a schedule is run in a lab. Sessions of all modes
// with a load of their own; routers, agents and applications that leave, die and come back at any moment; bad links;
// peers that do not read for a while or end their direction early.
//
// Wrong is: a byte lost, repeated or changed (the mill's chain says so too when a state does not belong to its offset),
// a reset or a second SYN at the peer of a session that was ready (but of a delivered one for a gap in its output, which
// the router names), a breach in the audit, a session that does not become ready again, an application that ends by itself.

import assert from "node:assert/strict";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { TandemError } from "../../src/errors.js";
import { type Capture, type CaptureSummary, flagsFilter } from "../../src/lab/capture.js";
import type { Impairment } from "../../src/lab/impair.js";
import { addressPlan, devices, Lab, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { historyCommand, sessionsCommand, switchoverCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import { endpoint, type SessionView } from "../../src/observe/sessions.js";
import { randomFrom } from "./mill.js";
import { other } from "./mill-scene.js";
import {
  endedFirst,
  type PeerCommand,
  peerEvent,
  type ScheduleService,
  type ScheduleSession,
  servicePorts,
} from "./schedules-services.js";

const { v4, v6 } = addressPlan.service;
/** All sessions are ready within that after everybody is back, ms. */
const readyLimitMs = 40_000;
const program = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Who leaves: the router's power, its agent (by SIGKILL or in order), its applications. */
type Loss = "power" | "agent" | "agent, in order" | "applications";

export type Step = { afterMs: number } & (
  | PeerCommand
  | { do: "impair"; lan: Impairment; mirror: Impairment | null }
  | { do: "standbyLeaves"; what: Loss; forMs: number }
  /** The routers hear each other by the uplink only; and with both links whole what they say to each other is lost. */
  | { do: "mirrorCut"; forMs: number }
  | { do: "channelEnds" }
  /** The active dies, or is asked to hand over; at a moment when all sessions are ready, or at any. */
  | { do: "voiceMoves"; how: "power" | "agent" | "applications" | "switchover"; whenReady: boolean; forMs: number }
);

export interface Schedule {
  seed: number;
  mirror: "cable" | "switch";
  /** Most bytes of receive buffers: of the peer, so that its windows close, and of the routers. */
  receiveBuffer: { peer: number; routers: number };
  steps: Step[];
}

/** Pure: the same seed, the same schedule. `moves`: how often the voice moves. */
export function drawSchedule(seed: number, moves = 3): Schedule {
  const random = randomFrom(seed);
  const between = (low: number, high: number): number => low + Math.floor(random() * (high - low + 1));
  const often = (share: number): boolean => random() < share;
  const pick = <T>(...choices: readonly T[]): T => choices[Math.floor(random() * choices.length)] as T;
  const impairment = (): Impairment => {
    const part = (most: number): number => (often(0.6) ? random() * most : 0);
    const shares = { loss: part(0.03), duplicate: part(0.03), reorder: part(0.03) };
    return { ...shares, onlyTcp: true, seed: BigInt(between(1, 2 ** 31)) };
  };
  const open = (): Step => ({
    do: "open",
    sessions: { confirmed: between(1, 4), live: between(1, 4), delivered: between(0, 3) },
    afterMs: between(0, 500),
  });
  const mirror = pick("cable", "switch");
  const mild = (): Step => {
    const dice = random();
    const afterMs = between(0, 700);
    if (dice < 0.2) return open();
    if (dice < 0.35) return { do: "stall", share: random(), ms: between(200, 3000), afterMs };
    if (dice < 0.45) return { do: "halfClose", share: random() * 0.5, afterMs };
    if (dice < 0.55) return { do: "mirrorCut", forMs: between(0, 3000), afterMs };
    if (dice < 0.7) return { do: "channelEnds", afterMs };
    if (dice < 0.85)
      return { do: "impair", lan: impairment(), mirror: mirror === "switch" ? impairment() : null, afterMs };
    const what = pick<Loss>("power", "agent", "agent, in order", "applications");
    return { do: "standbyLeaves", what, forMs: between(0, 1500), afterMs };
  };
  const steps: Step[] = [open()];
  for (let move = 0; move < moves; move++) {
    for (let step = between(0, 3); step > 0; step--) steps.push(mild());
    if (often(0.7)) steps.push(open());
    const how = pick("power", "power", "agent", "applications", "switchover");
    const whenReady = how === "applications" || how === "switchover" || often(0.7);
    steps.push({ do: "voiceMoves", how, whenReady, forMs: between(0, 1500), afterMs: between(0, 1000) });
  }
  const receiveBuffer = { peer: pick(16_384, 65_536, 6_291_456), routers: pick(16_384, 65_536, 6_291_456) };
  return { seed, mirror, receiveBuffer, steps };
}

/** Runs it; throws with what was wrong, what was done and what everybody said. Resolves to one line about it. `tell`: what
 * is done, as it is done. */
export async function runSchedule(schedule: Schedule, tell = (_line: string): void => {}): Promise<string> {
  const run = new ScheduleRun(schedule, tell);
  try {
    await run.begin();
    for (const step of schedule.steps) await run.step(step);
    return await run.end();
  } catch (error) {
    throw new Error(
      `${(error as Error).message}\n\nschedule ${asText(schedule.seed)}, mirror ${schedule.mirror}, ${asText(schedule.receiveBuffer)}\n${run.told()}`,
      { cause: error },
    );
  } finally {
    run.destroy();
  }
}

const asText = (value: unknown): string =>
  JSON.stringify(value, (_, each) => (typeof each === "bigint" ? String(each) : each));

class ScheduleRun {
  readonly #schedule: Schedule;
  readonly #random: () => number;
  readonly #lab: Lab;
  readonly #pair: RouterPair;
  #active: RouterName = "a";
  #moved = 0;
  #peers: LabProcess | null = null;
  #capture: Capture | null = null;
  /** The programs that run, by their name; not what agents start at a takeover. */
  readonly #applications: Record<RouterName, Map<string, LabProcess>> = { a: new Map(), b: new Map() };
  readonly #open = new Map<string, ScheduleSession>();
  readonly #ended: ScheduleSession[] = [];
  #finished = false;
  /** What was ready when the voice moved last: it may not break. */
  #secured = new Set<string>();
  /** Delivered, ready when the voice moved, and reset: right only for a gap in the output that the router names. */
  readonly #reset: ScheduleSession[] = [];
  /** Not ready when the voice moved, and ended: by a reset, says the capture, whose error the peer met when it wrote, so
   * that it read an end (sock_error, include/net/sock.h). */
  readonly #silentlyReset: ScheduleSession[] = [];
  /** The first thing that went wrong outside of the current step. */
  #fault: string | null = null;
  readonly #log: string[] = [];
  readonly #began = performance.now();

  constructor(
    schedule: Schedule,
    private readonly tell: (line: string) => void,
  ) {
    this.#schedule = schedule;
    this.#random = randomFrom(schedule.seed + 1);
    this.#lab = Lab.create({ mirror: schedule.mirror });
    const service = (name: ScheduleService) => ({
      name,
      addresses: [v4, v6],
      port: servicePorts[name],
      mode: name,
      ...(name === "delivered" ? { command: [process.execPath, program("./schedules-echo.js"), "1"] } : {}),
    });
    this.#pair = new RouterPair(this.#lab, {
      // The lease is not what is tried here; a busy machine must not look like a dead router.
      heartbeat: { deadMs: 500, controllerMs: 10_000 },
      overrides: {
        services: Object.keys(servicePorts).map((name) => service(name as ScheduleService)),
        quarantineMs: 1000,
      },
    });
  }

  async begin(): Promise<void> {
    const { peer, routers } = this.#schedule.receiveBuffer;
    for (const [node, most] of [
      ["peer", peer],
      ["a", routers],
      ["b", routers],
    ] as const)
      this.#lab.run(node, ["sysctl", "-q", "-w", `net.ipv4.tcp_rmem=4096 ${Math.min(most, 131_072)} ${most}`]);
    for (const router of ["a", "b"] as const) await this.#startAgent(router);
    await this.#untilProtected();
    for (const router of ["a", "b"] as const) await this.#startApplications(router);
    this.#capture = await this.#lab.capture("peer", devices.peer, { filter: flagsFilter });
    this.#startPeers();
  }

  async step(step: Step): Promise<void> {
    const { afterMs, ...what } = step;
    this.#say(asText(what));
    switch (what.do) {
      case "impair":
        this.#lab.impair("lan", what.lan);
        if (what.mirror !== null) this.#lab.impair("mirror", what.mirror);
        break;
      case "standbyLeaves":
        await this.#standbyLeaves(what.what, what.forMs);
        break;
      case "mirrorCut":
        await this.#untilProtected();
        this.#lab.cut("mirror");
        await delay(what.forMs);
        this.#lab.heal("mirror");
        break;
      case "channelEnds":
        this.#pair.endControlChannel();
        break;
      case "voiceMoves":
        await this.#moveVoice(what, afterMs);
        break;
      default:
        await this.#tellPeers(what);
    }
    if (what.do !== "voiceMoves") await delay(afterMs);
    await this.#check();
  }

  /** All sessions are ready again, come to their end, and were seen to be exact. */
  async end(): Promise<string> {
    await this.#untilReady();
    this.#say("all are ready; the end");
    await this.#tellPeers({ do: "finish" });
    await this.#until("the peers have finished", () => this.#finished, 90_000);
    await this.#check();
    const seen = await this.#capture?.stop();
    if (seen) this.#judge(seen);
    const bytes = this.#ended.reduce((sum, { sent, received }) => sum + sent + received, 0);
    const lost = this.#ended.filter(({ broken }) => broken !== null).length;
    const skipped = this.#ended.reduce((sum, each) => sum + each.skipped, 0);
    return `${this.#ended.length} sessions (${lost} were not ready and lost), ${bytes} bytes, ${this.#moved} moves, ${skipped} bytes read and not answered`;
  }

  destroy(): void {
    this.#lab.destroy();
  }

  /** What was done and said. */
  told(): string {
    const applications = Object.entries(this.#applications).flatMap(([router, processes]) =>
      Array.from(
        processes,
        ([name, { stdout, stderr }]) => `── ${name} ${router}\n${stdout().slice(-2000)}${stderr()}`,
      ),
    );
    return [...this.#log, this.#pair.said(), ...applications].join("\n");
  }

  get #standby(): RouterName {
    return other(this.#active);
  }

  #say(what: string): void {
    const line = `${String(Math.round(performance.now() - this.#began)).padStart(7)} ms  ${what}`;
    this.#log.push(line);
    this.tell(line);
  }

  async #startAgent(router: RouterName): Promise<void> {
    this.#pair.startAgent(router);
    await this.#until(`the agent of ${router} answers`, async () => (await this.#pair.status(router)) !== null);
  }

  async #startApplications(router: RouterName): Promise<void> {
    const seed = (): string => String(Math.floor(this.#random() * 2 ** 31));
    const socket = path.join(this.#pair.runDirectory(router), "app.sock");
    const programs = { server: [socket, seed(), v4, v6], echo: [seed(), v4, v6] };
    const running = this.#applications[router];
    for (const [name, parameters] of Object.entries(programs))
      if (!running.has(name))
        running.set(
          name,
          this.#lab.spawn(router, [process.execPath, program(`./schedules-${name}.js`), ...parameters]),
        );
    await this.#until(`the applications of ${router} listen`, () =>
      Array.from(running.values()).every(({ stdout }) => stdout().includes("listening")),
    );
  }

  #startPeers(): void {
    const seed = String(Math.floor(this.#random() * 2 ** 31));
    const peers = this.#lab.spawn("peer", [process.execPath, program("./schedules-peer.js"), seed, v4, v6], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#peers = peers;
    if (peers.child.stdout === null) throw new Error("the peers have no output");
    createInterface({ input: peers.child.stdout }).on("line", (line) => this.#hearPeers(line));
    void peers.exited.then(({ code }) => {
      if (!this.#finished) this.#fault ??= `the peers ended with ${code}`;
    });
  }

  #hearPeers(line: string): void {
    if (line === "finished") {
      this.#finished = true;
      return;
    }
    const event = peerEvent.parse(JSON.parse(line));
    if ("opened" in event) {
      this.#open.set(event.opened.local, event.opened);
      return;
    }
    const { ended } = event;
    this.#open.delete(ended.local);
    this.#ended.push(ended);
    if (ended.broken === null) return;
    this.#say(`broken: ${asText(ended)}`);
    const reset = /ECONNRESET|EPIPE/.test(ended.broken);
    if (reset && ended.service === "delivered" && this.#secured.has(ended.local)) this.#reset.push(ended);
    else if (this.#secured.has(ended.local)) this.#fault ??= `a session that was ready broke: ${asText(ended)}`;
    else if (ended.broken.startsWith(endedFirst)) this.#silentlyReset.push(ended);
    else if (!reset) this.#fault ??= `a session is not exact: ${asText(ended)}`;
  }

  async #tellPeers(command: PeerCommand): Promise<void> {
    const known = this.#open.size + this.#ended.length;
    this.#peers?.child.stdin?.write(`${JSON.stringify(command)}\n`);
    if (command.do !== "open") return;
    const more = Object.values(command.sessions).reduce((sum, each) => sum + each, 0);
    await this.#until("the new sessions are open", () => this.#open.size + this.#ended.length === known + more);
  }

  async #standbyLeaves(what: Loss, forMs: number): Promise<void> {
    const router = this.#standby;
    await this.#untilProtected();
    await this.#lose(router, what);
    if (what !== "applications") await this.#pair.untilRole(this.#active, "solo", 30_000);
    await delay(forMs);
    await this.#bringBack(router, what);
  }

  async #moveVoice(
    { how, whenReady, forMs }: Omit<Extract<Step, { do: "voiceMoves" }>, "afterMs">,
    afterMs: number,
  ): Promise<void> {
    const [from, to] = [this.#active, this.#standby];
    await this.#untilProtected();
    if (whenReady) await this.#untilReady();
    await delay(afterMs);
    const held = await this.#sessionsOf(to);
    this.#secured = new Set(held.filter(({ ready }) => ready).map(({ peer }) => peer));
    this.#say(`${this.#secured.size} of ${this.#open.size} sessions are ready on ${to}`);
    if (how === "switchover") {
      if (!(await this.#switchOver())) return;
    } else await this.#lose(from, how);
    await this.#until(`router ${to} has the voice`, async () => {
      const { role } = await this.#pair.status(to);
      return role === "solo" || role === "active";
    });
    this.#active = to;
    this.#moved++;
    this.#say(`router ${to} has the voice: ${asText((await this.#pair.status(to)).lastTakeover)}`);
    await delay(forMs);
    if (how !== "switchover") await this.#bringBack(from, how);
  }

  /** Asked at either router. False: refused, as it is when a session is not ready at that moment. */
  async #switchOver(): Promise<boolean> {
    const asked = this.#random() < 0.5 ? this.#active : this.#standby;
    try {
      await ask(this.#operatorOf(asked), switchoverCommand, {});
      return true;
    } catch (error) {
      if (!(error instanceof TandemError) || error.code !== "HANDOVER_REFUSED") throw error;
      this.#say(`refused: ${error.message}`);
      return false;
    }
  }

  async #lose(router: RouterName, what: Loss): Promise<void> {
    if (what === "power") {
      this.#applications[router].clear();
      this.#lab.kill(router);
    } else if (what === "applications") {
      // The echo lives: that an application dies says nothing of another.
      const server = this.#applications[router].get("server");
      this.#applications[router].delete("server");
      await this.#end(server, "SIGKILL");
    } else await this.#end(this.#pair.agents[router], what === "agent" ? "SIGKILL" : "SIGTERM");
  }

  async #end(ending: LabProcess | undefined, signal: NodeJS.Signals): Promise<void> {
    if (ending === undefined) return;
    const { child } = ending;
    child.kill(signal);
    // Its outputs may outlive it: the programs that an agent started have them, too.
    await this.#until("a program has ended", () => child.exitCode !== null || child.signalCode !== null);
  }

  async #bringBack(router: RouterName, what: Loss): Promise<void> {
    if (what === "power") this.#lab.repower(router);
    if (what !== "applications") await this.#startAgent(router);
    if (what === "power" || what === "applications") await this.#startApplications(router);
  }

  #operatorOf(router: RouterName): string {
    return path.join(this.#pair.runDirectory(router), "agent.sock");
  }

  async #sessionsOf(router: RouterName): Promise<SessionView[]> {
    return (await ask(this.#operatorOf(router), sessionsCommand, { limit: 10_000 })).sessions;
  }

  async #untilProtected(): Promise<void> {
    await this.#pair.untilRole(this.#active, "active", 30_000);
    await this.#pair.untilRole(this.#standby, "standby", 30_000);
  }

  async #untilReady(): Promise<void> {
    await this.#untilProtected();
    let lacking: string[] = [];
    const all = async (): Promise<boolean> => {
      const held = new Map((await this.#sessionsOf(this.#standby)).map((session) => [session.peer, session]));
      lacking = [...this.#open.values()].flatMap(({ service, local }) => {
        const session = held.get(local);
        if (session?.ready) return [];
        return [`${service} ${local}: ${session ? session.reasons.map(({ name }) => name).join(" ") : "not known"}`];
      });
      return lacking.length === 0;
    };
    await this.#until("all sessions are ready", all, readyLimitMs).catch((error: Error) =>
      assert.fail(`${lacking.join("; ")}\n${error.message}`),
    );
  }

  async #until(what: string, holds: () => boolean | Promise<boolean>, milliseconds = 30_000): Promise<void> {
    await this.#pair.until(
      what,
      () => {
        if (this.#fault !== null) return true;
        return holds();
      },
      milliseconds,
    );
    if (this.#fault !== null) assert.fail(this.#fault);
  }

  async #check(): Promise<void> {
    if (this.#fault !== null) assert.fail(this.#fault);
    for (const router of ["a", "b"] as const) {
      const status = await this.#pair.status(router).catch(() => null);
      if (status) assert.equal(status.recorder.auditBreaches, 0, `audit breach on ${router}`);
      for (const [name, { child, stderr }] of this.#applications[router])
        assert.equal(child.exitCode, null, `the ${name} of ${router} ended by itself: ${stderr()}`);
    }
    for (const session of this.#reset.splice(0)) {
      const { entries } = await ask(this.#operatorOf(this.#active), historyCommand, { limit: 1000 });
      const named = ({ sentence }: { sentence: string }): boolean =>
        sentence.includes(` port ${session.local.split(/[:\s]/).at(-1)} is lost, too (output-gap)`);
      assert.ok(entries.some(named), `a session that was ready was reset: ${asText(session)}`);
    }
    const { role, reason } = await this.#pair.status(this.#active);
    assert.ok(role === "active" || role === "solo", `router ${this.#active} is ${role}: ${reason}`);
  }

  /** What the peer saw of connections' beginnings and ends. */
  #judge(seen: CaptureSummary): void {
    const broken = new Set(this.#ended.filter((each) => each.broken !== null).map(({ local }) => local));
    const flaggedOf = (port: number): string =>
      asText(seen.flagged.filter(({ fromPort, toPort }) => toPort === port || fromPort === port));
    const handshakes = new Map<string, Set<number>>();
    const finished = new Map<string, Set<string>>();
    for (const { from, fromPort, to, toPort, syn, fin, rst, ack, seq } of seen.flagged) {
      const ours = from === v4 || from === v6;
      const peer = ours ? endpoint(to, toPort) : endpoint(from, fromPort);
      if (fin) finished.set(peer, (finished.get(peer) ?? new Set()).add(from));
      if (!ours) continue;
      // Once both have finished, a late copy of a segment meets no connection any more.
      if (rst && !broken.has(peer) && finished.get(peer)?.size !== 2)
        assert.fail(`the peer ${peer} was reset: ${flaggedOf(toPort)}`);
      if (!syn) continue;
      assert.notEqual(ack, 0, `the service sent a SYN to ${peer}`);
      handshakes.set(peer, (handshakes.get(peer) ?? new Set()).add(seq));
    }
    for (const session of this.#silentlyReset) {
      const byUs = [v4, v6].some((address) => finished.get(session.local)?.has(address));
      const port = Number(session.local.split(":").at(-1));
      assert.ok(!byUs, `a session is not exact: ${asText(session)}, ${flaggedOf(port)}`);
    }
    for (const [peer, isns] of handshakes) assert.equal(isns.size, 1, `more than one handshake with ${peer}`);
  }
}
