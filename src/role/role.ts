// Who may speak: the role of this router as a pure function (state, event) → {state, effects}. No I/O, no clock.
//
//                    start
//                      │
//                 ┌────▼────┐  partner silent for startAlone, or both fenced and we are the better one
//      ┌──────────┤ FENCED  ├──────────────────────────────┐
//      │          └─────────┘                              │
//      │ partner speaks (solo or active)                   │
//      ▼                                                   ▼
// ┌─────────┐  agreed, a lease waited, partner solo   ┌─────────┐  partner is our standby   ┌─────────┐
// │ JOINING │◄───────── a better partner speaks ──────┤  SOLO   ├──────────────────────────►│ ACTIVE  │
// └──┬───▲──┘                                         └──▲───▲──┘                           └──┬───┬──┘
//    │   │ partner speaks alone or of a newer epoch      │   │  the standby surrendered, or    │   │
//    ▼   │ (what we recorded is stale)                   │   │  is silent on both paths (solo) │   │
// ┌──────┴──┐        the last grant ran out              │   └─────────────────────────────────┘   │
// │ STANDBY ├──────── takeover, epoch + 2 ───────────────┘      a newer epoch is heard ──► JOINING ─┘
// └─────────┘  or the active has abdicated
//
// A planned switchover: the standby says that it is prepared (a token, good for a while counted from when it was sent);
// the active then closes its gate for output, and only then abdicates with that token; the abdication stands for the
// expiry of the lease. An abdicated active stays ACTIVE and mute, forwarding what still comes in, until it hears the
// newer epoch (JOINING), that the standby is none any more (SOLO), or nothing of the kind for controllerMs: then it
// reflects again, which is always safe, since a standby that has moved on refuses to reflect. A failover that the
// active does not answer withholds the grants and waits until what was granted has run out.
//
// Who wants to speak alone, newly (SOLO), or to take over asks the arbiter first (src/role/arbiters), whose answer comes as
// an event; until it is granted nothing changes. An arbiter that gives no answer is asked again and again, and a standby
// that may not take over yet goes on recording and granting: the active may be back. A standby or an active that hears
// that somebody has had the voice since is FENCED: what it has is of the past. So is a router whom the arbiter forbids to
// speak; its standby's grants run out then. With an arbiter beside the pair either of two fenced routers may claim the
// voice, the better one first.
//
// Not drawn: a partner that speaks alone and falls silent before it was protected leaves nothing to take over; JOINING
// and STANDBY then decide as FENCED does at the start. A SOLO whose controller stood still listens as FENCED again. A
// STANDBY that the mirror link no longer reaches surrenders: JOINING.
//
// Invariant 3 (one voice) rests on: an epoch is stored before it is used; ACTIVE speaks only while the standby's last
// grant runs; STANDBY takes over only after its last grant has run out at the active; and reflection refuses an old
// epoch. See docs/architecture.md, "Modes of the data plane".

import type { RouterName } from "../config/schema.js";
import type { Answer } from "./arbiters/arbiter.js";

export type Role = "fenced" | "joining" | "standby" | "active" | "solo";
/** `yield`: as fenced, but what comes in for the service is forwarded to the partner, who takes over. */
export type Mode = "fenced" | "reflect" | "solo" | "yield";

/** Why a standby takes over: as a label, and as the beginning of a sentence. */
export const takeoverCauses = {
  lease: "The active's lease has run out",
  switchover: "An operator asked for a switchover",
  failover: "An operator ordered a failover",
  application: "An application of the active crashed",
  uplink: "The active has lost its uplinks",
  restart: "The active is being stopped",
  arbiter: "The arbiter named the standby",
} as const;
export type TakeoverCause = keyof typeof takeoverCauses;

/** What the pulse last said of the other router. */
export interface Partner {
  role: Role;
  epoch: number;
  incarnation: bigint;
  /** It has, or in an earlier life had, the voice of its epoch. */
  spoke: boolean;
}

/** What must survive a restart; stored before it counts. */
export interface Stored {
  /** The highest epoch this router has used or agreed to. */
  epoch: number;
  /** This router has the voice of that epoch. */
  spoke: boolean;
  /** The partner was entitled to take over when this was stored. */
  partnerEntitled: boolean;
}

