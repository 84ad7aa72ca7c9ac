// Hooks: executables of an operator, for routing daemons and the like, around the steps of a takeover, a hand-over and a
// change of role.
//
// Every executable of the directory is run for every event, in the order of their names:
//
//   HOOK after announce        also in TANDEM_PHASE and TANDEM_EVENT, and the facts in TANDEM_*
//
// After-hooks follow behind: what they are about has happened, and nothing waits for them. Before-hooks are waited for,
// so each event has to be asked for, and all executables together get a budget. What a hook answers changes nothing.
//
//   abdicate   the active closes its gate and hands the voice over
//   takeBack   the standby did not take it: the active goes on
//   detect, fence, drain, restore, announce, release, nudge
//              the steps of a takeover (src/takeover/takeover.ts); what comes after them is told when the last is done
//   role       this router has another role
//
// No hook runs before `role`, which may be a router's falling silent; before `restore`, which is one with `drain`; or
// between `announce` and `release`, while the gate is open and the sockets are not ready.

import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { constants, setPriority } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import type { Config } from "../config/schema.js";
import { errnoOf, sentenceOf } from "../errors.js";
import type { TakeoverStep } from "../takeover/report.js";

type Settings = Config["hooks"];
export type BeforeEvent = Settings["before"][number];
export type AfterEvent = TakeoverStep | "abdicate" | "takeBack" | "role";
/** By name without TANDEM_, in upper case. */
export type HookFacts = Readonly<Record<string, string | number>>;

/** What is kept of a hook's output, characters. */
const outputKept = 4096;
/** How long the output of a hook that has ended is waited for, ms: others may hold it open. */
const outputMs = 100;
/** After-hooks that wait for those before them; a router whose roles change faster than its hooks end forgets some. */
const waitingMost = 64;

export class Hooks {
  private readonly children = new Set<ChildProcess>();
  private readonly waiting: { event: AfterEvent; facts: HookFacts }[] = [];
  private work: Promise<void> | null = null;

  constructor(
    private readonly settings: Settings,
    /** Facts of every event. */
    private readonly constant: HookFacts,
    private readonly log: Logger,
  ) {}

  /** Resolves when the hooks have ended or their budget has run out; at once for an event not asked for. Never rejects. */
  async before(event: BeforeEvent, facts: HookFacts): Promise<void> {
    if (this.settings.before.includes(event))
      await this.runAll("before", event, facts, performance.now() + this.settings.beforeMs);
  }

  /** Queues; hooks of one event begin when those of the event before have ended. */
  after(event: AfterEvent, facts: HookFacts): void {
    if (this.waiting.length >= waitingMost) {
      this.log.warn(`The hooks are ${waitingMost} events behind: not told of ${event}.`);
      return;
    }
    this.waiting.push({ event, facts });
    this.work ??= this.runWaiting();
  }

  /** Waits for the hooks under way and queued, all together as long as one may take; the rest is given up. */
  async stop(): Promise<void> {
    const patience = new AbortController();
    await Promise.race([
      this.work,
      delay(this.settings.timeoutMs, undefined, { signal: patience.signal }).catch(() => {}),
    ]);
    patience.abort();
    this.waiting.length = 0;
    for (const child of this.children) end(child);
  }

  private async runWaiting(): Promise<void> {
    for (let next = this.waiting.shift(); next; next = this.waiting.shift())
      await this.runAll("after", next.event, next.facts, Number.POSITIVE_INFINITY);
    this.work = null;
  }

  private async runAll(phase: string, event: string, facts: HookFacts, deadline: number): Promise<void> {
    const environment: NodeJS.ProcessEnv = { ...process.env, TANDEM_PHASE: phase, TANDEM_EVENT: event };
    for (const [name, value] of Object.entries({ ...this.constant, ...facts }))
      environment[`TANDEM_${name.toUpperCase()}`] = String(value);
    for (const file of this.executables()) {
      const limitMs = Math.min(this.settings.timeoutMs, deadline - performance.now());
      if (limitMs <= 0) {
        this.log.warn(`The hooks before ${event} took longer than ${this.settings.beforeMs} ms: ${file} was left out.`);
        return;
      }
      await this.run(file, [phase, event], environment, limitMs);
    }
  }

  /** Those that nobody but this agent's user, or root, can have written. */
  private executables(): string[] {
    const { directory } = this.settings;
    let names: string[];
    try {
      names = readdirSync(directory).sort();
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") this.log.warn(`No hooks: ${sentenceOf(error)}`);
      return [];
    }
    return names
      .filter((name) => !name.startsWith("."))
      .map((name) => path.join(directory, name))
      .filter((file) => {
        const found = statSync(file, { throwIfNoEntry: false });
        if (!found?.isFile() || (found.mode & 0o111) === 0) return false;
        const trusted = (found.uid === 0 || found.uid === process.geteuid?.()) && (found.mode & 0o022) === 0;
        if (!trusted) this.log.warn(`The hook ${file} is not run: others than root could have written it.`);
        return trusted;
      });
  }

  private run(file: string, argv: string[], env: NodeJS.ProcessEnv, limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const began = performance.now();
      const call = `${file} ${argv.join(" ")}`;
      // A group of its own: what it has started ends with it.
      const child = spawn(file, argv, { env, cwd: "/", stdio: ["ignore", "pipe", "pipe"], detached: true });
      const outputs = [child.stdout, child.stderr];
      let output = "";
      for (const stream of outputs)
        stream.setEncoding("utf8").on("data", (text: string) => {
          output = (output + text).slice(-outputKept);
        });
      let late = false;
      const timer = setTimeout(() => {
        late = true;
        end(child);
      }, limitMs);
      this.children.add(child);
      child.once("exit", () => {
        clearTimeout(timer);
        setTimeout(() => {
          for (const stream of outputs) stream.destroy();
        }, outputMs).unref();
      });
      const done = (said: Record<string, unknown>, failed: boolean): void => {
        clearTimeout(timer);
        this.children.delete(child);
        const facts = { ...said, ms: Math.round(performance.now() - began), output: output.trim() };
        if (late) this.log.warn(facts, `The hook ${call} was ended after ${Math.round(limitMs)} ms.`);
        else if (failed) this.log.warn(facts, `The hook ${call} failed.`);
        else this.log.info(facts, `The hook ${call} has run.`);
        resolve();
      };
      child.once("error", (error) => done({ error: sentenceOf(error) }, true));
      child.once("close", (code, signal) => done({ code, signal }, code !== 0));
      if (child.pid !== undefined) leaveUrgency(child.pid);
    });
  }
}

/** The agent's own urgency is no hook's. */
function leaveUrgency(pid: number): void {
  try {
    setPriority(pid, constants.priority.PRIORITY_NORMAL);
  } catch {
    // It has ended already.
  }
}

function end(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}
