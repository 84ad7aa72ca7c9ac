// Drills without a pair: what a scenario may say, what it expects, the verdict, and the forms of the report.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { renderJunit } from "../../src/drill/junit.js";
import { renderDrillPage } from "../../src/drill/page.js";
import { type DrillReport, drillReportSchema, onlyOneVoice, trafficFindings } from "../../src/drill/report.js";
import { runDrill } from "../../src/drill/run.js";
import { findScenario, listScenarios, parseScenario, type Scenario } from "../../src/drill/scenario.js";
import { renderReport } from "../../src/drill/text.js";
import { laneOf, rateOf } from "../../src/drill/timeline.js";
import { TandemError } from "../../src/errors.js";
import { demoReportSchema } from "../../src/lab/demo-report.js";
import { exact, SaidStage, takeover } from "./stage.js";

const thereAndBack = findScenario("switchover");
const quiet = (): void => {};
const run = (scenario: Scenario, ...said: ConstructorParameters<typeof SaidStage>): Promise<DrillReport> =>
  runDrill(scenario, new SaidStage(...said), quiet);

describe("scenarios", () => {
  const head = "title: t\ndescription: d\n";
  const tail = "expect: { takeovers: 0, voice: active }\n";

  test("those that come with the product are right, and each that is live is safe there", () => {
    const names = listScenarios().map(({ name }) => name);
    for (const wanted of [
      ...["switchover", "kill-application", "kill-agent", "freeze", "power-off", "cut-mirror", "cut-uplink"],
      ...["lossy-mirror", "slow-standby", "restart-standby"],
    ])
      assert.ok(names.includes(wanted), wanted);
    assert.ok(names.every((name) => findScenario(name).where.includes("lab")));
  });

  for (const [what, text, pattern] of [
    [
      "a step that is none",
      `${head}where: [lab]\nsteps:\n  - { do: fly }\n${tail}`,
      /f\.yaml:5: steps\.0\.do: .*freeze/,
    ],
    [
      "a member that does not belong there",
      `${head}where: [lab]\nsteps:\n  - { do: switchover }\n  - { do: wait, ms: 5, s: 1 }\n${tail}`,
      /f\.yaml:6: steps\.1\.s: does not belong here/,
    ],
    [
      "what breaks a live pair",
      `${head}where: [live]\nsteps:\n  - { do: power-off, of: active }\n${tail}`,
      /:5: .*live pair/,
    ],
    [
      "a restart of the live active",
      `${head}where: [live]\nsteps:\n  - { do: restart-agent, of: active }\n${tail}`,
      /:5: .*live pair/,
    ],
    [
      "causes that are not one for each takeover",
      `${head}where: [lab]\nsteps: [{ do: switchover }]\nexpect:\n  takeovers: 2\n  causes: [x]\n  voice: active\n`,
      /f\.yaml:7: expect\.causes/,
    ],
    ["YAML that is none", `${head}where: [lab\nsteps: 1\n`, /f\.yaml:\d/],
  ] as const)
    test(`${what} is refused with its line`, () => {
      assert.throws(
        () => parseScenario(text, "f.yaml"),
        (error) => error instanceof TandemError && error.code === "SCENARIO_INVALID" && pattern.test(error.message),
      );
    });
});

describe("the verdict", () => {
  test("as expected: passed, and the document has the demo's keys", async () => {
    const report = await run(thereAndBack);
    assert.deepEqual(report.breaches, []);
    assert.equal(report.verdict, "passed");
    drillReportSchema.parse(report);
    const shared = [
      "sessions",
      "bytesIn",
      "bytesOut",
      "lost",
      "duplicated",
      "changed",
      "peerResets",
      "blackoutMs",
      "stepsMs",
    ];
    for (const key of shared) assert.ok(key in report && key in demoReportSchema.shape, key);
    assert.deepEqual(report.blackoutMs, { p50: 60, p99: 80, max: 80 });
    assert.equal(report.timeline.steps.length, thereAndBack.steps.length);
  });

  for (const [what, said, pattern] of [
    ["a lost line", { traffic: { ...exact, lost: 1 } }, /lost is 1/],
    ["a line that came twice", { traffic: { ...exact, duplicated: 2 } }, /duplicated is 2/],
    ["a hash that differs", { traffic: { ...exact, sameHash: 15 } }, /15 of 16 sessions have the same SHA-256/],
    ["a reset", { traffic: { ...exact, peerResets: 1 } }, /peerResets is 1/],
    ["two voices at once", { traffic: { ...exact, oneVoice: false } }, /both routers spoke/],
    ["no traffic", { traffic: { ...exact, bytesIn: 0, bytesOut: 0 } }, /no byte was carried/],
    ["a breach of the audit", { auditBreaches: 1 }, /auditBreaches is 1/],
    ["a takeover too few", { takeovers: [takeover(2)] }, /there were 1 takeovers, not 2/],
    [
      "another cause",
      { takeovers: [takeover(2), takeover(3, { cause: "Chance" })] },
      /takeover 2 came because "Chance"/,
    ],
    [
      "a session lost",
      { takeovers: [takeover(2), takeover(3, { lost: { count: 1, reasons: { memory: 1 } } })] },
      /takeovers lost 1 sessions/,
    ],
  ] as const)
    test(`${what}: failed`, async () => {
      const { verdict, breaches } = await run(thereAndBack, said);
      assert.equal(verdict, "failed");
      assert.match(breaches.join("; "), pattern);
    });

  test("the voice elsewhere in the end, and a blackout too long: failed", async () => {
    const expect = { ...thereAndBack.expect, voice: "standby" as const, blackoutBelowMs: 80 };
    const { breaches } = await run({ ...thereAndBack, expect });
    assert.deepEqual(breaches, [
      "in the end the voice is with the router that was active, not with the one that was standby",
      "the longest blackout was 80.0 ms, not below 80 ms",
    ]);
  });

  test("a step that fails ends the drill, is rolled back, and named", async () => {
    const stage = new SaidStage({ fails: "await-voice", takeovers: [takeover(2)] });
    const { verdict, breaches, timeline } = await runDrill(thereAndBack, stage, quiet);
    assert.deepEqual([verdict, stage.rolledBack, stage.done], ["failed", true, ["switchover"]]);
    assert.equal(timeline.steps.length, 2);
    assert.match(breaches[0] ?? "", /"until the standby has the voice" failed: it would not/);
  });

  test("a line that was lost is not called changed as well, a hash alone that differs is", () => {
    const echo = { sent: 3, received: 3, bytesIn: 9, bytesOut: 9, longestGapMs: 1, brokenBy: null, changed: 0 };
    const of = (lost: number) =>
      trafficFindings([{ ...echo, lost, duplicated: 0, sentSha256: "a", receivedSha256: "b" }]);
    assert.deepEqual([of(1).lost, of(1).changed, of(1).sameHash], [1, 0, 0]);
    assert.deepEqual([of(0).lost, of(0).changed, of(0).sameHash], [0, 1, 0]);
  });
});

