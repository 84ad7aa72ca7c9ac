// The lab proves itself: what it builds carries traffic, its faults really happen, and nothing of it stays behind.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import path from "node:path";
import test, { after, before, describe, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { flagsFrom } from "../../src/lab/capture.js";
import { type Impairment, type ImpairmentCounts, ImpairUnavailable } from "../../src/lab/impair.js";
import {
  addressPlan,
  devices,
  type ImpairPlace,
  Lab,
  type LinkName,
  type RouterName,
  remains,
} from "../../src/lab/lab.js";
import type { LabProcess } from "../../src/lab/namespaces.js";
import { authority, download, manySessions, socatSessions, upload, writeTransferFile } from "../../src/lab/traffic.js";

const demoServer = fileURLToPath(new URL("../../src/lab/demo-server.js", import.meta.url));
const root = process.getuid?.() === 0;
const skip = root ? false : "needs root";
const { service } = addressPlan;

function pings(lab: Lab, from: "peer" | RouterName, to: string): boolean {
  try {
    lab.run(from, ["ping", "-n", "-q", "-c", "1", "-W", "1", to]);
    return true;
  } catch {
    return false;
  }
}

/** Waits for a condition that some process of its own brings about. */
async function eventually(what: string, condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (condition()) return;
    await sleep(20);
  }
  assert.fail(`never happened: ${what}`);
}

/** The lab itself adds no service address: here the router simply has it, as the agent will see to. */
async function serveOn(lab: Lab, router: RouterName): Promise<LabProcess> {
  lab.run(router, ["ip", "addr", "add", `${service.v4}/24`, "dev", devices.uplink]);
  lab.run(router, ["ip", "addr", "add", `${service.v6}/64`, "dev", devices.uplink, "nodad"]);
  const listens = [`${service.v4}:8080,8081`, `[${service.v6}]:8080,8081`].flatMap((text) => ["--listen", text]);
  const server = lab.spawn(router, [process.execPath, demoServer, ...listens]);
  await eventually("the server listens", () => server.stdout().includes("listening"));
  return server;
}

