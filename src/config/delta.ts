// What differs between two configurations, and what of it a running agent can take over.
import { z } from "zod";
import { exitCodes, TandemError } from "../errors.js";
import { isLive } from "./reference.js";
import type { Config } from "./schema.js";

export const configChange = z.object({
  /** Keys joined by dots, list entries from 0. */
  path: z.string().describe("Which key, list entries counted from 0."),
  from: z.unknown().describe("Its value now; absent: it is added."),
  to: z.unknown().describe("Its new value; absent: it is taken away."),
  live: z.boolean().describe("The agent can take it over as it runs; otherwise it must be restarted."),
});
export type ConfigChange = z.infer<typeof configChange>;

/** Every value that differs, defaults filled in, in the order of the keys. */
export function configDelta(running: Config, wanted: Config): ConfigChange[] {
  return walk(running, wanted, []);
}

function walk(from: unknown, to: unknown, path: (string | number)[]): ConfigChange[] {
  if (isSection(from) && isSection(to) && Array.isArray(from) === Array.isArray(to)) {
    const keys = [...new Set([...Object.keys(from), ...Object.keys(to)])];
    return keys.flatMap((key) => walk(from[key], to[key], [...path, Array.isArray(from) ? Number(key) : key]));
  }
  return from === to ? [] : [{ path: path.join("."), from, to, live: isLive(path) }];
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Makes `running` what `wanted` is. Throws TandemError CONFIG_RESTART, and changes nothing, when one change is not
 * live: half a configuration is none. */
export function applyDelta(running: Config, wanted: Config): ConfigChange[] {
  const delta = configDelta(running, wanted);
  const fixed = delta.filter((change) => !change.live).map(({ path }) => path);
  if (fixed.length > 0)
    throw new TandemError(
      "CONFIG_RESTART",
      `A running agent cannot take over a change of ${fixed.join(", ")}. Nothing was changed.`,
      fixed.some((key) => /^(pair|services)\b/.test(key))
        ? "Both routers must have it: change both files, stop the standby's agent, restart the active's, then start the standby's."
        : "Restart the agents one after the other, the standby first: systemctl restart tandem",
      exitCodes.refused,
    );
  for (const { path, to } of delta) {
    const keys = path.split(".");
    const last = keys.pop() as string;
    let section: unknown = running;
    for (const key of keys) section = (section as Record<string, unknown>)[key];
    (section as Record<string, unknown>)[last] = to;
  }
  return delta;
}

/** One line a change. */
export function renderDelta(delta: ConfigChange[]): string {
  const value = (of: unknown): string => (of === undefined ? "(none)" : JSON.stringify(of));
  return delta
    .map(({ path, from, to, live }) => `  ${path}: ${value(from)} -> ${value(to)}${live ? "" : "   needs a restart"}\n`)
    .join("");
}
