// The three ways to the service that are compared. Each has a lab of its own, built alike, with the same offload
// settings; they take turns, so that what else the machine does falls on all of them.
//
//   direct     no agents: the kernel alone
//   ceiling    no agents, but an XDP program on the uplink that passes everything: what any native XDP costs on veth
//   protected  both agents, and a standby application that reads what is mirrored

import path from "node:path";
import { fileURLToPath } from "node:url";
import { native } from "../../addon/native.js";
import { addressPlan, devices, Lab } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { objectDirectory } from "../../src/net/dataplane.js";

export type PathName = "direct" | "ceiling" | "protected";
export const ports = { bulk: 8080, echo: 8081 } as const;
export const serviceAddress = addressPlan.service.v4;

export interface ServicePath {
  name: PathName;
  lab: Lab;
  pair: RouterPair | null;
}

const program = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
/** Python is in the source tree: the compiler does not copy it. */
const root = path.dirname(objectDirectory().replace(/\/bpf$/, ""));
export const pingPong = path.join(root, "test", "bench", "ping-pong.py");

async function waitFor(what: string, process: LabProcess, said: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!process.stdout().includes(said)) {
    if (performance.now() > deadline || process.child.exitCode !== null)
      throw new Error(`${what} does not start: ${process.stdout()}${process.stderr()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The services' programs, on router a: unmodified, and the same on every path. */
async function startServices(lab: Lab): Promise<void> {
  const bulk = lab.spawn("a", ["iperf3", "--server", "--forceflush", "-B", serviceAddress, "-p", String(ports.bulk)]);
  await waitFor("iperf3", bulk, "Server listening");
  const echo = lab.spawn("a", ["python3", pingPong, "serve", serviceAddress, String(ports.echo)]);
  await waitFor("the echo server", echo, "listening");
}

function passEverything(lab: Lab): void {
  const object = native.bpfLoad(path.join(objectDirectory(), "mirror.bpf.o"), {
    skip: ["xdp_mirror", "tc_mirror_in"],
    maxEntries: { records: 1 << 16 },
  });
  const pin = path.join(lab.pins, "xdp_pass");
  native.bpfPin(object.programs.xdp_pass?.fd ?? -1, pin);
  lab.run("a", ["ip", "link", "set", "dev", devices.uplink, "xdpdrv", "pinned", pin]);
  object.close();
}

export async function buildPath(name: PathName): Promise<ServicePath> {
  const lab = Lab.create();
  try {
    if (name !== "protected") {
      lab.run("a", ["ip", "addr", "add", `${serviceAddress}/32`, "dev", devices.uplink]);
      if (name === "ceiling") passEverything(lab);
      await startServices(lab);
      return { name, lab, pair: null };
    }
    // The lease is not what is measured here, and the machine is as busy as it can be.
    // Nor is how soon the sink gets a CPU: at this rate it falls 32 MB, the default, behind in a tenth of a second.
    const overrides = { recorder: { sessionBytes: 256 << 20 } };
    const pair = new RouterPair(lab, { heartbeat: { deadMs: 2000 }, overrides });
    for (const router of ["a", "b"] as const) pair.startAgent(router);
    await pair.untilRole("a", "active");
    await pair.untilRole("b", "standby");
    await startServices(lab);
    const socketPath = path.join(pair.runDirectory("b"), "app.sock");
    // Node.js has a new buffer for each read; what that costs is the application's affair, and most of it is memory
    // that the allocator gives back to the kernel and takes again: let it keep some.
    const env = { ...process.env, MALLOC_TRIM_THRESHOLD_: String(256 << 20) };
    const sink = lab.spawn("b", [process.execPath, program("./sink-application.js"), socketPath, "web", "echo"], {
      env,
    });
    pair.servers.b = sink;
    await waitFor("the sink application", sink, "registered");
    return { name, lab, pair };
  } catch (error) {
    lab.destroy();
    throw error;
  }
}
