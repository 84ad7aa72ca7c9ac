// The whole reflect path on real kernels: peer, active and standby as network namespaces, real TCP in them, transfers
// both ways over IPv4 and IPv6, every byte compared.

import assert from "node:assert/strict";
import path from "node:path";
import { createInterface } from "node:readline";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { addressPlan, devices, Lab, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { needsRoot } from "./rig.js";
import type { RouterSetting } from "./router-process.js";

const here = path.dirname(fileURLToPath(import.meta.url));
const port = 8080;

/** A router process and the way to ask it something. */
class Router {
  private readonly waiting: ((line: string) => void)[] = [];
  readonly ready: Promise<unknown>;
  constructor(readonly child: LabProcess) {
    let complaint = "";
    child.child.stderr?.on("data", (text: Buffer) => {
      complaint += text.toString();
    });
    createInterface({ input: child.child.stdout! }).on("line", (line) => this.waiting.shift()?.(line));
    this.ready = Promise.race([
      this.next(),
      child.exited.then(() => Promise.reject(new Error(`the router process ended: ${complaint}`))),
    ]);
  }
  private next(): Promise<unknown> {
    return new Promise((resolve) => this.waiting.push((line) => resolve(JSON.parse(line))));
  }
  async ask<T = Record<string, number>>(command: string): Promise<T> {
    const answer = this.next();
    this.child.child.stdin?.write(`${command}\n`);
    return (await answer) as T;
  }
}

interface Pair {
  lab: Lab;
  active: Router;
  standby: Router;
}

async function build(t: TestContext, options: Partial<RouterSetting> = {}): Promise<Pair> {
  const lab = Lab.create();
  t.after(() => lab.destroy());
  const macOf = (router: RouterName, device: string): string =>
    (JSON.parse(lab.run(router, ["ip", "-j", "link", "show", device])) as { address: string }[])[0]!.address;
  const { v4, v6 } = addressPlan.service;
  // The standby has no address yet: here nothing fails over.
  for (const ip of [`${v4}/24`, `${v6}/64`])
    lab.run("a", ["ip", "addr", "add", ip, "dev", devices.uplink, ...(ip.includes(":") ? ["nodad"] : [])]);
  const start = (router: RouterName): Router => {
    const other = router === "a" ? "b" : "a";
    const setting: RouterSetting = {
      role: router === "a" ? "active" : "standby",
      uplink: devices.uplink,
      mirror: devices.mirror,
      services: [v4, v6].map((address) => ({ address, port, kind: "passive" })),
      localIp: addressPlan.mirror[router],
      partnerIp: addressPlan.mirror[other],
      localMac: macOf(router, devices.mirror),
      partnerMac: macOf(other, devices.mirror),
      ringBytes: 4 << 20,
      uplinkAtTc: false,
      statistics: true,
      ...options,
    };
    const process_ = path.join(here, "router-process.js");
    return new Router(
      lab.spawn(router, [process.execPath, process_, JSON.stringify(setting)], { stdio: ["pipe", "pipe", "pipe"] }),
    );
  };
  const active = start("a");
  const standby = start("b");
  await Promise.all([active.ready, standby.ready]);
  return { lab, active, standby };
}

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
  const client = lab.spawn("peer", [process.execPath, transferProcess, "transfer", address, String(port), String(mebibytes)]);
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
