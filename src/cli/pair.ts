// tandem pair init: makes the pair's secret, certificates and keys.
import { Command } from "commander";
import { createPairKeys } from "../pair/keys.js";
import { jsonOption } from "./options.js";
import { write } from "./terminal.js";

/** Which files each router needs. */
const filesOf = { a: ["secret", "a.crt", "a.key", "b.crt"], b: ["secret", "a.crt", "b.crt", "b.key"] };

export function pairCommand(): Command {
  const command = new Command("pair").summary("make the pair's keys").description("Works with the pair's keys.");
  command
    .command("init")
    .summary("make new keys")
    .description("Makes new keys; copy the directory to the partner, leaving out this router's .key.")
    .requiredOption("--keys <directory>", "where to put them")
    .addOption(jsonOption())
    .action(async (options: { keys: string; json?: boolean }) => {
      createPairKeys(options.keys);
      if (options.json) return write(`${JSON.stringify({ directory: options.keys, files: filesOf })}\n`);
      const needs = Object.entries(filesOf).map(([router, files]) => `router ${router} needs ${files.join(", ")}`);
      await write(`${options.keys}: keys made. ${needs.join("; ")}.\n`);
    });
  return command;
}
