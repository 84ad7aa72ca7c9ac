// docs/monitoring.md says of each metric what the agent says of it; and of each alert that it is there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { Metrics } from "../../src/observe/metrics.js";
import { deployDirectory, ruleGroups } from "./deployed.js";
import { look } from "./looks.js";

const reference = readFileSync(path.join(path.dirname(deployDirectory), "docs", "monitoring.md"), "utf8");

test("the table of metrics is what the agent offers", async () => {
  const active = look({ role: "active", gate: "reflect", leaseLeftSeconds: 0.04 });
  const metrics = new Metrics({ version: "1", observe: async () => active });
  metrics.drill({ name: "switchover", passed: true, blackoutMs: 20 }, 0);
  const text = await metrics.scrape();
  const offered = [...text.matchAll(/^# HELP (tandem_\w+) (.*)\n# TYPE \w+ (\w+)$/gm)].map(([, name, help, type]) => {
    const labels = new RegExp(`^${name}(?:_count)?\\{(.*)\\} `, "m").exec(text)?.[1] ?? "";
    const names = [...labels.matchAll(/(\w+)="/g)].map(([, label]) => label);
    return `| \`${name}\` | ${type} | ${names.join(", ")} | ${help} |`;
  });
  assert.ok(offered.length > 40);
  assert.deepEqual(
    reference.split("\n").filter((line) => line.startsWith("| `tandem_")),
    offered,
  );
});

test("each alert is explained, and none that is gone", () => {
  assert.deepEqual(
    [...reference.matchAll(/^\| `(Tandem\w+)` \| (\w+) \|/gm)].map(([, name, severity]) => `${name} ${severity}`),
    ruleGroups().flatMap(({ rules }) =>
      rules.flatMap(({ alert, labels }) => (alert ? [`${alert} ${labels?.severity}`] : [])),
    ),
  );
});
