// What the configuration may hold, read from its schema: the JSON Schema for editors, the table of the documentation,
// and the answers to "which keys are there" and "may this one change while the agent runs".
import { alternativesOf, type JsonSchema, jsonSchemaOf } from "./json-schema.js";
import { configSchema } from "./schema.js";

let written: JsonSchema | undefined;
/** Written when it is first asked for: most commands never do. */
function root(): JsonSchema {
  written ??= jsonSchemaOf(configSchema, "input");
  return written;
}

/** deploy/tandem.schema.json: for editors, and for whoever generates configurations. */
export function configJsonSchema(): object {
  return { ...root(), title: "Configuration of Tandem" };
}

type Path = readonly (string | number)[];

/** The keys that may stand in the section at `path`. */
export function keysAt(path: Path): string[] {
  return schemasAt(path).flatMap((schema) => Object.keys(schema.properties ?? {}));
}

/** The words, if any, one of which may stand at `path`. */
export function wordsAt(path: Path): string[] {
  const words = schemasAt(path).flatMap((schema) =>
    schema.const === undefined ? (schema.enum ?? []) : [schema.const],
  );
  return words.map(String);
}

/** Whether `tandem reload` may change what stands there. */
export function isLive(path: Path): boolean {
  return path.some((_, index) => schemasAt(path.slice(0, index + 1)).some((schema) => schema.live));
}

/** The alternatives at a path; none: no such key. */
function schemasAt(path: Path): JsonSchema[] {
  let found = alternatives(root());
  for (const part of path)
    found = found.flatMap((schema) => {
      const next = typeof part === "number" ? schema.items : schema.properties?.[part];
      return next ? alternatives(next) : [];
    });
  return found;
}

function alternatives(schema: JsonSchema): JsonSchema[] {
  return [schema, ...alternativesOf(schema)];
}

/** A row a key: path, values, default, live, what it is. Markdown. */
export function configTable(): string {
  const rows: string[] = [];
  const walk = (schema: JsonSchema, path: string): void => {
    for (const [key, below] of Object.entries(schema.properties ?? {})) {
      const here = path ? `${path}.${key}` : key;
      const list = below.items && (below.items.properties ? "[]" : "");
      rows.push(
        `| \`${here}${list ?? ""}\` | ${valuesOf(below)} | ${defaultOf(below, schema.required?.includes(key) ?? false)} | ${below.live ? "reload" : "restart"} | ${below.description ?? ""} |`,
      );
      for (const each of alternatives(below)) walk(each, here);
      if (below.items) walk(below.items, `${here}[]`);
    }
  };
  walk(root(), "");
  return `| key | values | default | a change needs | what it is |\n|---|---|---|---|---|\n${rows.join("\n")}\n`;
}

function valuesOf(schema: JsonSchema): string {
  if (schema.oneOf) return "section";
  if (schema.anyOf) return schema.anyOf.map(valuesOf).join(" or ");
  if (schema.const !== undefined) return `\`${schema.const}\``;
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(", ");
  if (schema.properties) return "section";
  if (schema.items) return schema.items.properties ? "list of sections" : "list";
  const bound = (value: number | undefined): string | null =>
    value === undefined || Math.abs(value) >= Number.MAX_SAFE_INTEGER ? null : value.toLocaleString("en");
  const [least, most] = [bound(schema.minimum), bound(schema.maximum)];
  if (schema.type !== "integer" && schema.type !== "number") return "text";
  if (least && most) return `${least} to ${most}`;
  return least ? `${least} or more` : "number";
}

function defaultOf(schema: JsonSchema, required: boolean): string {
  if (schema.default === undefined) return required ? "required" : "";
  return typeof schema.default === "object" ? "" : `\`${schema.default}\``;
}
