// What the two agents say to each other on the control channel: one JSON object a line, checked by zod on arrival.
// Bytes are not JSON: a message with `parts` is followed by so many byte strings of these lengths, in this order.
//
//   active → standby   snapshots, fill, copied, ended, absent, watch, handover, confirm, log, hold
//   standby → active   joins, standbyReady, readiness, recorded, stored, held, notHeld
//   the voice          prepare, prepared, refused, abdicated, declined, tookOver, pause
//
// Sessions are named by their td_flow_key in hexadecimal; offsets are stream offsets in bytes, fields that end in Seq or
// Nxt are sequence numbers modulo 2^32.
import { z } from "zod";
import { type TakeoverCause, takeoverCauses } from "../role/role.js";
import { heldPlanSchema } from "../session/held-plan.js";
import { joinSnapshot } from "../session/join-snapshot.js";
import { takeoverReportSchema } from "../takeover/report.js";

export const controlVersion = 4;
/** Longest line either side accepts, bytes. */
export const maxControlLine = 1 << 20;
/** Most bytes that may follow a line. */
export const maxControlParts = 4 << 20;
/** Entries of one message, so that its line stays below maxControlLine. */
export const maxSnapshots = 500;
export const maxEntries = 4000;

const flowKey = z.string().regex(/^[0-9a-f]{80}$/);
const seq = z.int().min(0).max(0xffffffff);
const offset = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const parts = (count: number) => z.array(z.int().min(0).max(maxControlParts)).length(count);
const serial = z.int().min(1).max(Number.MAX_SAFE_INTEGER);
const cause = z.enum(Object.keys(takeoverCauses) as [TakeoverCause, ...TakeoverCause[]]);
const token = z.int().min(1).max(Number.MAX_SAFE_INTEGER);

