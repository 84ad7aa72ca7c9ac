// Why a session is not ready: one numbered list for the whole project. Numbers are never reused; names are metric
// labels and appear in status, journal and protocol.

export const Reason = {
  JoinedMidStream: 1,
  HalfOpen: 2,
  Memory: 3,
  AmbiguousInput: 4,
  AuditBreach: 5,
  Mptcp: 6,
  Urgent: 7,
  FastOpen: 8,
  NoApplication: 9,
  StandbyAbsent: 10,
  Solo: 11,
  AmbiguousHandshake: 12,
  FeedLost: 13,
  Authenticated: 14,
  RestoreFailed: 15,
  HandshakeBroken: 16,
  InputIncomplete: 17,
  OutputIncomplete: 18,
  AwaitingHandover: 19,
  OutputGap: 20,
} as const;
export type Reason = (typeof Reason)[keyof typeof Reason];

export const reasonNames: Record<Reason, string> = {
  1: "joined-mid-stream",
  2: "half-open",
  3: "memory",
  4: "ambiguous-input",
  5: "audit-breach",
  6: "mptcp",
  7: "urgent",
  8: "fast-open",
  9: "no-application",
  10: "standby-absent",
  11: "solo",
  12: "ambiguous-handshake",
  13: "feed-lost",
  14: "authenticated",
  15: "restore-failed",
  16: "handshake-broken",
  17: "input-incomplete",
  18: "output-incomplete",
  19: "awaiting-handover",
  20: "output-gap",
};

export const reasonSentences: Record<Reason, string> = {
  1: "The session began before the standby recorded it.",
  2: "The handshake is not complete.",
  3: "Its streams do not fit into the recorder's memory bounds.",
  4: "Two different copies of the same input bytes were seen, and the resume point has not passed them.",
  5: "A byte passed that the standby had not recorded: input or output commit was broken.",
  6: "It is a multipath TCP session.",
  7: "Urgent data was used.",
  8: "It began with data in its SYN (TCP Fast Open).",
  9: "No standby application is registered for its service.",
  10: "There is no standby.",
  11: "The active speaks alone.",
  12: "Two different SYNs with the same sequence number were seen.",
  13: "The standby application left or closed its feed, and the stream cannot be given again from its start.",
  14: "Its segments are authenticated (TCP MD5 or TCP-AO), and the standby has no key.",
  15: "The kernel refused to restore it.",
  16: "The SYN that the SYN-ACK answers was not recorded.",
  17: "It began before the standby recorded it, and not all input that a takeover needs is proven to be recorded.",
  18: "It began before the standby recorded it, and not all output that a takeover needs is proven to be recorded.",
  19: "The application on the active has not handed over its state and buffers yet.",
  20: "The mirror link lost output that the active had not sent again when it died, and its peer may hold what came after.",
};

/** Reasons are kept as a set of bits: bit n is reason n. */
export function reasonBit(reason: Reason): number {
  return 1 << reason;
}

/** The names of a set of reasons, by number. */
export function reasonList(bits: number): string[] {
  const names: string[] = [];
  for (const reason of Object.values(Reason)) if (bits & reasonBit(reason)) names.push(reasonNames[reason]);
  return names;
}
