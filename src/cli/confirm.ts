// Asks before something is done to a pair that carries sessions.
import { createInterface } from "node:readline/promises";
import { exitCodes, TandemError } from "../errors.js";

/** Throws TandemError NOT_CONFIRMED. */
export async function confirm(question: string): Promise<void> {
  let answer = "";
  if (process.stdin.isTTY === true) {
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    answer = await terminal.question(`${question} [y/N] `);
    terminal.close();
  }
  if (/^y(es)?$/i.test(answer.trim())) return;
  throw new TandemError(
    "NOT_CONFIRMED",
    "It was not confirmed, and nothing was done.",
    "Answer y, or say --yes where nobody can answer.",
    exitCodes.refused,
  );
}
