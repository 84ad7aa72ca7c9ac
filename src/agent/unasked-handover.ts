// When the active hands over without being asked: an application of a service died and left its sessions behind, none of
// the uplinks has a carrier any more, or nobody answers on them. The standby is asked until it agrees, or the reason is gone.

import type { Config } from "../config/schema.js";
import { sentenceOf, TandemError } from "../errors.js";
import type { Neighbour } from "../net/neighbours.js";
import { mayAbdicate, type RoleState } from "../role/role.js";
import { endpointsOf } from "../session/flow-key.js";
import { ServiceLookup } from "../session/service-of.js";
import type { TakeoverReport } from "../takeover/report.js";
import type { HandoverWish } from "./switchover.js";
import type { CrashedSocket } from "./witness.js";

/** Between two attempts, and for how long they are made, ms. */
const retryMs = 500;
const retryForMs = 60_000;

export interface UnaskedHandoverParts {
  config: Config;
  role(): RoleState;
  hasCarrier(): boolean;
  /** See Deafness. */
  deafTo(): readonly Neighbour[] | null;
  /** Nobody listens any more: for a while resets that nobody meant must not leave. */
  quarantine(): void;
  request(wish: HandoverWish): Promise<TakeoverReport>;
  /** Answers for these sessions (td_flow_key) until their application is back. */
  hold(service: number, keys: Uint8Array[]): void;
  /** Nobody takes the sessions of this service over: they are not answered for any longer. */
  drop(service: number): void;
  journal(sentence: string): void;
  /** Milliseconds, monotonic. */
  now(): number;
}

interface Reason {
  wish: HandoverWish;
  /** The next attempt, and the last one. */
  dueMs: number;
  untilMs: number;
  /** The refusal that was told last. */
  told: string;
}

export class UnaskedHandover {
  private readonly reasons = new Map<string, Reason>();
  private asking = false;

  private readonly services: ServiceLookup;

  constructor(private readonly parts: UnaskedHandoverParts) {
    this.services = new ServiceLookup(parts.config.services);
  }

  /** Sockets that ended with their application, by the witness; such of services with `onCrash: close` are not told. */
  crashed(sockets: readonly Pick<CrashedSocket, "key">[]): void {
    if (this.parts.role().role !== "active") return;
    const services = new Map<number, Uint8Array[]>();
    for (const { key } of sockets) {
      const service = this.services.find(endpointsOf(key));
      if (service >= 0) services.set(service, [...(services.get(service) ?? []), key]);
    }
    if (services.size > 0) this.parts.quarantine();
    for (const [service, keys] of services) {
      const settings = this.parts.config.services[service];
      if (settings === undefined) continue;
      const held = settings.onCrash === "hold" && settings.holdMs > 0;
      if (held) this.parts.hold(service, keys);
      if (this.reasons.has(`service ${service}`)) continue;
      const wish: HandoverWish = { cause: "application", force: false, service };
      this.add(`service ${service}`, wish, held ? settings.holdMs : 0);
      this.parts.journal(
        `An application of service ${settings.name} died and left ${keys.length} session${keys.length === 1 ? "" : "s"}: ` +
          (held
            ? `they are held here until it is back, and handed over in ${settings.holdMs / 1000} s if it is not.`
            : "the standby is to take over."),
      );
    }
    this.poll();
  }

  /** Somebody goes on with all sessions of this service. */
  settled(service: number): void {
    this.reasons.delete(`service ${service}`);
  }

  /** To be called every so often. */
  poll(): void {
    const state = this.parts.role();
    const now = this.parts.now();
    if (state.role !== "active") {
      this.endAlone(state.role === "solo" ? now : Number.POSITIVE_INFINITY);
      return;
    }
    this.judgeUplinks();
    if (this.asking || !mayAbdicate(state)) return;
    for (const [name, reason] of this.reasons)
      if (now >= reason.dueMs) {
        void this.ask(name, reason);
        return;
      }
  }

  /** What cannot be kept is lost to this router anyway. */
  private judgeUplinks(): void {
    const neighbours = this.parts.deafTo();
    if (!this.parts.hasCarrier()) {
      if (!this.reasons.has("uplink")) this.add("uplink", { cause: "uplink", force: true }, 0);
    } else if (neighbours === null) this.reasons.delete("uplink");
    else if (!this.reasons.has("uplink")) {
      this.add("uplink", { cause: "uplink", force: true, neighbours: [...neighbours] }, 0);
      this.parts.journal(
        `The uplinks have a carrier, but neither the standby nor any of ${neighbours.length} neighbours answers on them (${neighbours.map(({ address }) => address).join(", ")}): the standby is to take over if one answers it.`,
      );
    }
  }

  /** Without a standby nobody is asked: sessions of a dead application are held until their deadline. */
  private endAlone(now: number): void {
    for (const [name, { dueMs, wish }] of this.reasons) {
      if (now < dueMs) continue;
      this.reasons.delete(name);
      if (wish.service !== undefined) this.parts.drop(wish.service);
    }
  }

  private add(name: string, wish: HandoverWish, afterMs: number): void {
    const dueMs = this.parts.now() + afterMs;
    this.reasons.set(name, { wish, dueMs, untilMs: dueMs + retryForMs, told: "" });
  }

  private async ask(name: string, reason: Reason): Promise<void> {
    this.asking = true;
    try {
      await this.parts.request(reason.wish);
      this.reasons.clear();
    } catch (error) {
      const now = this.parts.now();
      const told = error instanceof TandemError ? error.message : sentenceOf(error);
      if (told !== reason.told) this.parts.journal(told);
      reason.told = told;
      reason.dueMs = now + retryMs;
      if (now <= reason.untilMs || name === "uplink") return;
      this.reasons.delete(name);
      if (reason.wish.service !== undefined) this.parts.drop(reason.wish.service);
    } finally {
      this.asking = false;
    }
  }
}
