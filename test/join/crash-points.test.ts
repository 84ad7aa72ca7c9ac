// The active's power fails between any two steps of a join, of a logged write, of a confirm and of a close. Sessions that
// its application was told are ready go on, every byte exact, from a state that belongs to its offsets and is no older
// than the last one known to be stored. The others are reset, after bytes that were right as well.
//
//   application ──protect──► agent ──snapshots──► standby        protect  standbyReady  handover  ready
//               ◄─standbyReady─  ◄──standbyReady──                log      logged        (bytes into the socket)
//               ──handover──►    ──handover──►                    confirm  confirmed
//               ◄──ready──       ◄──readiness──                   release  released      (FIN)
//
// The mill runs on both routers behind a proxy on the applications' socket, which stops each session at a message of its
// own: one failure of power is many points. What one agent tells the other, and what a socket sends, is held up by packet
// filters. That a message is with the agent of a router that dies, or is not, makes no difference to the other router.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import type { NodeName, RouterName } from "../../src/lab/lab.js";
import { ApplicationProxy, type Said } from "./application-proxy.js";
import { type MillPeers, MillScene, millPort, other, skip } from "./mill-scene.js";

const controlPort = 7402;
/** What can arrive has arrived after that. */
const settledMs = 150;
const reset = /ECONNRESET|EPIPE/;
const takeoverReport = z.object({ sessions: z.number(), lost: z.object({ count: z.number() }) });
type Reports = Awaited<ReturnType<MillPeers["finish"]>>;

/** Where a session is stopped. */
interface Point {
  name: string;
  from: Said["from"];
  type: Said["message"]["type"];
  /** withheld: nobody hears this message, nor what comes after it. heard: it goes on. unsent, undelivered: it goes on, and
   * what the session's socket sends from now on does not leave the router, or does not reach the peer. */
  how: "withheld" | "heard" | "unsent" | "undelivered";
  outcome: "goes on" | "is lost";
}

const joinPoints: Point[] = [
  {
    name: "proven, before the application hears of it",
    ...{ from: "agent", type: "standbyReady", how: "withheld", outcome: "is lost" },
  },
  {
    name: "the application was asked, its hand-over is not heard",
    ...{ from: "application", type: "handover", how: "withheld", outcome: "is lost" },
  },
  {
    name: "handed over, before the application hears that it is ready",
    ...{ from: "agent", type: "ready", how: "withheld", outcome: "goes on" },
  },
  {
    name: "the application has heard that it is ready",
    ...{ from: "agent", type: "ready", how: "heard", outcome: "goes on" },
  },
];

const unsent: Point = {
  name: "a logged write in the socket, not on the wire",
  ...{ from: "agent", type: "logged", how: "unsent", outcome: "goes on" },
};
const undelivered: Point = {
  name: "a logged write on the wire, not with the peer",
  ...{ from: "agent", type: "logged", how: "undelivered", outcome: "goes on" },
};

const writePoints: Point[] = [
  {
    name: "a logged write, before the standby hears of it",
    ...{ from: "application", type: "log", how: "withheld", outcome: "goes on" },
  },
  {
    name: "a logged write that is stored, before the application hears of it",
    ...{ from: "agent", type: "logged", how: "withheld", outcome: "goes on" },
  },
  unsent,
  undelivered,
  {
    name: "a confirm, before the standby hears of it",
    ...{ from: "application", type: "confirm", how: "withheld", outcome: "goes on" },
  },
  {
    name: "a confirm that is stored, before the application hears of it",
    ...{ from: "agent", type: "confirmed", how: "withheld", outcome: "goes on" },
  },
];

const closePoints: Point[] = [
  {
    name: "the close is announced, before the agent hears of it",
    ...{ from: "application", type: "release", how: "withheld", outcome: "goes on" },
  },
  {
    name: "the close is announced, before the application hears that it may",
    ...{ from: "agent", type: "released", how: "withheld", outcome: "goes on" },
  },
  {
    name: "the FIN is not on the wire",
    ...{ from: "agent", type: "released", how: "unsent", outcome: "goes on" },
  },
  {
    name: "the FIN is on the wire, not with the peer",
    ...{ from: "agent", type: "released", how: "undelivered", outcome: "goes on" },
  },
];

/** What became of the sessions of an active whose power failed. */
interface Outcome {
  reports: Reports;
  /** The peers' ports of the sessions that were reset. */
  lost: Set<number>;
  takeover: z.infer<typeof takeoverReport>;
  auditBreaches: number;
  /** The session, by its peer's port, that was stopped at each point. */
  met: Map<Point, number>;
  /** What was said about a session, by its peer's port, on the router that died and on the other one. */
  before: (port: number) => Said[];
  after: (port: number) => Said[];
  output: (port: number) => Output;
  /** All that the processes wrote, for a failure to show. */
  story: string;
}

