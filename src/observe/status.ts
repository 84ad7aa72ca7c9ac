// What an agent says of itself: the schema of `tandem status --json`.
import { z } from "zod";
import { takeoverReportSchema } from "../takeover/report.js";

const count = z.number().int().min(0);

export const arbiterStatusSchema = z.object({
  kind: z.enum(["pair", "etcd", "external"]),
  reachable: z.boolean().describe("False: nobody newly speaks alone or takes over."),
  leaseMs: z
    .number()
    .nullable()
    .describe("Milliseconds for which its word lets this router speak alone; null: it does not, or without limit."),
  lastAnswer: z.string().nullable().describe("What it said last; null: it was not asked yet."),
});

export const agentStatusSchema = z.object({
  router: z.enum(["a", "b"]).describe("This router."),
  role: z
    .enum(["fenced", "joining", "standby", "active", "solo"])
    .describe("solo: it serves alone. joining: it is about to stand by. fenced: it keeps silent."),
  reason: z.string().describe("Why it has this role, in one sentence."),
  epoch: count.describe("Counts takeovers; frames of an older one are refused."),
  gate: z
    .enum(["fenced", "reflect", "solo", "yield"])
    .describe(
      "What passes: nothing, all past the standby, all directly, or only what still comes in for the successor.",
    ),
  voiceMs: z.number().nullable().describe("Milliseconds for which it may still speak; null: no lease bounds it."),
  partner: z
    .object({ role: z.string(), epoch: count })
    .nullable()
    .describe("The other router as its heartbeats say; null: not heard."),
  arbiter: arbiterStatusSchema.describe("Who decides that a router may speak alone."),
  agreed: z.boolean().describe("The control channel is up, and versions and configurations agree."),
  differences: z.array(z.string()).describe("In what the routers do not agree, as far as they have told each other."),
  paused: z.string().nullable().describe("Why automatic takeover is paused; null: it is not."),
  paths: z
    .array(z.object({ name: z.string(), up: z.boolean(), rttMs: z.number() }))
    .describe("The heartbeat's two paths, with their round trip."),
  sessions: z
    .object({
      total: count,
      ready: count,
      notReady: z.record(z.string(), count).describe("How many, by the name of the reason; one may have several."),
    })
    .describe("What this router keeps as the standby; on the active, what its standby says that it keeps."),
  held: count.describe(
    "Sessions that this router, the active one, answers for because their application died (onCrash: hold).",
  ),
  recorder: z
    .object({
      records: count.describe("Segments recorded."),
      backlog: count.describe("Bytes waiting in the ring."),
      held: count.describe("Bytes of streams held."),
      badChecksums: count.describe("Segments that came damaged, and were not believed."),
      auditBreaches: count.describe("Sessions in which a byte passed unrecorded: alarm."),
    })
    .describe("The recorder since it began anew."),
  packets: z.record(z.string(), count).describe("Packets that the data plane dropped or answered, by reason."),
  duplicates: z
    .array(z.object({ address: z.string(), mac: z.string(), secondsAgo: z.number() }))
    .describe("Service addresses that somebody else was heard to answer for although this router has the voice."),
  lastTakeover: takeoverReportSchema.nullable().describe("What this agent's last takeover came to; null: none yet."),
});
export type AgentStatus = z.infer<typeof agentStatusSchema>;
