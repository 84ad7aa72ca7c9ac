// The examples on the two routers of a lab, with real agents: the peer of one TCP connection sees every answer right while
// the routers change places, die and come back, and while the program that answers changes its language.

import assert from "node:assert/strict";
import path from "node:path";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { addressPlan, Lab, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { RouterPair } from "../../src/lab/router-pair.js";

const skip = process.getuid?.() === 0 ? false : "needs root";
const port = 7100;
const { v4 } = addressPlan.service;
/** Milliseconds for anything to happen on a machine that does other things, too. */
const patience = 60_000;
const example = (name: string): string => fileURLToPath(new URL(`../../../../examples/${name}`, import.meta.url));

interface Played {
  mode: "confirmed" | "live";
  /** What line-peer.js expects. */
  answers: "ledger" | "lines";
  programs: Record<RouterName, string[]>;
}

class Stage {
  readonly pair: RouterPair;
  readonly #lab: Lab;
  readonly #played: Played;
  readonly #lives: LabProcess[] = [];
  #heard = "";
  #peer: LabProcess | null = null;

  constructor(lab: Lab, played: Played) {
    this.#lab = lab;
    this.#played = played;
    const services = [{ name: "lines", addresses: [v4], port, mode: played.mode }];
    this.pair = new RouterPair(lab, { heartbeat: { deadMs: 300, controllerMs: 5000 }, overrides: { services } });
  }

  async start(router: RouterName): Promise<void> {
    this.pair.startAgent(router);
    // The agent brings the service address.
    await this.pair.until(
      `the agent of ${router} answers`,
      async () => (await this.pair.status(router)) !== null,
      patience,
    );
    const socket = path.join(this.pair.runDirectory(router), "app.sock");
    const program = this.#lab.spawn(router, [
      ...this.#played.programs[router],
      ...["--service", "lines", "--socket", socket, "--listen", `${v4}:${port}`],
    ]);
    this.#lives.push(program);
    await this.pair.until(
      `the program on ${router} is registered`,
      () => program.stdout().includes("registered for"),
      patience,
    );
  }

  async connect(): Promise<void> {
    const program = fileURLToPath(new URL("./line-peer.js", import.meta.url));
    const argv = [process.execPath, program, v4, String(port), this.#played.answers];
    const peer = this.#lab.spawn("peer", argv, { stdio: ["pipe", "pipe", "pipe"] });
    this.#peer = peer;
    for (const stream of [peer.child.stdout, peer.child.stderr])
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#heard += text;
      });
    await this.pair.until("the peer is connected", () => this.#heard.includes("connected"), patience);
  }

  untilReady(standby: RouterName): Promise<void> {
    return this.pair.until(
      `the session is ready on ${standby}`,
      async () => {
        const { total, ready } = (await this.pair.status(standby)).sessions;
        return total === 1 && ready === 1;
      },
      patience,
    );
  }

  /** The active's power is cut; later it comes back, and stands by. */
  async failOver(from: RouterName, to: RouterName): Promise<void> {
    await this.untilReady(to);
    await delay(300);
    this.#lab.kill(from);
    await this.pair.untilRole(to, "solo", patience);
    await delay(300);
    this.#lab.repower(from);
    await this.start(from);
    await this.pair.untilRole(to, "active", patience);
  }

  /** Ends the connection; every byte must have been right. */
  async assertExact(): Promise<void> {
    this.#peer?.child.stdin?.write("stop\n");
    await this.pair.until("the peer has ended", () => this.#heard.includes("answers"), patience);
    const report = JSON.parse(this.#heard.split("\n")[1] ?? "{}") as { answers: number; broken: string | null };
    assert.equal(report.broken, null);
    assert.ok(report.answers > 100);
  }

  said(): string {
    const programs = this.#lives.map(({ stdout, stderr }) => `── program\n${stdout()}${stderr()}`);
    return [this.pair.said(), ...programs, this.#heard].join("\n");
  }
}

async function play(played: Played, act: (stage: Stage) => Promise<void>): Promise<void> {
  const lab = Lab.create();
  const stage = new Stage(lab, played);
  try {
    await act(stage);
  } catch (error) {
    throw new Error(`${String(error)}\n${stage.said()}`, { cause: error });
  } finally {
    lab.destroy();
  }
}

const ledgers = { a: ["python3", "-B", example("ledger.py")], b: [process.execPath, example("ledger.mjs")] };
const replicas = [process.execPath, example("live-standby.mjs")];

test("confirmed: a session changes between two languages with its routers, twice", { skip }, () =>
  play({ mode: "confirmed", answers: "ledger", programs: ledgers }, async (stage) => {
    await stage.start("a");
    await stage.start("b");
    await stage.pair.untilRole("a", "active", patience);
    await stage.pair.untilRole("b", "standby", patience);
    await stage.connect();
    await stage.failOver("a", "b");
    await stage.failOver("b", "a");
    await stage.untilReady("b");
    await delay(300);
    await stage.assertExact();
  }),
);

test("live: a session that began before there was a standby is joined, taken over, and joined again", { skip }, () =>
  play({ mode: "live", answers: "lines", programs: { a: replicas, b: replicas } }, async (stage) => {
    await stage.start("a");
    await stage.pair.untilRole("a", "solo", patience);
    await stage.connect();
    await delay(300);
    await stage.start("b");
    await stage.failOver("a", "b");
    await stage.failOver("b", "a");
    await stage.untilReady("b");
    await delay(300);
    await stage.assertExact();
  }),
);
