// Configuration: what is right is accepted with its defaults, what is wrong is said with path, line and remedy.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { parseConfig } from "../../src/config/load.js";
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
  ["an unknown key", "    port: 8080", "    prot: 8080", /tandem\.yaml:8: services\.0: .*prot/],
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
  ["one mirror address twice", "10.78.0.2", "10.78.0.1", /same as router a's/],
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

/** examples/tandem.yaml, from the compiled test. */
function example(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "examples", "tandem.yaml"))) directory = path.dirname(directory);
  return readFileSync(path.join(directory, "examples", "tandem.yaml"), "utf8");
}

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
