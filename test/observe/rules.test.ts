// The rules of deploy/prometheus under promtool, and the dashboards of deploy/grafana as far as they can be judged
// without Grafana. Whether their queries find data is asked in monitoring.test.ts.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { z } from "zod";
import { programNamed } from "./browser.js";
import { dashboards, deployDirectory, ruleGroups } from "./deployed.js";

const promtool = programNamed("promtool");
const skip = promtool ? false : "needs promtool (Debian package prometheus)";
const directory = path.join(deployDirectory, "prometheus");

function check(...arguments_: string[]): void {
  const { status, stdout, stderr } = spawnSync(promtool ?? "", arguments_, { cwd: directory, encoding: "utf8" });
  assert.equal(status, 0, stdout + stderr);
}

test("promtool accepts the example and the rules", { skip }, () => {
  check("check", "config", "prometheus.yml");
  check("check", "rules", "tandem.rules.yml");
});

test("each alert fires when it should and is silent otherwise", { skip }, () => {
  check("test", "rules", "tandem.test.yml");
});

test("no alert is without a test of its firing and one of its silence", () => {
  const cases = z
    .object({
      tests: z.array(
        z.object({
          alert_rule_test: z.array(z.object({ alertname: z.string(), exp_alerts: z.array(z.unknown()).optional() })),
        }),
      ),
    })
    .parse(parse(readFileSync(path.join(directory, "tandem.test.yml"), "utf8")))
    .tests.flatMap((each) => each.alert_rule_test);
  const alerts = ruleGroups().flatMap(({ rules }) => rules.flatMap(({ alert }) => alert ?? []));
  const tested = (firing: boolean) =>
    [
      ...new Set(
        cases
          .filter(({ exp_alerts: expected }) => (expected ?? []).length > 0 === firing)
          .map((each) => each.alertname),
      ),
    ].sort();
  assert.deepEqual(tested(true), [...alerts].sort());
  assert.deepEqual(tested(false), [...alerts].sort());
});

test("dashboards: one data source, ids of their own, and no panel over another", () => {
  const source = z
    .object({ datasources: z.tuple([z.object({ uid: z.string(), type: z.literal("prometheus") })]) })
    .parse(parse(readFileSync(path.join(deployDirectory, "grafana/provisioning/datasources/tandem.yaml"), "utf8")));
  const uids = new Set<string>();
  for (const { file, dashboard } of dashboards()) {
    assert.ok(!uids.has(dashboard.uid), `${file}: the uid ${dashboard.uid} is another dashboard's`);
    uids.add(dashboard.uid);
    const taken = new Map<string, string>();
    const ids = new Set<number>();
    for (const { id, title, gridPos, datasource, targets } of dashboard.panels) {
      assert.ok(!ids.has(id), `${file}: two panels have the id ${id}`);
      ids.add(id);
      assert.ok(gridPos.x + gridPos.w <= 24, `${file}: ${title} is out of the grid`);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.equal(taken.get(`${x} ${y}`), undefined, `${file}: ${title} lies over another panel`);
          taken.set(`${x} ${y}`, title);
        }
      if (targets) assert.equal(datasource?.uid, source.datasources[0].uid, `${file}: ${title}`);
    }
  }
  assert.ok(uids.size >= 2);
});

test("the provider's file is one Grafana reads", () => {
  const provider = z.object({
    apiVersion: z.literal(1),
    providers: z.array(
      z.object({ name: z.string(), type: z.literal("file"), options: z.object({ path: z.string() }) }),
    ),
  });
  const folder = path.join(deployDirectory, "grafana/provisioning/dashboards");
  for (const file of readdirSync(folder)) provider.parse(parse(readFileSync(path.join(folder, file), "utf8")));
  assert.ok(existsSync(path.join(folder, "tandem.yaml")));
});
