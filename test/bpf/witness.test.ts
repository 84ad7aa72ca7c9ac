// Every way for an application to end a connection, on a real kernel: the witness takes the right verdict, and the
// peer hears of it exactly when it was meant.

import assert from "node:assert/strict";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import * as abi from "../../src/abi.gen.js";
import { addressPlan, type Lab } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { build, port } from "./pair.js";
import { needsRoot } from "./rig.js";
import type { EventSeen } from "./router-process.js";

const host = addressPlan.service.v4;
const here = path.dirname(fileURLToPath(import.meta.url));
const meantFin = abi.TD_VERDICT_FIN_MEANT;
const crashFin = abi.TD_VERDICT_FIN_CRASH;
const meantRst = abi.TD_VERDICT_RST_MEANT;
const crashRst = abi.TD_VERDICT_RST_CRASH;

interface Way {
  way: string;
  signal?: NodeJS.Signals;
  /** What the peer does beside connecting. */
  peer?: "sends" | "reads nothing" | "ends" | "resets";
  verdicts: number;
  /** What the peer hears: the end of the stream, a reset, or nothing. */
  heard: "end" | "ECONNRESET" | "nothing";
}

const ways: Way[] = [
  { way: "close", verdicts: meantFin, heard: "end" },
  { way: "close with unread data", peer: "sends", verdicts: meantRst, heard: "ECONNRESET" },
  { way: "shutdown, then close", verdicts: meantFin, heard: "end" },
  { way: "reset", verdicts: meantRst, heard: "ECONNRESET" },
  { way: "close after the peer", peer: "ends", verdicts: meantFin, heard: "end" },
  { way: "exit 0 without close", verdicts: crashFin, heard: "nothing" },
  { way: "exit 1 without close", verdicts: crashFin, heard: "nothing" },
  { way: "abort", verdicts: crashFin, heard: "nothing" },
  { way: "killed", signal: "SIGKILL", verdicts: crashFin, heard: "nothing" },
  { way: "killed by SIGTERM", signal: "SIGTERM", verdicts: crashFin, heard: "nothing" },
  { way: "killed with unread data", signal: "SIGKILL", peer: "sends", verdicts: crashRst, heard: "nothing" },
  {
    way: "killed with data for a closed window",
    signal: "SIGKILL",
    peer: "reads nothing",
    verdicts: crashFin,
    heard: "nothing",
  },
  {
    way: "killed after shutdown, with unread data",
    signal: "SIGKILL",
    peer: "sends",
    verdicts: meantFin | crashRst,
    heard: "end",
  },
  { way: "killed with an unaccepted connection", signal: "SIGKILL", verdicts: crashRst, heard: "nothing" },
  { way: "stays, and the peer resets", peer: "resets", verdicts: 0, heard: "nothing" },
];

/** The peer's end. Prints what it hears, a word a line. */
const peerProgram = `
  const [host, port, localPort, act] = process.argv.slice(1);
  const socket = require("net").connect({ host, port: +port, localPort: +localPort, allowHalfOpen: true });
  socket.on("connect", () => {
    console.log("connected");
    if (act === "sends") socket.write("unread");
    if (act === "ends") setTimeout(() => socket.end(), 50);
    if (act === "resets") setTimeout(() => socket.resetAndDestroy(), 50);
  });
  socket.on("error", (error) => console.log(error.code));
  socket.on("end", () => console.log("end"));
  if (act !== "reads nothing") socket.resume();
  setInterval(() => {}, 1000);
`;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let waited = 0; !(await condition()); waited += 10) {
    if (waited > 5_000) throw new Error(`waited in vain until ${what}`);
    await pause(10);
  }
}

/** A server on router a that ends in this way. */
async function serve(t: TestContext, lab: Lab, way: string): Promise<LabProcess> {
  const argv = [path.join(here, "dying-process.js"), way, host, String(port)];
  const server = lab.spawn("a", [process.execPath, ...argv]);
  t.after(() => server.signal("SIGKILL"));
  await until("the server listens", () => server.stdout().includes("listening"));
  return server;
}

function connect(t: TestContext, lab: Lab, localPort: number, act: string): LabProcess {
  const argv = ["-e", peerProgram, "--", host, String(port), String(localPort), act];
  const client = lab.spawn("peer", [process.execPath, ...argv]);
  t.after(() => client.signal("SIGKILL"));
  return client;
}

test("crash or meant close", { skip: needsRoot, timeout: 200_000 }, async (t) => {
  const { lab, active } = await build(t);
  await active.ask("gate solo");
  let peerPort = 50_000;
  for (const { way, signal, peer = "", verdicts, heard } of ways) {
    await t.test(way, async (t) => {
      peerPort++;
      await active.ask("events");
      const server = await serve(t, lab, way);
      const client = connect(t, lab, peerPort, peer);
      await until("the peer is connected", () => client.stdout().includes("connected"));
      if (way !== "killed with an unaccepted connection")
        await until("the server is connected", () => server.stdout().includes("connected"));
      if (signal) {
        await pause(100); // the data is on its way
        server.signal(signal);
      }
      const told: EventSeen[] = [];
      const listen = async (): Promise<void> => {
        told.push(...(await active.ask<EventSeen[]>("events")).filter((event) => event.peerPort === peerPort));
      };
      const verdict = (): Promise<number> => active.ask<number>(`verdict ${peerPort}`);
      await until("the verdict is there", async () => {
        await listen();
        return verdicts === 0 ? told.length > 0 : (await verdict()) === verdicts;
      });
      await pause(250); // for a retransmission, and for what should not come
      await listen();
      assert.equal(await verdict(), verdicts);
      const crashed = (verdicts & (crashFin | crashRst)) !== 0;
      assert.equal(
        told.some((event) => event.crashed),
        crashed,
        "an event says crashed",
      );
      const said = client
        .stdout()
        .split("\n")
        .slice(1)
        .filter((word) => word !== "");
      assert.deepEqual(said, heard === "nothing" ? [] : [heard]);
    });
  }
  const counters = await active.ask("counters");
  assert.ok(counters.DROP_CRASHED! > 0, "what the crashes would have said was dropped");
});

