// The lab's impairment: numbered datagrams through an impaired bridge port, and what came of them at the other side.

import assert from "node:assert/strict";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { addressPlan, Lab } from "../../src/lab/lab.js";
import { needsRoot } from "./rig.js";

const here = path.dirname(fileURLToPath(import.meta.url));
const count = 4000;
const port = 9999;

interface Outcome {
  did: { seen: number; lost: number; duplicated: number; reordered: number; corrupted: number };
  /** Numbers of the datagrams, in the order in which they arrived. */
  arrived: number[];
}

const sender = `
  const socket = require("dgram").createSocket("udp4");
  let sent = 0;
  const timer = setInterval(() => {
    for (let burst = 0; burst < 20; burst++) {
      const data = Buffer.alloc(600);
      data.writeUInt32BE(sent++);
      socket.send(data, ${port}, "${addressPlan.uplink.a.v4}");
    }
    if (sent >= ${count}) { clearInterval(timer); setTimeout(() => socket.close(), 100); }
  }, 1);`;

const receiver = `
  const socket = require("dgram").createSocket({ type: "udp4", recvBufferSize: 1 << 22 });
  const arrived = [];
  socket.on("message", (data) => arrived.push(data.readUInt32BE()));
  socket.bind(${port}, "${addressPlan.uplink.a.v4}", () => console.log("listening"));
  process.stdin.resume().on("end", () => { console.log(JSON.stringify(arrived)); process.exit(0); });`;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function run(t: TestContext, words: number[]): Promise<Outcome> {
  const lab = Lab.create();
  t.after(() => lab.destroy());
  const pipes = { stdio: ["pipe", "pipe", "inherit"] as ["pipe", "pipe", "inherit"] };
  const start = async (node: "lan" | "a", argv: string[]): Promise<() => Promise<unknown>> => {
    const { child, exited } = lab.spawn(node, [process.execPath, ...argv], pipes);
    let output = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    for (let waited = 0; !output.includes("\n"); waited += 10) {
      if (waited > 10_000) throw new Error(`${argv[0]} does not start`);
      await pause(10);
    }
    return async () => {
      child.stdin!.end();
      await exited;
      return JSON.parse(output.split("\n")[1] ?? "") as unknown;
    };
  };
  lab.run("lan", ["tc", "qdisc", "add", "dev", "a0", "root", "handle", "1:", "htb", "default", "1"]);
  for (const [id, rate] of [
    ["1:1", ["10gbit", "quantum", "60000"]],
    ["1:2", ["2mbit", "burst", "1600", "quantum", "1514"]],
  ] as const)
    lab.run("lan", ["tc", "class", "add", "dev", "a0", "parent", "1:", "classid", id, "htb", "rate", ...rate]);
  const impair = await start("lan", [path.join(here, "impair-process.js"), "a0", ...words.map(String)]);
  const receive = await start("a", ["-e", receiver]);
  lab.run("peer", [process.execPath, "-e", sender]);
  await pause(1000);
  const arrived = (await receive()) as number[];
  return { arrived, did: (await impair()) as Outcome["did"] };
}

// 5 % of this traffic is 5.5 Mbit/s, on a slow machine half of it: more than the slow class takes, so its frames wait there.

/** Datagrams that arrived after one that was sent later. */
const overtaken = (arrived: number[]): number => {
  let highest = -1;
  let late = 0;
  for (const number of arrived) {
    if (number < highest) late++;
    else highest = number;
  }
  return late;
};

test("impairment: loss", { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const { arrived, did } = await run(t, [50_000, 0, 0, 0, 0, 0]);
  assert.ok(did.lost > count * 0.03 && did.lost < count * 0.07, `${did.lost} lost`);
  assert.ok(count - arrived.length <= did.lost && count - arrived.length >= did.lost - 20);
  assert.equal(overtaken(arrived), 0);
});

test("impairment: duplication and corruption", { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const { arrived, did } = await run(t, [0, 50_000, 0, 0, 0, 0]);
  assert.ok(did.duplicated > count * 0.03, `${did.duplicated} duplicated`);
  const twice = arrived.length - new Set(arrived).size;
  assert.ok(twice <= did.duplicated && twice >= did.duplicated - 20, `${twice} arrived twice`);
  assert.equal(new Set(arrived).size, count);
  const corrupted = await run(t, [0, 0, 0, 50_000, 0, 0]);
  assert.ok(corrupted.did.corrupted > count * 0.03, `${corrupted.did.corrupted} corrupted`);
  assert.ok(corrupted.arrived.length < count, "the stack refuses what is corrupt");
});

test("impairment: reordering really reorders", { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const { arrived, did } = await run(t, [0, 0, 50_000, 0, 0, 0x10002]);
  assert.ok(did.reordered > count * 0.03, `${did.reordered} held back`);
  const late = overtaken(arrived);
  t.diagnostic(`${did.reordered} held back, ${late} overtaken`);
  assert.ok(late > did.reordered / 2, `${late} of ${did.reordered} were overtaken`);
  assert.equal(new Set(arrived).size, count, "and none is lost");
});
