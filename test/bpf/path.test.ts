// The whole reflect path on real kernels: peer, active and standby as network namespaces, real TCP in them, transfers
// both ways over IPv4 and IPv6, every byte compared.

import assert from "node:assert/strict";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { addressPlan, type Lab } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { build, port } from "./pair.js";
import { needsRoot } from "./rig.js";

const here = path.dirname(fileURLToPath(import.meta.url));

interface Transfer {
  upload: boolean;
  download: boolean;
  upSeconds: number;
  downSeconds: number;
}

const transferProcess = path.join(here, "transfer-process.js");

async function serve(lab: Lab, node: "a" | "peer", address: string): Promise<LabProcess> {
  const server = lab.spawn(node, [process.execPath, transferProcess, "serve", address, String(port)]);
  for (let waited = 0; !server.stdout().includes("listening"); waited += 20) {
    if (waited > 10_000) throw new Error(`the server does not start: ${server.stderr()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return server;
}

async function transfer(lab: Lab, address: string, mebibytes: number): Promise<Transfer> {
  const client = lab.spawn("peer", [
    process.execPath,
    transferProcess,
    "transfer",
    address,
    String(port),
    String(mebibytes),
  ]);
  const limit = setTimeout(() => client.signal("SIGKILL"), 60_000);
  const { code, signal } = await client.exited;
  clearTimeout(limit);
  assert.equal(code, 0, `the client ended by ${signal}: ${client.stderr()}`);
  return JSON.parse(client.stdout()) as Transfer;
}

const mebibytes = 60;
const sent = mebibytes * (1 << 20);

for (const uplinkAtTc of [false, true]) {
  const how = uplinkAtTc ? "inward encapsulation at TC (no native XDP on the uplink)" : "native XDP";
  test(`reflect path: every byte passes the standby, ${how}`, { skip: needsRoot, timeout: 200_000 }, async (t) => {
    const { lab, active, standby } = await build(t, { uplinkAtTc });
    for (const [family, address] of Object.entries(addressPlan.service)) {
      await t.test(`IP${family}`, async () => {
        const before = await standby.ask("seen");
        const server = await serve(lab, "a", address);
        const result = await transfer(lab, address, mebibytes);
        server.signal("SIGKILL");
        assert.deepEqual([result.upload, result.download], [true, true], JSON.stringify(result));
        await new Promise((resolve) => setTimeout(resolve, 100));
        const after = await standby.ask("seen");
        const grown = Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value - before[name]!]));
        t.diagnostic(`${family}: ${JSON.stringify({ ...result, ...grown })}`);
        assert.ok(grown.payloadIn! >= sent && grown.payloadOut! >= sent, "all of the payload was recorded");
        assert.equal(grown.correct, grown.records, "every recorded segment has a right checksum");
        assert.ok(grown.stamped! > 0.9 * grown.outward!, "what leaves an established socket is stamped");
      });
    }
    const drops = Object.entries(await active.ask("counters")).filter(([name]) => name.startsWith("DROP"));
    assert.deepEqual(drops, [], "the active dropped nothing");
    t.diagnostic(`active ${JSON.stringify(await active.ask("counters"))}`);
    t.diagnostic(`standby ${JSON.stringify(await standby.ask("counters"))}`);
    t.diagnostic(`active, ns a run: ${JSON.stringify(await active.ask("statistics"))}`);
    t.diagnostic(`standby, ns a run: ${JSON.stringify(await standby.ask("statistics"))}`);
  });
}
