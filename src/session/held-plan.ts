// A session's plan (plan.ts) on its way to the active: there its agent answers the peer of a session whose application died
// (src/agent/held-sessions.ts). Numbers are JSON, bytes are parts: received, unacked, logged, sinceConfirm, state, md5 key
// (empty: none), then the injector's frames. Names and units are those of RestoreSession and TakenSession.

import { z } from "zod";
import type { RestoreSession } from "../../addon/native.js";
import type { TakenSession } from "../recorder/messages.js";
import { endpointsOf } from "./flow-key.js";
import { socketOptions } from "./socket-options.js";

const seq = z.int().min(0).max(0xffffffff);
const offset = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const shift = z.int().min(0).max(14).nullable();
const segment = z.int().min(1).max(65_535);

export const heldPlanSchema = z.strictObject({
  service: z.int().min(0).max(65_535),
  /** Index of the uplink that its peer is behind. */
  uplink: z.int().min(0).max(255),
  restore: z.strictObject({
    sndUna: seq,
    rcvSeq: seq,
    mss: segment,
    sndWscale: shift,
    rcvWscale: shift,
    sackPermitted: z.boolean(),
    timestamp: seq.nullable(),
    window: z.strictObject({ sndWl1: seq, sndWnd: seq, maxWindow: seq, rcvWnd: seq, rcvWup: seq }).nullable(),
    options: socketOptions.nullable(),
  }),
  taken: z.strictObject({
    mode: z.enum(["live", "confirmed", "delivered"]),
    inputOffset: offset,
    outputOffset: offset,
    resume: z.strictObject({
      inputOffset: offset,
      outputOffset: offset,
      source: z.enum(["start", "confirmed", "live", "delivered"]),
    }),
    base: z.strictObject({ input: offset, output: offset }),
    clean: z.boolean().nullable(),
    inputFin: z.boolean(),
    outputFin: z.boolean(),
    outputFinAcked: z.boolean(),
  }),
  /** Of the segments that are sent again; echo: the peer's last TSval, null: no timestamps. */
  nudge: z.strictObject({
    ack: seq,
    window: z.int().min(0).max(0xffff),
    echo: seq.nullable(),
    segmentBytes: segment,
  }),
});
export type HeldPlanNumbers = z.infer<typeof heldPlanSchema>;

export interface HeldPlan {
  uplink: number;
  restore: RestoreSession;
  taken: Omit<TakenSession, "id" | "fd">;
  /** What socket options cannot tell the restored socket. */
  frames: Uint8Array[];
}

const nothing = new Uint8Array(0);

/** `state`: of the application, at the resume point. */
export function packHeldPlan(
  { uplink, restore, taken, frames }: HeldPlan,
  state: Uint8Array,
): { plan: HeldPlanNumbers; parts: Uint8Array[] } {
  const { sndUna, rcvSeq, mss, sndWscale, rcvWscale, sackPermitted, timestamp, window, options } = restore;
  const { mode, inputOffset, outputOffset, resume, base, clean, inputFin, outputFin, outputFinAcked } = taken;
  const { unacked } = taken;
  return {
    plan: {
      service: taken.service,
      uplink,
      restore: { sndUna, rcvSeq, mss, sndWscale, rcvWscale, sackPermitted, timestamp, window, options },
      taken: { mode, inputOffset, outputOffset, resume, base, clean, inputFin, outputFin, outputFinAcked },
      nudge: {
        ack: unacked?.ack ?? 0,
        window: unacked?.window ?? 0,
        echo: unacked?.timestamps?.echo ?? null,
        segmentBytes: unacked?.segmentBytes ?? mss,
      },
    },
    parts: [
      restore.received,
      restore.unacked,
      taken.logged,
      taken.sinceConfirm,
      state,
      restore.md5 ?? nothing,
      ...frames,
    ],
  };
}

/** `key`: the session's td_flow_key. */
export function unpackHeldPlan(
  key: Uint8Array,
  { service, uplink, restore, taken, nudge }: HeldPlanNumbers,
  parts: readonly Uint8Array[],
): HeldPlan & { state: Uint8Array } {
  const [received = nothing, unacked = nothing, logged = nothing, sinceConfirm = nothing, state = nothing] = parts;
  const md5 = parts[5]?.length ? parts[5] : null;
  const endpoints = endpointsOf(key);
  const fin = taken.outputFin && !taken.outputFinAcked;
  const { echo, ...rest } = nudge;
  return {
    uplink,
    restore: { ...endpoints, ...restore, received, unacked, md5 },
    taken: {
      ...taken,
      service,
      key,
      received: received.length,
      sinceConfirm,
      logged,
      gap: null,
      unacked:
        unacked.length === 0 && !fin
          ? null
          : {
              ...endpoints,
              ...rest,
              seq: restore.sndUna,
              bytes: unacked,
              fin,
              timestamps: echo === null || restore.timestamp === null ? null : { value: restore.timestamp, echo },
              md5,
            },
      synAck: null,
    },
    frames: parts.slice(6),
    state,
  };
}
