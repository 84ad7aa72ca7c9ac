// An application that dies is not heard by its peer: no FIN, no RST. What it means, a close, is.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Capture } from "../../src/lab/capture.js";
import { addressPlan, devices } from "../../src/lab/lab.js";
import { labPorts } from "../../src/lab/router-pair.js";
import { Duo, ends, servicesWith, skip } from "./duo.js";

const { v4, v6 } = addressPlan.service;
const mortal = fileURLToPath(new URL("./mortal-process.js", import.meta.url));

describe("an application that dies on the active", { skip }, () => {
  let duo: Duo;
  before(async () => {
    // Looked at at leisure; what follows by itself is application-crash.test.ts.
    duo = await Duo.start({}, servicesWith({ onCrash: "hold", holdMs: 3_600_000 }));
    duo.pair.servers.a?.signal("SIGTERM");
    await duo.pair.servers.a?.exited;
  });
  after(() => duo?.lab.destroy());

  async function silenced(): Promise<number> {
    return (await duo.pair.status("a")).packets.TD_DROP_CRASHED ?? 0;
  }

  /** The mortal program serves the echo port on router a: one connection of each family, and then it ends `how`. */
  async function dies(how: string): Promise<string[]> {
    const { lab, pair } = duo;
    const server = lab.spawn("a", [process.execPath, mortal, how, String(labPorts.echo), v4, v6], {
      stdio: ["pipe", "pipe", "ignore"], // abort() writes its trace there
    });
    let said = "";
    server.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    await pair.until("the program listens", () => said.includes("listening"));
    const silencedBefore = await silenced();
    const capture: Capture = await lab.capture("peer", devices.peer);
    // The peer sends 100,000 bytes, and keeps its side open without reading.
    const peers = [v4, v6].map((host) =>
      lab.spawn("peer", [
        "python3",
        "-c",
        "import socket,sys,time\n" +
          `s=socket.create_connection((${JSON.stringify(host)},${labPorts.echo}))\n` +
          "s.setblocking(False)\n" +
          "try: s.send(b'x'*100000)\nexcept BlockingIOError: pass\n" +
          "time.sleep(60)",
      ]),
    );
    await pair.until("both sessions are open", () => said.split("open").length === 3);
    await delay(300);
    if (how === "killed") server.signal("SIGKILL");
    else server.child.stdin?.end();
    await server.exited.catch(() => {});
    await delay(1200); // past the first retransmissions of what a dead socket had queued
    const summary = await capture.stop();
    if (how !== "close") assert.ok((await silenced()) > silencedBefore, "the kernel did send, and was silenced");
    for (const peer of peers) {
      peer.signal("SIGKILL");
      await peer.exited;
    }
    return ends(summary);
  }

  for (const how of ["killed", "unread", "unsent", "exit"] as const)
    test(`${how}: nothing is heard`, async () => {
      assert.deepEqual(await dies(how), []);
    });

  test("a close that it meant is heard", async () => {
    const heard = await dies("close");
    assert.deepEqual([...new Set(heard)].sort(), [`${v4} FIN`, `${v6} FIN`]);
  });

  test("sessions whose application was killed live on when the standby takes over", async () => {
    const { lab, pair } = duo;
    await pair.startServer("a", true);
    const sessions = await duo.openSessions("b", 8);
    const capture = await lab.capture("peer", devices.peer);
    await delay(300);
    pair.servers.a?.signal("SIGKILL");
    await delay(300);
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(300);
    assert.deepEqual(ends(await capture.stop()), []);
    await sessions.assertExact();
  });
});
