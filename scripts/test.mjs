// Runs the compiled tests, each file in a process group of its own, and says what came of them.
// Usage: node scripts/test.mjs [part of a path ...]. Exit 1 when a test failed or a file did not end by itself.
// Files in which two routers live with short leases, hogs or a thousand sessions run one after another: the machine may
// have two cores, and the product's timers are what they test. The others run beside each other, after them: they compute,
// or wait most of the time (for daemons, dpkg, longer leases).
// Where timing is tested on a busy machine a test may fail for want of processor time: a few files that failed are run
// once more, alone, at the end. What failed at first is shown in full either way, and named in the summary.

import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const tests = path.join(root, "build", "js", "test");
const reporter = path.join(root, "scripts", "test-reporter.mjs");
const fileTimeoutMs = Number(process.env.TEST_FILE_TIMEOUT_MS ?? 300_000);
const graceMs = 15_000; // to clean up in after SIGTERM
const mostAgain = 3; // more are no accident
/** Directories and files, without ".test.js". */
const besideEachOther = [
  ...["unit", "config", "recorder", "session", "role", "app", "deploy", "join", "cli", "observe", "net", "pair", "bpf"],
  ...["addresses", "etcd", "external", "hooks", "refusals"].map((name) => path.join("agent", name)),
];

/** Of a compiled test, in test/. */
const sourceOf = (file) => file.replace(/\.js$/, ".ts");

const filters = process.argv.slice(2).map((filter) => filter.replace(/\.ts$/, ".js").replace(/^(\.\/)?test\//, ""));
const files = (existsSync(tests) ? readdirSync(tests, { recursive: true, encoding: "utf8" }) : [])
  // A compiled test whose source has gone is not a test any more.
  .filter((file) => file.endsWith(".test.js") && existsSync(path.join(root, "test", sourceOf(file))))
  .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
  .sort();

/** What came of each file, in its last run. */
const outcomes = new Map();
const running = new Set();
let interrupted = false;

function signalGroup(child, signal) {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}

function runFile(file) {
  if (interrupted) return Promise.resolve();
  const started = performance.now();
  return new Promise((resolve) => {
    const child = spawn(
      process.execPath,
      [
        "--enable-source-maps",
        `--test-reporter=${reporter}`,
        "--test-reporter-destination=stdout",
        path.join(tests, file),
      ],
      {
        cwd: root,
        detached: true,
        stdio: ["ignore", "pipe", "pipe", "pipe"],
        env: { ...process.env, FORCE_COLOR: "0" },
      },
    );
    running.add(child);
    const results = [];
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        output = (output + text).slice(-64 * 1024);
      });
    }
    createInterface({ input: child.stdio[3] }).on("line", (line) => results.push(JSON.parse(line)));
    let problem = null;
    const timers = [
      setTimeout(() => {
        problem = `did not end within ${fileTimeoutMs / 1000} s`;
        signalGroup(child, "SIGTERM");
        timers.push(setTimeout(() => signalGroup(child, "SIGKILL"), graceMs));
      }, fileTimeoutMs),
    ];
    // A process that the test left behind may hold the pipes open: do not wait for them for long.
    child.on("exit", () => timers.push(setTimeout(() => signalGroup(child, "SIGKILL"), 2_000)));
    child.on("close", (code, signal) => {
      for (const timer of timers) clearTimeout(timer);
      running.delete(child);
      const of = (outcome) => results.filter((result) => result.outcome === outcome);
      const failed = of("failed");
      if (problem === null && failed.length === 0) {
        if (signal !== null) problem = `ended by ${signal}`;
        else if (code !== 0) problem = `exit code ${code}`;
      }
      outcomes.set(file, {
        passed: of("passed").length,
        failed: failed.length + (problem === null ? 0 : 1),
        skipped: of("skipped").length,
      });
      const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
      const verdict =
        failed.length > 0 || problem !== null ? "FAIL" : results.length > of("skipped").length ? "ok  " : "skip";
      console.log(`${verdict} ${seconds} s  ${sourceOf(file)}  (${of("passed").length} tests)`);
      for (const { name, reason } of of("skipped"))
        console.log(`       skipped: ${name}: ${reason ?? "no reason given"}`);
      for (const { name, error } of failed) console.log(`       failed: ${name}\n${error.replace(/^/gm, "         ")}`);
      if (problem !== null) console.log(`       ${problem}`);
      if ((failed.length > 0 || problem !== null) && output.trim() !== "")
        console.log(`       its output:\n${output.trim().replace(/^/gm, "         ")}`);
      resolve();
    });
  });
}

async function runQueue(queue, width) {
  const left = [...queue];
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (let file = left.shift(); file !== undefined; file = left.shift()) await runFile(file);
    }),
  );
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    interrupted = true;
    for (const child of running) {
      signalGroup(child, "SIGTERM");
      setTimeout(() => signalGroup(child, "SIGKILL"), graceMs).unref();
    }
  });
}

const mayHaveCompany = (file) =>
  besideEachOther.some((name) => file.split(".")[0] === name || file.startsWith(name + path.sep));
const alone = files.filter((file) => !mayHaveCompany(file));
await runQueue(alone, 1);
await runQueue(files.filter(mayHaveCompany), 2);
const failedFirst = files.filter((file) => outcomes.get(file)?.failed > 0);
if (failedFirst.length <= mostAgain && !interrupted) {
  for (const file of failedFirst) {
    console.log(`once more: ${sourceOf(file)}`);
    await runFile(file);
  }
  const passedThen = failedFirst.filter((file) => outcomes.get(file).failed === 0);
  if (passedThen.length > 0)
    console.log(`failed at first, passed when run once more: ${passedThen.map(sourceOf).join(", ")}`);
}
const totals = { passed: 0, failed: 0, skipped: 0 };
for (const outcome of outcomes.values()) for (const kind of Object.keys(totals)) totals[kind] += outcome[kind];
if (files.length === 0) console.log("no test file matches");
if (interrupted) console.log("interrupted");
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed > 0 || interrupted || files.length === 0 ? 1 : 0);
