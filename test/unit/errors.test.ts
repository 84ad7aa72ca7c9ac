// docs/errors.md is complete: every code that the sources can raise has its row, and no row is about what is gone.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { refusals } from "../../src/app/errors.js";

function root(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "docs", "errors.md"))) directory = path.dirname(directory);
  return directory;
}

const documented = new Map(
  [...readFileSync(path.join(root(), "docs", "errors.md"), "utf8").matchAll(/^\| `([^`]+)` \| (.*) \|$/gm)].map(
    ([, code = "", rest = ""]) => [code, rest.split(" | ").map((cell) => cell.trim())],
  ),
);

test("every code of the sources is documented with its remedy, and nothing else is", () => {
  const sources = path.join(root(), "src");
  const raised = readdirSync(sources, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) => [
      ...readFileSync(path.join(sources, file), "utf8").matchAll(/new TandemError\(\s*"([A-Z0-9_]+)"/g),
    ])
    .map(([, code = ""]) => code);
  assert.ok(raised.length > 20, "the pattern still finds them");
  const codes = new Set([...raised, ...Object.keys(refusals)]);
  assert.deepEqual(
    [...codes].filter((code) => !documented.has(code)),
    [],
    "not in docs/errors.md",
  );
  assert.deepEqual(
    [...documented.keys()].filter((code) => !codes.has(code)),
    [],
    "not in the sources any more",
  );
  for (const [code, cells] of documented)
    assert.ok(
      cells.every((cell) => cell.length > 0),
      `${code}: an empty cell`,
    );
});

test("the application protocol's codes say there what the sources say", () => {
  for (const [code, { message, remedy }] of Object.entries(refusals))
    assert.deepEqual(documented.get(code), [message, remedy], code);
});
