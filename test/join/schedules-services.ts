// The three services of a random schedule, one a mode (the mill confirmed, the mill live, and an echo that knows nothing
// of Tandem), and what their peers are told and tell.

import { z } from "zod";

export const servicePorts = { confirmed: 7000, live: 7001, delivered: 7002 } as const;
export type ScheduleService = keyof typeof servicePorts;

const service = z.enum(["confirmed", "live", "delivered"]);
const count = z.int().min(0);
const share = z.number().min(0).max(1);

export const peerCommand = z.discriminatedUnion("do", [
  z.object({ do: z.literal("open"), sessions: z.record(service, count) }),
  /** Does not read for a while. */
  z.object({ do: z.literal("stall"), share, ms: count }),
  /** Ends its direction, waits for all answers and the end. */
  z.object({ do: z.literal("halfClose"), share }),
  /** So do all. */
  z.object({ do: z.literal("finish") }),
]);
export type PeerCommand = z.infer<typeof peerCommand>;

/** What a peer says that has read an end before its own: the service's, or what is left of a reset. */
export const endedFirst = "the service ended first";

export const scheduleSession = z.object({
  service,
  /** The peer's address and port. */
  local: z.string(),
  messages: count,
  sent: count,
  received: count,
  /** Bytes that were not answered, as may happen in delivered mode. */
  skipped: count,
  broken: z.string().nullable(),
});
export type ScheduleSession = z.infer<typeof scheduleSession>;

export const peerEvent = z.union([z.object({ opened: scheduleSession }), z.object({ ended: scheduleSession })]);
export type PeerEvent = z.infer<typeof peerEvent>;