export interface RoleSettings {
  router: RouterName;
  preferred: RouterName;
  arbiter: "pair" | "etcd" | "external";
  /** What counts without an arbiter beside the pair. */
  onSilence: "solo" | "mute";
}

/** What the arbiter was asked, and has not answered. */
export interface Question {
  serial: number;
  want:
    | { type: "alone"; reason: string }
    /** `abdicated`: the active waits for it, mute. */
    | { type: "takeover"; cause: TakeoverCause; abdicated: boolean };
}

export interface RoleState {
  role: Role;
  /** One plain sentence. */
  reason: string;
  epoch: number;
  /** null: not heard, or silent by now. */
  partner: Partner | null;
  /** The control channel is up and both configurations agree. */
  agreed: boolean;
  /** Joining: one whole lease has passed since we began, so no grant of an earlier life still runs. */
  waited: boolean;
  /** Active: the incarnation of the standby that was entitled. */
  standbyIncarnation: bigint | null;
  /** As in Stored. */
  spoke: boolean;
  partnerEntitled: boolean;
  /** Active: the grants ran out; the data plane has fenced itself. */
  voiceLost: boolean;
  /** Active: it has handed the voice over, and it is not known yet whether the standby has taken it. */
  abdicated: boolean;
  /** Why an operator has paused automatic takeovers; null: he has not. */
  paused: string | null;
  /** Standby: the grants ran out while takeovers were paused. */
  overdue: boolean;
  /** Standby: why a failover was ordered, which waits for the grants to run out. */
  ordered: TakeoverCause | null;
  /** Standby: the ordered takeover is under way. */
  takingOver: boolean;
  /** Standby: the partner has become active, so it was entitled to grants, and their expiry decides. */
  protecting: boolean;
  /** The mirror link carried both ways and does not now: nothing can be reflected. */
  mirrorSilent: boolean;
  asking: Question | null;
  /** Questions so far. */
  asked: number;
  /** Why the arbiter has forbidden what the takeover under way leads to; null: it has not. */
  forbidden: string | null;
}

export type RoleEvent =
  | { type: "start"; stored: Stored; paused: string | null }
  | { type: "partnerHeard"; partner: Partner }
  /** Nothing was heard for a lease of listening; `slept`: this router stood still meanwhile, so the partner may have
   * taken over unheard. */
  | { type: "partnerSilent"; slept: boolean }
  | { type: "agreed"; agreed: boolean }
  | { type: "mirror"; up: boolean }
  /** `slept`: this router stood still for so long that the active may have gone on alone unheard. */
  | { type: "grantExpired"; slept: boolean }
  | { type: "voiceLost" }
  | { type: "voiceBack" }
  | { type: "timer"; name: TimerName }
  | { type: "takenOver" }
  /** Active: the standby is prepared to take over, and there is a reason to want it. */
  | { type: "abdicate"; cause: TakeoverCause }
  /** Active: the standby will not use the abdication. */
  | { type: "declined" }
  /** Standby: the active has fenced itself and said so, in answer to what we sent less than controllerMs / 2 ago. */
  | { type: "abdicated"; cause: TakeoverCause }
  /** Standby: an operator, or the arbiter, wants this router to speak whatever the active answers. */
  | { type: "failover"; cause: "failover" | "arbiter" }
  | { type: "pause"; reason: string | null }
  | { type: "answered"; serial: number; answer: Answer }
  /** What the arbiter had granted is over. */
  | { type: "forbidden"; why: string };

export type TimerName =
  | "startAlone"
  | "joinWait"
  | "confirmSilence"
  | "partnerGone"
  | "mirrorPatience"
  | "claim"
  | "claimSecond"
  | "askAgain"
  | "takeBack";

