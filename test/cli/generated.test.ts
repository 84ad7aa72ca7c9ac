// What is written from the sources is as the sources say, and the programs it is for understand it.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import { answers } from "../../src/cli/answers.js";
import { completionScript, wordsOf } from "../../src/cli/completion.js";
import { generatedFiles } from "../../src/cli/generated.js";
import { manualPage, verbs } from "../../src/cli/manual.js";
import { createProgram } from "../../src/cli/program.js";

function root(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "docs", "cli.md"))) directory = path.dirname(directory);
  return directory;
}
const read = (file: string): string => readFileSync(path.join(root(), file), "utf8");
const lacks = (program: string): string | false =>
  spawnSync(program, ["--version"]).error ? `${program} is not installed` : false;

suite("files written from the sources", () => {
  for (const [file, text] of Object.entries(generatedFiles(read)))
    test(`${file} is up to date`, () => {
      assert.ok(existsSync(path.join(root(), file)) && read(file) === text, `run: make generated, and commit ${file}`);
    });
});

test("every command says what it does, and with --json what it answers", () => {
  for (const { name, command } of verbs(createProgram())) {
    assert.match(command.summary(), /^[a-z].*[^.]$/, `${name}: its summary begins small and has no period`);
    assert.match(command.description(), /^[A-Z].*\.$/, `${name}: its description is a sentence`);
    const json = command.options.some(({ long }) => long === "--json");
    assert.equal(json, name in answers, `${name}: --json, and its schema in answers.ts`);
  }
});

test("the manual page formats without a complaint", { skip: lacks("groff") }, () => {
  const page = manualPage(createProgram(), "1.2.3");
  const { stdout, stderr, status } = spawnSync("groff", ["-man", "-Tutf8", "-P-cbou", "-ww"], {
    input: page,
    encoding: "utf8",
  });
  assert.deepEqual({ stderr, status }, { stderr: "", status: 0 });
  assert.match(stdout, /tandem switchover/);
});

suite("completion", () => {
  const program = createProgram();
  const complete = (typed: string): string[] => {
    const line = typed.split(" ");
    const script = `${completionScript("bash", program)}
COMP_WORDS=(${line.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${line.length - 1}
_tandem; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return execFileSync("bash", ["-c", script], { encoding: "utf8" })
      .split("\n")
      .filter((word) => word !== "");
  };

  test("bash: commands, their options, and those below", () => {
    assert.deepEqual(complete("tandem sw"), ["switchover"]);
    assert.deepEqual(complete("tandem config s"), ["schema"]);
    assert.deepEqual(complete("tandem sessions --no"), ["--not-ready"]);
    assert.deepEqual(complete("tandem session 7 --js"), ["--json"]);
    assert.deepEqual(complete("tandem completion "), ["bash", "zsh", "fish", "--help"]);
    assert.ok(complete("tandem ").includes("doctor"));
  });

  test("every command is offered", () => {
    const words = wordsOf(program);
    for (const { name } of verbs(program)) assert.ok(words.has(name), name);
  });

  for (const [shell, file] of [
    ["zsh", "deploy/completion/_tandem"],
    ["fish", "deploy/completion/tandem.fish"],
  ] as const)
    test(`${shell} reads its script`, { skip: lacks(shell) }, () => {
      const { status, stderr } = spawnSync(shell, ["-n", path.join(root(), file)], { encoding: "utf8" });
      assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
    });
});
