// An agent that cannot start says why in one readable error with a code and a remedy, and leaves nothing behind.

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";
import { addressPlan, devices, Lab } from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { labConfig, RouterPair } from "../../src/lab/router-pair.js";
import { objectDirectory } from "../../src/net/dataplane.js";
import { skip } from "./duo.js";

const tandem = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));
const startLimitMs = 20_000;

describe("an agent that cannot start", { skip }, () => {
  let lab: Lab;
  let pair: RouterPair;
  const others: LabProcess[] = [];
  before(() => {
    lab = Lab.create();
    pair = new RouterPair(lab);
  });
  afterEach(async () => {
    for (const other of others.splice(0)) {
      other.signal("SIGKILL");
      await other.exited;
    }
  });
  after(() => lab?.destroy());

  /** Everything an agent puts up, as the kernel's own tools see it. */
  function traces(): string {
    const tell = (...argv: string[]) => lab.run("a", argv);
    const programs = [devices.uplink, devices.mirror].flatMap((device) => [
      tell("tc", "filter", "show", "dev", device, "ingress"),
      tell("tc", "filter", "show", "dev", device, "egress"),
      /prog\/xdp.*/.exec(tell("ip", "-details", "link", "show", device))?.[0] ?? "",
    ]);
    const pins = existsSync(path.join(lab.pins, "a")) ? readdirSync(path.join(lab.pins, "a")) : [];
    const run = pair.runDirectory("a");
    const sockets = existsSync(run) ? readdirSync(run) : [];
    return [tell("ip", "-brief", "address"), tell("nft", "list", "ruleset"), ...programs, ...pins, ...sockets].join(
      "\n",
    );
  }

  /** Runs the agent of router a to its end. */
  async function refused(
    code: string,
    {
      exitCode = 1,
      says = /./,
      changes = {},
      wrapper = [],
    }: {
      exitCode?: number;
      says?: RegExp;
      changes?: Record<string, unknown>;
      wrapper?: string[];
    } = {},
  ): Promise<void> {
    const file = path.join(lab.directory, "refused.yaml");
    writeFileSync(file, stringify({ ...labConfig(lab, "a"), ...changes }));
    const before = traces();
    const agent = lab.spawn("a", [...wrapper, process.execPath, tandem, "agent", "--config", file]);
    const timer = setTimeout(() => agent.signal("SIGKILL"), startLimitMs);
    const end = await agent.exited;
    clearTimeout(timer);
    const error = agent.stderr();
    assert.deepEqual(end, { code: exitCode, signal: null }, error);
    // One sentence, then code and remedy: no stack, no second report.
    assert.match(error, new RegExp(`^tandem: [^]*\\n  ${code}: [A-Z].*\\n$`));
    assert.doesNotMatch(error, /\n\s+at /);
    assert.match(error, says);
    assert.equal(traces(), before, "nothing is left behind");
  }

  function occupy(...argv: string[]): void {
    others.push(lab.spawn("a", argv));
  }

  test("a configuration that is not right", async () => {
    await refused("CONFIG_INVALID", { exitCode: 3, changes: { services: [] }, says: /refused\.yaml:\d+: services/ });
    await refused("CONFIG_INVALID", { exitCode: 3, changes: { colour: "red" }, says: /colour/ });
  });

  for (const [name, drops] of [
    ["CAP_NET_ADMIN", "-net_admin"],
    ["CAP_NET_RAW", "-net_raw"],
    ["CAP_PERFMON", "-perfmon,-sys_admin"],
    ["CAP_BPF", "-bpf,-sys_admin"],
  ] as const) {
    test(`a missing capability: ${name}`, async () => {
      const wrapper = ["setpriv", `--inh-caps=${drops}`, `--bounding-set=${drops}`, "--"];
      await refused("CAPABILITY_MISSING", { wrapper, says: new RegExp(`lacks ${name}\\.`) });
    });
  }

  test("an uplink whose driver has no native XDP", async () => {
    lab.run("a", ["ip", "link", "add", "bridge1", "type", "bridge"]);
    lab.run("a", ["ip", "link", "set", "bridge1", "up"]);
    const config = labConfig(lab, "a") as { pair: { routers: { a: { uplinks: { device: string }[] } } } };
    for (const uplink of config.pair.routers.a.uplinks) uplink.device = "bridge1";
    await refused("XDP_UNSUPPORTED", { changes: config, says: /bridge1.*\n.*xdp: generic/ });
    // The remedy that was named.
    const file = path.join(lab.directory, "generic.yaml");
    writeFileSync(file, stringify({ ...config, xdp: "generic" }));
    const agent = lab.spawn("a", [process.execPath, tandem, "agent", "--config", file]);
    others.push(agent);
    await pair.untilRole("a", "solo");
    assert.match(lab.run("a", ["tc", "filter", "show", "dev", "bridge1", "ingress"]), /tc_uplink_in_re/);
    assert.match(lab.run("a", ["ip", "-details", "link", "show", devices.mirror]), /xdpgeneric/);
    agent.signal("SIGTERM");
    assert.deepEqual(await agent.exited, { code: 0, signal: null });
    lab.run("a", [process.execPath, tandem, "detach", "--config", file]);
    lab.run("a", ["ip", "link", "del", "bridge1"]);
  });

  test("an uplink that is not there, or is down", async () => {
    const config = labConfig(lab, "a") as { pair: { routers: { a: { uplinks: { device: string }[] } } } };
    for (const uplink of config.pair.routers.a.uplinks) uplink.device = "nothere";
    await refused("DEVICE_UNUSABLE", { changes: config, says: /no device nothere/ });
  });

  test("another XDP program on the device", async () => {
    const object = path.join(objectDirectory(), "mirror.bpf.o");
    lab.run("a", ["ip", "link", "set", "dev", devices.uplink, "xdp", "object", object, "program", "xdp_pass"]);
    await refused("XDP_BUSY", { says: /id \d+.*\n.*ip link set dev up0 xdp off/ });
    lab.run("a", ["ip", "link", "set", "dev", devices.uplink, "xdp", "off"]);
  });

  test("a port that is in use", async () => {
    occupy("socat", "-u", `TCP-LISTEN:7402,bind=${addressPlan.mirror.a},fork`, "OPEN:/dev/null");
    await delay(300);
    await refused("CONTROL_BIND", { says: /TCP port 7402.*\n.*ss -tlpn/ });
    occupy("socat", "-u", `UDP-RECV:7401,bind=${addressPlan.uplink.a.v4}`, "OPEN:/dev/null");
    await delay(300);
    await refused("PULSE_BIND", {
      changes: { pair: { ...pairOf(), controlPort: 7412 } },
      says: /UDP port 7401.*\n.*ss -ulpn/,
    });
  });

  function pairOf(): object {
    return labConfig(lab, "a").pair as object;
  }

  test("a mirror link whose MTU is too small", async () => {
    lab.run("a", ["ip", "link", "set", devices.mirror, "mtu", "1500"]);
    await refused("MIRROR_MTU", { says: /is 1500.*needs 1586.*\n.*ip link set mir0 mtu 1586/ });
    lab.run("a", ["ip", "link", "set", devices.mirror, "mtu", "2000"]);
  });

  test("keys that others can read, or that are not there", async () => {
    const keys = path.join(lab.directory, "keys");
    const secret = path.join(keys, "secret");
    chmodSync(secret, 0o644);
    await refused("KEYS_EXPOSED", { exitCode: 3, says: /secret.*\n.*chmod 600/ });
    chmodSync(secret, 0o600);
    renameSync(secret, `${secret}.away`);
    await refused("KEYS_MISSING", { exitCode: 3, says: /tandem pair init/ });
    renameSync(`${secret}.away`, secret);
  });

  test("a stored epoch that cannot be read", async () => {
    const state = path.join(lab.directory, "a", "state");
    mkdirSync(state, { recursive: true });
    for (const content of ["{", '{"epoch": -1}', '{"epoch": "7", "partnerEntitled": true}', "null"]) {
      writeFileSync(path.join(state, "role"), content);
      await refused("STATE_CORRUPT", { says: /state.role / });
    }
    rmSync(path.join(state, "role"));
  });

  test("no BPF file system", async () => {
    const script = 'umount -l /sys/fs/bpf; exec "$@"';
    const wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
    await refused("BPFFS_MISSING", { wrapper, says: /mount -t bpf bpf \/sys\/fs\/bpf/ });
    const paths = { ...(labConfig(lab, "a").paths as object), bpf: path.join(lab.directory, "not-bpf") };
    await refused("BPFFS_MISSING", { changes: { paths }, says: /not-bpf \(paths\.bpf\)/ });
  });

  test("the socket of a living agent, which goes on undisturbed", async () => {
    const agent = pair.startAgent("a");
    await pair.untilRole("a", "solo");
    await refused("APP_SOCKET", { says: /Another agent is using it/ });
    const { role, gate } = await pair.status("a");
    assert.deepEqual({ role, gate }, { role: "solo", gate: "solo" });
    agent.signal("SIGKILL");
    await agent.exited;
  });
});
