// tandem config check: reads a configuration as the agent would, and changes nothing.
import { Command } from "commander";
import { loadConfig } from "../config/load.js";

export function configCommand(): Command {
  const command = new Command("config").description("work with the configuration file");
  command
    .command("check")
    .description("say whether the file is right, and with path and line what is not")
    .requiredOption("--config <file>", "the configuration file")
    .action((options: { config: string }) => {
      const config = loadConfig(options.config);
      process.stdout.write(
        `${options.config}: right, for router ${config.router}, services ${config.services.map((s) => s.name).join(", ")}\n`,
      );
    });
  return command;
}
