// Configuration: what is right is accepted with its defaults, what is wrong is said with path, line and remedy.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import { agreementOf, disagreements } from "../../src/config/agreement.js";
import { applyDelta, configDelta } from "../../src/config/delta.js";
import { parseConfig, readConfig } from "../../src/config/load.js";
import { isLive, keysAt } from "../../src/config/reference.js";
import { TandemError } from "../../src/errors.js";

const right = `router: a
pair:
  keys: /etc/tandem/keys
  routers:
    a: { mirror: { device: mir0, address: 10.78.0.1 }, uplinks: [{ device: up0, address: 10.77.0.2 }] }
    b: { mirror: { device: mir0, address: 10.78.0.2 }, uplinks: [{ device: up0, address: 10.77.0.3 }] }
services:
  - name: web
    addresses: [10.77.0.1, "fd77::1"]
    port: 8080
`;

function problem(text: string): TandemError {
  try {
    parseConfig(text, "tandem.yaml");
  } catch (error) {
    assert.ok(error instanceof TandemError);
    assert.equal(error.exitCode, 3);
    assert.ok(error.remedy.length > 0);
    return error;
  }
  throw new assert.AssertionError({ message: "the configuration was accepted" });
}

test("the smallest configuration gets the documented defaults", () => {
  const config = parseConfig(right, "tandem.yaml");
  assert.equal(config.pair.heartbeat.intervalMs, 10);
  assert.equal(config.pair.heartbeat.deadMs, 50);
  assert.equal(config.pair.onSilence, "solo");
  assert.equal(config.services[0]?.mode, "live");
  assert.equal(config.services[0]?.lost, "reset");
});

for (const [what, from, to, message] of [
  [
    "an unknown key",
    "    port: 8080",
    "    prot: 8080",
    /tandem\.yaml:10: services\.0\.prot: is not a key .*Did you mean port\?/,
  ],
  ["a bad address", "10.77.0.1, ", "10.77.0.256, ", /tandem\.yaml:9: services\.0\.addresses\.0: is not an IP address/],
  ["both ports", "    port: 8080", "    port: 8080\n    remotePort: 179", /exactly one of port/],
  ["neither port", "    port: 8080\n", "", /exactly one of port/],
  ["broken YAML", "router: a", "router: [a", /tandem\.yaml:\d+: /],
  ["a missing section", "services:", "service:", /services/],
  ["a ring that is no power of two", "services:", "recorder: { ringBytes: 100000 }\nservices:", /power of two/],
  ["a lease shorter than three heartbeats", "  routers:", "  heartbeat: { deadMs: 20 }\n  routers:", /three heartbeat/],
  [
    "the mirror as uplink",
    "[{ device: up0, address: 10.77.0.2 }]",
    "[{ device: mir0, address: 10.77.0.2 }]",
    /mirror device/,
  ],
  ["IPv6 on lo", "services:", "addressDevice: lo\nservices:", /neighbour solicitations/],
  ["one mirror address twice", "10.78.0.2", "10.78.0.1", /is router a's, too/],
  ["one uplink address twice", "10.77.0.3", "10.77.0.2", /is router a's, too/],
  ["a router's own address as a service's", "[10.77.0.1", "[10.77.0.3", /is router b's own/],
  [
    "mute beside another arbiter",
    "pair:\n",
    "pair:\n  onSilence: mute\n  arbiter: { kind: external }\n",
    /onSilence: is for arbiter pair only/,
  ],
  ["another word for off", "services:", "http: on\nservices:", /Give one of: off\. Or give a section/],
] as const) {
  test(`refused with its line: ${what}`, () => {
    assert.ok(right.includes(from));
    const error = problem(right.replace(from, to));
    assert.match(error.message, message);
    assert.match(error.message, /^tandem\.yaml:\d+: /);
  });
}

test("two services cannot own one address and port", () => {
  assert.match(
    problem(`${right}  - name: other\n    addresses: [10.77.0.1]\n    port: 8080\n`).message,
    /already belongs/,
  );
});

/** A file of the repository, from the compiled test. */
function repository(file: string): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "examples", "tandem.yaml"))) directory = path.dirname(directory);
  return readFileSync(path.join(directory, file), "utf8");
}
const example = (): string => repository("examples/tandem.yaml");

test("every problem is told at once, in the order of the file, at its own line and with its own remedy", () => {
  const read = readConfig(`router: c
pair:
  keys: etc
  routers:
    a: { mirror: { device: mir0, adress: 10.78.0.1 }, uplinks: [] }
    b: { mirror: { device: mir0, address: fd00::1 }, uplinks: [{ device: up0, address: 10.77.0.3 }] }
services:
  - name: web
    addresses: [10.77.0.1]
    port: 80800
http: { prot: 80 }
speed: fast
`);
  assert.ok("problems" in read);
  const told = read.problems.map(({ line, path: key, remedy }) => `${line} ${key}: ${remedy}`);
  for (const [line, key, remedy] of [
    [1, "router", "Give one of: a, b."],
    [3, "pair.keys", ""],
    [5, "pair.routers.a.mirror.adress", "Did you mean address?"],
    [5, "pair.routers.a.mirror.address", "Add it: a text."],
    [6, "pair.routers.b.mirror.address", ""],
    [10, "services.0.port", ""],
    [11, "http.prot", "Did you mean port?"],
    [12, "speed", "Remove it; what may stand here:"],
  ] as const)
    assert.ok(
      told.some((each) => each.startsWith(`${line} ${key}: ${remedy}`)),
      `${line} ${key} is missing in:\n${told.join("\n")}`,
    );
  assert.deepEqual(
    read.problems.map(({ line }) => line),
    read.problems.map(({ line }) => line).sort((one, other) => one - other),
  );
  for (const { remedy } of read.problems) assert.ok(remedy.length > 0);
});

