// tandem pair init: makes the pair's secret, certificates and keys.
import { Command } from "commander";
import { createPairKeys } from "../pair/keys.js";

export function pairCommand(): Command {
  const command = new Command("pair").description("work with the pair's keys");
  command
    .command("init")
    .description("make new keys; copy the directory to the partner, leaving out this router's .key")
    .requiredOption("--keys <directory>", "where to put them")
    .action((options: { keys: string }) => {
      createPairKeys(options.keys);
      process.stdout.write(
        `${options.keys}: keys made. Router a needs secret, a.crt, a.key, b.crt; router b needs secret, a.crt, b.crt, b.key.\n`,
      );
    });
  return command;
}
