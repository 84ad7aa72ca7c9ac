// Output that the mirror link lost when the active died, of programs that nobody can ask for it again: a delivered session
// goes on when its peer has nothing beyond the gap, and is ended, by name, when it has. A switchover waits for it.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { exitCodes, TandemError } from "../../src/errors.js";
import { ImpairUnavailable } from "../../src/lab/impair.js";
import { historyCommand, sessionsCommand, switchoverCommand } from "../../src/observe/commands.js";
import { ask } from "../../src/observe/operator.js";
import { DeliveredScene, Program, skip, v4, v6 } from "./delivered-scene.js";

const port = 7300;
/** Segments with data; acknowledgements, heartbeats and most of what the agents say to each other are spared. */
const data = { onlyTcp: true, onlyLong: true };

for (const [what, host, holds] of [
  ["the peer holds what came after the gap", v4, true],
  ["the peer has nothing of what came after the gap", v6, false],
] as const)
  describe(`a gap in the recorded output: ${what}`, { skip }, () => {
    let scene: DeliveredScene;
    let server: Program;
    let local = 0;
    let unavailable: string | null = null;
    const socketOf = (router: "a" | "b"): string => path.join(scene.pair.runDirectory(router), "agent.sock");
    const received = async (): Promise<number> => (await scene.peer.status("talk")).received;

    before(async () => {
      scene = DeliveredScene.create((lab) => [DeliveredScene.service(lab, "plain", port)], { mirror: "switch" });
      await scene.startPair();
      server = new Program(scene.lab, "a");
      await server.ask(`listen("${host}", ${port})`);
      local = await scene.peer.number(`connect("talk", "${host}", ${port})`);
      await scene.peer.ask(`conns["talk"].drain()`);
      await scene.pair.until("it is accepted", async () => (await server.ask(`"${local}" in conns`)) === true);
      await server.ask(`conns["${local}"].send(20000)`);
      await scene.pair.until("it has begun", async () => (await received()) === 20_000);
      await scene.untilReady(1);
      try {
        // Half of it is lost on its way to the standby; where the peer is to have nothing, all of it on its way back.
        if (!holds) scene.lab.impair("mirror-to-a", { ...data, loss: 1 });
        scene.lab.impair("mirror-to-b", { ...data, loss: 0.5, seed: 7n });
      } catch (error) {
        if (!(error instanceof ImpairUnavailable)) throw error;
        unavailable = error.message;
        return;
      }
      await server.ask(`conns["${local}"].send(4000000)`);
      const [ours] = (await ask(socketOf("b"), sessionsCommand, {})).sessions;
      const begun = ours?.output.recorded ?? 0;
      await scene.pair.until("there is more", async () => {
        const [session] = (await ask(socketOf("b"), sessionsCommand, {})).sessions;
        return !holds || (session?.output.recorded ?? 0) > begun;
      });
      await delay(100);
      // What is missing now stays missing.
      scene.lab.impair("mirror-to-b", { ...data, loss: 1 });
      await delay(50);
    });
    after(() => scene?.destroy());

    test("a switchover would lose the session: refused, and said why", async (t) => {
      if (unavailable !== null) return t.skip(unavailable);
      // At the standby: what the routers say to each other about it may be as long as data.
      await assert.rejects(ask(socketOf("b"), switchoverCommand, {}), (error) => {
        assert.ok(error instanceof TandemError);
        assert.equal(error.exitCode, exitCodes.refused);
        assert.match(error.message, /keeps losing output, and 1 delivered sessions lack some of it/);
        return true;
      });
      assert.equal((await scene.pair.status("a")).role, "active");
    });

    test(
      holds ? "the session is ended, and no wrong byte came" : "the session goes on with the right bytes",
      async (t) => {
        if (unavailable !== null) return t.skip(unavailable);
        await scene.failOver();
        const { peer, pair } = scene;
        if (!holds) {
          const { environment } = await scene.resumed(local);
          const output = Number(environment.TANDEM_OUTPUT_OFFSET);
          assert.ok(output >= 20_000 && output < 4_000_000, `${output}`);
          await peer.ask(`conns["talk"].send(300000)`);
          const right = `is_text("talk", (0, ${output}), (0, 300000))`;
          await pair.until("all of it came back", async () => (await peer.ask(right)) === true);
          assert.equal((await peer.status("talk")).error, null);
          return;
        }
        await pair.until("the peer was told", async () => (await peer.status("talk")).error !== null);
        assert.match((await peer.status("talk")).error ?? "", /ConnectionReset/);
        assert.equal(await peer.ask(`is_text("talk", (0, ${await received()}))`), true);
        const { entries } = await ask(socketOf("b"), historyCommand, { limit: 20 });
        assert.ok(
          entries.some(
            ({ sentence }) =>
              sentence === `The session of plain with 10.77.0.10 port ${local} is lost, too (output-gap).`,
          ),
          JSON.stringify(entries),
        );
      },
    );
  });
