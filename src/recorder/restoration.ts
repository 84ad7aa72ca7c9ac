// The restore step of a takeover: every session that may go on becomes a socket in repair mode, in one native call;
// every other one is named with what it takes to reset it.

import type { Native } from "../../addon/native.js";
import { injectorFrames, type Plan, planTakeover } from "../session/plan.js";
import { Reason, reasonBit, reasonList } from "../session/reasons.js";
import { sequenceOf } from "../session/sequence.js";
import type { Session } from "../session/session.js";
import type { LostSession, TakenSession, TakeoverReport } from "./messages.js";
import type { Recorder } from "./recorder.js";

/** Half-open sessions that are worth a socket: their peers still wait. More are a flood. */
const HALF_OPEN_MOST = 1024;
const HALF_OPEN_AGE_NS = 10e9;
/** A half-open session has no application yet; its service's application gets it. */
const HALF_OPEN_REASONS = reasonBit(Reason.HalfOpen) | reasonBit(Reason.NoApplication);

/** Sessions whose streams are larger are not worth copying for a rehearsal, bytes. */
const REHEARSED_BYTES = 1 << 16;

export interface Restoration extends Pick<TakeoverReport, "sessions" | "lost" | "closed"> {
  /** What the injector has to say to the restored sockets. */
  restored: { session: Session; plan: Plan }[];
}

/** Call after Recorder.finish. `now`: boot clock, ns; the restored timestamp clocks go on from it. */
export function restoreSessions(recorder: Recorder, restore: Native["restore"], now: number): Restoration {
  const chosen: { session: Session; plan: Plan }[] = [];
  const lost: LostSession[] = [];
  const closed: TakeoverReport["closed"] = [];
  let halfOpen = 0;
  for (const session of [...recorder.sessions()].reverse()) {
    if (session.closedAt !== 0) {
      const entry = recorder.closedEntry(session);
      if (entry !== null) closed.push({ key: session.key, ...entry });
    } else if (session.ready) chosen.push({ session, plan: planTakeover(session, now) });
    else if (
      session.synAck !== null &&
      (session.reasons & ~HALF_OPEN_REASONS) === 0 &&
      now - session.openedAt < HALF_OPEN_AGE_NS &&
      halfOpen < HALF_OPEN_MOST
    ) {
      halfOpen++;
      chosen.push({ session, plan: planTakeover(session, now) });
    } else lost.push(describeLost(session, ""));
  }

  const results = restore(chosen.map(({ plan }) => plan.restore));
  const sessions: TakenSession[] = [];
  const restored: Restoration["restored"] = [];
  chosen.forEach(({ session, plan }, index) => {
    const result = results[index];
    if (result === undefined || !("fd" in result)) {
      session.addReason(Reason.RestoreFailed);
      lost.push(describeLost(session, result ? `${result.step}: ${result.code} ${result.message}` : "no result"));
      return;
    }
    if (session.synAck === null) restored.push({ session, plan });
    sessions.push({
      id: session.id,
      service: session.service,
      key: session.key,
      fd: result.fd,
      inputOffset: plan.inputOffset,
      received: plan.restore.received.length,
      outputOffset: plan.outputOffset,
      outputAhead: plan.outputAhead,
      clean: plan.clean,
      inputFin: plan.inputFin,
      outputFin: plan.outputFin,
      outputFinAcked: plan.outputFinAcked,
      unacked: plan.unacked.bytes.length > 0 || plan.unacked.fin ? plan.unacked : null,
      synAck: session.synAck,
    });
  });
  return { sessions, lost, closed, restored };
}

/** Tells the restored sockets what socket options cannot: in order, by the uplink the peer is behind. */
export function injectRestored(
  restored: Restoration["restored"],
  inject: (uplink: number, frames: Uint8Array[]) => void,
  routerMacs: Uint8Array[],
  peerMac: Uint8Array,
): void {
  const byUplink = new Map<number, Uint8Array[]>();
  for (const { session, plan } of restored) {
    const routerMac = routerMacs[session.uplink];
    if (routerMac === undefined) continue;
    const frames = byUplink.get(session.uplink) ?? [];
    if (frames.length === 0) byUplink.set(session.uplink, frames);
    frames.push(...injectorFrames(session, plan, routerMac, peerMac));
  }
  for (const [uplink, frames] of byUplink) inject(uplink, frames);
}

/** Plans a session as a takeover would and throws the plan away: what runs once in a router's life, and then has to be
 * fast, is compiled and its data is known to fit. Returns whether there was anything to rehearse. */
export function rehearse(session: Session, mac: Uint8Array, now: number): boolean {
  // A closed session has given its streams back: there is nothing to plan with.
  if (session.closedAt !== 0 || !session.ready || session.output.end - session.peerAck > REHEARSED_BYTES) return false;
  const inEnd = session.feedEnd;
  if (session.input.end - inEnd > REHEARSED_BYTES) return false;
  injectorFrames(session, planTakeover(session, now, inEnd), mac, mac);
  return true;
}

/** What is needed to reset a session that cannot go on. */
export function describeLost(session: Session, detail: string): LostSession {
  let seqs: number[];
  let ack: number;
  if (!session.tracked) {
    seqs = [session.rawPeerAck, session.rawSeq];
    ack = session.rawAck;
  } else if (!session.established && !session.passive) {
    const offer = session.candidates[0];
    seqs = [session.firstOut];
    ack = offer === undefined ? 0 : (offer.isn + 1) >>> 0;
  } else {
    seqs = [session.nextOut, sequenceOf(session.peerAck, session.firstOut)];
    ack = session.nextIn;
  }
  return {
    id: session.id,
    service: session.service,
    key: session.key,
    reasons: reasonList(session.reasons),
    reset: { seqs: [...new Set(seqs)], ack },
    detail,
  };
}