/** Where the output ends that the active's agent has called logged, and that it has called recorded. */
interface Output {
  logged: number;
  recorded: number;
}

class CrashPair {
  readonly scene = MillScene.create(Number(process.env.TANDEM_SEED ?? 7), {}, { quarantineMs: 1000 });
  active: RouterName = "a";
  #said: Record<RouterName, Said[]> = { a: [], b: [] };
  #open: Point[] = [];
  readonly #stopped = new Map<number, Point>();
  readonly #filtered = new Set<NodeName>();
  readonly #proxies: ApplicationProxy[] = [];

  /** One router, alone. */
  async start(): Promise<void> {
    for (const router of ["a", "b"] as const)
      this.#proxies.push(
        new ApplicationProxy({
          path: this.#proxyPath(router),
          agentPath: this.scene.applicationSocket(router),
          onMessage: (said, passOn) => {
            this.#said[router].push(said);
            if (router !== this.active || this.#passes(said)) passOn();
          },
        }),
      );
    await this.#power("a");
    await this.scene.pair.untilRole("a", "solo", 30_000);
  }

  get standby(): RouterName {
    return other(this.active);
  }

  /** Sessions begin on an active that is alone, the standby comes, and when `arrange` is through with both, the power of
   * the active fails. */
  async round(
    count: number,
    arrange: (peers: MillPeers, standbyComes: Promise<void>) => Promise<void>,
  ): Promise<Outcome> {
    const { scene, active, standby } = this;
    this.#said = { a: [], b: [] };
    const peers = await scene.peers(count, 30);
    const comes = this.#power(standby);
    await arrange(peers, comes);
    await comes;
    scene.lab.kill(active);
    this.#unfilter();
    const met = new Map([...this.#stopped].map(([port, point]) => [point, port]));
    this.#open = [];
    this.#stopped.clear();
    this.active = standby;
    await scene.pair.untilRole(standby, "solo");
    const reports = await peers.finish(scene);
    const { lastTakeover, recorder } = await scene.pair.status(standby);
    const said = this.#said;
    const about = (router: RouterName) => (port: number) => said[router].filter(({ peerPort }) => peerPort === port);
    return {
      reports,
      lost: new Set(reports.filter(({ broken }) => broken !== null).map(({ localPort }) => localPort)),
      takeover: takeoverReport.parse(lastTakeover),
      auditBreaches: recorder.auditBreaches,
      met,
      before: about(active),
      after: about(standby),
      output: (port) => outputOf(said[active], port),
      story: `${JSON.stringify(reports)}\n${scene.said()}`,
    };
  }

  /** From now on the first session that comes to one of these points is stopped there; resolves when all are. */
  async stopAt(points: readonly Point[]): Promise<void> {
    this.#open = [...points];
    await this.until("each point has its session", () => this.#open.length === 0);
  }

  until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    return this.scene.pair.until(what, holds);
  }

  /** Something of this kind was said to or by the active's application. */
  heard(holds: (said: Said) => boolean): boolean {
    return this.#said[this.active].some(holds);
  }

  /** The session that was stopped there, by its peer's port. */
  portAt(point: Point): number {
    for (const [port, each] of this.#stopped) if (each === point) return port;
    return assert.fail("no session came there");
  }

  output(port: number): Output {
    return outputOf(this.#said[this.active], port);
  }

  /** Nothing of the control channel leaves the router any more. */
  dropControl(router: RouterName): void {
    this.#drop(router, "output", `tcp sport ${controlPort}`);
    this.#drop(router, "output", `tcp dport ${controlPort}`);
  }

  close(): void {
    for (const proxy of this.#proxies) proxy.close();
    this.scene.destroy();
  }

  #proxyPath(router: RouterName): string {
    return path.join(this.scene.lab.directory, router, "proxy.sock");
  }

  /** Agent and mill. */
  async #power(router: RouterName): Promise<void> {
    this.scene.lab.repower(router);
    await this.scene.startAgent(router);
    await this.scene.startServer(router, this.#proxyPath(router));
  }

  #passes({ from, message, peerPort: port }: Said): boolean {
    if (port === null) return true;
    const stopped = this.#stopped.get(port);
    if (stopped !== undefined) return stopped.how !== "withheld" || stopped.from !== from;
    const point = this.#open.find((each) => each.from === from && each.type === message.type);
    if (point === undefined) return true;
    this.#open.splice(this.#open.indexOf(point), 1);
    this.#stopped.set(port, point);
    if (point.how === "unsent") this.#drop(this.active, "output", `tcp sport ${millPort} tcp dport ${port}`);
    if (point.how === "undelivered") this.#drop("peer", "input", `tcp sport ${millPort} tcp dport ${port}`);
    return point.how !== "withheld";
  }

  /** Drops what the node sends or gets that matches, in nft's language. */
  #drop(node: NodeName, hook: "input" | "output", match: string): void {
    const chain = `add chain inet crash ${hook} { type filter hook ${hook} priority 0; }`;
    const lines = ["add table inet crash", chain, `add rule inet crash ${hook} ${match} drop`];
    this.#filtered.add(node);
    this.scene.lab.run(node, ["nft", "-f", "-"], `${lines.join("\n")}\n`);
  }

  #unfilter(): void {
    for (const node of this.#filtered) this.scene.lab.run(node, ["nft", "delete table inet crash"]);
    this.#filtered.clear();
  }
}

function outputOf(said: readonly Said[], port: number): Output {
  const own = said.filter(({ peerPort }) => peerPort === port);
  const ids = own.flatMap(({ message }) => (message.type === "protected" ? [message.id] : []));
  const recorded = said.flatMap(({ message }) =>
    message.type === "progress" ? message.sessions.flatMap(([id, output]) => (ids.includes(id) ? [output] : [])) : [],
  );
  return { logged: toldOf(own).logged, recorded: Math.max(0, ...recorded) };
}

/** A resume point that an application told its agent of. */
interface Told {
  inputOffset: number;
  outputOffset: number;
  state: Uint8Array;
  /** Its agent has said that the standby has it. */
  stored: boolean;
}

/** What an application told of a session, in order; and where the output ends that its agent has called stored. */
function toldOf(transcript: readonly Said[]): { points: Told[]; outputStored: number; logged: number } {
  const points: Told[] = [];
  const asked = new Map<number, { point: Told | null; outputEnd: number }>();
  let outputStored = 0;
  let logged = 0;
  for (const { message, parts } of transcript)
    if (message.type === "handover" || message.type === "confirm") {
      const { inputOffset, outputOffset, outputStart, request } = message;
      const state = message.type === "confirm" && message.keepState ? points.at(-1)?.state : parts[0];
      const point = { inputOffset, outputOffset, state: state ?? assert.fail("no state"), stored: false };
      points.push(point);
      if (request !== undefined) asked.set(request, { point, outputEnd: outputStart + (parts[1]?.length ?? 0) });
    } else if (message.type === "log") {
      const outputEnd = message.outputStart + (parts[0]?.length ?? 0);
      asked.set(message.request ?? 0, { point: null, outputEnd });
    } else if (message.type === "ready") {
      const handover = points[0];
      if (handover !== undefined) handover.stored = true;
    } else if ((message.type === "confirmed" || message.type === "logged") && message.stored) {
      const { point, outputEnd } = asked.get(message.request ?? 0) ?? assert.fail("an answer to nothing");
      outputStored = Math.max(outputStored, outputEnd);
      if (point !== null) point.stored = true;
      else logged = outputEnd;
    }
  return { points, outputStored, logged };
}

/** The session goes on from what its application told last, or before, but not before what was stored. */
function assertResumes({ before, after }: Outcome, port: number): void {
  const taken = after(port).find(({ message }) => message.type === "takeover");
  assert.ok(taken?.message.type === "takeover");
  const { confirmed, outputOffset } = taken.message;
  const [state = Buffer.alloc(0), sinceConfirm] = taken.parts;
  const { points, outputStored } = toldOf(before(port));
  const at = points.findLastIndex(
    (told) =>
      told.inputOffset === confirmed.inputOffset &&
      told.outputOffset === confirmed.outputOffset &&
      Buffer.compare(told.state, state) === 0,
  );
  assert.ok(at >= 0, "offsets and state are those of one moment");
  assert.ok(at >= points.findLastIndex(({ stored }) => stored), "no stored resume point is passed over");
  assert.ok(outputOffset >= outputStored, "what was logged is part of the stream");
  assert.equal(sinceConfirm?.length, outputOffset - confirmed.outputOffset);
}

describe("the active's power fails", { skip }, () => {
  let pair: CrashPair;

  before(async () => {
    pair = new CrashPair();
    await pair.start();
  });
  after(() => pair?.close());

  /** One failure of power, and a test for each of its points; `sessions`: more than points, or as many. */
  function failure(
    name: string,
    points: readonly Point[],
    sessions: number,
    arrange: (peers: MillPeers, standbyComes: Promise<void>) => Promise<void>,
    more: Record<string, (outcome: Outcome) => void>,
  ): void {
    describe(name, () => {
      let outcome: Outcome;

      before(async () => {
        outcome = await pair.round(sessions, arrange);
      });

      function judged(judge: (outcome: Outcome) => void): void {
        try {
          judge(outcome);
        } catch (error) {
          throw new Error(`${(error as Error).message}\n${outcome.story}`, { cause: error });
        }
      }

      for (const point of points)
        test(`${point.name}: the session ${point.outcome}`, () =>
          judged(({ met, lost }) => {
            const port = met.get(point) ?? assert.fail("no session came there");
            assert.equal(lost.has(port), point.outcome === "is lost");
          }));

      for (const [each, judge] of Object.entries(more)) test(each, () => judged(judge));

      test("every other session goes on exactly, or is reset and was not called ready", () =>
        judged((seen) => {
          const { reports, lost, takeover, auditBreaches, before: said, after: saidAfter } = seen;
          assert.equal(auditBreaches, 0);
          // A session of which the standby has seen nothing is reset by its kernel, at the peer's next segment.
          if (saidOfAny(seen)) assert.equal(takeover.lost.count, lost.size, "what is lost is said to be lost");
          for (const { localPort, broken } of reports) {
            if (broken !== null) assert.match(broken, reset);
            const readiness = said(localPort).findLast(
              ({ message: { type } }) => type === "ready" || type === "unready",
            );
            if (readiness?.message.type === "ready") assert.ok(!lost.has(localPort), "it was called ready");
            if (saidAfter(localPort).some(({ message }) => message.type === "takeover")) assertResumes(seen, localPort);
          }
        }));
    });
  }

  /** The active's agent had heard of a session from the standby. */
  const saidOfAny = ({ reports, before: said }: Outcome) =>
    reports.some(({ localPort }) => said(localPort).some(({ message }) => message.type === "standbyReady"));
  const allAreLost = (outcome: Outcome) => {
    assert.equal(outcome.lost.size, outcome.reports.length);
    assert.equal(outcome.takeover.sessions, 0);
  };
  const allGoOn = ({ lost, takeover, reports }: Outcome) => {
    assert.equal(lost.size, 0);
    assert.equal(takeover.sessions, reports.length);
  };
  const isActive = ({ message }: Said) => message.type === "role" && message.role === "active";

  failure(
    "while the standby knows of no session",
    [],
    2,
    () => pair.until("the active passes everything by the standby", () => pair.heard(isActive)),
    { "all are lost": allAreLost },
  );

  failure(
    "while sessions are adopted and nothing is proven",
    [],
    2,
    async () => {
      // The adoption's number does not come back, and without it no snapshot is a proof.
      await pair.until("the active passes everything by the standby", () => pair.heard(isActive));
      pair.dropControl(pair.standby);
      await pair.until("the standby has adopted the sessions", async () => {
        const { sessions } = await pair.scene.sessions(pair.standby);
        return sessions.filter(({ reasons }) => reasons.some(({ name }) => name === "awaiting-handover")).length === 2;
      });
    },
    { "all are lost": allAreLost },
  );

  failure("while sessions join", joinPoints, 5, () => pair.stopAt(joinPoints), {});

  failure(
    "in the middle of logged writes and confirms",
    writePoints,
    7,
    async (_, standbyComes) => {
      await standbyComes;
      await pair.scene.untilReady(pair.standby, 7);
      await pair.stopAt(writePoints);
      const port = pair.portAt(undelivered);
      // It goes on logging, while a congestion window that nobody acknowledges holds back what is sent.
      const { logged } = pair.output(port);
      await pair.until("what the peer does not get is recorded", () => pair.output(port).recorded >= logged);
      await delay(settledMs);
    },
    {
      "what was not on the wire was not recorded": ({ met, output }) => {
        const { logged, recorded } = output(met.get(unsent) ?? 0);
        assert.ok(recorded < logged);
      },
      "all go on": allGoOn,
    },
  );

  failure(
    "while the control channel carries nothing",
    [],
    3,
    async (_, standbyComes) => {
      await standbyComes;
      await pair.scene.untilReady(pair.standby, 3);
      pair.dropControl(pair.active);
      await delay(settledMs * 2);
    },
    {
      "confirms and logged writes wait for their answer": ({ reports, before: said }) => {
        for (const { localPort } of reports) {
          const count = (...types: string[]) =>
            said(localPort).filter(({ message }) => types.includes(message.type)).length;
          assert.ok(count("confirm", "log") > count("confirmed", "logged"));
        }
      },
      "all go on": allGoOn,
    },
  );

  failure(
    "while sessions are closed",
    closePoints,
    5,
    async (peers, standbyComes) => {
      await standbyComes;
      await pair.scene.untilReady(pair.standby, 5);
      peers.stop();
      await pair.stopAt(closePoints);
      await delay(settledMs);
    },
    { "none is lost": ({ lost }) => assert.equal(lost.size, 0) },
  );
});
