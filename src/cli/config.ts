// tandem config, tandem reload: the configuration file, alone and against the running agent.
import { Command } from "commander";
import { renderDelta } from "../config/delta.js";
import { configText, loadConfig, readConfig } from "../config/load.js";
import { configJsonSchema } from "../config/reference.js";
import { exitCodes } from "../errors.js";
import { reloadCommand as question } from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import { type AgentOptions, agentSocket, configOption, jsonOption } from "./options.js";
import { write } from "./terminal.js";

export function configCommand(): Command {
  const command = new Command("config")
    .summary("check the configuration file")
    .description("Works with the configuration file.");
  command
    .command("check")
    .summary("say whether the file is right")
    .description(
      "Reads the configuration as the agent would, and says with key, line and remedy what is wrong with it.",
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (options: AgentOptions) => {
      if (options.json) return checkForMachines(options.config);
      const { router, services } = loadConfig(options.config);
      const names = services.map(({ name }) => name).join(", ");
      await write(`${options.config}: right, for router ${router}, services ${names}\n`);
    });
  command
    .command("schema")
    .summary("print the JSON Schema of the file")
    .description("Prints the JSON Schema of the configuration, for editors and for programs that write it.")
    .action(() => write(`${JSON.stringify(configJsonSchema(), null, 2)}\n`));
  return command;
}

async function checkForMachines(file: string): Promise<void> {
  const read = readConfig(configText(file));
  const problems = "problems" in read ? read.problems : [];
  await write(`${JSON.stringify({ file, right: problems.length === 0, problems })}\n`);
  if (problems.length > 0) process.exitCode = exitCodes.configuration;
}

export function reloadCommand(): Command {
  return new Command("reload")
    .summary("let the agent take over changes of the file")
    .description(
      "Shows what differs between the running configuration and the file, and lets the agent take it over as it runs: all of it, or, when a change needs a restart, nothing (exit code 5). SIGHUP does the same.",
    )
    .addOption(configOption())
    .option("-n, --dry-run", "only show what differs")
    .addOption(jsonOption())
    .action(async (options: AgentOptions & { dryRun?: boolean }) => {
      const socket = agentSocket(options);
      const { delta } = await ask(socket, question, { dryRun: true });
      if (!options.json)
        await write(delta.length === 0 ? "Nothing differs.\n" : `The file differs:\n${renderDelta(delta)}`);
      const answer = options.dryRun ? { applied: false, delta } : await ask(socket, question, { dryRun: false });
      if (options.json) await write(`${JSON.stringify(answer)}\n`);
      else if (answer.applied && answer.delta.length > 0) await write("The agent has taken it over.\n");
    });
}
