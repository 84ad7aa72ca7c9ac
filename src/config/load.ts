// Reads one configuration file; what is wrong with it is said with path, line and remedy.
import { readFileSync } from "node:fs";
import { LineCounter, parseDocument } from "yaml";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import { type Config, configSchema } from "./schema.js";

const remedy = "Correct the file and check it with `tandem config check --config FILE`.";

/** Throws TandemError CONFIG_UNREADABLE or CONFIG_INVALID (exit code 3). */
export function loadConfig(file: string): Config {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new TandemError(
      "CONFIG_UNREADABLE",
      `The configuration ${file} cannot be read: ${sentenceOf(error)}.`,
      "Name an existing file with --config.",
      exitCodes.configuration,
    );
  }
  return parseConfig(text, file);
}

/** `file` is only for the messages. */
export function parseConfig(text: string, file: string): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const problems = document.errors.map(
    (error) => `${file}:${lines.linePos(error.pos[0]).line}: ${error.message.split("\n")[0]}`,
  );
  if (problems.length === 0) {
    const parsed = configSchema.safeParse(document.toJS());
    if (parsed.success) return parsed.data;
    for (const issue of parsed.error.issues) {
      const path = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
      problems.push(`${file}:${lineOf(path)}: ${path.join(".") || "(whole file)"}: ${issue.message}`);
    }
  }
  throw new TandemError("CONFIG_INVALID", problems.join("\n"), remedy, exitCodes.configuration);

  // The line of the deepest part of the path that stands in the file.
  function lineOf(path: (string | number)[]): number {
    for (let depth = path.length; depth > 0; depth--) {
      const node = document.getIn(path.slice(0, depth), true);
      if (typeof node === "object" && node !== null && "range" in node && Array.isArray(node.range))
        return lines.linePos(Number(node.range[0])).line;
    }
    return 1;
  }
}
