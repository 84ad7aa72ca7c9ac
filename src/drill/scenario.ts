// A drill's scenario: a readable YAML file that says what is done to the pair, in order, and what has to come of it.

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { LineCounter, parseDocument } from "yaml";
import { z } from "zod";
import { offsetOf } from "../config/load.js";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";

/** The routers as they are when the drill begins: the names stay, whoever speaks later. */
const side = z.enum(["active", "standby"]);
const link = z.enum(["mirror", "uplink-of-active", "uplink-of-standby"]);
const share = z.number().min(0).max(1).default(0);

const step = <Name extends string, Shape extends z.ZodRawShape>(name: Name, shape: Shape) =>
  z.strictObject({ do: z.literal(name), ...shape });

const stepSchema = z.discriminatedUnion("do", [
  step("switchover", {}),
  /** The standby forgets all sessions and joins them anew. */
  step("rejoin", {}),
  step("kill-application", { of: side }),
  step("start-application", { of: side }),
  step("kill-agent", { of: side }),
  step("start-agent", { of: side }),
  /** Stopped in order, and started again. */
  step("restart-agent", { of: side }),
  /** All programs of the router stand still; its kernel goes on. */
  step("freeze", { of: side }),
  step("thaw", { of: side }),
  /** All programs end at once and the links go down. */
  step("power-off", { of: side }),
  step("power-on", { of: side }),
  step("cut", { link }),
  step("heal", { link }),
  /** Shares of the frames on the mirror link, both ways; what is not named is off. */
  step("impair-mirror", { loss: share, duplicate: share, reorder: share }),
  /** The router's agent gets only so much of the time; until `steady`. */
  step("slow", { of: side, stopMs: z.int().min(1).max(10_000), runMs: z.int().min(1).max(10_000) }),
  step("steady", { of: side }),
  step("wait", { ms: z.int().min(1).max(3_600_000) }),
  /** Until that router has the voice, protected or not. */
  step("await-voice", { of: side }),
  /** Until that router speaks alone. */
  step("await-alone", { of: side }),
  /** Until one router is active, the other stands by, and every session is ready there. */
  step("await-protected", {}),
]);
export type Step = z.infer<typeof stepSchema>;
export type Side = z.infer<typeof side>;
export type DrillLink = z.infer<typeof link>;

/** What a pair that carries real sessions may be asked to do. */
const safeLive: ReadonlySet<string> = new Set([
  "switchover",
  "rejoin",
  "restart-agent",
  "wait",
  "await-voice",
  "await-protected",
]);

const expectationSchema = z.strictObject({
  /** Of both routers together. */
  takeovers: z.int().min(0),
  /** Why, in their order. */
  causes: z.array(z.string().min(1)).optional(),
  /** Who has the voice in the end. */
  voice: side,
  /** Sessions that takeovers may lose. */
  lostSessions: z.int().min(0).default(0),
  /** The longest time in which a session waited for an answer; live: the longest takeover. */
  blackoutBelowMs: z.number().positive().optional(),
});
export type Expectation = z.infer<typeof expectationSchema>;

const scenarioSchema = z
  .strictObject({
    /** One line, what is rehearsed. */
    title: z.string().min(1).max(100),
    /** Why, and what is to be seen. */
    description: z.string().min(1),
    where: z.array(z.enum(["lab", "live"])).min(1),
    /** Interactive sessions of the drill's own in the lab, half of them over each address family. */
    sessions: z.int().min(2).max(1000).default(16),
    /** Each session asks so often, ms. */
    askEveryMs: z.number().min(1).max(10_000).default(25),
    steps: z.array(stepSchema).min(1),
    expect: expectationSchema,
  })
  .superRefine(({ where, steps, expect }, context) => {
    for (const [index, each] of steps.entries()) {
      const safe = safeLive.has(each.do) && !(each.do === "restart-agent" && each.of === "active");
      if (where.includes("live") && !safe)
        context.addIssue({
          code: "custom",
          path: ["steps", index, "do"],
          message: `${each.do} is not for a live pair`,
        });
    }
    if (expect.causes && expect.causes.length !== expect.takeovers)
      context.addIssue({ code: "custom", path: ["expect", "causes"], message: "there is one cause for each takeover" });
  });

export type Scenario = z.infer<typeof scenarioSchema> & { name: string };

export const drillName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, "lower-case letters, digits and dashes");

/** The scenarios that come with the product. */
export const shippedScenarios = fileURLToPath(new URL("../../../../deploy/drills", import.meta.url));

