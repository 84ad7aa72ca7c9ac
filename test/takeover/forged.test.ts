// Segments that a TCP rejects: the recorder must not believe them either. Sessions go on byte-exact before and after a
// kill, or are not ready and say why.

import assert from "node:assert/strict";
import test, { after, before, describe } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ImpairUnavailable } from "../../src/lab/impair.js";
import { echo4, echo6, Scene, skip } from "./scene.js";

const FIN = 1;
const SYN = 2;
const RST = 4;
const PSH = 8;
const ACK = 16;

describe("forged and damaged segments", { skip }, () => {
  let scene: Scene;
  const names: string[] = [];
  const damaged = ["damaged4", "damaged6"];

  /** Sessions are many: each takes the attack at another place. */
  async function session(name: string): Promise<string> {
    names.push(name);
    await scene.peer.open(name, echo4);
    await scene.peer.exchange([name], 10_000);
    return name;
  }

  before(async () => {
    scene = await Scene.start();
  });
  after(() => scene?.destroy());

  test("a wrong checksum: data that would be next, a reset, a FIN, an acknowledgement", async () => {
    const { peer } = scene;
    const name = await session("checksum");
    for (const forgery of [
      { flags: ACK | PSH, length: 500, fill: 0xee },
      { flags: RST | ACK },
      { flags: FIN | ACK },
      { flags: ACK, ack: 5000 },
      { flags: SYN },
    ])
      await peer.forge(name, { ...forgery, corrupt: true });
    await peer.exchange([name], 30_000);
    // The recorder tells how far it is every few milliseconds.
    let seen = 0;
    await scene.pair
      .until("all five are counted", async () => {
        seen = (await scene.pair.status("b")).recorder.badChecksums;
        return seen >= 5;
      })
      .catch((error: unknown) => assert.fail(`${seen} of 5 seen: ${String(error)}`));
  });

  test("blind resets: inside the window and outside", async () => {
    const { peer } = scene;
    const name = await session("reset");
    for (const seq of [1, 500, 20_000, -1, -5000, 2 ** 30, -(2 ** 30)]) {
      await peer.forge(name, { flags: RST, seq });
      await peer.forge(name, { flags: RST | ACK, seq });
    }
    await peer.exchange([name], 30_000);
  });

  test("a SYN inside the window", async () => {
    const { peer } = scene;
    const name = await session("syn");
    for (const seq of [0, 100, -100]) {
      await peer.forge(name, { flags: SYN, seq });
      await peer.forge(name, { flags: SYN | ACK, seq });
    }
    await peer.exchange([name], 30_000);
  });

  test("data outside the window, or with an impossible acknowledgement", async () => {
    const { peer } = scene;
    const name = await session("outside");
    const data = { flags: ACK | PSH, length: 700, fill: 0xee };
    await peer.forge(name, { ...data, seq: 2 ** 29 });
    await peer.forge(name, { ...data, seq: -(2 ** 29) });
    await peer.forge(name, { ...data, seq: -700 }); // what was delivered long ago, in other words
    await peer.forge(name, { ...data, ack: 100_000 });
    await peer.forge(name, { ...data, ack: -(2 ** 30) });
    await peer.forge(name, { ...data, flags: PSH });
    await peer.exchange([name], 30_000);
  });

  test("an end outside the window, or that acknowledges what was never sent", async () => {
    const { peer } = scene;
    const name = await session("end");
    await peer.forge(name, { flags: FIN | ACK, seq: 2 ** 29 });
    await peer.forge(name, { flags: FIN | ACK, seq: -10 });
    await peer.forge(name, { flags: FIN | ACK, ack: 70_000 });
    await peer.exchange([name], 30_000);
  });

  test("damage on the wire", async (context) => {
    const { lab, peer } = scene;
    try {
      lab.impair("lan", { corrupt: 0.02, onlyTcp: true });
    } catch (error) {
      if (!(error instanceof ImpairUnavailable)) throw error;
      context.skip(error.message);
      return;
    }
    await peer.open("damaged4", echo4);
    await peer.open("damaged6", echo6);
    names.push(...damaged);
    await peer.exchange(damaged, 2_000_000);
    assert.ok(lab.impaired("lan").corrupted > 0);
  });

  test("all of them are ready, are taken over while frames are damaged, and go on", async () => {
    const { peer } = scene;
    await scene.untilReady(names.length);
    const running = names.filter((name) => damaged.includes(name));
    for (const name of running) await peer.change(name, { sendTo: 2_000_000_000 });
    await delay(300);
    await scene.failOver();
    for (const name of running) await peer.change(name, { sendTo: 0 });
    for (const name of names) await peer.conclude([name], (await peer.session(name)).sent + 100_000);
    await scene.assertSilence();
  });
});

describe("forged data inside the window", { skip }, () => {
  let scene: Scene;
  before(async () => {
    scene = await Scene.start();
    const { peer } = scene;
    for (const name of ["overtaken", "covered", "pending"]) await peer.open(name, echo4);
    await peer.exchange(["overtaken", "covered", "pending"], 10_000);
  });
  after(() => scene?.destroy());

  /** Beyond what is next, so that the peer's own bytes are first. */
  const early = { flags: ACK | PSH, length: 300, fill: 0xee, seq: 200 };

  test("the peer's own bytes cover it: ambiguous, and never what was forged", async () => {
    const { peer, pair } = scene;
    await peer.forge("covered", early);
    await peer.exchange(["covered"], 11_000); // one segment, from before the forged bytes to after them
    await pair.until("the standby says so", async () => {
      const { sessions } = await pair.status("b");
      return sessions.notReady["ambiguous-input"] === 1 && sessions.ready === 2;
    });
    await peer.exchange(["covered"], 100_000);
  });

  test("forged bytes that nothing has covered at the kill", async () => {
    const { peer, pair } = scene;
    await peer.forge("pending", early);
    await delay(100);
    const { sessions } = await pair.status("b");
    assert.equal(sessions.ready, 2, JSON.stringify(sessions));
    scene.lab.kill("a");
    await pair.untilRole("b", "solo");
    await peer.change("pending", { sendTo: 11_000 });
    await peer.until("all came back", ["pending"], ({ received }) => received === 11_000);
    await peer.conclude(["pending", "overtaken"], 60_000);
  });

  test("the ambiguous session is reset rather than continued wrongly", async () => {
    const { peer } = scene;
    await scene.pair.until("it is reset", async () => (await peer.session("covered")).error !== null);
    const { wrong, error, received } = await peer.session("covered");
    assert.deepEqual({ wrong, error, received }, { wrong: -1, error: "Connection reset by peer", received: 100_000 });
  });
});
