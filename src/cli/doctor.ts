// tandem doctor: what is wrong with this router and the pair, each with the command that mends it.
import { Command } from "commander";
import { z } from "zod";
import { loadConfig } from "../config/load.js";
import { type Finding, finding, type Level, levels } from "../doctor/finding.js";
import { exitCodes } from "../errors.js";
import { type AgentOptions, configOption, jsonOption } from "./options.js";
import { type Colour, type Paint, painter, wantsColour, write } from "./terminal.js";

export const doctorAnswer = z.object({
  healthy: z.boolean().describe("There is no problem; then the exit code is 0, otherwise 1."),
  findings: z.array(finding).describe("All that was looked at."),
});

const colours: Record<Level, Colour> = { ok: "green", note: "dim", warning: "yellow", problem: "red" };

export function doctorCommand(): Command {
  return new Command("doctor")
    .summary("find what is wrong, and how to mend it")
    .description(
      "Looks at all that protection rests on: kernel features (by using them), capabilities, devices, XDP modes, offloads, MTUs, other programs, kernel settings, clock, keys, and, through the running agent, the partner. Each finding comes with its fix. Exit code 1 when there is a problem. An XDP program is attached for a moment to devices on which no agent runs.",
    )
    .addOption(configOption())
    .option("-q, --quiet", "only what is not in order")
    .addOption(jsonOption())
    .action(async (options: AgentOptions & { quiet?: boolean }) => {
      const config = loadConfig(options.config);
      const { examine } = await import("../doctor/doctor.js");
      const all = await examine(config);
      const findings = options.quiet ? all.filter(({ level }) => level !== "ok") : all;
      const healthy = all.every(({ level }) => level !== "problem");
      if (options.json) await write(`${JSON.stringify({ healthy, findings })}\n`);
      else await write(render(findings, all, painter(wantsColour(process.stdout))));
      if (!healthy) process.exitCode = exitCodes.failed;
    });
}

function render(findings: Finding[], all: Finding[], paint: Paint): string {
  const lines = findings.map(
    ({ check, level, what, fix }) =>
      `${paint(colours[level], level.padEnd(7))}  ${check.padEnd(13)} ${what}\n${fix === null ? "" : `${" ".repeat(23)} fix: ${paint("bold", fix)}\n`}`,
  );
  const counts = levels
    .map((level) => [level, all.filter((each) => each.level === level).length] as const)
    .filter(([, count]) => count > 0)
    .map(([level, count]) => `${count} ${level}${count === 1 || level === "ok" ? "" : "s"}`);
  return `${lines.join("")}\n${counts.join(", ")}\n`;
}