describe("a lab", { skip }, () => {
  let lab: Lab;
  before(() => {
    lab = Lab.create();
  });
  after(() => lab.destroy());

  test("everybody reaches everybody, both families", () => {
    for (const router of ["a", "b"] as const) {
      assert.ok(pings(lab, "peer", addressPlan.uplink[router].v4));
      assert.ok(pings(lab, "peer", addressPlan.uplink[router].v6));
    }
    assert.ok(pings(lab, "a", addressPlan.mirror.b));
  });

  for (const link of ["a", "b", "peer", "mirror"] as const satisfies LinkName[]) {
    test(`cut and heal: ${link}`, async () => {
      const router: RouterName = link === "b" ? "b" : "a";
      const [from, to] =
        link === "mirror" ? (["a", addressPlan.mirror.b] as const) : (["peer", addressPlan.uplink[router].v4] as const);
      lab.cut(link);
      assert.ok(!pings(lab, from, to), "nothing passes a cut link");
      lab.heal(link);
      // The kernel looks at carriers that come and go once a second at most.
      await eventually("a healed link passes again", () => pings(lab, from, to));
    });
  }

  test("files and sessions arrive as they were sent, and the capture saw each start and end", async () => {
    const server = await serveOn(lab, "a");
    const capture = await lab.capture("peer", devices.peer, { file: path.join(lab.directory, "peer.pcap") });
    const bytes = 20_000_000;
    const file = path.join(lab.directory, "upload");
    const sha256 = await writeTransferFile(file, bytes);
    for (const host of [service.v4, service.v6]) {
      const target = authority(host, 8080);
      const reports = await Promise.all([
        upload(lab, target, file, bytes, sha256).done,
        download(lab, target, bytes, sha256).done,
      ]);
      for (const report of reports) assert.ok(report.ok, JSON.stringify(report));
    }
    const loads = [
      socatSessions(lab, service.v4, 8081, { count: 5, intervalMs: 50 }),
      await manySessions(lab, service.v6, 8081, { count: 50, intervalMs: 100 }),
    ];
    await sleep(500);
    const reports = (await Promise.all(loads.map((load) => load.finish()))).flat();
    assert.equal(reports.length, 55);
    for (const report of reports) {
      assert.ok(report.sent > 0);
      assert.deepEqual(
        { ...report, longestGapMs: 0 },
        { ...report, received: report.sent, lost: 0, duplicated: 0, changed: 0, brokenBy: null, longestGapMs: 0 },
      );
    }
    await sleep(200);
    const summary = await capture.stop();
    assert.deepEqual(flagsFrom(summary, addressPlan.peer.v4), { syn: 7, fin: 7, rst: 0 });
    assert.deepEqual(flagsFrom(summary, service.v4), { syn: 7, fin: 7, rst: 0 });
    assert.deepEqual(flagsFrom(summary, addressPlan.peer.v6), { syn: 52, fin: 52, rst: 0 });
    assert.deepEqual(flagsFrom(summary, service.v6), { syn: 52, fin: 52, rst: 0 });
    const pcap = readFileSync(path.join(lab.directory, "peer.pcap"));
    assert.equal(pcap.readUInt32LE(0), 0xa1b2c3d4);
    assert.ok(pcap.length > 24 + summary.frames * 16);
    server.signal("SIGKILL");
    await server.exited;
  });

  test("a reset is captured as one", async () => {
    const capture = await lab.capture("peer", devices.peer);
    // Nobody listens on this port.
    assert.throws(() => lab.run("peer", ["socat", "-", `TCP:${addressPlan.uplink.b.v4}:9`]), /refused/);
    await sleep(200);
    const summary = await capture.stop();
    assert.deepEqual(flagsFrom(summary, addressPlan.uplink.b.v4), { syn: 0, fin: 0, rst: 1 });
    assert.equal(summary.flagged.length, 2);
  });

  test("a frozen router's programs stand still and go on when thawed", async () => {
    const { pid } = lab.spawn("b", ["sleep", "1000"]);
    const state = (): string | undefined => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.[0];
    await eventually("it sleeps", () => state() === "S");
    lab.freeze("b");
    await eventually("it is stopped", () => state() === "T");
    lab.thaw("b");
    await eventually("it runs again", () => state() === "S");
  });

  test("a killed router is dead at once, its children too, and can be powered up again", async () => {
    const shell = lab.spawn("b", ["sh", "-c", "setsid sleep 1000 & wait"]);
    const bystander = lab.spawn("a", ["sleep", "1000"]);
    await eventually("both run", () => lab.run("b", ["pgrep", "-P", String(shell.pid)]).trim() !== "");
    assert.ok(lab.kill("b").processes >= 2);
    assert.deepEqual(await shell.exited, { code: null, signal: "SIGKILL" });
    assert.ok(!pings(lab, "peer", addressPlan.uplink.b.v4));
    assert.equal(bystander.child.exitCode, null);
    lab.repower("b");
    for (const ip of Object.values(addressPlan.uplink.b))
      await eventually(`${ip} answers again`, () => pings(lab, "peer", ip));
    await eventually("the mirror link is back", () => pings(lab, "a", addressPlan.mirror.b));
  });
});

