// What an operator can ask of an agent: each command's arguments and answer, as `--json` prints it.
import { z } from "zod";
import { configChange } from "../config/delta.js";
import { takeoverReportSchema } from "../takeover/report.js";
import { journalEntry } from "./journal.js";
import type { OperatorCommand } from "./operator.js";
import { sessionView } from "./sessions.js";
import { agentStatusSchema, arbiterStatusSchema } from "./status.js";

const nothing = z.strictObject({});
/** A command that sends no items meanwhile. */
const command = <A extends z.ZodObject, R extends z.ZodType>(name: string, asked: A, result: R) =>
  ({ name, arguments: asked, result, item: z.never() }) satisfies OperatorCommand;

/** This router, and what it knows of the other. */
export const statusCommand = command("status", nothing, agentStatusSchema);

/** What was, what is, and what was done in between. */
const change = z.object({
  before: agentStatusSchema,
  after: agentStatusSchema,
  report: takeoverReportSchema,
});
/** Without `force`: refused (exit code 5) when a session would be lost. */
const forced = z.strictObject({ force: z.boolean().default(false) });

/** Planned: the active hands its sessions over. */
export const switchoverCommand = command("switchover", forced, change);
/** The standby takes over from an active that is sick. */
export const failoverCommand = command("failover", forced, change);
/** From now on the standby does not take over by itself. */
export const pauseCommand = command(
  "pause",
  z.strictObject({ reason: z.string().min(1).max(200).default("an operator asked for it") }),
  z.object({ before: agentStatusSchema, after: agentStatusSchema }),
);
export const resumeCommand = command(
  "resume",
  nothing,
  z.object({ before: agentStatusSchema, after: agentStatusSchema }),
);

/** What the arbiter says; with `statement`, what somebody outside says of this router. */
export const arbiterCommand = command(
  "arbiter",
  z.strictObject({ statement: z.enum(["granted", "revoked"]).optional() }),
  z.object({ role: z.string(), reason: z.string(), arbiter: arbiterStatusSchema }),
);

/** The last decisions, the oldest first. */
export const historyCommand = command(
  "history",
  z.strictObject({ limit: z.int().min(1).max(10_000).default(50) }),
  z.object({ entries: z.array(journalEntry) }),
);
/** The configuration file anew. */
export const reloadCommand = command(
  "reload",
  z.strictObject({ dryRun: z.boolean().default(false) }),
  z.object({
    applied: z.boolean().describe("False after a dry run."),
    delta: z.array(configChange).describe("What differs between the running configuration and the file."),
  }),
);

/** What the standby keeps, sessions that are not ready first. */
export const sessionsCommand = command(
  "sessions",
  z.strictObject({
    service: z.string().optional(),
    notReady: z.boolean().default(false),
    /** An address, or address and port. */
    peer: z.string().optional(),
    limit: z.int().min(1).max(100_000).default(100),
  }),
  z.object({
    keptBy: z.enum(["a", "b"]).nullable().describe("The router that stands by and keeps them; null: none does."),
    total: z.int().min(0).describe("How many match."),
    sessions: z.array(sessionView).describe("The first of them."),
  }),
);
export const sessionCommand = command("session", z.strictObject({ id: z.int().min(1) }), sessionView);
/** What a drill on this pair came to: for the metrics and the journal of the agent that is told. */
export const drillResultCommand = command(
  "drillResult",
  z.strictObject({
    name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/),
    passed: z.boolean(),
    blackoutMs: z.number().min(0),
  }),
  z.null(),
);
export type DrillResult = z.output<typeof drillResultCommand.arguments>;
/** The standby forgets what it keeps and joins the sessions anew. */
export const resyncCommand = command(
  "resync",
  forced,
  z.object({ before: agentStatusSchema, after: agentStatusSchema }),
);
/** A session's frames as they pass the mirror link, until the operator has enough. */
export const captureCommand = {
  name: "capture",
  arguments: z.strictObject({ id: z.int().min(1) }),
  result: z.null(),
  item: z.object({
    packets: z.array(
      z.object({
        /** Unix time, ns. */
        timeNs: z.string().regex(/^\d+$/),
        direction: z.enum(["in", "out"]),
        /** Base64, from the Ethernet header on. */
        frame: z.base64(),
        /** More than one: input segments that the recorder took as one. */
        segments: z.int().min(1),
      }),
    ),
    /** Segments that came too fast to be shown. */
    dropped: z.int().min(0),
  }),
} satisfies OperatorCommand;
/** What `tandem capture --json` says at its end, on standard error: standard output may be the capture. */
export const captureAnswer = z.object({
  file: z.string(),
  frames: z.int().min(0),
  dropped: z.int().min(0).describe("Segments that came too fast to be captured."),
});