test("one voice: the last word of the one comes before the first of the other", () => {
  const macs = { active: "a", standby: "b" };
  const said = (mac: string, first: number, last: number) => ({ mac, frames: 2, first, last });
  assert.equal(onlyOneVoice([said("a", 1, 5), said("b", 6, 9)], macs, 1), true);
  assert.equal(onlyOneVoice([said("a", 1, 7), said("b", 6, 9)], macs, 1), false);
  assert.equal(onlyOneVoice([said("a", 1, 7)], macs, 0), true);
  assert.equal(onlyOneVoice([said("a", 1, 9), said("b", 4, 6)], macs, 2), null);
});

describe("forms of the report", () => {
  const evil = { ...thereAndBack, title: `<script>alert("&")</script>` };

  test("text", async () => {
    const text = renderReport(await run(thereAndBack), (_, words) => words);
    assert.match(text, /16 of 16/);
    assert.match(text, /verdict passed/);
    assert.match(
      renderReport(await run(thereAndBack, { fails: "wait" }), (_, words) => words),
      /failed: the step "wait 500/,
    );
  });

  test("JUnit XML is well-formed, has a case for each step, and fails where the drill did", async () => {
    const report = await run(evil, { fails: "wait" });
    const xml = renderJunit({ ...report, breaches: [`<"&'\u0007>`] });
    const { status, stdout, stderr } = spawnSync(
      "python3",
      [
        "-c",
        "import sys,xml.etree.ElementTree as e; s=e.fromstring(sys.stdin.buffer.read()).find('testsuite'); print(s.get('tests'), s.get('failures'), len(s.findall('testcase')), len(s.findall('testcase/failure')), s.findall('testcase/failure')[-1].get('message'))",
      ],
      { input: xml, encoding: "utf8" },
    );
    assert.equal(status, 0, stderr);
    const cases = report.timeline.steps.length + 1;
    assert.equal(stdout.trim(), `${cases} 2 ${cases} 2 <"&'>`);
  });

  test("HTML: nothing is loaded, nothing is script, and what was inserted is text", async () => {
    const page = renderDrillPage(await run(evil));
    assert.ok(!/<script|\son\w+=|https?:|url\(|@import|src=|<link(?! rel="icon" href="data:,")/i.test(page), page);
    assert.match(page, /&lt;script&gt;alert/);
    assert.match(page, /prefers-color-scheme: dark/);
    assert.match(page, /&lt;peer&gt;\.pcap/);
    assert.match(page, /aria-labelledby="drill-title"/);
  });

  test("lanes are spans of one role, and time without an answer is a rate of 0", () => {
    const roles = [
      { atMs: 0, a: "active", b: "standby" },
      { atMs: 50, a: null, b: "standby" },
      { atMs: 80, a: null, b: "solo" },
    ] as const;
    assert.deepEqual(laneOf([...roles], "a", 100), [
      { role: "active", fromMs: 0, toMs: 50 },
      { role: null, fromMs: 50, toMs: 100 },
    ]);
    const answers = [0, 100, 100, 300].map((total, index) => ({ atMs: index * 100, total }));
    assert.deepEqual(
      rateOf(answers, 300, 100).map(({ rate }) => rate),
      [1000, 0, 2000],
    );
  });
});

describe("the command line", () => {
  const program = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-drill-"));
  after(() => rmSync(directory, { recursive: true }));
  const tandem = (...words: string[]) =>
    spawnSync(process.execPath, [program, "drill", ...words], { encoding: "utf8" });
  const broken = path.join(directory, "broken.yaml");
  writeFileSync(broken, "title: t\nsteps: []\n");

  for (const [words, status, pattern] of [
    [["list"], 0, /switchover +lab, live +Switch over/],
    [["run", "nothing"], 2, /DRILL_UNKNOWN: There are: .*power-off/],
    [["run", path.join(directory, "none.yaml")], 3, /SCENARIO_UNREADABLE/],
    [["run", broken], 3, /broken\.yaml:2: steps/],
    [["run"], 2, /Missing required argument/],
  ] as const)
    test(`tandem drill ${words.map((word) => path.basename(word)).join(" ")}: ${status}`, () => {
      const got = tandem(...words);
      assert.match(got.stdout + got.stderr, pattern);
      assert.equal(got.status, status);
    });
});
