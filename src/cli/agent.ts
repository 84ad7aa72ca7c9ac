// tandem agent: the daemon of one router, in the foreground, until SIGTERM or SIGINT.
import { Command } from "commander";
import { Agent } from "../agent/agent.js";
import { loadConfig } from "../config/load.js";
import { createLog } from "../observe/journal.js";

export function agentCommand(): Command {
  return new Command("agent")
    .description("run this router's agent")
    .requiredOption("--config <file>", "the configuration file")
    .option("--log-level <level>", "trace, debug, info, warn, error", "info")
    .action(async (options: { config: string; logLevel: string }) => {
      const config = loadConfig(options.config);
      const agent = new Agent(config, createLog(config.router, options.logLevel));
      let asked: () => void = () => {};
      const stop = new Promise<void>((resolve) => {
        asked = resolve;
      });
      for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, asked);
      await agent.start();
      await Promise.race([stop, agent.failed]);
      await agent.stop();
    });
}
