#!/usr/bin/env node
// The command line: errors with their remedy, exit codes as in src/errors.ts.
import { CommanderError } from "commander";
import { errnoOf, exitCodes, sentenceOf, TandemError } from "../errors.js";
import { createProgram } from "./program.js";

// A reader that has seen enough (head, less) ends us without a word.
process.stdout.on("error", (error) => {
  if (errnoOf(error) === "EPIPE") process.exit(exitCodes.ok);
  throw error;
});

try {
  await createProgram().parseAsync(process.argv);
} catch (error) {
  process.exitCode = report(error);
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  if (error instanceof TandemError) {
    const { code, message, remedy, exitCode } = error;
    process.stderr.write(
      process.argv.includes("--json")
        ? `${JSON.stringify({ error: { code, message, remedy, exitCode } })}\n`
        : `tandem: ${message}\n  ${code}: ${remedy}\n`,
    );
    return exitCode;
  }
  process.stderr.write(`tandem: ${error instanceof Error && process.env.DEBUG ? error.stack : sentenceOf(error)}\n`);
  return exitCodes.failed;
}