/** In the order they must be carried out; each is done before the next begins. */
export type RoleEffect =
  | { type: "store"; stored: Stored }
  | { type: "gate"; mode: Mode; epoch: number }
  | { type: "voice"; until: "alone" | "lease" | "none" }
  | { type: "hold"; on: boolean }
  /** `watch`: from now on the grants' running out is waited for, even if none is given or was. */
  | { type: "grant"; on: boolean; watch?: true }
  | { type: "record"; on: boolean }
  | { type: "say"; role: Role; epoch: number; spoke: boolean }
  /** One of a name: set anew, it starts anew. */
  | { type: "timer"; name: TimerName }
  | { type: "announce" }
  /** Ends the sockets that this router's applications hold of sessions which live elsewhere now, behind the gate. */
  | { type: "abandon" }
  /** `stored` is written while the sessions are being restored, before the gate opens. */
  | { type: "takeover"; epoch: number; stored: Stored; cause: TakeoverCause }
  /** Tells the prepared standby that this router is fenced. */
  | { type: "abdicate"; epoch: number }
  /** Asks the arbiter; see Wish. `silent`: the partner is not heard. */
  | {
      type: "ask";
      serial: number;
      purpose: "takeover" | "alone";
      epoch: number;
      continues: number | null;
      silent: boolean;
    }
  /** Tells the arbiter that this router does not speak alone. */
  | { type: "release" }
  /** The takeover that somebody waits for does not come about now. */
  | { type: "declined"; why: string }
  | { type: "journal"; sentence: string };

export interface Step {
  state: RoleState;
  effects: RoleEffect[];
}

export const initialRole: RoleState = {
  role: "fenced",
  reason: "The agent is starting.",
  epoch: 0,
  partner: null,
  agreed: false,
  waited: false,
  standbyIncarnation: null,
  spoke: false,
  partnerEntitled: false,
  voiceLost: false,
  abdicated: false,
  paused: null,
  overdue: false,
  ordered: null,
  takingOver: false,
  protecting: false,
  mirrorSilent: false,
  asking: null,
  asked: 0,
  forbidden: null,
};

/** The whole policy. Unexpected events leave the state as it is. */
export function stepRole(settings: RoleSettings, state: RoleState, event: RoleEvent): Step {
  switch (event.type) {
    case "start":
      return {
        state: {
          ...state,
          ...event.stored,
          paused: event.paused,
          reason: "Listening for the partner.",
        },
        effects: [
          { type: "gate", mode: "fenced", epoch: event.stored.epoch },
          { type: "say", role: "fenced", epoch: event.stored.epoch, spoke: event.stored.spoke },
          { type: "timer", name: "startAlone" },
        ],
      };
    case "partnerHeard": {
      const { partner } = event;
      const protecting =
        state.protecting || (state.role === "standby" && partner.role === "active" && partner.epoch === state.epoch);
      // Without a register to tell them apart, who was silent and is heard again has to be considered anew.
      const asking = settings.arbiter === "pair" && state.asking?.want.type === "alone" ? null : state.asking;
      return consider(settings, { ...state, partner, protecting, asking });
    }
    case "partnerSilent":
      // Of a partner that took over and then stood still the data plane may speak for as long as its controller may.
      if (state.role === "active")
        return {
          state: { ...state, partner: null },
          effects: [{ type: "timer", name: event.slept || state.abdicated ? "partnerGone" : "confirmSilence" }],
        };
      if (state.role === "fenced")
        return { state: { ...state, partner: null }, effects: [{ type: "timer", name: "startAlone" }] };
      // A standby whose partner was active has granted, and waits for that to run out.
      if (state.role === "joining" || (state.role === "standby" && !state.protecting))
        return { state: { ...state, partner: null }, effects: [{ type: "timer", name: "partnerGone" }] };
      return stay({ ...state, partner: null });
    case "agreed":
      return consider(settings, { ...state, agreed: event.agreed });
    case "mirror":
      // Grants still come by the uplink, so the active waits for a standby that hears none of its segments.
      if (!event.up && state.role === "standby")
        return { state: { ...state, mirrorSilent: true }, effects: [{ type: "timer", name: "mirrorPatience" }] };
      return consider(settings, { ...state, mirrorSilent: !event.up });
    case "grantExpired":
      if (state.role !== "standby" || isTakingOver(state)) return stay(state);
      if (event.slept && mayGoOnUnheard(settings))
        return stepBack(
          state,
          "It stood still while the active may have gone on alone: what it recorded may be stale.",
        );
      if (state.ordered !== null) return wantTakeover(state, state.ordered);
      return state.paused === null ? wantTakeover(state, "lease") : postpone(state, state.paused);
    case "takenOver":
      if (!state.takingOver) return stay(state);
      return state.forbidden === null ? taken(state) : stepBack(taken(state).state, state.forbidden);
    case "abdicate":
      return mayAbdicate(state) ? abdicate(state, event.cause) : stay(state);
    case "declined":
      return state.role === "active" && state.abdicated ? takeBack(state) : stay(state);
    case "abdicated":
      return mayTakeOver(state) ? wantTakeover(state, event.cause, true) : stay(state);
    case "failover":
      return mayTakeOver(state) && state.ordered === null ? withhold(state, event.cause) : stay(state);
    case "pause":
      return pause(state, event.reason);
    case "voiceLost":
      if (state.role === "solo")
        return stepBack(state, "The controller stood still for longer than its voice lasts, and listens first.");
      if (state.role !== "active") return stay(state);
      return {
        state: { ...state, voiceLost: true, reason: "The standby's grants ran out; the data plane is fenced." },
        effects: [{ type: "journal", sentence: "The standby's grants ran out: nothing of the service passes." }],
      };
    case "voiceBack":
      return state.role === "active" && state.voiceLost
        ? stay({ ...state, voiceLost: false, abdicated: false, reason: "The standby grants again." })
        : stay(state);
    case "timer":
      return onTimer(settings, state, event.name);
    case "answered":
      return state.asking?.serial === event.serial
        ? answered({ ...state, asking: null }, state.asking, event.answer)
        : unasked(state, event.answer);
    case "forbidden":
      return forbid(state, event.why);
  }
}

