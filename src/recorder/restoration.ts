// The restore step of a takeover: every session that may go on becomes a socket in repair mode, in one native call, if it
// is not one already (preparation.ts); every other one is named with what it takes to reset it.

import type { Native, RestoreResult } from "../../addon/native.js";
import type { HeldPlan } from "../session/held-plan.js";
import { candidatesOf, injectorFrames, type Plan, planTakeover } from "../session/plan.js";
import { Reason, reasonBit, reasonList } from "../session/reasons.js";
import { sequenceOf } from "../session/sequence.js";
import type { Session } from "../session/session.js";
import type { LostSession, RestoredNews, TakenSession, TakeoverReport } from "./messages.js";
import type { Preparation } from "./preparation.js";
import type { Recorder } from "./recorder.js";

/** Half-open sessions that are worth a socket: their peers still wait. More are a flood. */
const HALF_OPEN_MOST = 1024;
const HALF_OPEN_AGE_NS = 10e9;
/** A half-open session has no application yet; its service's application gets it. */
const HALF_OPEN_REASONS = reasonBit(Reason.HalfOpen) | reasonBit(Reason.NoApplication);

const noMac = new Uint8Array(6);

/** Sessions whose streams are larger are not worth copying for a rehearsal, bytes. */
const REHEARSED_BYTES = 1 << 16;

export interface Restoration extends Pick<TakeoverReport, "sessions" | "lost"> {
  /** What the injector has to say to the restored sockets. */
  restored: { session: Session; plan: Plan }[];
  /** How many of them had been restored in advance. */
  prepared: number;
}

interface Chosen {
  session: Session;
  plan: Plan;
  result: RestoreResult | undefined;
}

/** Call after Recorder.finish. `now`: boot clock, ns; the restored timestamp clocks go on from it. `tell` is called when the
 * sockets are there, before anything else about them is put together: the gate waits for no more. What it ingests of what
 * the old active still forwards counts for the order of the sessions in the answer. */
export function restoreSessions(
  recorder: Recorder,
  restore: Native["restore"],
  now: number,
  preparation: Preparation,
  tell: (news: Pick<RestoredNews, "closed" | "ahead">) => void,
): Restoration {
  const prepared: Chosen[] = [];
  const missing: Chosen[] = [];
  const choose = (session: Session): void => {
    const made = preparation.take(session);
    const plan = made?.plan ?? planTakeover(session, now);
    (made === undefined ? missing : prepared).push({ session, plan, result: made });
  };
  const lost: LostSession[] = [];
  const closed: RestoredNews["closed"] = [];
  let halfOpen = 0;
  for (const session of [...recorder.sessions()].reverse()) {
    if (session.closedAt !== 0) {
      const entry = recorder.closedEntry(session);
      if (entry !== null) closed.push({ key: session.key, ...entry });
    } else if (session.ready && session.hasOutputGap && !session.sackPermitted) {
      // Its peer cannot say what it holds.
      session.addReason(Reason.OutputGap);
      lost.push(describeLost(session, ""));
    } else if (session.ready) choose(session);
    else if (
      session.synAck !== null &&
      (session.reasons & ~HALF_OPEN_REASONS) === 0 &&
      now - session.openedAt < HALF_OPEN_AGE_NS &&
      halfOpen < HALF_OPEN_MOST
    ) {
      halfOpen++;
      choose(session);
    } else lost.push(describeLost(session, ""));
  }

  preparation.discard();
  restore(missing.map(({ plan }) => plan.restore)).forEach((result, index) => {
    (missing[index] as Chosen).result = result;
  });
  const chosen = [...missing, ...prepared];
  const ahead: RestoredNews["ahead"] = [];
  for (const { session, plan, result } of chosen)
    if (plan.outputAhead !== null && result !== undefined && "fd" in result)
      ahead.push({ key: session.key, seq: plan.outputAhead });
  tell({ closed, ahead });
  const sessions: TakenSession[] = [];
  const restored: Restoration["restored"] = [];
  for (const { session, plan, result } of [...missing, ...inTurn(prepared)]) {
    if (result === undefined || !("fd" in result)) {
      session.addReason(Reason.RestoreFailed);
      lost.push(describeLost(session, result ? `${result.step}: ${result.code} ${result.message}` : "no result"));
      continue;
    }
    if (session.synAck === null) restored.push({ session, plan });
    sessions.push({ ...takenOf(session, plan), id: session.id, fd: result.fd });
  }
  return { sessions, lost, restored, prepared: prepared.length };
}

