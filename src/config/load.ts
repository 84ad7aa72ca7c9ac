// Reads one configuration file; what is wrong with it is said with path, line and remedy.
import { readFileSync } from "node:fs";
import { type Document, isMap, isScalar, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import { keysAt, wordsAt } from "./reference.js";
import { type Config, configSchema } from "./schema.js";

/** One thing wrong, ready for a person or an editor. */
export interface ConfigProblem {
  /** Counted from 1. */
  line: number;
  /** Keys joined by dots, list entries from 0; "" is the whole file. */
  path: string;
  message: string;
  remedy: string;
}

/** Throws TandemError CONFIG_UNREADABLE or CONFIG_INVALID (exit code 3). */
export function loadConfig(file: string): Config {
  return parseConfig(configText(file), file);
}

/** Throws TandemError CONFIG_UNREADABLE. */
export function configText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new TandemError(
      "CONFIG_UNREADABLE",
      `The configuration ${file} cannot be read: ${sentenceOf(error)}.`,
      "Name an existing file with --config.",
      exitCodes.configuration,
    );
  }
}

/** `file` is only for the messages. */
export function parseConfig(text: string, file: string): Config {
  const read = readConfig(text);
  if ("config" in read) return read.config;
  throw new TandemError(
    "CONFIG_INVALID",
    read.problems
      .map(({ line, path, message, remedy }) => `${file}:${line}: ${path || "(whole file)"}: ${message}. ${remedy}`)
      .join("\n"),
    `Correct it, and check it with: tandem config check --config ${file}`,
    exitCodes.configuration,
  );
}

/** The configuration with its defaults, or all that is wrong with it, by line. */
export function readConfig(text: string): { config: Config } | { problems: ConfigProblem[] } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const lineAt = (offset: number): number => lines.linePos(offset).line;
  const syntax = document.errors.map((error) => ({
    line: lineAt(error.pos[0]),
    path: "",
    message: (error.message.split("\n")[0] ?? "").replace(/ at line \d+, column \d+:$/, ""),
    remedy: "Mend the YAML there: keys of one section are indented alike, and strings with special signs quoted.",
  }));
  if (syntax.length > 0) return { problems: syntax };
  let value: unknown;
  try {
    value = document.toJS();
  } catch (error) {
    // More aliases than any configuration needs.
    return { problems: [{ line: 1, path: "", message: sentenceOf(error), remedy: "Write the values out." }] };
  }
  if (value === null)
    return { problems: [{ line: 1, path: "", message: "is empty", remedy: "Begin with examples/tandem.yaml." }] };
  const parsed = configSchema.safeParse(value);
  if (parsed.success) return { config: parsed.data };
  const problems = parsed.error.issues
    .flatMap((issue) => problemsOf(issue, value))
    .map(({ at, ...problem }) => ({
      line: lineAt(offsetOf(document, at)),
      path: at.join("."),
      ...problem,
    }));
  return { problems: problems.sort((one, other) => one.line - other.line) };
}

const elsewhere = "See docs/configuration.md for what may stand here.";

type Path = (string | number)[];