describe("impairments", { skip }, () => {
  let lab: Lab;
  before(() => {
    lab = Lab.create({ mirror: "switch" });
  });
  after(() => lab.destroy());

  /** Sets it, or skips the test with the reason why this machine cannot. */
  function impairOrSkip(context: TestContext, place: ImpairPlace, impairment: Impairment): boolean {
    try {
      lab.impair(place, impairment);
      return true;
    } catch (error) {
      if (!(error instanceof ImpairUnavailable)) throw error;
      context.skip(error.message);
      return false;
    }
  }

  /** Takes what was counted and turns the impairment off. */
  function heal(place: ImpairPlace): ImpairmentCounts {
    const counts = lab.impaired(place);
    lab.impair(place, {});
    return counts;
  }

  /** Pings past the place: how many answers, and how many more of them. */
  function flood(place: ImpairPlace, count: number): { received: number; duplicates: number } {
    const to = place === "mirror" ? addressPlan.mirror.b : addressPlan.uplink.a.v4;
    const from = place === "mirror" ? "a" : "peer";
    const said = lab.run(from, ["sh", "-c", `ping -n -q -i 0.002 -c ${count} -W 1 ${to} || true`]);
    const numberBefore = (pattern: RegExp): number => Number(pattern.exec(said)?.[1] ?? 0);
    return { received: numberBefore(/(\d+) received/), duplicates: numberBefore(/\+(\d+) duplicates/) };
  }

  /** A second of numbered UDP datagrams past the place; what their receiver says about them. */
  async function datagrams(place: ImpairPlace): Promise<string> {
    const [from, to, ip] =
      place === "mirror"
        ? (["a", "b", addressPlan.mirror.b] as const)
        : (["peer", "a", addressPlan.uplink.a.v4] as const);
    const server = lab.spawn(to, ["iperf3", "-s", "-1", "--forceflush"]);
    await eventually("iperf3 listens", () => server.stdout().includes("listening"));
    lab.run(from, ["iperf3", "-c", ip, "-u", "-b", "100M", "-l", "1000", "-t", "1"]);
    await server.exited;
    return server.stdout();
  }

  /** A kernel counter of one node ("TcpInCsumErrors"). */
  function counter(node: "peer" | RouterName, name: string): number {
    const line = lab.run(node, ["nstat", "-asz", name]).split("\n")[1] ?? "";
    return Number(line.trim().split(/\s+/)[1] ?? 0);
  }

  for (const place of ["lan", "mirror"] as const) {
    test(`loss on ${place}, and none when it is off again`, (context) => {
      if (!impairOrSkip(context, place, { loss: 0.2 })) return;
      const { received } = flood(place, 500);
      const { seen, lost } = heal(place);
      // An echo passes twice; 0.8 × 0.8 of 500 is 320. Ten standard deviations aside is still a loss.
      assert.ok(received > 210 && received < 430, `${received} of 500`);
      assert.ok(lost >= 500 - received && lost < seen / 2, `${lost} of ${seen}`);
      assert.equal(flood(place, 100).received, 100);
    });

    test(`duplication on ${place}`, (context) => {
      if (!impairOrSkip(context, place, { duplicate: 0.2 })) return;
      const { received, duplicates } = flood(place, 500);
      const counts = heal(place);
      assert.equal(received, 500);
      // Each second question is answered, and that answer may itself be doubled.
      assert.ok(
        counts.duplicated > 100 && duplicates >= counts.duplicated / 2,
        `${duplicates} of ${counts.duplicated}`,
      );
    });

    test(`corruption on ${place}, which the checksum notices`, async (context) => {
      const to = place === "mirror" ? "b" : "a";
      const before = counter(to, "UdpInCsumErrors");
      if (!impairOrSkip(context, place, { corrupt: 0.05, onlyLong: true })) return;
      await datagrams(place);
      const { corrupted } = heal(place);
      const noticed = counter(to, "UdpInCsumErrors") - before;
      // The rest hit an IP header, or what is not UDP.
      assert.ok(corrupted > 50 && noticed > corrupted / 2, `${noticed} of ${corrupted}`);
    });

    test(`reordering on ${place}`, async (context) => {
      if (!impairOrSkip(context, place, { reorder: 0.05, onlyLong: true })) return;
      const said = await datagrams(place);
      const { reordered } = heal(place);
      const outOfOrder = Number(/(\d+) datagrams? received out-of-order/.exec(said)?.[1] ?? 0);
      assert.ok(reordered > 50 && outOfOrder > 20, `${outOfOrder} out of order of ${reordered} held back: ${said}`);
    });
  }

  test("TCP delivers the same bytes in spite of all of them", async (context) => {
    if (!impairOrSkip(context, "lan", { loss: 0.01, duplicate: 0.01, reorder: 0.01, corrupt: 0.01 })) return;
    await serveOn(lab, "a");
    const bytes = 3_000_000;
    const file = path.join(lab.directory, "upload");
    const sha256 = await writeTransferFile(file, bytes);
    const target = authority(service.v4, 8080);
    const reports = await Promise.all([
      upload(lab, target, file, bytes, sha256).done,
      download(lab, target, bytes, sha256).done,
    ]);
    const counts = heal("lan");
    for (const report of reports) assert.ok(report.ok, JSON.stringify(report));
    for (const count of Object.values(counts)) assert.ok(count > 0, JSON.stringify(counts));
    assert.ok(counter("a", "TcpInCsumErrors") > 0, "corruption reached the router's TCP, and it noticed");
    assert.ok(counter("peer", "TcpInCsumErrors") > 0, "corruption reached the peer's TCP, and it noticed");
  });

  test("a mirror cable refuses, and says what to do", () => {
    const cabled = Lab.create();
    try {
      assert.throws(() => cabled.impair("mirror", { loss: 0.1 }), /mirror: "switch"/);
    } finally {
      cabled.destroy();
    }
  });
});

