// tandem detach: takes the data plane off this router, after its agent was stopped for good.
import { Command } from "commander";
import { loadConfig } from "../config/load.js";
import { addressDeviceOf } from "../config/schema.js";
import { exitCodes, TandemError } from "../errors.js";
import { statusCommand } from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import { type AgentOptions, agentSocket, configOption, jsonOption } from "./options.js";
import { write } from "./terminal.js";

export function detachCommand(): Command {
  return new Command("detach")
    .summary("take the data plane off this router for good")
    .description(
      "Removes programs, pins and backstop that a stopped agent left in place. The service is open afterwards, and its addresses stay.",
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async (options: AgentOptions) => {
      const config = loadConfig(options.config);
      const running = await ask(agentSocket(options), statusCommand, {}).then(
        () => true,
        () => false,
      );
      if (running)
        throw new TandemError(
          "AGENT_RUNNING",
          "The agent with this configuration is running.",
          "Stop it first (SIGTERM, or systemctl stop tandem).",
          exitCodes.refused,
        );
      const { detachDataPlane } = await import("../net/dataplane.js");
      detachDataPlane(config);
      const addresses = [...new Set(config.services.flatMap((service) => service.addresses))];
      const device = addressDeviceOf(config);
      await write(
        options.json
          ? `${JSON.stringify({ addresses, device })}\n`
          : `Detached. The service addresses (${addresses.join(", ")}) stay on ${device}.\n`,
      );
    });
}
