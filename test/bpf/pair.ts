// A pair of routers in the lab with the data plane attached and nothing else: what the tests on real kernels share.

import path from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { addressPlan, devices, Lab, type RouterName } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import type { RouterSetting } from "./router-process.js";

const here = path.dirname(fileURLToPath(import.meta.url));
/** Of the service. */
export const port = 8080;

/** A router process and the way to ask it something. */
export class Router {
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

export interface Pair {
  lab: Lab;
  active: Router;
  standby: Router;
}

/** Both routers run their programs; the lab goes with the test. */
export async function build(t: TestContext, options: Partial<RouterSetting> = {}): Promise<Pair> {
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
