// The demo as a user starts it, with smaller files: its document, its verdict, and that nothing of it stays behind.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { breaches, type DemoReport, demoReportSchema, renderDemo, spreadOf } from "../../src/lab/demo-report.js";
import { remains, sweep } from "../../src/lab/lab.js";
import { takeoverSteps } from "../../src/takeover/takeover.js";

const tandem = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));
const limitMs = 120_000;
const noRoot = process.getuid?.() === 0 ? false : "network namespaces need root";

interface Run {
  id: string;
  child: ChildProcess;
  stdout(): string;
  stderr(): string;
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Until its output, standard output and standard error together, holds this. */
  says(text: string): Promise<void>;
}

function start(t: TestContext, words: readonly string[]): Run {
  const id = `t-${randomBytes(3).toString("hex")}`;
  const child = spawn(process.execPath, [tandem, "lab", ...words, "--id", id], { stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  let look: () => void = () => {};
  for (const name of ["stdout", "stderr"] as const)
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
      look();
    });
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once("close", (code, signal) => resolve({ code, signal })),
  );
  t.after(async () => {
    child.kill("SIGTERM");
    await exited;
    sweep();
  });
  return {
    id,
    child,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    exited,
    says: (text) =>
      new Promise((resolve, reject) => {
        look = () => {
          if (`${output.stdout}${output.stderr}`.includes(text)) resolve();
        };
        look();
        void exited.then(() => reject(new Error(`it ended without saying "${text}":\n${output.stderr}`)));
      }),
  };
}

test("the document: all sessions carried on, nothing lost, and nothing else on standard output", {
  skip: noRoot,
  timeout: limitMs,
}, async (t) => {
  const run = start(t, ["demo", "--json", "--megabytes", "60", "--interactive", "24"]);
  const { code } = await run.exited;
  assert.ok(run.stdout().startsWith("{"), run.stderr());
  const report = demoReportSchema.parse(JSON.parse(run.stdout()));
  assert.deepEqual(breaches(report), []);
  assert.equal(code, 0, run.stderr());
  assert.equal(report.sessions, 28);
  assert.equal(report.interactive, 24);
  assert.equal(report.restored, 28);
  assert.deepEqual(Object.keys(report.stepsMs), [...takeoverSteps]);
  for (const each of report.transfers) {
    assert.equal(each.bytes, 60_000_000);
    assert.equal(each.receivedSha256, each.sentSha256);
    assert.ok(each.shareAtKill > 0 && each.shareAtKill < 1, `in mid-transfer: ${each.shareAtKill}`);
    assert.ok(each.blackoutMs > 0);
  }
  assert.ok(report.bytesIn > 120_000_000 && report.bytesOut > 120_000_000);
  assert.ok(report.blackoutMs.p50 > 0 && report.blackoutMs.p50 <= report.blackoutMs.max);
  assert.deepEqual(remains(run.id), []);
});

test("Ctrl-C in mid-transfer leaves nothing", { skip: noRoot, timeout: limitMs }, async (t) => {
  const run = start(t, ["demo", "--interactive", "4"]);
  await run.says("moving");
  run.child.kill("SIGINT");
  assert.equal((await run.exited).code, 130, run.stderr());
  assert.deepEqual(remains(run.id), []);
});

test("what a killed demo leaves, the next lab removes", { skip: noRoot, timeout: limitMs }, async (t) => {
  const run = start(t, ["demo", "--interactive", "4"]);
  await run.says("opening");
  run.child.kill("SIGKILL");
  assert.equal((await run.exited).signal, "SIGKILL");
  assert.notDeepEqual(remains(run.id), []);
  assert.ok(sweep().includes(run.id));
  assert.deepEqual(remains(run.id), []);
});

test("lab up: its commands work as printed, Ctrl-C removes it", { skip: noRoot, timeout: limitMs }, async (t) => {
  const run = start(t, ["up"]);
  await run.says("the death of router a");
  const command = (contains: string): string => {
    const line = run
      .stdout()
      .split("\n")
      .find((each) => each.includes(contains));
    assert.ok(line, `no command with "${contains}" in:\n${run.stdout()}`);
    return line.trim();
  };
  const shell = (script: string): Promise<string> =>
    new Promise((resolve) => {
      const child = spawn("bash", ["-c", script], { stdio: ["ignore", "pipe", "inherit"] });
      let output = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
      child.once("close", () => resolve(output));
    });
  assert.equal(await shell(`echo once | ${command("socat")}`), "once\n");
  assert.match(await shell(command("status --config")), /^pair .* b standby$/m);
  await shell(command("kill -9"));
  let status = "";
  while (!/^pair .* b solo$/m.test(status)) status = await shell(command("status --config"));
  assert.equal(await shell(`echo again | ${command("socat")}`), "again\n");
  run.child.kill("SIGINT");
  assert.equal((await run.exited).code, 130, run.stderr());
  assert.deepEqual(remains(run.id), []);
});

test("the verdict names each number that is not what it has to be", () => {
  const steps = Object.fromEntries(takeoverSteps.map((step) => [step, 1]));
  const good: DemoReport = demoReportSchema.parse({
    sessions: 1,
    interactive: 0,
    bytesIn: 10,
    bytesOut: 0,
    lost: 0,
    duplicated: 0,
    changed: 0,
    broken: 0,
    peerResets: 0,
    peerFins: { expected: 1, seen: 1 },
    earlyFins: 0,
    peerSyns: { expected: 1, seen: 1 },
    lateSyns: 0,
    blackoutMs: { p50: 1, p99: 1, max: 1 },
    blackoutInteractiveMs: { p50: 0, p99: 0, max: 0 },
    blackoutTransfersMs: { p50: 1, p99: 1, max: 1 },
    leaseMs: 50,
    stepsMs: steps,
    takeoverMs: 7,
    restored: 1,
    notReady: 0,
    transfers: [],
  });
  assert.deepEqual(breaches(good), []);
  assert.deepEqual(breaches({ ...good, lost: 3, peerResets: 1 }), ["lost is 3, not 0", "peerResets is 1, not 0"]);
  assert.deepEqual(breaches({ ...good, peerFins: { expected: 1, seen: 0 } }), ["peerFins is 0, not 1"]);
  assert.deepEqual(breaches({ ...good, restored: 0 }), ["restored is 0, not 1"]);
  const text = renderDemo(good, false);
  assert.ok(!text.includes("\u001b"), "no colours where no terminal is");
  assert.ok(renderDemo(good, true).includes("\u001b"));
  for (const step of takeoverSteps) assert.ok(text.includes(step));
});

test("percentiles are values that were measured", () => {
  assert.deepEqual(spreadOf([]), { p50: 0, p99: 0, max: 0 });
  assert.deepEqual(spreadOf([3, 1, 2]), { p50: 2, p99: 3, max: 3 });
  assert.deepEqual(spreadOf(Array.from({ length: 200 }, (_, index) => index + 1)), { p50: 100, p99: 198, max: 200 });
});