function stay(state: RoleState): Step {
  return { state, effects: [] };
}

function speaks(partner: Partner): boolean {
  return partner.role === "solo" || partner.role === "active";
}

/** Also while the arbiter is asked whether it may. */
export function isTakingOver(state: RoleState): boolean {
  return state.takingOver || state.asking?.want.type === "takeover";
}

/** Does this router hold the sessions of an active, and has not begun to take them over? */
export function mayTakeOver(state: RoleState): boolean {
  return state.role === "standby" && state.protecting && !isTakingOver(state);
}

/** May an active speak alone without a standby's, or a register's, knowing? */
function mayGoOnUnheard({ arbiter, onSilence }: RoleSettings): boolean {
  return arbiter === "external" || (arbiter === "pair" && onSilence === "solo");
}

function isMute({ arbiter, onSilence }: RoleSettings): boolean {
  return arbiter === "pair" && onSilence === "mute";
}

/** Of two routers with a claim, exactly one is the better: the higher epoch, else who had its voice, else the
 * preferred one. */
function partnerIsBetter(settings: RoleSettings, state: RoleState, partner: Partner): boolean {
  if (partner.epoch !== state.epoch) return partner.epoch > state.epoch;
  if (partner.spoke !== state.spoke) return partner.spoke;
  return settings.preferred !== settings.router;
}

/** Looks at the partner again after something about it, or our agreement with it, changed. */
function consider(settings: RoleSettings, state: RoleState): Step {
  const { partner } = state;
  if (partner === null || state.takingOver) return stay(state);
  switch (state.role) {
    case "fenced":
      if (speaks(partner)) return join(state, partner, "The partner has the voice.");
      return claim(settings, state);
    case "joining":
      if (speaks(partner) && partner.epoch > state.epoch) return join(state, partner, "The partner has a newer epoch.");
      if (
        partner.role === "solo" &&
        partner.epoch === state.epoch &&
        state.agreed &&
        state.waited &&
        !state.mirrorSilent
      )
        return standBy(state);
      return claim(settings, state);
    case "standby":
      if (partner.epoch > state.epoch) return join(state, partner, "The partner goes on with a newer epoch.");
      if (!state.agreed && partner.role === "solo") return join(state, partner, "The configurations do not agree.");
      if (isWithoutClaim(partner) && !state.protecting)
        return thenConsider(settings, stepBack(state, "The partner gave up the voice before it was protected."));
      return stay(state);
    case "solo":
      if (speaks(partner) && partnerIsBetter(settings, state, partner))
        return join(state, partner, "The partner speaks, and its claim is the better.");
      if (!speaks(partner) && partner.epoch > state.epoch)
        return speakAlone(state, "The partner knows of a newer epoch, so this one is raised above it.");
      if (partner.role === "standby" && partner.epoch === state.epoch && state.agreed && !state.mirrorSilent)
        return protect(state, partner);
      return stay(state);
    case "active":
      // Whatever it does by now, with a newer epoch it has had the sessions, and ours are of the past.
      if (partner.epoch > state.epoch) return join(state, partner, "The partner has taken over.");
      if (isWithoutClaim(partner) || partner.incarnation !== state.standbyIncarnation)
        return speakAlone(state, "The standby has surrendered: it holds nothing of the sessions.");
      return stay(state);
  }
}