describe("what stays behind", { skip }, () => {
  /** A process of its own with a lab that has programs running in it. */
  async function labInAnotherProcess(): Promise<{
    owner: ReturnType<typeof spawn>;
    id: string;
    ended: Promise<unknown[]>;
  }> {
    const lab = fileURLToPath(new URL("../../src/lab/lab.js", import.meta.url));
    const program = `import { Lab } from ${JSON.stringify(lab)}; const lab = Lab.create();
      lab.spawn("a", ["sleep", "1000"]); console.log(lab.id); setInterval(() => {}, 1000);`;
    const owner = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise<unknown[]>((resolve) => owner.once("exit", (...how) => resolve(how)));
    const id = await new Promise<string>((resolve) =>
      owner.stdout?.once("data", (text) => resolve(String(text).trim())),
    );
    return { owner, id, ended };
  }

  test("nothing after destroy, which may be called again", () => {
    const lab = Lab.create({ mirror: "switch" });
    lab.spawn("a", ["sleep", "1000"]);
    lab.spawn("peer", ["sleep", "1000"]);
    assert.ok(remains(lab.id).length > 0);
    lab.destroy();
    lab.destroy();
    assert.deepEqual(remains(lab.id), []);
  });

  test("two labs at once do not meet; the same id twice is refused", () => {
    const one = Lab.create();
    try {
      const two = Lab.create();
      assert.notEqual(one.id, two.id);
      assert.throws(() => Lab.create({ id: one.id }), /exists already/);
      two.destroy();
      assert.ok(pings(one, "peer", addressPlan.uplink.a.v4), "the other one lives on");
      assert.ok(statSync(one.directory).isDirectory());
    } finally {
      one.destroy();
    }
  });

  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    test(`nothing after ${signal}`, async () => {
      const { owner, id, ended } = await labInAnotherProcess();
      assert.ok(remains(id).length > 0);
      owner.kill(signal);
      assert.deepEqual(await ended, [code, null]);
      assert.deepEqual(remains(id), []);
    });
  }

  test("what a SIGKILLed run left is swept by the next one", async () => {
    const { owner, id, ended } = await labInAnotherProcess();
    owner.kill("SIGKILL");
    await ended;
    assert.ok(remains(id).length > 0);
    Lab.create().destroy();
    assert.deepEqual(remains(id), []);
  });
});
