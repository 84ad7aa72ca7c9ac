// What is told of a takeover: its cause, its steps with their durations, what became of the sessions. It goes into the
// journal, the status, the metrics, and over the control channel to the router that was taken over from.
import { z } from "zod";

export const takeoverSteps = ["detect", "fence", "drain", "restore", "announce", "release", "nudge"] as const;
export type TakeoverStep = (typeof takeoverSteps)[number];

const count = z.int().min(0);
const milliseconds = z.number();

export const takeoverReportSchema = z.object({
  // One of takeoverCauses (src/role/role.ts).
  cause: z.string().max(200).describe("A sentence's beginning."),
  epoch: count.describe("The new one."),
  stepsMs: z.record(z.enum(takeoverSteps), milliseconds).describe("Milliseconds by step."),
  totalMs: milliseconds.describe(
    "From the last heartbeat that was answered, or the hand-over, to the last step's end.",
  ),
  sessions: count.describe("Restored."),
  prepared: count.default(0).describe("Those of them that had been restored before the voice was free."),
  halfOpen: count.describe("Whose handshake was not complete yet."),
  lost: z
    .object({ count, reasons: z.record(z.string().max(64), count) })
    .describe("Sessions that were not ready, and how many for which reason."),
  nudged: count.describe("Packets sent in the nudge step."),
  handedOver: count.describe("Sessions given to an application; the others had none any more and were closed."),
});
export type TakeoverReport = z.infer<typeof takeoverReportSchema>;