function thenConsider(settings: RoleSettings, first: Step): Step {
  const second = consider(settings, first.state);
  return { state: second.state, effects: [...first.effects, ...second.effects] };
}

/** Neither speaks: the better one wants to once the partner has had the time to hear it, too, and not to decide that it
 * is alone. The other one follows where an arbiter beside the pair decides, which may be out of the better one's reach. */
function claim(settings: RoleSettings, state: RoleState): Step {
  const { partner } = state;
  if (partner === null || !mayClaim(state)) return stay(state);
  if (!partnerIsBetter(settings, state, partner)) return { state, effects: [{ type: "timer", name: "claim" }] };
  return settings.arbiter === "pair" ? stay(state) : { state, effects: [{ type: "timer", name: "claimSecond" }] };
}

function mayClaim({ role, partner, asking }: RoleState): boolean {
  return (role === "fenced" || role === "joining") && partner !== null && isWithoutClaim(partner) && asking === null;
}

function isWithoutClaim(partner: Partner): boolean {
  return partner.role === "fenced" || partner.role === "joining";
}

function onTimer(settings: RoleSettings, state: RoleState, name: TimerName): Step {
  switch (name) {
    case "startAlone":
      if (state.role !== "fenced") return stay(state);
      // After a step back nothing may have changed at the partner, so nothing was heard of it anew.
      if (state.partner !== null) return consider(settings, state);
      if (isMute(settings) && (!state.spoke || state.partnerEntitled))
        return stay({
          ...state,
          reason: "The partner is silent and may have the voice; an operator must decide (onSilence: mute).",
        });
      return speakAlone(state, "No partner was heard since the start.");
    case "partnerGone":
      if (state.role === "active") return silenceConfirmed(settings, state);
      if (state.partner !== null || (state.role !== "joining" && (state.role !== "standby" || state.protecting)))
        return stay(state);
      if (isMute(settings))
        return stay({ ...state, reason: "The partner is silent; an operator must decide (onSilence: mute)." });
      return speakAlone(state, "The partner fell silent before this router could stand by for it.");
    case "mirrorPatience":
      if (state.role !== "standby" || !state.mirrorSilent || isTakingOver(state) || state.partner === null)
        return stay(state);
      return join(
        state,
        state.partner,
        "The mirror link is silent: this router surrenders, so that the active can speak.",
      );
    case "claim":
      return mayClaim(state) && state.partner !== null && !partnerIsBetter(settings, state, state.partner)
        ? speakAlone(state, "Neither router had the voice, and this one is the better.")
        : stay(state);
    case "claimSecond":
      return mayClaim(state)
        ? speakAlone(state, "Neither router had the voice, and the better one has not taken it.")
        : stay(state);
    case "askAgain":
      return askAgain(settings, state);
    case "joinWait":
      return consider(settings, { ...state, waited: true });
    case "confirmSilence":
      // A standby that this router has abdicated to may be speaking for as long as its controller may be silent.
      return state.abdicated ? stay(state) : silenceConfirmed(settings, state);
    case "takeBack":
      if (state.role !== "active" || !state.abdicated) return stay(state);
      return state.partner === null ? { state, effects: [{ type: "timer", name: "takeBack" }] } : takeBack(state);
  }
}

function silenceConfirmed(settings: RoleSettings, state: RoleState): Step {
  if (state.role !== "active" || state.partner !== null || !state.voiceLost) return stay(state);
  if (isMute(settings))
    return stay({ ...state, reason: "The standby is silent; this router stays mute until it is back." });
  return speakAlone(state, "The standby is silent on both paths.");
}