export const controlMessage = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("hello"),
    version: z.int(),
    abi: z.int(),
    router: z.enum(["a", "b"]),
    /** Digests of what both configurations must have in common, by key (src/config/agreement.ts). */
    agreement: z.record(z.string().max(64), z.string().max(64)),
    /** The longest inner frame this router's mirror link carries, bytes. */
    recordMax: z.int(),
  }),
  /** The active's sockets that ended, with the witness's verdicts (enum td_verdict). */
  z.strictObject({
    type: z.literal("ended"),
    sockets: z.array(z.strictObject({ key: flowKey, verdicts: z.int(), copiedSeq: z.int() })).max(maxEntries),
  }),
  /** The active has no socket of these sessions, of which it was told: of what is not recorded there is nothing to keep. */
  z.strictObject({ type: z.literal("absent"), keys: z.array(flowKey).max(maxEntries) }),
  /** Sockets of the active: the first one of a session lets the standby adopt it, each later one is a proof. */
  z.strictObject({
    type: z.literal("snapshots"),
    entries: z
      .array(
        z.strictObject({
          key: flowKey,
          service: z.int().min(0).max(65_535),
          passive: z.boolean(),
          /** Offsets of the kernel socket's byte 0. */
          base: z.strictObject({ input: offset, output: offset }),
          /** The adoption (see joins) that had been known for join.graceMs when the socket was looked at: the snapshot
           * proves something of that one only. 0: none. */
          adoption: offset,
          snapshot: joinSnapshot,
        }),
      )
      .max(maxSnapshots),
  }),
  /** What lies unread in the active's receive queue from `seq` on. */
  z.strictObject({ type: z.literal("fill"), key: flowKey, seq, parts: parts(1) }),
  /** How far applications have read, between the stamps of their output. */
  z.strictObject({ type: z.literal("copied"), entries: z.array(z.tuple([flowKey, seq])).max(maxEntries) }),
  /** An application of the active takes part in this session: tell how far its output is recorded. Parts: its TCP MD5 key
   * (empty: none). */
  z.strictObject({ type: z.literal("watch"), key: flowKey, parts: parts(1) }),
  /** Parts: state, input buffer, output buffer (it begins at outputStart). */
  z.strictObject({
    type: z.literal("handover"),
    key: flowKey,
    inputOffset: offset,
    outputOffset: offset,
    outputStart: offset,
    parts: parts(3),
  }),
  /** Parts: state (as before with keepState), output from outputStart on. Answered by `stored`. */
  z.strictObject({
    type: z.literal("confirm"),
    key: flowKey,
    serial,
    inputOffset: offset,
    outputOffset: offset,
    outputStart: offset,
    keepState: z.boolean(),
    parts: parts(2),
  }),
  /** Parts: output from outputStart on. Answered by `stored`. */
  z.strictObject({ type: z.literal("log"), key: flowKey, serial, outputStart: offset, parts: parts(1) }),
  /** How far the joins of sessions are. */
  z.strictObject({
    type: z.literal("joins"),
    entries: z
      .array(
        z.strictObject({
          key: flowKey,
          /** Number of the adoption: the standby stores what is recorded since then, and forgot what was before. */
          adoption: offset,
          input: z.boolean(),
          output: z.boolean(),
          needsFill: z.boolean(),
        }),
      )
      .max(maxEntries),
  }),
  /** Streams are complete and the standby's application is there: the active's application may hand over. With how far
   * its output is recorded. */
  z.strictObject({ type: z.literal("standbyReady"), entries: z.array(z.tuple([flowKey, offset])).max(maxEntries) }),
  /** Null: ready; else the first reason why not. */
  z.strictObject({
    type: z.literal("readiness"),
    entries: z.array(z.tuple([flowKey, z.string().max(64).nullable()])).max(maxEntries),
  }),
  /** Watched sessions: how far output is recorded, and the input that the active's TCP has. */
  z.strictObject({ type: z.literal("recorded"), entries: z.array(z.tuple([flowKey, offset, offset])).max(maxEntries) }),
  /** Confirms and logs that the standby has stored, or (false) does not take. */
  z.strictObject({ type: z.literal("stored"), key: flowKey, serial, stored: z.boolean() }),
  /** The application of these sessions died, their sockets are gone and nothing of them is on its way any more: what does
   * it take to answer for them there? Answered by `held` and `notHeld`: see src/agent/held-sessions.ts. */
  z.strictObject({ type: z.literal("hold"), keys: z.array(flowKey).max(maxEntries) }),
  /** Parts: see src/session/held-plan.ts. */
  z.strictObject({
    type: z.literal("held"),
    key: flowKey,
    plan: heldPlanSchema,
    parts: z.array(z.int().min(0).max(maxControlParts)).min(6).max(8),
  }),
  /** With the reason why not; lost: no takeover would keep them either. */
  z.strictObject({
    type: z.literal("notHeld"),
    entries: z.array(z.tuple([flowKey, z.enum(["lost", "output-gap", "too-large"])])).max(maxEntries),
  }),
  /** The orderly hand-over of the voice: see src/agent/switchover.ts. */
  z.strictObject({
    type: z.literal("prepare"),
    serial,
    cause,
    force: z.boolean(),
    /** The service whose sessions are lost to the active in any case. */
    service: z.int().min(0).max(65_535).optional(),
    /** Of the active, and none of them answers it: is the standby in a better place? By index of the uplink. */
    neighbours: z
      .array(z.strictObject({ uplink: z.int().min(0).max(255), address: z.union([z.ipv4(), z.ipv6()]) }))
      .max(16)
      .optional(),
  }),
  z.strictObject({
    type: z.literal("refused"),
    serial,
    code: z.string().max(64),
    message: z.string().max(4096),
    remedy: z.string().max(4096),
  }),
  z.strictObject({ type: z.literal("prepared"), token, cause }),
  z.strictObject({ type: z.literal("abdicated"), token, epoch: z.int().min(0).max(0xffff_ffff) }),
  z.strictObject({ type: z.literal("declined"), token }),
  z.strictObject({ type: z.literal("tookOver"), report: takeoverReportSchema }),
  /** An operator of the other router asks what this one knows: see src/agent/partner-questions.ts. */
  z.strictObject({
    type: z.literal("question"),
    serial,
    command: z.enum(["sessions", "session"]),
    asked: z.record(z.string(), z.unknown()),
  }),
  /** Parts: the answer as JSON. */
  z.strictObject({ type: z.literal("answer"), serial, parts: parts(1) }),
  /** An operator pauses automatic takeovers of the pair, for this reason, or resumes them. */
  z.strictObject({ type: z.literal("pause"), reason: z.string().max(200).nullable() }),
  /** Of the channel itself: does it carry? (ControlChannel.carriesAgain) */
  z.strictObject({ type: z.literal("ping") }),
  z.strictObject({ type: z.literal("pong") }),
]);

export type ControlMessage = z.infer<typeof controlMessage>;
export type ControlMessageOf<Type extends ControlMessage["type"]> = Extract<ControlMessage, { type: Type }>;
export type Hello = ControlMessageOf<"hello">;
