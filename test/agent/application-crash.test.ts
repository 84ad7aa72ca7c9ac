// An application dies on a healthy active: what becomes of its sessions, by the service's onCrash.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Capture } from "../../src/lab/capture.js";
import { addressPlan, devices, type RouterName } from "../../src/lab/lab.js";
import { labPorts } from "../../src/lab/router-pair.js";
import { type Agent, connectAgent, type Takeover } from "../../src/sdk/index.js";
import type { TakeoverReport } from "../../src/takeover/report.js";
import { DeliveredScene, Program } from "../join/delivered-scene.js";
import { MillScene, millPort } from "../join/mill-scene.js";
import { assertOneVoice, Duo, ends, servicesWith, skip } from "./duo.js";

const { v4, v6 } = addressPlan.service;
const mortal = fileURLToPath(new URL("./mortal-process.js", import.meta.url));

describe("onCrash: takeover", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start();
  });
  after(() => duo?.lab.destroy());

  let active: RouterName = "a";
  let standby: RouterName = "b";

  async function tookOver(): Promise<void> {
    await duo.pair.untilRole(standby, "solo");
    const { cause, lost } = (await duo.pair.status(standby)).lastTakeover as TakeoverReport;
    assert.equal(cause, "An application of the active crashed");
    assert.equal(lost.count, 0);
  }

  /** The survivor is active from now on, protected by a router whose application is back. */
  async function changeRoles(): Promise<void> {
    await duo.pair.startServer(active, true);
    await duo.untilProtected(standby, active);
    [active, standby] = [standby, active];
  }

  for (const signal of ["SIGKILL", "SIGABRT", "SIGSEGV"] as const)
    test(`${signal}: the standby takes over at once, and the peer hears neither FIN nor RST`, async () => {
      const sessions = await duo.openSessions(standby);
      const [voice, wire] = [await duo.captureVoice(), await duo.lab.capture("peer", devices.peer)];
      await delay(300);
      duo.pair.servers[active]?.signal(signal);
      await tookOver();
      await delay(500);
      assert.deepEqual(ends(await wire.stop()), []);
      await sessions.assertExact();
      assertOneVoice(await voice.stop(), duo.mac(active), duo.mac(standby));
      await changeRoles();
    });

  test("process.exit() without close(): as well", async () => {
    const { lab, pair } = duo;
    pair.servers[active]?.signal("SIGTERM"); // nobody is connected
    await pair.servers[active]?.exited.catch(() => {});
    const program = lab.spawn(active, [process.execPath, mortal, "exit", String(labPorts.echo), v4], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    let said = "";
    program.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    await pair.until("the program listens", () => said.includes("listening"));
    const wire = await lab.capture("peer", devices.peer);
    const peer = lab.spawn("peer", [
      "python3",
      "-c",
      `import socket,time\ns=socket.create_connection((${JSON.stringify(v4)},${labPorts.echo}))\ns.send(b'x'*1000)\ntime.sleep(60)`,
    ]);
    await pair.until("the session is ready", async () => (await pair.status(standby)).sessions.ready === 1);
    program.child.stdin?.end();
    await tookOver();
    await delay(500);
    assert.deepEqual(ends(await wire.stop()), []);
    peer.signal("SIGKILL");
    await peer.exited.catch(() => {});
    await changeRoles();
  });

  test("refused by a standby that would lose sessions of another service: nothing is heard, and nothing moves", async () => {
    const { lab, pair } = duo;
    // The standby's application serves both; the other service's session is one that it cannot hold.
    pair.servers[standby]?.signal("SIGKILL");
    await pair.servers[standby]?.exited.catch(() => {});
    const sessions = duo.openUnprotected();
    await pair.until("the sessions are there", async () => (await pair.status(standby)).sessions.total >= 8);
    const wire = await lab.capture("peer", devices.peer);
    await delay(200);
    pair.servers[active]?.signal("SIGKILL");
    await delay(1500);
    assert.equal((await pair.status(active)).role, "active");
    assert.equal((await pair.status(standby)).role, "standby");
    assert.deepEqual(ends(await wire.stop()), []);
    await Promise.race([sessions.finish(), delay(100)]);
  });
});