/** Asks whether this router may speak alone. An active, or a router that does already, goes on with sessions of its
 * epoch; others have none. */
function speakAlone(state: RoleState, reason: string): Step {
  if (state.asking !== null) return stay(state);
  const serial = state.asked + 1;
  const epoch = Math.max(state.epoch, state.partner?.epoch ?? 0) + 1;
  const continues = state.role === "active" || state.role === "solo" ? state.epoch : null;
  return {
    state: { ...state, asked: serial, asking: { serial, want: { type: "alone", reason } } },
    effects: [{ type: "ask", serial, purpose: "alone", epoch, continues, silent: state.partner === null }],
  };
}

function wantTakeover(state: RoleState, cause: TakeoverCause, abdicated = false): Step {
  const serial = state.asked + 1;
  const { epoch } = state;
  return {
    state: {
      ...state,
      overdue: false,
      ordered: null,
      asked: serial,
      asking: { serial, want: { type: "takeover", cause, abdicated } },
    },
    effects: [
      { type: "grant", on: false },
      {
        type: "ask",
        serial,
        purpose: "takeover",
        epoch: takeoverEpoch(epoch),
        continues: epoch,
        silent: !abdicated,
      },
    ],
  };
}

function answered(state: RoleState, { want }: Question, answer: Answer): Step {
  if (answer.type === "granted")
    return want.type === "takeover"
      ? takeOver(state, want.cause, answer.epoch)
      : goSolo(state, want.reason, answer.epoch);
  const why = answer.why.replace(/\.$/, "");
  if (answer.type === "refused" && (answer.stale || isYielding(state))) {
    const back = stepBack(state, `${why}.`);
    if (want.type === "takeover") back.effects.push({ type: "declined", why });
    else if (answer.stale) back.effects.push({ type: "abandon" });
    return back;
  }
  const said = {
    unreachable: `the arbiter cannot be reached (${why})`,
    refused: `the arbiter refused (${why})`,
    occupied: why,
  }[answer.type];
  const wanted =
    want.type === "takeover"
      ? `${takeoverCauses[want.cause]}; nobody takes over: ${said}.`
      : `${want.reason} It must not speak alone: ${said}.`;
  const effects: RoleEffect[] = [{ type: "timer", name: "askAgain" }];
  if (want.type === "takeover") {
    // An active that lives goes on as it is; else its lease is listened through once more, and the arbiter asked again.
    effects.push({ type: "grant", on: true }, { type: "declined", why: said });
  }
  if (wanted !== state.reason) effects.push({ type: "journal", sentence: wanted });
  return { state: { ...state, reason: wanted, overdue: want.type === "takeover" }, effects };
}

/** Only if this router gives up its claim can a partner that has none, but may be allowed to, speak. */
function isYielding({ role, partner }: RoleState): boolean {
  return role === "active" && partner !== null && isWithoutClaim(partner);
}

/** An answer that nobody waits for any more. */
function unasked(state: RoleState, answer: Answer): Step {
  const speaksAlone = state.role === "solo" || isTakingOver(state) || state.asking !== null;
  return answer.type === "granted" && !speaksAlone ? { state, effects: [{ type: "release" }] } : stay(state);
}

function askAgain(settings: RoleSettings, state: RoleState): Step {
  if (state.asking !== null) return stay(state);
  if (state.role === "standby" && state.protecting)
    return state.overdue && state.paused === null
      ? { state: { ...state, overdue: false }, effects: [{ type: "grant", on: true, watch: true }] }
      : stay(state);
  if (state.partner !== null) return consider(settings, state);
  return onTimer(settings, state, state.role === "fenced" ? "startAlone" : "partnerGone");
}

/** The sessions of an active that is forbidden to speak its standby may still take over, once it is allowed to. */
function forbid(state: RoleState, why: string): Step {
  if (state.role === "solo" || state.role === "active") return stepBack(state, why);
  if (state.takingOver) return stay({ ...state, forbidden: why });
  // Whatever is answered now was said before.
  return state.asking === null
    ? stay(state)
    : answered({ ...state, asking: null }, state.asking, { type: "refused", why, stale: false });
}

