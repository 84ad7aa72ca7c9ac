// The examples of the confirmed mode as a user starts them: the SDK's and, written from docs/protocol.md alone, Python's.
// Each must do the same on both sides, against a real agent socket.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { OfferedTakeover } from "../../src/app/server.js";
import { collect, TestAgent, tcpPair } from "./agent.js";

function root(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "package.json"))) directory = path.dirname(directory);
  return directory;
}

class Program {
  said = "";
  readonly #child: ChildProcess;

  constructor(command: string[], agentPath: string) {
    const [program = "", ...rest] = [...command, "--socket", agentPath, "--listen", "127.0.0.1:0"];
    this.#child = spawn(program, rest, { cwd: root(), env: { ...process.env, PYTHONDONTWRITEBYTECODE: "1" } });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.said += text;
      });
  }

  async says(pattern: RegExp): Promise<RegExpExecArray> {
    for (let round = 0; round < 1000; round++) {
      const match = pattern.exec(this.said);
      if (match !== null) return match;
      await delay(10);
    }
    throw new Error(`${pattern} was not said, but: ${this.said}`);
  }

  /** A peer of the program's listener, and what it has heard so far. */
  async connect(): Promise<{ peer: net.Socket; heard: () => string }> {
    const port = Number((await this.says(/listening on 127.0.0.1:(\d+)/))[1]);
    const peer = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    let heard = "";
    peer.setEncoding("utf8").on("data", (text: string) => {
      heard += text;
    });
    await once(peer, "connect");
    return { peer, heard: () => heard };
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

async function until(condition: () => boolean, program: Program): Promise<void> {
  for (let round = 0; round < 1000 && !condition(); round++) await delay(10);
  assert.ok(condition(), program.said);
}

const programs: Record<string, string[]> = {
  "examples/ledger.mjs": [process.execPath, "examples/ledger.mjs"],
  "examples/ledger.py": ["python3", "examples/ledger.py"],
};

for (const [name, command] of Object.entries(programs)) {
  test(`${name}, active: hands over, confirms each answer before it leaves, ends with a meant FIN`, async (t) => {
    if (!existsSync(path.join(root(), "build/js/src/sdk/index.js"))) return t.skip("not built (make build)");
    const agent = new TestAgent();
    const program = new Program(command, agent.path);
    try {
      await program.says(/^registered for ledger/m);
      assert.equal(agent.registered[0]?.mode, "confirmed");
      const { peer, heard } = await program.connect();
      const { id, request } = await agent.hears("protect");
      assert.deepEqual([request.service, request.base], ["ledger", { input: 0, output: 0 }]);
      peer.write("5\n7\n1");
      await until(() => heard() === "1 5\n2 12\n", program); // no standby: nobody to wait for
      agent.server.standbyReady(id, 6);
      const { handover } = await agent.hears("handover");
      assert.deepEqual(
        [handover.inputOffset, String(handover.state), String(handover.input), handover.outputOffset],
        [4, "2 12", "1", 9],
      );
      assert.deepEqual([handover.outputStart, String(handover.output)], [6, "12\n"]);
      agent.server.ready(id);
      await delay(50);
      agent.stores = null;
      peer.write("0\n-2\n");
      const { confirm } = await agent.hears("confirm");
      assert.deepEqual(
        [confirm.inputOffset, confirm.outputOffset, String(confirm.state), String(confirm.output)],
        [10, 19, "4 20", "3 22\n4 20\n"],
      );
      await delay(50);
      assert.equal(heard(), "1 5\n2 12\n", "not before it is on the standby");
      peer.end();
      await delay(50);
      agent.stores = true;
      for (const answer of agent.unanswered.splice(0)) answer(true);
      await until(() => heard() === "1 5\n2 12\n3 22\n4 20\n", program);
      const release = await agent.hears("release");
      assert.deepEqual([release.id, release.how], [id, "close"]);
      if (!peer.readableEnded) await once(peer, "end");
    } finally {
      program.kill();
      agent.close();
    }
  });

  test(`${name}, standby: goes on from the state, repeats nothing, is protected again, also when the agent is back`, async (t) => {
    if (!existsSync(path.join(root(), "build/js/src/sdk/index.js"))) return t.skip("not built (make build)");
    const agent = new TestAgent();
    const program = new Program(command, agent.path);
    try {
      await program.says(/^registered for ledger/m);
      const id = agent.offer("ledger", "confirmed", { joined: true });
      const { peer, fd } = await tcpPair();
      const takeover: OfferedTakeover = {
        inputOffset: 4,
        outputOffset: 14,
        confirmed: { inputOffset: 4, outputOffset: 9 },
        base: { input: 4, output: 11 },
        clean: null,
        state: Buffer.from("2 12"),
        outputSinceConfirm: Buffer.from("3 22\n"),
      };
      assert.ok(agent.server.takeover(id, takeover, fd));
      await program.says(/taken over: input 4, state "2 12"/);
      const again = await agent.hears("protect");
      assert.deepEqual(again.request.base, { input: 4, output: 11 });
      const received = collect(peer);
      peer.write("10\n-2\n5\n");
      await delay(50);
      // The other router is back, and another agent with it.
      agent.server.close();
      const back = new TestAgent({ path: agent.path });
      const { id: newId, request } = await back.hears("protect");
      assert.deepEqual(request.base, { input: 4, output: 11 });
      back.server.standbyReady(newId, 24);
      const { handover } = await back.hears("handover");
      assert.deepEqual(
        [handover.inputOffset, handover.outputOffset, String(handover.state)],
        [12, 24, "5 25"],
        program.said,
      );
      back.server.ready(newId);
      peer.end("7\n");
      const { confirm } = await back.hears("confirm");
      assert.deepEqual([confirm.inputOffset, String(confirm.state)], [14, "6 32"]);
      assert.equal(String(await received), "4 20\n5 25\n6 32\n");
      back.close();
    } finally {
      program.kill();
      agent.close();
    }
  });
}
