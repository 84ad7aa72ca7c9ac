// Sessions that begin or end while the active dies: half-open ones, ones that ended a moment ago, and a stream of new
// ones before, during and after the kill. What the peer misses is dropped in its own namespace, behind its capture.

import assert from "node:assert/strict";
import test, { after, before, describe } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { echo4, echo6, halves4, Scene, skip } from "./scene.js";

/** Ports of the peer: one for each case, so that a filter can name it. */
const port = {
  ackLost: 40_001,
  ackAndDataLost: 40_002,
  ackLost6: 40_003,
  synAckLost: 40_004,
  synLost: 40_005,
  synAckLostLonger: 40_006,
  finOfServiceLost: 40_011,
  lastAckOfServiceLost: 40_012,
  lastAckOfPeerLost: 40_013,
  ackOfFinOfPeerLost6: 40_014,
} as const;

type Direction = "in" | "out";

/** Drops what matches; by a chain for each direction, so that they can be opened again. */
function filter(scene: Scene, direction: Direction, which: number, flags: string): void {
  const side = direction === "in" ? "dport" : "sport";
  scene.lab.run("peer", ["nft", "add", "rule", "inet", "lost", direction, "tcp", side, String(which), flags, "drop"]);
}
const isAck = "tcp flags & (syn | ack | rst | fin) == ack";
const isSyn = "tcp flags & (syn | ack) == syn";
const isSynAck = "tcp flags & (syn | ack) == (syn | ack)";
const isFin = "tcp flags & fin == fin";

