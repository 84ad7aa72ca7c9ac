// What the two agents say to each other on the control channel: one JSON object a line, checked by zod on arrival.
import { z } from "zod";

export const controlVersion = 1;
/** Longest line either side accepts, bytes. */
export const maxControlLine = 1 << 20;

/** A session's name as hexadecimal td_flow_key. */
const flowKey = z.string().regex(/^[0-9a-f]{80}$/);

export const controlMessage = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("hello"),
    version: z.int(),
    abi: z.int(),
    router: z.enum(["a", "b"]),
    /** SHA-256 over what both configurations must have in common. */
    agreement: z.string(),
    /** The longest inner frame this router's mirror link carries, bytes. */
    recordMax: z.int(),
  }),
  /** The active's sockets that ended, with the witness's verdicts (enum td_verdict). */
  z.strictObject({
    type: z.literal("ended"),
    sockets: z.array(z.strictObject({ key: flowKey, verdicts: z.int(), copiedSeq: z.int() })).max(4096),
  }),
]);

export type ControlMessage = z.infer<typeof controlMessage>;
export type Hello = Extract<ControlMessage, { type: "hello" }>;
