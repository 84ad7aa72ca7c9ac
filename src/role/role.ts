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
// └─────────┘
//
// Not drawn: a partner that speaks alone and falls silent before it was protected leaves nothing to take over; JOINING
// and STANDBY then decide as FENCED does at the start. A SOLO whose controller stood still listens as FENCED again. A
// STANDBY that the mirror link no longer reaches surrenders: JOINING.
//
// Invariant 3 (one voice) rests on: an epoch is stored before it is used; ACTIVE speaks only while the standby's last
// grant runs; STANDBY takes over only after its last grant has run out at the active; and reflection refuses an old
// epoch. See docs/architecture.md, "Modes of the data plane".

import type { RouterName } from "../config/schema.js";

export type Role = "fenced" | "joining" | "standby" | "active" | "solo";
export type Mode = "fenced" | "reflect" | "solo";

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
  onSilence: "solo" | "mute";
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
  /** Standby: the ordered takeover is under way. */
  takingOver: boolean;
  /** Standby: the partner has become active, so it was entitled to grants, and their expiry decides. */
  protecting: boolean;
  /** The mirror link carried both ways and does not now: nothing can be reflected. */
  mirrorSilent: boolean;
}

export type RoleEvent =
  | { type: "start"; stored: Stored }
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
  | { type: "takenOver" };

export type TimerName = "startAlone" | "joinWait" | "confirmSilence" | "partnerGone" | "mirrorPatience" | "claim";

/** In the order they must be carried out; each is done before the next begins. */
export type RoleEffect =
  | { type: "store"; stored: Stored }
  | { type: "gate"; mode: Mode; epoch: number }
  | { type: "voice"; until: "alone" | "lease" | "none" }
  | { type: "hold"; on: boolean }
  | { type: "grant"; on: boolean }
  | { type: "record"; on: boolean }
  | { type: "say"; role: Role; epoch: number; spoke: boolean }
  /** One of a name: set anew, it starts anew. */
  | { type: "timer"; name: TimerName }
  | { type: "announce" }
  /** Ends the sockets that this router's applications hold of sessions which live elsewhere now, behind the gate. */
  | { type: "abandon" }
  /** `stored` is written while the sessions are being restored, before the gate opens. */
  | { type: "takeover"; epoch: number; stored: Stored }
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
  takingOver: false,
  protecting: false,
  mirrorSilent: false,
};