/** One for each key that is wrong. */
function problemsOf(issue: z.core.$ZodIssue, file: unknown): { at: Path; message: string; remedy: string }[] {
  const at = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
  const message = sentence(issue.message);
  switch (issue.code) {
    case "unrecognized_keys":
      return issue.keys.map((key) => {
        const known = keysAt(at);
        const meant = closest(key, known);
        return {
          at: [...at, key],
          message: "is not a key of the configuration here",
          remedy: meant ? `Did you mean ${meant}?` : `Remove it; what may stand here: ${known.join(", ")}.`,
        };
      });
    case "invalid_type":
      return valueAt(file, at) === undefined
        ? [{ at, message: "is missing", remedy: `Add it: ${article(issue.expected)}.` }]
        : [{ at, message, remedy: `Give ${article(issue.expected)}.` }];
    case "invalid_value":
      return [{ at, message, remedy: `Give one of: ${issue.values.join(", ")}.` }];
    case "too_small":
      return [{ at, message: `is ${amountOf(issue.origin, "little")}`, remedy: `Give at least ${issue.minimum}.` }];
    case "too_big":
      return [{ at, message: `is ${amountOf(issue.origin, "much")}`, remedy: `Give at most ${issue.maximum}.` }];
    case "invalid_union": {
      // The alternative that fits best speaks: the one whose problem lies deepest.
      const inner = issue.errors
        .map((issues) => issues.flatMap((each) => problemsOf({ ...each, path: [...issue.path, ...each.path] }, file)))
        .sort((one, other) => (other[0]?.at.length ?? 0) - (one[0]?.at.length ?? 0));
      if (inner.length > 1 && inner.every(([first]) => first?.at.length === at.length)) {
        const remedies = inner.map(([first]) => first?.remedy ?? "");
        return [
          { at, message: "is none of what may stand here", remedy: remedies.join(" Or ").replace(/ Or G/g, " Or g") },
        ];
      }
      const words = wordsAt(at);
      const remedy = words.length > 0 ? `Give one of: ${words.join(", ")}.` : elsewhere;
      return (
        inner[0] ?? [{ at, message: words.length > 0 ? "is none of the words that may stand here" : message, remedy }]
      );
    }
    default:
      return [{ at, message, remedy: elsewhere }];
  }
}

function sentence(message: string): string {
  return message.replace(/^Invalid (?:input|option): /, "").replace(/\.$/, "");
}

function amountOf(origin: string, amount: "little" | "much"): string {
  if (origin === "string") return amount === "little" ? "too short" : "too long";
  if (origin === "array") return amount === "little" ? "too short a list" : "too long a list";
  return amount === "little" ? "too small" : "too large";
}

function article(type: string): string {
  const named: Record<string, string> = {
    int: "a whole number",
    number: "a number",
    string: "a text",
    object: "a section of its own keys",
    array: "a list",
    boolean: "true or false",
  };
  return named[type] ?? type;
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (at, part) => (typeof at === "object" && at !== null ? (at as Record<string | number, unknown>)[part] : undefined),
    value,
  );
}

/** Where the deepest part of the path that stands in the file begins: its key, or, in a list, the entry. */
export function offsetOf(document: Document, path: Path): number {
  let found = 0;
  for (let depth = 1; depth <= path.length; depth++) {
    const parent: unknown = depth === 1 ? document.contents : document.getIn(path.slice(0, depth - 1), true);
    const part = path[depth - 1];
    const key = isMap(parent)
      ? parent.items.map((pair) => pair.key).find((each) => isScalar(each) && String(each.value) === String(part))
      : document.getIn(path.slice(0, depth), true);
    const range: unknown = typeof key === "object" && key !== null && "range" in key ? key.range : null;
    if (!Array.isArray(range)) break;
    found = Number(range[0]);
  }
  return found;
}

/** The known key that a mistyped one is nearest to, at most two letters away. */
function closest(key: string, known: string[]): string | null {
  const scored = known.map((each) => ({ each, distance: distance(key.toLowerCase(), each.toLowerCase()) }));
  scored.sort((one, other) => one.distance - other.distance);
  const best = scored[0];
  return best && best.distance <= Math.min(2, best.each.length - 1) ? best.each : null;
}

/** Optimal string alignment: insertions, deletions, changes and swaps of neighbours. */
function distance(one: string, other: string): number {
  const rows: number[][] = [Array.from({ length: other.length + 1 }, (_, index) => index)];
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    for (let j = 1; j <= other.length; j++) {
      const at = (r: number, c: number): number => (r === i ? row[c] : rows[r]?.[c]) ?? Number.POSITIVE_INFINITY;
      const cost = one[i - 1] === other[j - 1] ? 0 : 1;
      let least = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + cost);
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1])
        least = Math.min(least, at(i - 2, j - 2) + 1);
      row.push(least);
    }
    rows.push(row);
  }
  return rows[one.length]?.[other.length] ?? 0;
}
