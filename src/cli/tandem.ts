#!/usr/bin/env node
// The command line: one verb a file, errors with their remedy, exit codes as in src/errors.ts.
import { Command, CommanderError } from "commander";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import { agentCommand } from "./agent.js";
import { configCommand } from "./config.js";
import { detachCommand } from "./detach.js";
import { labCommand } from "./lab.js";
import { pairCommand } from "./pair.js";
import { statusCommand } from "./status.js";

const program = new Command("tandem")
  .description("TCP high availability for a pair of Linux routers")
  .exitOverride()
  .configureOutput({ writeErr: (text) => process.stderr.write(text) });

for (const command of [
  agentCommand(),
  statusCommand(),
  configCommand(),
  pairCommand(),
  detachCommand(),
  labCommand(),
]) {
  command.exitOverride();
  program.addCommand(command);
}

try {
  await program.parseAsync(process.argv);
} catch (error) {
  process.exitCode = report(error);
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  if (error instanceof TandemError) {
    process.stderr.write(`tandem: ${error.message}\n  ${error.code}: ${error.remedy}\n`);
    return error.exitCode;
  }
  process.stderr.write(`tandem: ${error instanceof Error && process.env.DEBUG ? error.stack : sentenceOf(error)}\n`);
  return exitCodes.failed;
}