/** The whole policy. Unexpected events leave the state as it is. */
export function stepRole(settings: RoleSettings, state: RoleState, event: RoleEvent): Step {
  switch (event.type) {
    case "start":
      return {
        state: {
          ...state,
          ...event.stored,
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
      return consider(settings, { ...state, partner, protecting });
    }
    case "partnerSilent":
      // Of a partner that took over and then stood still the data plane may speak for as long as its controller may.
      if (state.role === "active")
        return {
          state: { ...state, partner: null },
          effects: [{ type: "timer", name: event.slept ? "partnerGone" : "confirmSilence" }],
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
      if (state.role !== "standby" || state.takingOver) return stay(state);
      if (event.slept && settings.onSilence === "solo")
        return stepBack(
          state,
          "It stood still while the active may have gone on alone: what it recorded may be stale.",
        );
      return takeOver(state);
    case "takenOver":
      return state.takingOver ? taken(state) : stay(state);
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
        ? stay({ ...state, voiceLost: false, reason: "The standby grants again." })
        : stay(state);
    case "timer":
      return onTimer(settings, state, event.name);
  }
}

function stay(state: RoleState): Step {
  return { state, effects: [] };
}

function speaks(partner: Partner): boolean {
  return partner.role === "solo" || partner.role === "active";
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
        return goSolo(state, "The partner knows of a newer epoch, so this one is raised above it.");
      if (partner.role === "standby" && partner.epoch === state.epoch && state.agreed && !state.mirrorSilent)
        return protect(state, partner);
      return stay(state);
    case "active":
      // Whatever it does by now, with a newer epoch it has had the sessions, and ours are of the past.
      if (partner.epoch > state.epoch) return join(state, partner, "The partner has taken over.");
      if (isWithoutClaim(partner) || partner.incarnation !== state.standbyIncarnation)
        return goSolo(state, "The standby has surrendered: it holds nothing of the sessions.");
      return stay(state);
  }
}

function thenConsider(settings: RoleSettings, first: Step): Step {
  const second = consider(settings, first.state);
  return { state: second.state, effects: [...first.effects, ...second.effects] };
}

/** Neither speaks and this router is the better: it speaks once the partner has had the time to hear it, too, and not
 * to decide that it is alone. */
function claim(settings: RoleSettings, state: RoleState): Step {
  return mayClaim(settings, state) ? { state, effects: [{ type: "timer", name: "claim" }] } : stay(state);
}

function mayClaim(settings: RoleSettings, state: RoleState): boolean {
  const { partner } = state;
  return (
    (state.role === "fenced" || state.role === "joining") &&
    partner !== null &&
    isWithoutClaim(partner) &&
    !partnerIsBetter(settings, state, partner)
  );
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
      if (settings.onSilence === "mute" && (!state.spoke || state.partnerEntitled))
        return stay({
          ...state,
          reason: "The partner is silent and may have the voice; an operator must decide (onSilence: mute).",
        });
      return goSolo(state, "No partner was heard since the start.");
    case "partnerGone":
      if (state.role === "active") return onTimer(settings, state, "confirmSilence");
      if ((state.role !== "joining" && state.role !== "standby") || state.partner !== null || state.takingOver)
        return stay(state);
      if (settings.onSilence === "mute")
        return stay({ ...state, reason: "The partner is silent; an operator must decide (onSilence: mute)." });
      return goSolo(state, "The partner fell silent before this router could stand by for it.");
    case "mirrorPatience":
      if (state.role !== "standby" || !state.mirrorSilent || state.takingOver || state.partner === null)
        return stay(state);
      return join(
        state,
        state.partner,
        "The mirror link is silent: this router surrenders, so that the active can speak.",
      );
    case "claim":
      return mayClaim(settings, state)
        ? goSolo(state, "Neither router had the voice, and this one is the better.")
        : stay(state);
    case "joinWait":
      return consider(settings, { ...state, waited: true });
    case "confirmSilence":
      if (state.role !== "active" || state.partner !== null || !state.voiceLost) return stay(state);
      if (settings.onSilence === "mute")
        return stay({ ...state, reason: "The standby is silent; this router stays mute until it is back." });
      return goSolo(state, "The standby is silent on both paths.");
  }
}

function goSolo(state: RoleState, reason: string): Step {
  const epoch = Math.max(state.epoch, state.partner?.epoch ?? 0) + 1;
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
      waited: false,
    },
    effects: [
      { type: "store", stored: { epoch, spoke: true, partnerEntitled: false } },
      { type: "grant", on: false },
      { type: "record", on: false },
      { type: "hold", on: false },
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
      waited: false,
    },
    effects: [
      { type: "grant", on: false },
      { type: "hold", on: false },
      { type: "voice", until: "none" },
      { type: "gate", mode: "fenced", epoch },
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
    state: { ...state, role: "fenced", reason, protecting: false, waited: false, voiceLost: false },
    effects: [
      { type: "grant", on: false },
      { type: "hold", on: false },
      { type: "voice", until: "none" },
      { type: "gate", mode: "fenced", epoch },
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
    state: { ...state, role: "standby", reason, epoch, protecting: false },
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
    },
    effects: [
      { type: "store", stored: { epoch, spoke: true, partnerEntitled: true } },
      { type: "voice", until: "lease" },
      { type: "gate", mode: "reflect", epoch },
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

function takeOver(state: RoleState): Step {
  const epoch = takeoverEpoch(state.epoch);
  return {
    state: { ...state, takingOver: true, epoch, reason: "The active's lease has run out; taking over." },
    effects: [
      { type: "takeover", epoch, stored: { epoch, spoke: true, partnerEntitled: false } },
      { type: "journal", sentence: `The active's lease has run out: this router takes over (epoch ${epoch}).` },
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