describe("a kill finds sessions that begin and end", { skip }, () => {
  let scene: Scene;
  const streaming: string[] = [];

  function statesAt(node: "peer" | "b", which: number): string {
    const side = node === "peer" ? "sport" : "dport";
    return scene.lab.run(node, ["ss", "-Htan", `${side} = :${which}`]).split(" ")[0] ?? "";
  }

  /** Opens a session every 20 ms, each of which says 3000 bytes and ends. */
  async function stream(milliseconds: number): Promise<void> {
    const end = performance.now() + milliseconds;
    while (performance.now() < end) {
      const name = `new-${streaming.length}`;
      const target = streaming.length % 2 === 0 ? echo4 : echo6;
      streaming.push(name);
      await scene.peer.open(name, { ...target, sendTo: 3000, finish: true });
      await delay(20);
    }
  }

  before(async () => {
    scene = await Scene.start();
    const { peer } = scene;
    scene.lab.run(
      "peer",
      ["nft", "-f", "-"],
      `table inet lost {
        chain in { type filter hook input priority 0; }
        chain out { type filter hook output priority 0; }
      }`,
    );

    await peer.open("long4", { ...echo4 });
    await peer.open("long6", { ...echo6 });
    await peer.exchange(["long4", "long6"], 10_000);

    // Ends, one segment of which is lost.
    await peer.open("fin-of-service-lost", { ...echo4, port: port.finOfServiceLost });
    await peer.open("last-ack-of-service-lost", { ...halves4, port: port.lastAckOfServiceLost });
    await peer.open("last-ack-of-peer-lost", { ...echo4, port: port.lastAckOfPeerLost });
    await peer.open("ack-of-fin-of-peer-lost", { ...echo6, port: port.ackOfFinOfPeerLost6 });
    await peer.change("last-ack-of-service-lost", { sendTo: 120_000 });
    await peer.until("the service ended", ["last-ack-of-service-lost"], ({ eof, sent }) => eof && sent === 120_000);
    await peer.exchange(["fin-of-service-lost", "last-ack-of-peer-lost", "ack-of-fin-of-peer-lost"], 5000);
    await delay(100); // delayed acknowledgements
    filter(scene, "in", port.finOfServiceLost, isFin);
    filter(scene, "in", port.lastAckOfServiceLost, isAck);
    filter(scene, "out", port.lastAckOfPeerLost, isAck);
    filter(scene, "in", port.ackOfFinOfPeerLost6, isAck);
    filter(scene, "in", port.ackOfFinOfPeerLost6, isFin);
    for (const name of ["fin-of-service-lost", "last-ack-of-service-lost", "ack-of-fin-of-peer-lost"])
      await peer.change(name, { finish: true });
    await peer.conclude(["last-ack-of-peer-lost"], 5000);

    // Beginnings.
    filter(scene, "out", port.ackLost, isAck);
    filter(scene, "out", port.ackAndDataLost, isAck);
    filter(scene, "out", port.ackLost6, isAck);
    filter(scene, "in", port.synAckLost, isSynAck);
    filter(scene, "in", port.synAckLostLonger, isSynAck);
    filter(scene, "out", port.synLost, isSyn);
    await peer.open("ack-lost", { ...echo4, port: port.ackLost });
    await peer.open("ack-and-data-lost", { ...echo4, port: port.ackAndDataLost, sendTo: 5000 });
    await peer.open("ack-lost6", { ...echo6, port: port.ackLost6 });
    await peer.open("syn-ack-lost", { ...echo4, port: port.synAckLost });
    await peer.open("syn-ack-lost-longer", { ...echo4, port: port.synAckLostLonger });
    await peer.open("syn-lost", { ...echo4, port: port.synLost });
    await peer.until("connected", ["ack-lost", "ack-and-data-lost", "ack-lost6"], ({ connected }) => connected);
    await stream(300);

    assert.equal(statesAt("peer", port.finOfServiceLost), "FIN-WAIT-2");
    assert.equal(statesAt("peer", port.lastAckOfServiceLost), "LAST-ACK");
    assert.equal(statesAt("peer", port.lastAckOfPeerLost), "TIME-WAIT");
    assert.equal(statesAt("peer", port.ackOfFinOfPeerLost6), "FIN-WAIT-1");
    for (const which of [port.synAckLost, port.synAckLostLonger, port.synLost])
      assert.equal(statesAt("peer", which), "SYN-SENT");
    assert.match(statesAt("peer", port.ackLost), /ESTAB/);

    const streamed = stream(2000);
    await scene.failOver();
    scene.lab.run("peer", ["nft", "flush", "table", "inet", "lost"]);
    filter(scene, "in", port.synAckLostLonger, isSynAck);
    await streamed;
    scene.lab.run("peer", ["nft", "flush", "table", "inet", "lost"]);
  });
  after(() => scene?.destroy());

  test("sessions that were open before go on", () => scene.peer.conclude(["long4", "long6"], 50_000));

  test("sessions that began before, during and after the kill", async () => {
    await scene.peer.until("all came back, and the end", streaming, ({ received, eof }) => received === 3000 && eof);
  });

  test("half-open: the peer's ACK was lost, and it says nothing before the takeover", () =>
    scene.peer.conclude(["ack-lost", "ack-lost6"], 20_000));

  test("half-open: the peer's ACK was lost, and its first data", () =>
    scene.peer.conclude(["ack-and-data-lost"], 20_000));

  test("half-open: the SYN-ACK was lost, for some time after the takeover too", () =>
    scene.peer.conclude(["syn-ack-lost", "syn-ack-lost-longer"], 20_000));

  test("the SYN was lost", () => scene.peer.conclude(["syn-lost"], 20_000));

  test("ending: the service's FIN was lost", () =>
    scene.peer.until("the end", ["fin-of-service-lost", "ack-of-fin-of-peer-lost"], ({ eof }) => eof));

  test("ended: the service's last ACK was lost, and the peer's FIN comes again", () =>
    scene.pair.until("the peer's socket is gone", () => statesAt("peer", port.lastAckOfServiceLost) === ""));

  test("ended: the peer's last ACK was lost", () =>
    // Restored as it was before both FINs, it may well end where the first to finish does.
    scene.pair.until("the service's socket is done", () =>
      ["", "TIME-WAIT"].includes(statesAt("b", port.lastAckOfPeerLost)),
    ));

  test("the peer saw no reset, and of each session one handshake and one end", async () => {
    await scene.assertSilence();
  });
});
