// Default deny at the side doors: a protected service is reached by its uplinks or not at all.
import assert from "node:assert/strict";
import test from "node:test";
import { addressPlan, Lab } from "../../src/lab/lab.js";
import { ipBatch } from "../../src/lab/namespaces.js";
import { labPorts, RouterPair } from "../../src/lab/router-pair.js";

const skip = process.getuid?.() === 0 ? false : "needs root (network namespaces)";

test("a segment that comes or would leave by an unlisted device is dropped and counted", { skip }, async () => {
  const lab = Lab.create();
  try {
    const pair = new RouterPair(lab, { heartbeat: { deadMs: 300 } });
    // A second way between peer and router a that no configuration names.
    ipBatch(null, [
      `link add side0 netns ${lab.namespace("a")} type veth peer name side0 netns ${lab.namespace("peer")}`,
    ]);
    ipBatch(lab.namespace("a"), ["addr add 10.79.0.2/24 dev side0", "link set side0 up"]);
    ipBatch(lab.namespace("peer"), ["addr add 10.79.0.10/24 dev side0", "link set side0 up"]);
    await pair.start();
    const connect = (source: string) => [
      "curl",
      ...["--silent", "--max-time", "2", "--interface", source],
      `http://${addressPlan.service.v4}:${labPorts.web}/bytes/10`,
    ];
    assert.equal(lab.run("peer", connect(addressPlan.peer.v4)).length, 10, "the front door is open");

    const dropped = (chain: string) => {
      const rules = lab.run("a", ["nft", "list", "chain", "inet", "tandem", chain]);
      return [...rules.matchAll(/counter packets (\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0);
    };
    assert.equal(dropped("input"), 0);
    ipBatch(lab.namespace("peer"), [`route add ${addressPlan.service.v4}/32 via 10.79.0.2 dev side0 src 10.79.0.10`]);
    assert.throws(() => lab.run("peer", connect("10.79.0.10")));
    assert.ok(dropped("input") > 0, "what came in by the side door was counted");

    // The answers' way: in by the uplink, out by the side door.
    ipBatch(lab.namespace("peer"), [`route del ${addressPlan.service.v4}/32`]);
    ipBatch(lab.namespace("a"), [`route add ${addressPlan.peer.v4}/32 via 10.79.0.10 dev side0`]);
    assert.throws(() => lab.run("peer", connect(addressPlan.peer.v4)));
    assert.ok(dropped("output") > 0, "what would have left by the side door was counted");
  } finally {
    lab.destroy();
  }
});
