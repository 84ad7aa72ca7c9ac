// What tandem drill does: apart from its definition, since the other commands need nothing of it.
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { renderJunit } from "../drill/junit.js";
import { LabStage } from "../drill/lab-stage.js";
import { LiveStage, restartUnit } from "../drill/live-stage.js";
import { renderDrillPage } from "../drill/page.js";
import type { DrillReport } from "../drill/report.js";
import { runDrill } from "../drill/run.js";
import { findScenario, listScenarios, type Scenario } from "../drill/scenario.js";
import { renderReport } from "../drill/text.js";
import { TandemError } from "../errors.js";
import { confirm } from "./confirm.js";
import type { DrillOptions } from "./drill.js";
import { inLab } from "./lab-run.js";
import { agentSocket } from "./options.js";
import { painter, table, wantsColour, write } from "./terminal.js";

export async function showDrills({ json }: { json?: boolean }): Promise<void> {
  const drills = listScenarios().map(({ name, title, description, where }) => ({ name, title, description, where }));
  if (json) return write(`${JSON.stringify({ drills })}\n`);
  const rows = drills.map(({ name, title, where }) => [name, where.join(", "), title]);
  await write(table(["DRILL", "WHERE", "WHAT"], rows));
}

/** Throws TandemError DRILL_FAILED, DRILL_REFUSED and what scenarios, labs and agents throw. */
export async function showDrill(name: string, options: DrillOptions): Promise<void> {
  const scenario = findScenario(name);
  const directory = path.resolve(options.output ?? `tandem-drill-${scenario.name}`);
  const started = performance.now();
  const say = (line: string): void => {
    process.stderr.write(`${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${line}\n`);
  };
  const report = options.live
    ? await runLive(scenario, options, say)
    : await inLab(() => runInLab(scenario, directory, options, say));
  const put = (file: string, text: string): void => {
    mkdirSync(path.dirname(path.resolve(file)), { recursive: true });
    writeFileSync(file, text);
  };
  const document = `${JSON.stringify(report, null, 2)}\n`;
  put(path.join(directory, "report.json"), document);
  if (options.junit) put(options.junit, renderJunit(report));
  if (options.html) put(options.html, renderDrillPage(report));
  await write(options.json ? document : renderReport(report, painter(wantsColour(process.stdout))));
  if (report.verdict === "failed")
    throw new TandemError(
      "DRILL_FAILED",
      `The drill ${scenario.name} failed: ${report.breaches.join("; ")}.`,
      `See ${directory}.${report.where === "lab" ? " On a busy machine give the lab a longer --lease." : ""}`,
    );
}

async function runInLab(
  scenario: Scenario,
  directory: string,
  { lease }: DrillOptions,
  say: (line: string) => void,
): Promise<DrillReport> {
  if (!scenario.where.includes("lab"))
    throw new TandemError("DRILL_LIVE_ONLY", `The drill ${scenario.name} is not for the lab.`, "Run it with --live.");
  say("building the lab: a peer, two routers, their agents and an application");
  const stage = await LabStage.build(scenario, { directory, leaseMs: lease });
  try {
    say(`${stage.sessions} sessions are protected`);
    return await runDrill(scenario, stage, say);
  } finally {
    stage.destroy();
  }
}

async function runLive(scenario: Scenario, options: DrillOptions, say: (line: string) => void): Promise<DrillReport> {
  const stage = await LiveStage.enter(scenario, { socket: agentSocket(options), restartAgent: restartUnit });
  if (!options.yes) await confirm(`${scenario.title}: do it on this pair, with the sessions it carries?`);
  const report = await runDrill(scenario, stage, say);
  await stage.tell(report);
  return report;
}
