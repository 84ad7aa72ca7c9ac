// tandem detach: takes the data plane off this router, after its agent was stopped for good.
import path from "node:path";
import { Command } from "commander";
import { loadConfig } from "../config/load.js";
import { addressDeviceOf } from "../config/schema.js";
import { exitCodes, TandemError } from "../errors.js";
import { detachDataPlane } from "../net/dataplane.js";
import { askStatus } from "./status.js";

export function detachCommand(): Command {
  return new Command("detach")
    .description(
      "remove programs, pins and backstop that a stopped agent left in place; the service is open afterwards",
    )
    .requiredOption("--config <file>", "the configuration file of the agent that was stopped")
    .action(async (options: { config: string }) => {
      const config = loadConfig(options.config);
      const running = await askStatus(path.join(config.paths.run, "agent.sock")).then(
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
      detachDataPlane(config);
      const addresses = [...new Set(config.services.flatMap((service) => service.addresses))].join(", ");
      process.stdout.write(`Detached. The service addresses (${addresses}) stay on ${addressDeviceOf(config)}.\n`);
    });
}
