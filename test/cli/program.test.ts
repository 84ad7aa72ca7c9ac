// The command line without an agent: usage, exit codes, errors for people and for programs, colours, tables.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import { painter, table, wantsColour } from "../../src/cli/terminal.js";

const program = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));
const directory = mkdtempSync(path.join(tmpdir(), "tandem-cli-"));
after(() => rmSync(directory, { recursive: true }));

function tandem(...words: string[]) {
  const environment = { ...process.env, TANDEM_CONFIG: "" };
  return spawnSync(process.execPath, [program, ...words], { encoding: "utf8", env: environment });
}

const config = path.join(directory, "tandem.yaml");
writeFileSync(
  config,
  `router: a
pair:
  keys: ${directory}/keys
  routers:
    a: { mirror: { device: mir0, address: 10.78.0.1 }, uplinks: [{ device: up0, address: 10.77.0.2 }] }
    b: { mirror: { device: mir0, address: 10.78.0.2 }, uplinks: [{ device: up0, address: 10.77.0.3 }] }
services: [{ name: web, addresses: [10.77.0.1], port: 8080 }]
paths: { run: ${directory}/run, state: ${directory}/state }
`,
);
const broken = path.join(directory, "broken.yaml");
writeFileSync(broken, "router: a\nservises: []\n");

suite("exit codes", () => {
  for (const [words, status, pattern] of [
    [["--help"], 0, /switchover/],
    [["--version"], 0, /^\d+\.\d+/],
    [["session", "--help"], 0, /<id>/],
    [[], 2, /Usage/],
    [["swichover"], 2, /Did you mean switchover/],
    [["status", "--colour"], 2, /Unknown option/],
    [["session", "seven"], 2, /whole number/],
    [["sessions", "--limit", "0"], 2, /whole number/],
    [["capture", "1"], 2, /--write/],
    [["completion", "tcsh"], 2, /Allowed choices/],
    [["config", "check", "--config", broken], 3, /broken\.yaml:2: servises: .*Did you mean services/],
    [["status", "--config", path.join(directory, "none.yaml")], 3, /CONFIG_UNREADABLE/],
    [["status", "--config", config], 4, /AGENT_UNREACHABLE/],
    [["switchover", "--yes", "--config", config], 4, /AGENT_UNREACHABLE/],
    [["config", "check", "--config", config], 0, /right, for router a, services web/],
    [["doctor", "--config", config], 1, /There is no device mir0/],
  ] as const)
    test(`tandem ${words.map((word) => path.basename(word)).join(" ")}: ${status}`, () => {
      const { stdout, stderr, status: got } = tandem(...words);
      assert.match(stdout + stderr, pattern);
      assert.equal(got, status);
    });

  test("keys are made once, and never overwritten", () => {
    const keys = path.join(directory, "keys");
    const made = tandem("pair", "init", "--keys", keys, "--json");
    assert.equal(made.status, 0);
    assert.deepEqual((JSON.parse(made.stdout) as { files: { b: string[] } }).files.b, [
      "secret",
      "a.crt",
      "b.crt",
      "b.key",
    ]);
    assert.equal(tandem("pair", "init", "--keys", keys).status, 5);
  });
});

suite("for programs", () => {
  test("an error is one JSON document on standard error", () => {
    const { stdout, stderr } = tandem("status", "--json", "--config", config);
    assert.equal(stdout, "");
    const { error } = JSON.parse(stderr) as { error: Record<string, unknown> };
    assert.deepEqual([error.code, error.exitCode], ["AGENT_UNREACHABLE", 4]);
    assert.ok(error.message && error.remedy);
  });

  test("words that are not right, too", () => {
    const { stderr, status } = tandem("statsu", "--json");
    assert.equal(status, 2);
    assert.deepEqual(JSON.parse(stderr), {
      error: {
        code: "USAGE",
        message: "Unknown command 'statsu'. Did you mean status?",
        remedy: "See: tandem --help",
        exitCode: 2,
      },
    });
  });

  test("problems of a configuration come as a list, with exit code 3", () => {
    const { stdout, status } = tandem("config", "check", "--json", "--config", broken);
    const answer = JSON.parse(stdout) as { right: boolean; problems: { line: number; path: string }[] };
    assert.equal(status, 3);
    assert.equal(answer.right, false);
    assert.ok(answer.problems.some(({ line, path: key }) => line === 2 && key === "servises"));
  });

  test("the schema is printed as it is kept", () => {
    const schema = JSON.parse(tandem("config", "schema").stdout) as { $schema: string; required: string[] };
    assert.match(schema.$schema, /2020-12/);
    assert.deepEqual(schema.required, ["router", "pair", "services"]);
  });

  test("doctor lists findings, each with what to do about it", () => {
    const { stdout } = tandem("doctor", "--json", "--config", config);
    const answer = JSON.parse(stdout) as { healthy: boolean; findings: { level: string; fix: string | null }[] };
    assert.equal(answer.healthy, false);
    for (const { level, fix } of answer.findings) assert.equal(fix === null, level === "ok");
  });
});

suite("on the terminal", () => {
  test("colours only where they are wanted", () => {
    assert.equal(wantsColour({ isTTY: true }, {}), true);
    assert.equal(wantsColour({ isTTY: true }, { NO_COLOR: "" }), true);
    assert.equal(wantsColour({ isTTY: true }, { NO_COLOR: "1" }), false);
    assert.equal(wantsColour({ isTTY: true }, { TERM: "dumb" }), false);
    assert.equal(wantsColour({}, {}), false);
    assert.equal(painter(false)("red", "x"), "x");
    assert.equal(painter(true)("red", "x"), "\u001b[31mx\u001b[39m");
  });

  test("columns stand under each other, whatever is painted", () => {
    const red = painter(true)("red", "down");
    assert.equal(
      table(
        ["NAME", "N", "X"],
        [
          ["a", "7", red],
          ["longer", "12", "up"],
        ],
        new Set(["N"]),
      ),
      `NAME     N  X\na        7  ${red}\nlonger  12  up\n`,
    );
  });
});
