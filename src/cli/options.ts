// Options that several commands have, and what they stand for.
import path from "node:path";
import { InvalidArgumentError, Option } from "commander";
import { loadConfig } from "../config/load.js";

export const defaultConfig = "/etc/tandem/tandem.yaml";

export const configOption = (): Option =>
  new Option("-c, --config <file>", "the configuration file").env("TANDEM_CONFIG").default(defaultConfig);

export const jsonOption = (): Option => new Option("--json", "one JSON document instead of text");

/** Seconds between two looks. */
export const watchOption = (): Option =>
  new Option("-w, --watch [seconds]", "look again and again, until Ctrl-C").preset(2).argParser(positiveNumber);

export interface AgentOptions {
  config: string;
  json?: boolean;
}

/** The socket of the agent with this configuration. Throws TandemError (exit code 3). */
export function agentSocket(options: { config: string }): string {
  return path.join(loadConfig(options.config).paths.run, "agent.sock");
}

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError("A whole number above 0 is needed.");
  return value;
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError("A number above 0 is needed.");
  return value;
}
