// What a takeover needs of one session: the numbers for TCP_REPAIR, what the injector replays, what the nudge sends.

import type { RestoreSession } from "../../addon/native.js";
import { endpointsOf } from "./flow-key.js";
import { buildFrame, TCP_ACK, TCP_FIN, TCP_PSH, type UnackedOutput } from "./segment.js";
import { sequenceOf } from "./sequence.js";
import type { ResumePoint, Session } from "./session.js";

/** RFC 9293, 3.7.1: what counts when a SYN has no MSS option. */
const DEFAULT_MSS = { 4: 536, 6: 1220 } as const;
/** Ahead of the last TSval, clock ticks: more than the peer can have seen since, and harmless (facts.md). */
const TIMESTAMP_MARGIN = 200;
const TIMESTAMP_MAX_STEP = 2 ** 30;
/** Payload bytes of an injected frame: fits where an MTU of 1500 is, with room for headers and timestamps. */
const INJECTED_BYTES = 1400;
const noBytes = new Uint8Array(0);

export interface Plan {
  restore: RestoreSession;
  /** The offset after `restore.received`: in_end. */
  inputOffset: number;
  /** End of the recorded and logged output: where the application's output must go on. */
  outputOffset: number;
  /** Where the application stands: the restored socket's first byte is input byte `resume.inputOffset`. */
  resume: ResumePoint;
  /** Confirmed: output [resume.outputOffset, outputOffset), so that nothing is answered twice. Else empty. */
  sinceConfirm: Uint8Array;
  /** Output that was logged and not recorded: goes into the socket after the release, before anything else. */
  logged: Uint8Array;
  /** Offsets of the restored kernel socket's first bytes, for a later join (anchorOf). Output of a session that the
   * active opened: one more, since a restored socket did not count the SYN that every other one of those did. */
  base: { input: number; output: number };
  /** Delivered services: nothing the application had written is missing from the record; null: it was never stamped. */
  clean: boolean | null;
  /** The peer has finished after inputOffset, and the active had acknowledged it. */
  inputFin: boolean;
  /** The sequence number after all recorded output, when there is some beyond a gap at outputOffset: the peer may have it
   * and will acknowledge it as soon as the gap is filled. Null: no gap. */
  outputAhead: number | null;
  /** Our FIN was sent after outputOffset; the peer has acknowledged it. */
  outputFin: boolean;
  outputFinAcked: boolean;
  /** Recorded input that the active had not vouched for: the peer's to send again, or the injector's to replay. */
  candidates: { offset: number; bytes: Uint8Array }[];
  /** A FIN the active had not acknowledged, by its offset; -1: none. */
  finCandidate: number;
  unacked: UnackedOutput;
}

/** Where our timestamp clock goes on: the last TSval sent, what has passed since, and a margin. A restored clock that
 * is behind makes the peer drop us (RFC 7323, 5.3); ahead is harmless. The tick is 1 ms, or 1 µs (Linux 6.7+, by
 * route), so it is measured; unmeasured, the faster one is assumed. */
export function nextTimestamp(session: Session, nowNs: number): number {
  const span = session.tsvalOutTime - session.tsvalFirstTime;
  const ticks = (session.tsvalOut - session.tsvalFirst) >>> 0;
  const fast = span < 20e6 || ticks / (span / 1e6) > 30;
  const elapsed = Math.max(0, nowNs - session.tsvalOutTime) / 1e6;
  const step = Math.min(TIMESTAMP_MAX_STEP, Math.ceil(elapsed * (fast ? 1000 : 1)) + TIMESTAMP_MARGIN);
  return (session.tsvalOut + step) >>> 0;
}

/** Needs a tracked session; `inEnd` is fixed by Recorder.finish. The bytes are copies.
 * Windows satisfy tcp_repair_set_window (net/ipv4/tcp.c): max_window >= snd_wnd, snd_wl1 <= rcv_nxt + rcv_wnd,
 * rcv_wup <= rcv_nxt. */