describe("onCrash: hold", { skip }, () => {
  const [ownPort, catPort, signedPort] = [7100, 7101, 7102];
  const md5Key = "nobody may see this key";
  const holdMs = 6000;
  const total = 8_000_000;
  let scene: DeliveredScene;
  let server: Program;
  const agents: Agent[] = [];

  before(async () => {
    const shared = { addresses: [v4, v6], mode: "delivered", onCrash: "hold", holdMs };
    const cat = { command: ["/bin/cat"], exitZeroMeansClose: true, ...shared };
    scene = DeliveredScene.create(({ directory }) => {
      const keyFile = path.join(directory, "peer.md5");
      writeFileSync(keyFile, `${md5Key}\n`, { mode: 0o600 });
      return [
        { name: "own", port: ownPort, ...shared },
        { name: "cat", port: catPort, ...cat },
        { name: "signed", port: signedPort, md5: [{ peer: addressPlan.peer.v4, keyFile }], ...cat },
      ];
    });
    await scene.startPair();
  });
  after(() => {
    for (const agent of agents) agent.close();
    scene?.destroy();
  });

  /** What is handed over by the agent of a router from now on. */
  async function serve(router: RouterName): Promise<Takeover[]> {
    const taken: Takeover[] = [];
    const agent = connectAgent({ path: path.join(scene.pair.runDirectory(router), "app.sock") });
    agents.push(agent);
    agent.on("session", (session) => session.once("takeover", (takeover) => taken.push(takeover)));
    await agent.register("own", "delivered");
    return taken;
  }

  /** A plain server on router a, and two peers: one sends without an end, one is idle and dies after three seconds in which
   * nobody answers its keepalives. */
  async function open(number: number, flow: string, idle: string): Promise<void> {
    const { lab, peer } = scene;
    server = new Program(lab, "a");
    for (const host of [v4, v6]) await server.ask(`listen("${host}", ${number}, accepted=lambda conn: conn.drain())`);
    const keepalive = [
      "s.setsockopt(1, 9, 1)",
      ...[4, 5].map((option) => `s.setsockopt(6, ${option}, 1)`), // TCP_KEEPIDLE, TCP_KEEPINTVL
      "s.setsockopt(6, 6, 2)", // TCP_KEEPCNT
    ];
    await peer.ask(`connect("${idle}", "${v6}", ${number}, lambda s: [${keepalive.join(", ")}])`);
    await peer.ask(`connect("${flow}", "${v4}", ${number})`);
    await recorded(2);
    await peer.ask(`conns["${flow}"].send(${total}, 50000, 0.01)`);
    await delay(300);
  }

  /** The standby holds so many sessions, and lacks nothing but an application. */
  async function recorded(count: number): Promise<void> {
    await scene.pair.until(`${count} sessions are recorded`, async () => {
      const { total, notReady } = (await scene.pair.status("b")).sessions;
      return total === count && Object.keys(notReady).every((reason) => reason === "no-application");
    });
  }

  /** What `ss` says of the peer's connections to this port. */
  const atPeer = (number: number) => scene.lab.run("peer", ["ss", "-Hotn", "dst", `${v4}:${number}`]);

  async function held(count: number): Promise<void> {
    await scene.pair.until(`${count} sessions are held`, async () => (await scene.pair.status("a")).held === count);
  }

  async function assertQuiet(wire: Capture): Promise<void> {
    assert.deepEqual(ends(await wire.stop()), []);
    for (const router of ["a", "b"] as const)
      assert.equal((await scene.pair.status(router)).recorder.auditBreaches, 0, scene.pair.said());
  }

  /** The rest of the flow, to its end. */
  async function assertRest(taken: Takeover[], flow: string): Promise<void> {
    const takeover = taken.find(({ inputOffset }) => inputOffset > 0);
    assert.ok(takeover);
    const hash = createHash("sha256");
    let received = 0;
    takeover.socket.on("data", (chunk: Buffer) => {
      hash.update(chunk);
      received += chunk.length;
    });
    const rest = total - takeover.inputOffset;
    await scene.pair
      .until("all has come", async () => received >= rest)
      .catch((error: Error) => assert.fail(`${received} of ${rest}. ${error.message}`));
    assert.equal(received, rest);
    assert.equal(hash.digest("hex"), await scene.peer.ask(`digest(${takeover.inputOffset}, ${total})`));
    takeover.socket.write("and the answer");
    await scene.peer.ask(`conns["${flow}"].drain()`);
    await scene.pair.until(
      "the answer is there",
      () => scene.peer.ask(`is_text("${flow}", "and the answer")`) as never,
    );
  }

  test("the peers are answered, and a local application that is back goes on at the next byte", async () => {
    const { lab, pair, peer } = scene;
    await open(ownPort, "flow", "idle");
    const wire = await lab.capture("peer", devices.peer);
    await server.kill();
    await held(2);
    await pair.until("the sender waits for a window", () => /^ESTAB.*timer:\(persist/.test(atPeer(ownPort)));
    await delay(3500);
    assert.match(atPeer(ownPort), /^ESTAB.*timer:\(persist/);
    assert.equal(await peer.ask(`conns["idle"].s.getsockopt(1, 4)`), 0, "SO_ERROR");
    const taken = await serve("a");
    await held(0);
    assert.equal(taken.length, 2);
    await assertRest(taken, "flow");
    assert.deepEqual([(await pair.status("a")).role, (await pair.status("b")).role], ["active", "standby"]);
    await recorded(2);
    await assertQuiet(wire);
    for (const { socket } of taken) socket.destroy();
    await pair.until("they are over", async () => (await pair.status("b")).sessions.total === 0);
    agents.pop()?.close();
  });

  for (const [name, number] of [
    ["cat", catPort],
    ["signed", signedPort],
  ] as const)
    test(`a service with a command needs no other application: ${name}`, async () => {
      const { lab, pair, peer } = scene;
      const signedFor = (other: string) =>
        name === "signed" ? `lambda s: s.setsockopt(6, 14, md5("${other}", b"${md5Key}"))` : "None";
      server = new Program(lab, "a");
      await server.ask(`listen("${v4}", ${number}, ${signedFor(addressPlan.peer.v4)}, Conn.echo)`);
      await peer.ask(`connect("${name}", "${v4}", ${number}, ${signedFor(v4)})`);
      await peer.ask(`conns["${name}"].drain()`);
      await pair.until("it is ready", async () => (await pair.status("b")).sessions.ready === 1);
      await peer.ask(`conns["${name}"].send(1000)`);
      await pair.until("it is echoed", () => peer.ask(`is_text("${name}", (0, 1000))`) as never);
      const wire = await lab.capture("peer", devices.peer);
      // What it had read and not answered would be lost with it.
      await server.kill();
      await peer.ask(`conns["${name}"].send(500000)`);
      await pair
        .until("all is echoed", () => peer.ask(`is_text("${name}", (0, 500000))`) as never)
        .catch(async (error: Error) =>
          assert.fail(
            `${JSON.stringify(await peer.status(name))} ${error.message}\n${lab.run("a", ["ss", "-Htanio"])}\n${atPeer(number)}`,
          ),
        );
      assert.equal((await pair.status("a")).role, "active");
      await assertQuiet(wire);
      await peer.ask(`conns["${name}"].s.shutdown(1)`);
      await pair.until("it is over", async () => (await pair.status("b")).sessions.total === 0);
      assert.ok(!pair.said().includes(md5Key));
    });

  test("at the deadline the standby takes over what nobody has come for", async () => {
    const { lab, pair } = scene;
    const taken = await serve("b");
    await open(ownPort, "late", "quiet");
    const wire = await lab.capture("peer", devices.peer);
    await server.kill();
    await held(2);
    await delay(holdMs / 2);
    assert.equal((await pair.status("a")).role, "active");
    await pair.untilRole("b", "solo");
    assert.equal((await pair.status("a")).held, 0);
    await pair.until("they are handed over", () => taken.length === 2);
    await assertRest(taken, "late");
    await assertQuiet(wire);
  });
});

test("onCrash: hold, mode confirmed: it dies and is back again and again in mid-answer, and the standby has all of it still", {
  skip,
}, async () => {
  const services = [{ name: "mill", addresses: [v4, v6], port: millPort, mode: "confirmed", onCrash: "hold" }];
  const scene = MillScene.create(11, {}, { services });
  const count = 20;
  const held = async () => (await scene.pair.status("a")).held;
  try {
    for (const router of ["a", "b"] as const) await scene.startRouter(router);
    await scene.untilProtected("a");
    const peers = await scene.peers(count, 30);
    for (let round = 0; round < 3; round++) {
      await scene.untilReady("b", count);
      await delay(300);
      // Answers are on their way, and what is restored asks its peer about them first.
      scene.lab.impair("to-peer", { loss: 1 });
      await delay(50);
      scene.servers.a?.signal("SIGKILL");
      await delay(150);
      scene.lab.impair("to-peer", {});
      await scene.pair.until("they are held", async () => (await held()) === count);
      await scene.startServer("a");
      await scene.pair.until("they are given back", async () => (await held()) === 0);
    }
    await scene.untilReady("b", count);
    await delay(300);
    await scene.failOver("a");
    await peers.assertExact(scene);
  } finally {
    scene.destroy();
  }
});

describe("onCrash: hold, mode live", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start({}, servicesWith({ onCrash: "hold", holdMs: 1500 }));
  });
  after(() => duo?.lab.destroy());

  test("the sessions are held until the deadline, and go on at the standby then", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const wire = await lab.capture("peer", devices.peer);
    await delay(200);
    pair.servers.a?.signal("SIGKILL");
    await delay(800);
    assert.equal((await pair.status("a")).role, "active");
    await pair.untilRole("b", "solo");
    await delay(500);
    assert.deepEqual(ends(await wire.stop()), []);
    await sessions.assertExact();
  });
});

