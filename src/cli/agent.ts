// tandem agent: the daemon of one router, in the foreground, until SIGTERM or SIGINT.
import { Command, Option } from "commander";
import { loadConfig } from "../config/load.js";
import { sentenceOf } from "../errors.js";
import { createLog } from "../observe/journal.js";
import { configOption } from "./options.js";

export function agentCommand(): Command {
  return new Command("agent")
    .summary("run this router's agent")
    .description(
      "Runs this router's agent in the foreground. SIGTERM and SIGINT end it; SIGHUP makes it read its configuration again.",
    )
    .addOption(configOption())
    .addOption(
      new Option("--log-level <level>", "how much it logs")
        .choices(["trace", "debug", "info", "warn", "error"])
        .default("info"),
    )
    .action(async (options: { config: string; logLevel: string }) => {
      const config = loadConfig(options.config);
      // The other commands do without what the agent is made of, and start the faster.
      const { Agent } = await import("../agent/agent.js");
      const log = createLog(config.router, options.logLevel);
      const agent = new Agent(config, log, () => loadConfig(options.config));
      let asked: () => void = () => {};
      const stop = new Promise<void>((resolve) => {
        asked = resolve;
      });
      for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, asked);
      process.on("SIGHUP", () => {
        try {
          agent.reload(false);
        } catch (error) {
          log.error(`The configuration was not reloaded: ${sentenceOf(error)}`);
        }
      });
      await agent.start();
      await Promise.race([stop, agent.failed]);
      await agent.stop();
    });
}
