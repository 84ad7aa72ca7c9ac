// The numbers of one socket of the active, taken under its lock: what the active's agent reads from BPF, what crosses the
// control channel, and what a join is anchored at and proven by. Names are the kernel's (struct tcp_sock).
import { z } from "zod";
import { socketOptions } from "./socket-options.js";

const seq = z.int().min(0).max(0xffffffff);
const bytes = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const shift = z.int().min(0).max(14);

export const joinSnapshot = z.strictObject({
  /** By this kernel socket, bytes; a FIN received counts one. */
  bytesReceived: bytes,
  /** Likewise of our output; a SYN (active open) or FIN acknowledged counts one. */
  bytesAcked: bytes,
  /** Sequence numbers, modulo 2^32. */
  rcvNxt: seq,
  copiedSeq: seq,
  sndUna: seq,
  sndNxt: seq,
  writeSeq: seq,
  rcvWup: seq,
  /** Windows are bytes, scaled. */
  rcvWnd: bytes,
  sndWnd: bytes,
  sndWl1: seq,
  maxWindow: bytes,
  tsRecent: seq,
  /** What it would have sent at the time. */
  tsval: seq,
  /** The peer's. */
  mss: z.int().min(0).max(65_535),
  state: z.enum([
    "established",
    "fin-wait-1",
    "fin-wait-2",
    "close-wait",
    "last-ack",
    "closing",
    "syn-recv",
    "syn-sent",
    "other",
  ]),
  sndWscale: shift,
  rcvWscale: shift,
  flags: z.strictObject({
    sack: z.boolean(),
    timestamps: z.boolean(),
    wscale: z.boolean(),
    /** Segments wait beyond a gap at rcvNxt. */
    outOfOrder: z.boolean(),
    /** Urgent data lies in the receive queue. */
    urgent: z.boolean(),
    /** The FIN is counted in rcvNxt, sndNxt, sndUna. */
    finReceived: z.boolean(),
    finSent: z.boolean(),
    finAcked: z.boolean(),
    mptcp: z.boolean(),
    md5: z.boolean(),
  }),
  options: socketOptions,
});

export type JoinSnapshot = z.infer<typeof joinSnapshot>;