/** Does the partner stand by for this router, and does this router speak past it? */
export function mayAbdicate(state: RoleState): boolean {
  const { partner } = state;
  return (
    state.role === "active" &&
    !state.voiceLost &&
    partner?.role === "standby" &&
    partner.epoch === state.epoch &&
    partner.incarnation === state.standbyIncarnation
  );
}

/** Nothing of ours leaves any more once the gate is closed; only then the standby is told. */
function abdicate(state: RoleState, cause: TakeoverCause): Step {
  const { epoch } = state;
  const why = takeoverCauses[cause];
  return {
    state: { ...state, abdicated: true, voiceLost: true, reason: `${why}: this router has handed the voice over.` },
    effects: [
      { type: "hold", on: false },
      // First the gate, which sends input on to the standby: without a voice it would be dropped.
      { type: "gate", mode: "yield", epoch },
      { type: "voice", until: "none" },
      { type: "abdicate", epoch },
      { type: "timer", name: "takeBack" },
      { type: "journal", sentence: `${why}: this router is fenced, and the standby takes over (epoch ${epoch}).` },
    ],
  };
}

/** No voice of our own: it comes with the standby's next grant, which also tells that it has not moved on. */
function takeBack(state: RoleState): Step {
  const { epoch } = state;
  return {
    state: { ...state, reason: "The standby did not take over: this router goes on." },
    effects: [
      { type: "gate", mode: "reflect", epoch },
      { type: "hold", on: true },
      { type: "journal", sentence: `The standby did not take over: this router goes on (epoch ${epoch}).` },
    ],
  };
}

function withhold(state: RoleState, cause: TakeoverCause): Step {
  const why = takeoverCauses[cause];
  return {
    state: {
      ...state,
      ordered: cause,
      overdue: false,
      reason: `${why}: waiting until the active's lease has run out.`,
    },
    effects: [
      { type: "grant", on: false, watch: true },
      { type: "journal", sentence: `${why}: nothing is granted to the active any more.` },
    ],
  };
}

/** An active that comes back is granted anew: nothing has been taken over. */
function postpone(state: RoleState, why: string): Step {
  const reason = `The active's lease has run out; automatic takeover is paused (${why}).`;
  return {
    state: { ...state, overdue: true, reason },
    effects: [
      { type: "grant", on: true },
      { type: "journal", sentence: `${reason} An operator must decide: failover, or resume.` },
    ],
  };
}

function pause(state: RoleState, paused: string | null): Step {
  if (paused === state.paused) return stay(state);
  const sentence = paused === null ? "Automatic takeover is resumed." : `Automatic takeover is paused: ${paused}.`;
  const effects: RoleEffect[] = [{ type: "journal", sentence }];
  // Another lease is listened through: the active may be back, or have gone on alone.
  if (paused === null && state.overdue && !state.takingOver) effects.unshift({ type: "grant", on: true, watch: true });
  return { state: { ...state, paused, overdue: paused === null ? false : state.overdue }, effects };
}

function goSolo(state: RoleState, reason: string, epoch: number): Step {
  // A register that was ahead of both routers: the sockets that are left here are of before somebody else spoke.
  const succeeds = epoch > Math.max(state.epoch, state.partner?.epoch ?? 0) + 1;
  return {
    state: {
      ...state,
      role: "solo",
      reason,
      epoch,
      spoke: true,
      partnerEntitled: false,
      standbyIncarnation: null,
      voiceLost: false,
      abdicated: false,
      overdue: false,
      ordered: null,
      waited: false,
    },
    effects: [
      { type: "store", stored: { epoch, spoke: true, partnerEntitled: false } },
      { type: "grant", on: false },
      { type: "record", on: false },
      { type: "hold", on: false },
      ...(succeeds ? [{ type: "abandon" } as const] : []),
      { type: "voice", until: "alone" },
      { type: "gate", mode: "solo", epoch },
      { type: "say", role: "solo", epoch, spoke: true },
      { type: "announce" },
      { type: "journal", sentence: `This router speaks alone (epoch ${epoch}). ${reason}` },
    ],
  };
}

