// The commands as documentation, written from their definitions: the manual page and the reference of docs/cli.md.
import type { Argument, Command, Option } from "commander";
import type { z } from "zod";
import { alternativesOf, type JsonSchema, jsonSchemaOf } from "../config/json-schema.js";
import { exitCodes } from "../errors.js";
import { answers } from "./answers.js";

/** Every command that does something, by its full name, in the order of the help. */
export function verbs(program: Command): { name: string; command: Command }[] {
  const walk = (command: Command, name: string): { name: string; command: Command }[] =>
    command.commands.length === 0
      ? [{ name, command }]
      : command.commands.flatMap((each) => walk(each, `${name} ${each.name()}`.trim()));
  return walk(program, "");
}

const exitMeanings: Record<keyof typeof exitCodes, string> = {
  ok: "It was done.",
  failed: "It failed; doctor: there is a problem.",
  usage: "The command line is wrong.",
  configuration: "The configuration, or a key file, is wrong.",
  unreachable: "The agent does not answer.",
  refused: "A safety check refused it; nothing was done.",
  timeout: "It took too long.",
};

const optionsOf = (command: Command): readonly Option[] => command.createHelp().visibleOptions(command);
const argumentText = (argument: Argument): string =>
  argument.required ? `<${argument.name()}>` : `[${argument.name()}]`;

function synopsis(name: string, command: Command): string {
  const needed = command.options
    .filter(({ mandatory }) => mandatory)
    .map(({ long, flags }) => `${long} ${flags.split(" ").at(-1)}`);
  const rest = optionsOf(command).some(({ mandatory, long }) => !mandatory && long !== "--help") ? ["[options]"] : [];
  return ["tandem", name, ...rest, ...needed, ...command.registeredArguments.map(argumentText)].join(" ");
}

function defaultText(option: Option): string {
  const parts: string[] = [];
  if (option.defaultValue !== undefined) parts.push(`default ${option.defaultValue}`);
  if (option.envVar) parts.push(`or the environment's ${option.envVar}`);
  return parts.length > 0 ? ` (${parts.join("; ")})` : "";
}

/** Section 1, in the macros of man(7). */
export function manualPage(program: Command, version: string): string {
  const text = (line: string): string =>
    line
      .replaceAll("\\", "\\e")
      .replace(/^([.'])/gm, "\\&$1")
      .replaceAll("-", "\\-");
  const commands = verbs(program).flatMap(({ name, command }) => [
    ".TP",
    `.B ${text(synopsis(name, command))}`,
    text(command.description()),
    ...optionsOf(command)
      .filter(({ long }) => long !== "--help")
      .flatMap((option) => [
        ".RS",
        ".TP",
        `.B ${text(option.flags)}`,
        text(option.description + defaultText(option)),
        ".RE",
      ]),
  ]);
  return `${[
    `.TH TANDEM 1 "" "Tandem ${version}" "User Commands"`,
    ".SH NAME",
    `tandem \\- ${text(program.description())}`,
    ".SH SYNOPSIS",
    ".B tandem",
    ".I command",
    "[options]",
    ".SH DESCRIPTION",
    text(
      "Two routers form a pair. The active one runs the application and its TCP; the standby one holds everything needed to go on with the same connections. When the active dies, the peers see a pause, and nothing else.",
    ),
    ".PP",
    text("Commands that only read never ask; those that change the pair show it, ask, act, and show it again."),
    ".SH COMMANDS",
    ...commands,
    ".SH EXIT STATUS",
    ...Object.entries(exitCodes).flatMap(([name, code]) => [
      ".TP",
      `.B ${code}`,
      text(exitMeanings[name as keyof typeof exitCodes]),
    ]),
    ".SH ENVIRONMENT",
    ".TP",
    ".B TANDEM_CONFIG",
    "The configuration file, where --config is not given.".replaceAll("-", "\\-"),
    ".TP",
    ".B NO_COLOR",
    "Set and not empty: no colours. They are used only on a terminal anyway.",
    ".SH FILES",
    ".TP",
    ".I /etc/tandem/tandem.yaml",
    "The configuration.",
    ".TP",
    ".I /run/tandem/agent.sock",
    "Where the agent is asked.",
    ".TP",
    ".I /var/lib/tandem/journal.jsonl",
    "What was decided, one JSON object a line; earlier decisions are in journal.1.jsonl.",
    ".SH SEE ALSO",
    ".BR systemctl (1),",
    ".BR tshark (1),",
    ".BR ethtool (8)",
  ].join("\n")}\n`;
}

/** A section a command: synopsis, options, and what --json prints. Markdown. */
export function commandReference(program: Command): string {
  const sections = verbs(program).map(({ name, command }) => {
    const options = optionsOf(command).filter(({ long }) => long !== "--help");
    const rows = options.map((option) => `| \`${option.flags}\` | ${option.description}${defaultText(option)} |`);
    const schema = answers[name];
    return [
      `### tandem ${name}`,
      "",
      "```",
      synopsis(name, command),
      "```",
      "",
      command.description(),
      "",
      ...(rows.length > 0 ? ["| option | what it does |", "|---|---|", ...rows, ""] : []),
      ...(schema ? ["With `--json`:", "", answerTable(schema), ""] : []),
    ].join("\n");
  });
  return sections.join("\n");
}

/** Keys whose parts are in the table of tandem status. */
const toldElsewhere: Readonly<Record<string, string>> = {
  before: "As `tandem status --json`.",
  after: "As `tandem status --json`.",
  report: "What the takeover came to, as `lastTakeover` of `tandem status --json`.",
};

function answerTable(schema: z.ZodType): string {
  const rows: string[] = [];
  const walk = (of: JsonSchema, path: string): void => {
    for (const [key, value] of Object.entries(of.properties ?? {})) {
      const here = `${path}${key}`;
      const inner = alternativesOf(value).find(({ type }) => type !== "null") ?? value;
      const always = of.required?.includes(key) ?? false;
      rows.push(`| \`${here}\` | ${typeOf(value)}${always ? "" : ", may be absent"} | ${value.description ?? ""} |`);
      const elsewhere = toldElsewhere[here];
      if (elsewhere !== undefined) rows[rows.length - 1] = `| \`${here}\` | object | ${elsewhere} |`;
      else walk(inner.items ?? inner, `${here}${inner.items ? "[]" : ""}.`);
    }
  };
  walk(jsonSchemaOf(schema, "output"), "");
  return ["| key | type | what it is |", "|---|---|---|", ...rows].join("\n");
}

function typeOf(schema: JsonSchema): string {
  if (schema.anyOf || schema.oneOf) return alternativesOf(schema).map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(", ");
  if (schema.items) return `array of ${typeOf(schema.items)}`;
  if (schema.type === undefined) return "any";
  return typeof schema.type === "string" ? schema.type : schema.type.join(" or ");
}

/** The table of exit codes. Markdown. */
export function exitCodeTable(): string {
  const rows = Object.entries(exitCodes).map(
    ([name, code]) => `| ${code} | ${exitMeanings[name as keyof typeof exitCodes]} |`,
  );
  return ["| exit code | what it means |", "|---|---|", ...rows].join("\n");
}