describe("onCrash: close", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start({}, servicesWith({ onCrash: "close" }));
  });
  after(() => duo?.lab.destroy());

  test("the peer hears the end of every session, and the roles stay", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const wire = await lab.capture("peer", devices.peer);
    await delay(200);
    pair.servers.a?.signal("SIGKILL");
    const reports = await Promise.race([sessions.finish(), delay(5000).then(() => [])]);
    assert.equal(reports.length, 8);
    assert.equal(new Set(ends(await wire.stop()).map((end) => end.split(" ")[0])).size, 2, "of both families");
    await pair.until("the standby has heard of it", async () => (await pair.status("b")).sessions.total === 0);
    assert.deepEqual([(await pair.status("a")).role, (await pair.status("b")).role], ["active", "standby"]);
  });
});

describe("exitZeroMeansClose", { skip }, () => {
  let duo: Duo;
  before(async () => {
    duo = await Duo.start({}, servicesWith({ exitZeroMeansClose: true }));
    duo.pair.servers.a?.signal("SIGTERM");
    await duo.pair.servers.a?.exited.catch(() => {});
  });
  after(() => duo?.lab.destroy());

  test("a program that exits with code 0 has meant its FIN", async () => {
    const { lab, pair } = duo;
    const serve = `import os,socket,sys\ns=socket.create_server((${JSON.stringify(v4)},${labPorts.echo}))\nprint('listening',flush=True)\nc,_=s.accept()\nsys.stdin.read()\nos._exit(0)\n`;
    const program = lab.spawn("a", ["python3", "-c", serve], { stdio: ["pipe", "pipe", "inherit"] });
    let said = "";
    program.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    await pair.until("the program listens", () => said.includes("listening"));
    const wire = await lab.capture("peer", devices.peer);
    const peer = lab.spawn("peer", [
      "python3",
      "-c",
      `import socket\ns=socket.create_connection((${JSON.stringify(v4)},${labPorts.echo}))\nassert s.recv(1)==b''`,
    ]);
    await pair.until("the session is ready", async () => (await pair.status("b")).sessions.ready === 1);
    program.child.stdin?.end();
    assert.equal((await peer.exited).code, 0);
    assert.deepEqual([...new Set(ends(await wire.stop()))], [`${v4} FIN`]);
    assert.equal((await pair.status("a")).role, "active");
  });
});
