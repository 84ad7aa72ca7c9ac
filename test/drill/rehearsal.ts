// Runs one drill in a lab of its own, for the tests.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { LabStage } from "../../src/drill/lab-stage.js";
import { type DrillReport, drillReportSchema } from "../../src/drill/report.js";
import { runDrill } from "../../src/drill/run.js";
import type { Scenario } from "../../src/drill/scenario.js";

export const skip = process.getuid?.() === 0 ? false : "needs root";
/** The lease is not what is measured here; a noisy machine must not look like a dead router. */
const leaseMs = 300;

/** `look` sees the report while its files are there. */
export async function rehearse(scenario: Scenario, look: (report: DrillReport) => void): Promise<void> {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-drill-"));
  try {
    const stage = await LabStage.build(scenario, { leaseMs, directory });
    try {
      look(drillReportSchema.parse(await runDrill(scenario, stage, () => {})));
    } finally {
      stage.destroy();
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
}

export async function assertPasses(scenario: Scenario): Promise<void> {
  await rehearse(scenario, (report) => {
    assert.deepEqual(report.breaches, []);
    assert.equal(report.verdict, "passed");
    assert.equal(report.sameHash, scenario.sessions);
    assert.equal(report.takeovers.length, scenario.expect.takeovers);
    assert.equal(report.stepsMs === null, scenario.expect.takeovers === 0);
    assert.ok(report.timeline.answers.length > 1 && report.timeline.roles.length > 0);
    for (const file of report.evidence) assert.ok(existsSync(file), file);
    // At the least the peers' questions are in the capture.
    const pcap = report.evidence.find((file) => file.endsWith(".pcap")) ?? "";
    assert.ok(statSync(pcap).size > (report.bytesIn ?? 0));
  });
}