test("a connection that begins when its service has just crashed waits until somebody listens again", {
  skip: needsRoot,
  timeout: 60_000,
}, async (t) => {
  const { lab, active } = await build(t);
  await active.ask("gate solo");
  const before = connect(t, lab, 51_000, "");
  await until("nobody listens at first, and says so", () => before.stdout().includes("ECONNREFUSED"));
  const server = await serve(t, lab, "killed");
  server.signal("SIGKILL"); // without a session
  await server.exited;
  const client = connect(t, lab, 51_001, "");
  await pause(500);
  assert.equal(client.stdout(), "");
  const next = await serve(t, lab, "killed");
  await until("its second SYN is answered", () => client.stdout() !== "");
  assert.equal(client.stdout(), "connected\n");
  next.signal("SIGKILL");
});

test("an exit when both directions have ended is no crash, though our FIN is not acknowledged yet", {
  skip: needsRoot,
  timeout: 60_000,
}, async (t) => {
  const { lab, active } = await build(t);
  await active.ask("gate solo");
  const peerPort = 50_900;
  const server = await serve(t, lab, "exit after the peer and a shutdown");
  const filter = `chain in { type filter hook input priority 0; tcp dport ${peerPort} tcp flags & fin == fin drop; }`;
  lab.run("peer", ["nft", `add table inet deaf { ${filter}; }`]);
  const client = connect(t, lab, peerPort, "ends");
  await server.exited;
  await pause(100);
  assert.equal(await active.ask<number>(`verdict ${peerPort}`), meantFin);
  const told = (await active.ask<EventSeen[]>("events")).filter((event) => event.peerPort === peerPort);
  assert.deepEqual(
    told.filter(({ crashed }) => crashed),
    [],
  );
  lab.run("peer", ["nft", "delete table inet deaf"]);
  await until("the peer hears the end", () => client.stdout().includes("end"));
});

test("the agent holds the socket of an application", { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const { lab, active } = await build(t);
  await active.ask("gate solo");
  let peerPort = 51_000;
  for (const { what, signal, way, verdicts, heard } of [
    { what: "that dies", signal: "SIGKILL", way: "killed", verdicts: crashFin, heard: [] },
    { what: "that exits", way: "exit 0 without close", verdicts: crashFin, heard: [] },
    {
      what: "that dies with unread data",
      signal: "SIGKILL",
      way: "killed with unread data",
      verdicts: crashRst,
      heard: [],
    },
    { what: "that closes it", way: "close", verdicts: meantFin, heard: ["end"] },
    { what: "that shuts it down", way: "shutdown, then close", verdicts: meantFin, heard: ["end"] },
  ] as const)
    await t.test(what, async (t) => {
      peerPort++;
      const server = await serve(t, lab, way);
      const client = connect(t, lab, peerPort, way === "killed with unread data" ? "sends" : "");
      await until("the server is connected", () => server.stdout().includes("connected"));
      const held = active.ask("borrow 400");
      await pause(100);
      if (signal) server.signal(signal);
      assert.equal(await held, true);
      await pause(250);
      assert.equal(await active.ask(`verdict ${peerPort}`), verdicts);
      const said = client.stdout().split("\n").slice(1);
      assert.deepEqual(
        said.filter((word) => word !== ""),
        heard,
      );
      server.signal("SIGKILL");
      client.signal("SIGKILL");
      await Promise.all([server.exited, client.exited]);
    });
});

test("how far the application has read is reported", { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const { lab, active } = await build(t);
  await active.ask("gate solo");
  const reader = `require("net").createServer((s) => s.resume()).listen(${port}, "${host}", () => console.log("listening"))`;
  const server = lab.spawn("a", [process.execPath, "-e", reader]);
  await until("the server listens", () => server.stdout().includes("listening"));
  const writer = `const s = require("net").connect({ host: "${host}", port: ${port}, localPort: 50999, noDelay: true });
    process.stdin.on("data", (text) => { for (const bytes of String(text).trim().split(" ")) s.write("x".repeat(+bytes)); });`;
  const client = lab.spawn("peer", [process.execPath, "-e", writer], { stdio: ["pipe", "pipe", "pipe"] });
  const read = async (): Promise<number[]> => {
    const seen = await active.ask<{ peerPort: number; copiedSeq: number }[]>("read");
    return seen.filter(({ peerPort }) => peerPort === 50_999).map(({ copiedSeq }) => copiedSeq);
  };
  client.child.stdin?.write("100\n");
  const told: number[] = [];
  await until("the first read is told", async () => told.push(...(await read())) > 0);
  const [first] = told;
  assert.deepEqual(await read(), [], "what is told is told once");
  // However fast reads follow each other, the last one is told, and only that.
  client.child.stdin?.write("1 20 300 4000\n");
  await pause(500);
  const [last, ...more] = await read();
  assert.equal((last! - first!) >>> 0, 4321);
  assert.deepEqual(more, []);
});