/** The turn of sessions that were restored in advance, after those in which something has happened since: first whose peer
 * has sent meanwhile and waits for an answer, then those that have been quiet the longest, for they will speak next. */
function inTurn(prepared: Chosen[]): Chosen[] {
  const waits = ({ session, plan }: Chosen): number => (session.input.highest > plan.inputOffset ? 0 : 1);
  return prepared.sort((one, other) => waits(one) - waits(other) || one.session.lastTime - other.session.lastTime);
}

function takenOf(session: Session, plan: Plan): Omit<TakenSession, "id" | "fd"> {
  return {
    service: session.service,
    key: session.key,
    inputOffset: plan.inputOffset,
    received: plan.restore.received.length,
    outputOffset: plan.outputOffset,
    mode: session.mode,
    resume: plan.resume,
    base: plan.base,
    sinceConfirm: plan.sinceConfirm,
    logged: plan.logged,
    gap: session.hasOutputGap
      ? {
          probe: plan.unacked,
          lost: { ...describeLost(session, ""), reasons: reasonList(reasonBit(Reason.OutputGap)) },
        }
      : null,
    clean: plan.clean,
    inputFin: plan.inputFin,
    outputFin: plan.outputFin,
    outputFinAcked: plan.outputFinAcked,
    unacked: plan.unacked.bytes.length > 0 || plan.unacked.fin ? plan.unacked : null,
    synAck: session.synAck,
  };
}

/** What the active takes to go on with this session itself, whose socket has died there; recording goes on. Null: it is
 * not ready; for this it needs no application on the standby. `ahead`: the peer may have output beyond a gap, which only a
 * router without a standby can make good (`lower_ack` in bpf/uplink.bpf.c). What the active had not vouched for is the
 * peer's to send again. */
export function planHeld(session: Session, now: number): HeldPlan | "ahead" | null {
  if ((session.reasons & ~reasonBit(Reason.NoApplication)) !== 0 || session.closedAt !== 0) return null;
  const plan = planTakeover(session, now, Math.min(session.vouched, session.input.end));
  if (plan.outputAhead !== null) return "ahead";
  return {
    uplink: session.uplink,
    restore: plan.restore,
    taken: takenOf(session, plan),
    // Whose they are is nobody's business on their way: the data plane takes them for this host's by their mark.
    frames: injectorFrames(session, { ...plan, candidates: [], finCandidate: -1 }, noMac, noMac),
  };
}

/** Tells the restored sockets what socket options cannot: in order, by the uplink the peer is behind. What has been
 * recorded since the plan was made, inherited from the old active, is among it. */
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
    const candidates = candidatesOf(session, plan.inputOffset);
    frames.push(...injectorFrames(session, { ...plan, candidates }, routerMac, peerMac));
  }
  for (const [uplink, frames] of byUplink) inject(uplink, frames);
}

/** Plans a session as a takeover would and throws the plan away: what runs once in a router's life, and then has to be
 * fast, is compiled and its data is known to fit. Returns whether there was anything to rehearse. */
export function rehearse(session: Session, mac: Uint8Array, now: number): boolean {
  // A closed session has given its streams back: there is nothing to plan with.
  if (session.closedAt !== 0 || !session.ready) return false;
  const inEnd = session.feedEnd;
  const kept = Math.max(session.input.end - session.input.base, session.output.end - session.output.base);
  if (kept > REHEARSED_BYTES) return false;
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
    reset: { seqs: [...new Set(seqs)], ack, md5: session.md5 },
    detail,
  };
}
