// tandem drill: rehearsals, in the lab or on the live pair.
import { Command } from "commander";
import { configOption, jsonOption, positiveNumber } from "./options.js";

export interface DrillOptions {
  config: string;
  live?: boolean;
  yes?: boolean;
  output?: string;
  lease?: number;
  json?: boolean;
  junit?: string;
  html?: string;
}

export function drillCommand(): Command {
  const command = new Command("drill")
    .summary("rehearse what can happen to a pair")
    .description(
      "Runs scenarios, readable YAML files, and says whether every byte arrived: in a lab on this machine, or, those that are safe, on the live pair.",
    );
  command
    .command("list")
    .summary("show the drills there are")
    .description("Lists the drills that come with the product, and where each may be run.")
    .addOption(jsonOption())
    .action(async (options: { json?: boolean }) => {
      const { showDrills } = await import("./drill-run.js");
      await showDrills(options);
    });
  command
    .command("run")
    .summary("run one drill")
    .description(
      "Runs one drill in a lab with real agents and traffic of its own; exit code 1 when a byte was lost, changed or came twice, or something else is not as the scenario expects. With --live on the pair of the configuration: refused (exit code 5) when the pair is not ready, and taken back when a step fails.",
    )
    .argument("<name>", "one of tandem drill list, or a scenario file (.yaml)")
    .option("--live", "on the live pair instead of in a lab: sessions of others change places")
    .addOption(configOption())
    .option("-y, --yes", "with --live: do not ask")
    .option("-o, --output <directory>", "where report and captures go (default: tandem-drill-NAME)")
    .option("--lease <ms>", "in the lab: how long an active may be unheard; longer on a busy machine", positiveNumber)
    .option("--junit <file>", "also write JUnit XML")
    .option("--html <file>", "also write the report as one HTML file")
    .addOption(jsonOption())
    .action(async (name: string, options: DrillOptions) => {
      const { showDrill } = await import("./drill-run.js");
      await showDrill(name, options);
    });
  return command;
}
