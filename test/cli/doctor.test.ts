// Doctor's judgements that need no lab: keys by their dates and pairs, and what a status says about the pair's health.
import assert from "node:assert/strict";
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, suite, test } from "node:test";
import { native } from "../../addon/native.js";
import { parseConfig } from "../../src/config/load.js";
import { checkVirtualMac } from "../../src/doctor/devices.js";
import type { Finding } from "../../src/doctor/finding.js";
import { checkKeys } from "../../src/doctor/keys.js";
import { judge } from "../../src/doctor/pair.js";
import type { AgentStatus } from "../../src/observe/status.js";
import { createPairKeys } from "../../src/pair/keys.js";

const directory = mkdtempSync(path.join(tmpdir(), "tandem-doctor-"));
after(() => rmSync(directory, { recursive: true }));

/** Those that are not in order, as "level: sentence". */
const said = (findings: Finding[]): string[] =>
  findings.filter(({ level }) => level !== "ok").map(({ level, what }) => `${level}: ${what}`);

suite("keys", () => {
  const keys = path.join(directory, "keys");
  createPairKeys(keys);
  const config = (where = keys) =>
    parseConfig(
      `router: a
pair:
  keys: ${where}
  routers:
    a: { mirror: { device: mir0, address: 10.78.0.1 }, uplinks: [{ device: up0, address: 10.77.0.2 }] }
    b: { mirror: { device: mir0, address: 10.78.0.2 }, uplinks: [{ device: up0, address: 10.77.0.3 }] }
services: [{ name: web, addresses: [10.77.0.1], port: 8080 }]
`,
      "test",
    );
  const day = 86_400_000;

  test("new ones are right", () => {
    assert.deepEqual(said(checkKeys(config())), []);
  });

  test("both certificates' dates are looked at", () => {
    assert.match(said(checkKeys(config(), Date.now() - 2 * day)).join(), /a\.crt is valid from .*clock.*b\.crt/);
    const soon = checkKeys(config(), Date.now() + 3640 * day);
    assert.deepEqual(
      soon.map(({ level }) => level),
      ["warning", "warning"],
    );
    assert.match(said(checkKeys(config(), Date.now() + 3660 * day)).join(), /problem: a\.crt expired/);
  });

  test("a key of another pair, an open one, a missing one", () => {
    const other = path.join(directory, "other");
    createPairKeys(other);
    copyFileSync(path.join(keys, "a.key"), path.join(other, "a.key"));
    assert.match(said(checkKeys(config(other))).join(), /a\.key does not belong to a\.crt/);
    copyFileSync(path.join(other, "a.crt"), path.join(other, "b.crt"));
    assert.match(said(checkKeys(config(other))).join(), /Both certificates are the same/);
    chmodSync(path.join(other, "a.key"), 0o644);
    assert.match(said(checkKeys(config(other))).join(), /can be read by others/);
    writeFileSync(path.join(keys, "b.crt"), "nonsense");
    assert.match(said(checkKeys(config())).join(), /b\.crt is no certificate/);
    rmSync(path.join(keys, "secret"));
    const [missing] = checkKeys(config());
    assert.equal(missing?.level, "problem");
    assert.match(missing?.fix ?? "", /pair init/);
  });
});

test("a device that has the virtual MAC for its own", () => {
  const [loopback] = native.links();
  assert.ok(loopback);
  const links = [{ ...loopback, name: "up0", mac: Uint8Array.of(2, 0, 0x5e, 0x10, 0, 1) }];
  assert.deepEqual(said(checkVirtualMac({ virtualMac: "02:00:5e:10:00:02" }, links)), []);
  assert.match(
    said(checkVirtualMac({ virtualMac: "02:00:5e:10:00:01" }, links)).join(),
    /^problem: up0 has the virtual/,
  );
});

suite("the pair", () => {
  const healthy: AgentStatus = {
    router: "a",
    role: "active",
    reason: "",
    epoch: 3,
    gate: "reflect",
    voiceMs: 40,
    partner: { role: "standby", epoch: 3 },
    arbiter: { kind: "pair", reachable: true, leaseMs: null, lastAnswer: null },
    agreed: true,
    differences: [],
    paused: null,
    paths: [{ name: "mirror", up: true, rttMs: 0.1 }],
    sessions: { total: 2, ready: 2, notReady: {} },
    recorder: { records: 0, backlog: 0, held: 0, badChecksums: 0, auditBreaches: 0 },
    packets: {},
    duplicates: [],
    held: 0,
    lastTakeover: null,
  };
  test("healthy", () => {
    assert.deepEqual(said(judge(healthy)), []);
  });
  for (const [what, change, pattern] of [
    ["no partner", { partner: null }, /^warning: Router b is not heard\.$/],
    [
      "differing",
      { agreed: false, differences: ["services.0"] },
      /^problem: The routers do not agree \(services\.0\)\.$/,
    ],
    ["no control channel", { agreed: false }, /^problem: .*control channel is not up\.$/],
    ["a silent path", { paths: [{ name: "uplink", up: false, rttMs: 0 }] }, /^warning: The uplink path is silent\.$/],
    ["paused", { paused: "change window" }, /^warning: .*change window\.$/],
    ["unready", { sessions: { total: 3, ready: 1, notReady: { memory: 2 } } }, /^warning: 2 sessions would be lost/],
    [
      "nothing comes back",
      { packets: { TD_PASS_REFLECT_IN: 60, TD_PASS_REFLECT_OUT: 40 } },
      /^problem: 100 segments went to the standby, and 0 came back\.$/,
    ],
    ["a full ring", { packets: { TD_DROP_RING_FULL: 3 } }, /^warning: 3 times segments came faster/],
    [
      "no arbiter",
      { arbiter: { kind: "etcd", reachable: false, leaseMs: null, lastAnswer: null } },
      /^warning: The arbiter \(etcd\) does not answer/,
    ],
    ["an application that died", { held: 2 }, /^warning: An application died, and 2 of its sessions are held/],
    ["a breach", { recorder: { ...healthy.recorder, auditBreaches: 1 } }, /^problem: 1 times a byte passed/],
    ["damage", { recorder: { ...healthy.recorder, badChecksums: 5 } }, /^warning: 5 segments came damaged/],
  ] as const)
    test(what, () => {
      const findings = judge({ ...healthy, ...change } as AgentStatus);
      assert.equal(said(findings).length, 1);
      assert.match(said(findings)[0] ?? "", pattern);
      for (const { level, fix } of findings) assert.equal(fix === null, level === "ok");
    });
});
