// tandem arbiter where no agent runs: what somebody outside says waits for it; where nobody outside has a say, that is
// said.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { suite, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { stringify } from "yaml";

const program = fileURLToPath(new URL("../../src/cli/tandem.js", import.meta.url));

function tandem(t: TestContext, kind: string) {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-arbiter-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const side = (last: number) => ({
    mirror: { device: "mir0", address: `10.78.0.${last}` },
    uplinks: [{ device: "up0", address: `10.77.0.${last}` }],
  });
  const config = {
    router: "a",
    pair: { keys: "/etc/tandem/keys", arbiter: { kind }, routers: { a: side(2), b: side(3) } },
    services: [{ name: "web", addresses: ["10.77.0.1"], port: 80 }],
    paths: { run: path.join(directory, "run") },
  };
  const file = path.join(directory, "tandem.yaml");
  writeFileSync(file, stringify(config));
  const said = path.join(directory, "run", "arbiter");
  return {
    say: (...words: string[]) =>
      spawnSync(process.execPath, [program, "arbiter", ...words, "--config", file], { encoding: "utf8" }),
    stands: () => (existsSync(said) ? readFileSync(said, "utf8") : null),
  };
}

suite("tandem arbiter, without an agent", () => {
  test("the last word waits for it", (t) => {
    const { say, stands } = tandem(t, "external");
    assert.equal(say("grant").status, 0);
    assert.equal(stands(), "granted");
    assert.equal(say("revoke").status, 0);
    assert.equal(stands(), "revoked");
    assert.equal(say("status").status, 4, "there is nobody to ask");
  });

  test("of another arbiter nobody else has a say", (t) => {
    const { say, stands } = tandem(t, "pair");
    const { status, stderr } = say("grant");
    assert.equal(status, 5);
    assert.match(stderr, /ARBITER_NOT_EXTERNAL/);
    assert.equal(stands(), null);
  });
});
