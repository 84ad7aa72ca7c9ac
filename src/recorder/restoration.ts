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

export interface RestoreLinks {
  /** Ours by uplink index, 6 bytes each. */
  routerMacs: Uint8Array[];
  peerMac: Uint8Array;
}

/** Call after Recorder.finish. `now`: boot clock, ns; the restored timestamp clocks go on from it. */
export function restoreSessions(
  recorder: Recorder,
  restore: Native["restore"],
  links: RestoreLinks,
  now: number,
): Pick<TakeoverReport, "sessions" | "lost" | "closed"> {
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
  chosen.forEach(({ session, plan }, index) => {
    const result = results[index];
    if (result === undefined || !("fd" in result)) {
      session.addReason(Reason.RestoreFailed);
      lost.push(describeLost(session, result ? `${result.step}: ${result.code} ${result.message}` : "no result"));
      return;
    }
    const routerMac = links.routerMacs[session.uplink] ?? links.routerMacs[0];
    const frames =
      session.synAck === null && routerMac !== undefined ? injectorFrames(session, plan, routerMac, links.peerMac) : [];
    sessions.push({
      id: session.id,
      service: session.service,
      key: session.key,
      fd: result.fd,
      inputOffset: plan.inputOffset,
      received: plan.restore.received.length,
      outputOffset: plan.outputOffset,
      clean: plan.clean,
      inputFin: plan.inputFin,
      outputFin: plan.outputFin,
      outputFinAcked: plan.outputFinAcked,
      uplink: session.uplink,
      frames,
      unacked: plan.unacked,
      timestampNs: now,
      synAck: session.synAck,
    });
  });
  return { sessions, lost, closed };
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