/** By name. Throws TandemError SCENARIO_INVALID. */
export function listScenarios(directory = shippedScenarios): Scenario[] {
  return readdirSync(directory)
    .filter((file) => file.endsWith(".yaml"))
    .sort()
    .map((file) => loadScenario(path.join(directory, file)));
}

/** One that comes with the product, by its name, or a file of one's own: whatever has a slash or ends in .yaml. Throws
 * TandemError DRILL_UNKNOWN, SCENARIO_UNREADABLE, SCENARIO_INVALID. */
export function findScenario(name: string, directory = shippedScenarios): Scenario {
  if (name.includes("/") || name.endsWith(".yaml")) return loadScenario(name);
  const found = listScenarios(directory);
  const scenario = found.find((each) => each.name === name);
  if (scenario) return scenario;
  throw new TandemError(
    "DRILL_UNKNOWN",
    `There is no drill ${JSON.stringify(name)}.`,
    `There are: ${found.map((each) => each.name).join(", ")}; or name a file of your own, with its .yaml.`,
    exitCodes.usage,
  );
}

function loadScenario(file: string): Scenario {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new TandemError(
      "SCENARIO_UNREADABLE",
      `The scenario ${file} cannot be read: ${sentenceOf(error)}.`,
      "Name an existing file, or a drill of `tandem drill list`.",
      exitCodes.configuration,
    );
  }
  return parseScenario(text, file);
}

/** The name is the file's. Throws TandemError SCENARIO_INVALID with every problem and its line. */
export function parseScenario(text: string, file: string): Scenario {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const invalid = (problems: { offset: number; message: string }[]): TandemError =>
    new TandemError(
      "SCENARIO_INVALID",
      problems
        .map(({ offset, message }) => ({ line: lines.linePos(offset).line, message }))
        .sort((one, other) => one.line - other.line)
        .map(({ line, message }) => `${file}:${line}: ${message}.`)
        .join("\n"),
      "docs/drills.md says what may stand in a scenario.",
      exitCodes.configuration,
    );
  if (document.errors.length > 0)
    throw invalid(
      document.errors.map(({ pos, message }) => ({ offset: pos[0], message: message.split("\n")[0] ?? "" })),
    );
  const parsed = scenarioSchema.safeParse(document.toJS());
  if (!parsed.success)
    throw invalid(
      parsed.error.issues.map((issue) => {
        const at = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
        const whole = issue.code === "unrecognized_keys" ? [...at, ...issue.keys.slice(0, 1)] : at;
        return {
          offset: offsetOf(document, whole),
          message: `${whole.join(".") || "(whole file)"}: ${meaningOf(issue)}`,
        };
      }),
    );
  const name = drillName.safeParse(path.basename(file, ".yaml"));
  if (!name.success) throw invalid([{ offset: 0, message: `its file name must be ${name.error.issues[0]?.message}` }]);
  return { ...parsed.data, name: name.data };
}

function meaningOf(issue: z.core.$ZodIssue): string {
  if (issue.code === "invalid_union" && issue.path.at(-1) === "do")
    return `no such step; there are: ${stepSchema.options.map(({ shape }) => shape.do.value).join(", ")}`;
  if (issue.code === "unrecognized_keys") return `does not belong here: ${issue.keys.join(", ")}`;
  return issue.message.replace(/\.$/, "");
}

/** A step as a person says it. */
export function stepSentence(each: Step): string {
  switch (each.do) {
    case "switchover":
      return "switch over";
    case "rejoin":
      return "let the standby forget all sessions and join them anew";
    case "cut":
    case "heal":
      return `${each.do} ${each.link === "mirror" ? "the mirror link" : `the ${each.link.replaceAll("-", " ")}`}`;
    case "impair-mirror": {
      const parts = (["loss", "duplicate", "reorder"] as const).filter((name) => each[name] > 0);
      const text = parts.map((name) => `${name} ${(100 * each[name]).toFixed(1)} %`).join(", ");
      return `mirror link: ${text || "no impairment any more"}`;
    }
    case "slow":
      return `slow down the ${each.of}: it runs ${each.runMs} ms, then stands still ${each.stopMs} ms`;
    case "wait":
      return `wait ${each.ms} ms`;
    case "await-voice":
      return `until the ${each.of} has the voice`;
    case "await-alone":
      return `until the ${each.of} speaks alone`;
    case "await-protected":
      return "until every session is protected";
    case "steady":
      return `let the ${each.of} run steadily again`;
    default:
      return `${each.do.replaceAll("-", " ")} of the ${each.of}`.replace(/^(power off|power on|freeze|thaw) of/, "$1");
  }
}
