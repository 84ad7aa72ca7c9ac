// Sessions in every state that a kill can find them in: one lab, one kill, and each goes on byte-exact.

import assert from "node:assert/strict";
import test, { after, before, describe } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { addressPlan } from "../../src/lab/lab.js";
import { echo4, echo6, halves4, halvesBytes, ports, Scene, skip, sleeper4, sleeper6 } from "./scene.js";

const both = [
  { family: "IPv4", echo: echo4, sleeper: sleeper4, suffix: "4" },
  { family: "IPv6", echo: echo6, sleeper: sleeper6, suffix: "6" },
] as const;
/** Enough to fill every buffer between two applications that do not read. */
const flood = 12_000_000;
const wrapAt = (bytes: number): number => 2 ** 32 - 1 - bytes; // the SYN takes one

describe("a kill finds sessions in every state", { skip }, () => {
  let scene: Scene;
  let wrapDistance = 0;
  const bothNames = (name: string): string[] => both.map(({ suffix }) => name + suffix);

  before(async () => {
    scene = await Scene.start();
    const { peer } = scene;

    // Sequence numbers wrap.
    await peer.open("in-wrapped", { ...echo4, isn: wrapAt(100_000) });
    await peer.open("in-wraps-later", { ...echo4, isn: wrapAt(300_000) });
    await peer.open("in-wraps-at-kill", { ...echo4, isn: wrapAt(200_000) });
    wrapDistance = await peer.openBeforeWrap("out-wraps", echo4, 16_000_000);
    await peer.exchange(["in-wrapped", "in-wraps-later", "in-wraps-at-kill"], 200_000);
    await peer.exchange(["out-wraps"], wrapDistance - 20_000);

    for (const { echo, sleeper, suffix } of both) {
      await peer.open(`idle${suffix}`, echo);
      await peer.open(`talked${suffix}`, echo);
      await peer.open(`peer-finished${suffix}`, { ...echo, reading: false, receiveBuffer: 8192 });
      await peer.open(`peer-not-reading${suffix}`, { ...echo, reading: false, receiveBuffer: 8192 });
      await peer.open(`service-not-reading${suffix}`, sleeper);
      await peer.open(`both-ways${suffix}`, echo);
      await peer.open(`unread${suffix}`, sleeper);
    }
    await peer.exchange([...bothNames("talked"), ...bothNames("service-not-reading"), ...bothNames("unread")], 50_000);

    // The service finishes first, and the peer goes on sending.
    await peer.open("service-finished", halves4);
    await peer.change("service-finished", { sendTo: 150_000 });
    await peer.until("the service finished", ["service-finished"], ({ eof, sent }) => eof && sent === 150_000);

    // The peer finishes first, and the service still has to send.
    for (const name of bothNames("peer-finished")) await peer.change(name, { sendTo: 600_000, finish: true });
    await peer.until("all is sent", bothNames("peer-finished"), ({ sent }) => sent === 600_000);

    // The service opens the session.
    await peer.listen({ host: addressPlan.peer.v4, servicePort: ports.out }, ["opened-by-service"]);
    scene.openOut();
    await scene.pair.until("the service has opened a session", async () =>
      Object.hasOwn(await peer.sessions(), "opened-by-service"),
    );
    await peer.exchange(["opened-by-service"], 70_000);

    // Windows close: the peer does not read, then the service does not.
    for (const name of bothNames("peer-not-reading")) await peer.change(name, { sendTo: flood });
    for (const name of bothNames("both-ways")) await peer.change(name, { sendTo: 2_000_000_000 });
    await delay(700);
    scene.services.a?.signal("SIGSTOP");
    for (const name of bothNames("service-not-reading")) await peer.change(name, { sendTo: flood });
    for (const name of bothNames("unread")) await peer.change(name, { sendTo: 90_000 });
    await peer.until("unread bytes are on their way", bothNames("unread"), ({ sent }) => sent === 90_000);
    await delay(500);
    const at = await peer.sessions();
    for (const name of [...bothNames("peer-not-reading"), ...bothNames("service-not-reading")])
      assert.ok((at[name]?.sent ?? flood) < flood, `${name}: the window did not close`);
    for (const name of bothNames("unread")) assert.equal(at[name]?.received, 50_000);
    for (const name of bothNames("both-ways")) assert.ok((at[name]?.sent ?? 0) > (at[name]?.received ?? 0));

    await scene.failOver();
  });
  after(() => scene?.destroy());

  test("sequence numbers wrap: before, at and after the kill; in, and out", async () => {
    const names = ["in-wrapped", "in-wraps-later", "in-wraps-at-kill"];
    await scene.peer.conclude(names, 500_000);
    await scene.peer.conclude(["out-wraps"], wrapDistance + 200_000);
  });

  for (const { family, suffix } of both) {
    test(`${family}: idle and quiet sessions go on`, async () => {
      await scene.peer.conclude([`idle${suffix}`], 40_000);
      await scene.peer.conclude([`talked${suffix}`], 90_000);
    });

    test(`${family}: data unread in the active's receive queue`, async () => {
      await scene.peer.until("it comes back", [`unread${suffix}`], ({ received }) => received === 90_000);
      await scene.peer.conclude([`unread${suffix}`], 120_000);
    });

    test(`${family}: a zero window towards the peer`, async () => {
      const name = `peer-not-reading${suffix}`;
      await scene.peer.change(name, { reading: true });
      await scene.peer.conclude([name], flood);
    });

    test(`${family}: a zero window towards the service`, async () => {
      await scene.peer.conclude([`service-not-reading${suffix}`], flood);
    });

    test(`${family}: data in flight both ways`, async () => {
      const name = `both-ways${suffix}`;
      // A command is heard between two sends: the target may be passed by then.
      await scene.peer.change(name, { sendTo: 0 });
      const { sent } = await scene.peer.session(name);
      await scene.peer.conclude([name], sent + 1_000_000);
    });

    test(`${family}: the peer had finished, the service had not`, async () => {
      const name = `peer-finished${suffix}`;
      await scene.peer.change(name, { reading: true });
      await scene.peer.until("the rest, then the end", [name], ({ received, eof }) => eof && received === 600_000);
    });
  }

  test("the service had finished, the peer had not", async () => {
    const { peer } = scene;
    const { port } = await peer.session("service-finished");
    await peer.change("service-finished", { sendTo: 300_000, finish: true });
    await scene.pair.until("the service has read all", () => scene.halves.some((report) => report.port === port));
    const { received, sha256 } = await peer.session("service-finished");
    assert.equal(received, halvesBytes);
    assert.deepEqual(
      scene.halves.filter((report) => report.port === port),
      [{ port, bytes: 300_000, sha256 }],
    );
  });

  test("a session that the service opened", () => scene.peer.conclude(["opened-by-service"], 150_000));

  test("the peer saw no reset, and no second handshake", async () => {
    await scene.assertSilence();
  });
});