test("whatever the file holds, it is accepted or refused, never a crash", () => {
  for (const text of [
    "",
    "~",
    "[]",
    "7",
    "{",
    "a: *b",
    "? {a: 1}\n: 2",
    "services: [1, {name: 3}, []]",
    "pair: []",
    "http: 3",
  ]) {
    const read = readConfig(text);
    assert.ok("problems" in read && read.problems.length > 0, text);
    for (const { line } of read.problems) assert.ok(line >= 1);
  }
  const bomb = `a: &a [x, x, x, x, x, x, x, x, x]\n${["b", "c", "d", "e", "f"].map((key, index) => `${key}: &${key} [${`*${"abcdef"[index]}, `.repeat(9)}]`).join("\n")}\n`;
  const read = readConfig(bomb);
  assert.ok("problems" in read && read.problems.length > 0);
});

suite("reload", () => {
  const running = () => parseConfig(right, "running");
  const changed = (from: string, to: string) => parseConfig(right.replace(from, to), "wanted");

  test("nothing differs from itself", () => {
    assert.deepEqual(configDelta(running(), running()), []);
  });

  test("what can change as it runs is taken over, and the rest stays as it was", () => {
    const config = running();
    const wanted = changed("    port: 8080", "    port: 8080\n    lost: silent\nquarantineMs: 5000");
    assert.deepEqual(
      applyDelta(config, wanted).map(({ path: key, from, to }) => [key, from, to]),
      [
        ["services.0.lost", "reset", "silent"],
        ["quarantineMs", 60_000, 5000],
      ],
    );
    assert.deepEqual(config, wanted);
  });

  test("one change that needs a restart is named, and nothing is taken over", () => {
    const config = running();
    const wanted = changed("    port: 8080", "    port: 8081\nquarantineMs: 5000");
    assert.throws(
      () => applyDelta(config, wanted),
      (error) => error instanceof TandemError && error.exitCode === 5 && /services\.0\.port\./.test(error.message),
    );
    assert.deepEqual(config, running());
  });

  test("services that come and go are whole changes", () => {
    const more = parseConfig(`${right}  - { name: other, addresses: [10.77.0.9], port: 90 }\n`, "more");
    assert.deepEqual(
      configDelta(running(), more).map(({ path: key, live }) => [key, live]),
      [["services.1", false]],
    );
    assert.deepEqual(
      configDelta(more, running()).map(({ path: key, to }) => [key, to]),
      [["services.1", undefined]],
    );
  });

  test("a change taken over on one router only does not part the pair; others do", () => {
    const own = agreementOf(running());
    const differs = (text: string) => disagreements(own, agreementOf(parseConfig(text, "partner")));
    assert.deepEqual(differs(right.replace("    port: 8080", "    port: 8080\n    lost: silent")), []);
    assert.deepEqual(differs(right.replace("router: a", "router: b")), []);
    assert.deepEqual(differs(right.replace("    port: 8080", "    port: 8081")), ["services.0"]);
    assert.deepEqual(differs(right.replace("10.77.0.3", "10.77.0.4")), ["pair.routers.b"]);
    assert.deepEqual(differs(`${right}  - { name: other, addresses: [10.77.0.9], port: 90 }\n`), ["services.1"]);
    assert.deepEqual(
      differs(right.replace("  keys: /etc/tandem/keys\n", "").replace("services:", "  keys: /other\nservices:")),
      [],
    );
  });

  test("only what is marked so is live", () => {
    assert.ok(isLive(["quarantineMs"]) && isLive(["services", 3, "lost"]));
    assert.ok(
      !isLive(["services"]) && !isLive(["services", 3]) && !isLive(["pair", "routers", "a"]) && !isLive(["no"]),
    );
    assert.deepEqual(keysAt(["pair", "routers", "a", "mirror"]), ["device", "address"]);
  });
});

test("the example for BGP is right", () => {
  const config = parseConfig(repository("examples/bgp.yaml"), "examples/bgp.yaml");
  assert.deepEqual(
    config.services.map(({ port, remotePort }) => [port, remotePort]),
    [
      [179, undefined],
      [undefined, 179],
    ],
  );
});

test("the example is right as it stands, and for the other router", () => {
  const text = example();
  for (const router of ["a", "b"]) {
    const config = parseConfig(text.replace(/^router: a$/m, `router: ${router}`), "examples/tandem.yaml");
    assert.equal(config.router, router);
    assert.deepEqual(
      config.services.map(({ name }) => name),
      ["web", "bgp"],
    );
  }
});

test("what the example shows commented out is the default", () => {
  const text = example();
  // A commented line is YAML when it is a key, alone or with a value; sentences are not.
  const shown = text.replace(/^( *)# ((?: {2})*[a-zA-Z]+:(?: .*)?)$/gm, (line, indent: string, rest: string) =>
    / [a-z]+ [a-z]+ /.test(rest) ? line : `${indent}${rest}`,
  );
  assert.notEqual(shown, text);
  assert.match(shown, /^ {4}deadMs: 50$/m);
  assert.deepEqual(parseConfig(shown, "shown"), parseConfig(text, "examples/tandem.yaml"));
});
