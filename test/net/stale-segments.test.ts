// What an ended socket has left to wait for a neighbour never reaches the peer: it would come when the gate is open again,
// out of an earlier epoch.
import assert from "node:assert/strict";
import test from "node:test";
import { devices } from "../../src/lab/lab.js";
import { DeliveredScene, Program, skip, v4 } from "../join/delivered-scene.js";

const port = 7500;

test("a segment that waits for its neighbour does not outlive its socket", { skip }, async (t) => {
  const scene = DeliveredScene.create((lab) => [DeliveredScene.service(lab, "plain", port)]);
  t.after(() => scene.destroy());
  const { lab, pair, peer } = scene;
  scene.startAgent("a");
  await pair.untilRole("a", "solo", 30_000);
  const server = new Program(lab, "a");
  await server.ask(`listen("${v4}", ${port})`);
  const local = await peer.number(`connect("talk", "${v4}", ${port})`);
  await peer.ask(`conns["talk"].drain()`);
  await pair.until("it is accepted", async () => (await server.ask(`"${local}" in conns`)) === true);
  const dropped = async (): Promise<number> => (await pair.status("a")).packets.TD_DROP_SOCKET_GONE ?? 0;
  assert.equal(await dropped(), 0);

  lab.run("peer", ["ip", "link", "set", "dev", devices.peer, "arp", "off"]);
  lab.run("a", ["ip", "neighbour", "flush", "dev", devices.uplink]);
  await server.ask(`conns["${local}"].send(100)`);
  assert.match(lab.run("a", ["ss", "-HtnK", "sport", "=", `:${port}`]), new RegExp(`:${local}\\b`));
  lab.run("peer", ["ip", "link", "set", "dev", devices.peer, "arp", "on"]);

  await pair.until("it is dropped", async () => (await dropped()) > 0);
  assert.equal((await peer.status("talk")).received, 0);
});