export function planTakeover(session: Session, nowNs: number, inEnd = session.inEnd): Plan {
  const { input, output, firstIn, firstOut } = session;
  // Named one by one where they are used: spreading them took most of the time of a plan.
  const { family, localIp, peerIp, localPort, peerPort } = endpointsOf(session.key);
  const resume = resumeAt(session, inEnd);
  const logged = session.logged?.copy(output.end, session.loggedEnd) ?? noBytes;
  const timestamps = session.timestamps ? nextTimestamp(session, nowNs) : null;
  const scales = session.scales;
  const bytes = output.copy(session.peerAck, output.end);
  const ack = session.nextIn;
  const receiveWindow = Math.max(0, session.rightEdge - inEnd);
  const mss = session.peerOptions?.mss ?? DEFAULT_MSS[family];
  const outputFin = session.finOut >= 0 && session.finOut === output.end;
  const { sentEnd } = session;

  return {
    restore: {
      family,
      localIp,
      peerIp,
      localPort,
      peerPort,
      sndUna: sequenceOf(session.peerAck, firstOut),
      unacked: bytes,
      rcvSeq: sequenceOf(resume.inputOffset, firstIn),
      received: input.copy(resume.inputOffset, inEnd),
      mss,
      sndWscale: scales?.peer ?? null,
      rcvWscale: scales?.own ?? null,
      sackPermitted: session.sackPermitted,
      timestamp: timestamps,
      window: {
        sndWl1: sequenceOf(Math.min(session.windowSeq, inEnd), firstIn),
        sndWnd: session.sendWindow,
        maxWindow: Math.max(session.maxSendWindow, session.sendWindow),
        rcvWnd: receiveWindow,
        rcvWup: sequenceOf(inEnd, firstIn),
      },
      options: session.options,
      md5: session.md5,
    },
    inputOffset: inEnd,
    outputOffset: session.loggedEnd,
    resume,
    sinceConfirm: session.mode === "confirmed" ? outputFrom(session, resume.outputOffset) : noBytes,
    logged,
    base: { input: resume.inputOffset, output: session.peerAck + (session.passive ? 0 : 1) },
    // write_seq counts a FIN that is queued.
    clean: session.written < 0 ? null : session.written <= output.end + (outputFin ? 1 : 0),
    outputAhead: sentEnd > output.end && !outputFin ? sequenceOf(sentEnd, firstOut) : null,
    inputFin: session.finIn >= 0,
    outputFin,
    outputFinAcked: session.finOutAcked,
    candidates: candidatesOf(session, inEnd),
    finCandidate: session.finCandidate,
    unacked: {
      family,
      localIp,
      peerIp,
      localPort,
      peerPort,
      seq: sequenceOf(session.peerAck, firstOut),
      bytes,
      fin: outputFin && !session.finOutAcked,
      ack,
      window: Math.min(0xffff, Math.floor(receiveWindow / 2 ** (scales?.own ?? 0))),
      timestamps: timestamps === null ? null : { value: timestamps, echo: session.tsRecent },
      md5: session.md5,
      segmentBytes: session.largestOutput > 0 ? session.largestOutput : DEFAULT_MSS[family],
    },
  };
}

function resumeAt(session: Session, inEnd: number): ResumePoint {
  const outputOffset = session.loggedEnd;
  if (session.mode === "live") return { inputOffset: inEnd, outputOffset, source: "live" };
  if (session.mode === "confirmed") return session.resume;
  return { inputOffset: Math.min(session.copied, inEnd), outputOffset, source: "delivered" };
}

/** All output from `offset` on, recorded and logged. */
function outputFrom(session: Session, offset: number): Uint8Array {
  const { output, logged, loggedEnd } = session;
  const recorded = output.copy(offset, output.end);
  if (logged === null || loggedEnd === output.end) return recorded;
  return Buffer.concat([recorded, logged.copy(Math.max(offset, output.end), loggedEnd)]);
}

/** Recorded input beyond `inEnd`, copied. */
export function candidatesOf({ input }: Session, inEnd: number): Plan["candidates"] {
  const candidates: Plan["candidates"] = [];
  if (input.end > inEnd) candidates.push({ offset: inEnd, bytes: input.copy(inEnd, input.end) });
  for (const { start, end } of input.pieces()) candidates.push({ offset: start, bytes: input.copy(start, end) });
  return candidates;
}

/** The frames the injector sends into the restored stack, in order: the peer's last valid ACK (it sets the window and
 * TS.Recent, which no socket option restores), recorded input the active had not vouched for, then a FIN.
 * `routerMac` is ours on that uplink, `peerMac` the next hop towards the peer. */
export function injectorFrames(session: Session, plan: Plan, routerMac: Uint8Array, peerMac: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = [];
  const { family, localIp, peerIp, localPort, peerPort } = plan.restore;
  const send = (offset: number, payload: Uint8Array, flags: number): void => {
    const fields = {
      family,
      sourceIp: peerIp,
      destinationIp: localIp,
      sourcePort: peerPort,
      destinationPort: localPort,
      seq: sequenceOf(offset, session.firstIn),
      ack: sequenceOf(session.peerAck, session.firstOut),
      flags,
      window: session.sendWindowRaw,
      payload,
      // The value the active echoed: a greater one, which may be forged, would make the stack refuse the true peer.
      timestamps: session.timestamps ? { value: session.tsRecent, echo: session.tsEcho } : null,
      md5: session.md5,
    };
    frames.push(buildFrame(fields, peerMac, routerMac));
  };
  send(plan.inputOffset, new Uint8Array(0), TCP_ACK);
  for (const { offset, bytes } of plan.candidates)
    for (let at = 0; at < bytes.length; at += INJECTED_BYTES)
      send(offset + at, bytes.subarray(at, at + INJECTED_BYTES), TCP_ACK | TCP_PSH);
  if (plan.inputFin) send(plan.inputOffset, new Uint8Array(0), TCP_ACK | TCP_FIN);
  else if (plan.finCandidate >= 0) send(plan.finCandidate, new Uint8Array(0), TCP_ACK | TCP_FIN);
  return frames;
}