function join(state: RoleState, partner: Partner, reason: string): Step {
  const epoch = Math.max(state.epoch, partner.epoch);
  return {
    state: {
      ...state,
      role: "joining",
      reason,
      epoch,
      spoke: false,
      partnerEntitled: false,
      standbyIncarnation: null,
      voiceLost: false,
      abdicated: false,
      asking: null,
      overdue: false,
      ordered: null,
      waited: false,
    },
    effects: [
      { type: "grant", on: false },
      { type: "hold", on: false },
      { type: "voice", until: "none" },
      { type: "gate", mode: "fenced", epoch },
      { type: "release" },
      { type: "abandon" },
      { type: "record", on: false },
      { type: "store", stored: { epoch, spoke: false, partnerEntitled: false } },
      { type: "say", role: "joining", epoch, spoke: false },
      { type: "timer", name: "joinWait" },
      { type: "journal", sentence: `This router joins as standby (epoch ${epoch}). ${reason}` },
    ],
  };
}

/** Fenced again, without having heard of a better claim: decides as at the start. */
function stepBack(state: RoleState, reason: string): Step {
  const { epoch, spoke } = state;
  return {
    state: {
      ...state,
      role: "fenced",
      reason,
      protecting: false,
      waited: false,
      voiceLost: false,
      abdicated: false,
      asking: null,
      overdue: false,
      ordered: null,
    },
    effects: [
      { type: "grant", on: false },
      { type: "hold", on: false },
      { type: "voice", until: "none" },
      { type: "gate", mode: "fenced", epoch },
      { type: "release" },
      { type: "record", on: false },
      { type: "say", role: "fenced", epoch, spoke },
      { type: "timer", name: "startAlone" },
      { type: "journal", sentence: `This router is fenced (epoch ${epoch}). ${reason}` },
    ],
  };
}

function standBy(state: RoleState): Step {
  const { epoch } = state; // the partner's, too
  const reason = "Both configurations agree and a lease was waited for.";
  return {
    state: { ...state, role: "standby", reason, epoch, protecting: false, asking: null },
    effects: [
      { type: "store", stored: { epoch, spoke: false, partnerEntitled: false } },
      { type: "gate", mode: "fenced", epoch },
      { type: "record", on: true },
      { type: "grant", on: true },
      { type: "say", role: "standby", epoch, spoke: false },
      { type: "journal", sentence: `This router stands by (epoch ${epoch}). ${reason}` },
    ],
  };
}

function protect(state: RoleState, partner: Partner): Step {
  const { epoch } = state;
  const reason = "The partner stands by; every segment goes past it.";
  return {
    state: {
      ...state,
      role: "active",
      reason,
      partnerEntitled: true,
      standbyIncarnation: partner.incarnation,
      voiceLost: false,
      asking: null,
    },
    effects: [
      { type: "store", stored: { epoch, spoke: true, partnerEntitled: true } },
      { type: "voice", until: "lease" },
      { type: "gate", mode: "reflect", epoch },
      { type: "release" },
      { type: "hold", on: true },
      { type: "say", role: "active", epoch, spoke: true },
      { type: "journal", sentence: `This router is active (epoch ${epoch}). ${reason}` },
    ],
  };
}

/** Above what an active that was cut off from everybody gives itself when it goes on alone (goSolo): after the links
 * are back the one that took the sessions over is the better. */
function takeoverEpoch(epoch: number): number {
  return epoch + 2;
}

function takeOver(state: RoleState, cause: TakeoverCause, epoch: number): Step {
  const why = takeoverCauses[cause];
  return {
    state: { ...state, takingOver: true, forbidden: null, epoch, reason: `${why}; taking over.` },
    effects: [
      { type: "takeover", epoch, stored: { epoch, spoke: true, partnerEntitled: false }, cause },
      { type: "journal", sentence: `${why}: this router takes over (epoch ${epoch}).` },
    ],
  };
}

function taken(state: RoleState): Step {
  const { epoch } = state;
  const reason = "Took over from the partner.";
  return {
    state: {
      ...state,
      role: "solo",
      takingOver: false,
      protecting: false,
      reason,
      spoke: true,
      partnerEntitled: false,
      standbyIncarnation: null,
    },
    effects: [
      { type: "say", role: "solo", epoch, spoke: true },
      { type: "journal", sentence: `This router has the voice (epoch ${epoch}). ${reason}` },
    ],
  };
}
