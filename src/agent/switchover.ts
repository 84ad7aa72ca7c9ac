// The orderly hand-over of the voice, as the two agents speak of it on the control channel:
//
//   active                                standby
//     ── prepare (cause, force) ──────────►   are all sessions ready, is the recorder up to date? restores them in advance
//     ◄───────────── refused (why), or ────
//     ◄───────────── prepared (token) ─────   also unasked, when it is this router that was told to
//   closes its gate for output
//     ── abdicated (token) ───────────────►   takes over at once, if the token is not too old by its own clock
//     ◄───────────── declined (token) ─────   if it is: the active goes on; also when output is missing that the mirror
//                                             link lost: TCP sends it again then, and `prepared` follows once more
//     ◄───────────── tookOver (report) ────
//
// The role machine (src/role/role.ts) decides, and stays safe whichever of these is lost or late.

import { randomInt } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { native } from "../../addon/native.js";
import { exitCodes, TandemError } from "../errors.js";
import type { Neighbour } from "../net/neighbours.js";
import type { ControlMessage, ControlMessageOf } from "../pair/messages.js";
import type { RecorderStatus, SessionSummary } from "../recorder/messages.js";
import { mayAbdicate, mayTakeOver, type RoleEvent, type RoleState, type TakeoverCause } from "../role/role.js";
import type { TakeoverReport } from "../takeover/takeover.js";

/** Sessions that are not ready and named in a refusal. */
const namedSessions = 5;
/** A delivered session with a gap in its output would not survive. TCP fills it within a round trip, so it is given so
 * long, looked at now and then; and so often the active goes on once more when a gap has opened just before its gate
 * closed. */
const gapWaitMs = 500;
const gapLookMs = 10;
const gapRetries = 3;
/** A recorder further behind than this part of its ring would keep the sessions waiting. */
const backlogShare = 1 / 4;

export type HandoverMessage = ControlMessageOf<
  "prepare" | "refused" | "prepared" | "abdicated" | "declined" | "tookOver"
>;

export interface HandoverWish {
  cause: TakeoverCause;
  /** Also when sessions would be lost. */
  force: boolean;
  /** The service (by its number) whose sessions are lost to the active anyway. */
  service?: number;
  /** Nobody of these answers the active. */
  neighbours?: Neighbour[];
}

export interface SwitchoverParts {
  role(): RoleState;
  dispatch(event: RoleEvent): void;
  /** False: the partner is not connected. */
  send(message: ControlMessage): boolean;
  recorderStatus(): Promise<RecorderStatus>;
  /** Ready sessions with a gap in their output that only the active can fill, of what is recorded by now. */
  outputGaps(): Promise<number>;
  /** Restores the sessions in advance; what changes from now on is restored again at the takeover. */
  restoreInAdvance(): Promise<void>;
  /** For sentences: its service and its peer. */
  sessionName(session: SessionSummary): string;
  /** Why the arbiter would not let this router take over; null: nothing is known. */
  objection(): string | null;
  /** Could this router's service be reached at all? */
  hasCarrier(): boolean;
  /** Does one of these neighbours answer this router? */
  reachesAny(neighbours: readonly Neighbour[]): Promise<boolean>;
  /** The takeover counts its voice, and its first step, from this instant of the boot clock. */
  takeOverSince(ns: bigint): void;
  /** How long after `prepared` was sent an abdication is good, ms. */
  validMs: number;
  /** When to stop waiting for an answer, ms. */
  patienceMs: number;
}

/** What the standby is prepared for. */
interface Offer {
  token: number;
  atNs: bigint;
  wish: HandoverWish;
  /** Of the active's `prepare`; null: asked at the standby. */
  serial: number | null;
  /** How often the active may yet go on to fill gaps. */
  retries: number;
}

interface Waiting {
  serial: number;
  resolve(report: TakeoverReport): void;
  reject(error: unknown): void;
}

export class Switchover {
  private readonly waiting = new Set<Waiting>();
  private offer: Offer | null = null;
  /** Standby: the abdication it is taking over by. */
  private accepted: number | null = null;
  /** Active: the preparation it answers by abdicating. */
  private token = 0;
  private serial = 0;

  constructor(private readonly parts: SwitchoverParts) {}

  /** Asked at either router; resolves with the report of the router that took over. Throws TandemError: refused (exit
   * code 5), or HANDOVER_TIMEOUT; then the active has the voice as before. */
  async request(wish: HandoverWish): Promise<TakeoverReport> {
    const { role } = this.parts.role();
    if (role === "standby") {
      await this.check(wish);
      await this.parts.restoreInAdvance();
      return this.wait(() => this.prepare(wish, null));
    }
    if (!mayAbdicate(this.parts.role()))
      throw this.refusal(`this router is ${role}, without a standby that protects it`);
    return this.wait((serial) => this.parts.send({ type: "prepare", serial, ...wish }));
  }

  /** At the standby: takes over even if the active does not answer, after its lease. Throws as `request` does. */
  async failover(force: boolean, cause: "failover" | "arbiter" = "failover"): Promise<TakeoverReport> {
    const wish: HandoverWish = { cause, force };
    if (this.parts.role().role !== "standby") return this.request(wish);
    await this.check(wish);
    return this.wait(() => {
      this.prepare({ ...wish, force: true }, null); // heard by an active that is well enough, which makes it faster
      this.parts.dispatch({ type: "failover", cause });
      return true;
    });
  }

  /** The effect "abdicate": the gate is closed for output. */
  abdicate(epoch: number): void {
    if (!this.parts.send({ type: "abdicated", token: this.token, epoch })) this.parts.dispatch({ type: "declined" });
  }

  /** The effect "declined": this router has not taken over, for want of the arbiter's word. */
  decline(why: string): void {
    if (this.accepted !== null) this.parts.send({ type: "declined", token: this.accepted });
    this.accepted = null;
    for (const { reject } of this.waiting) reject(this.refusal(why));
  }

  /** This router has taken over. */
  tookOver(report: TakeoverReport): void {
    this.offer = null;
    this.accepted = null;
    this.parts.send({ type: "tookOver", report });
    this.settle(report);
  }

  receive(message: HandoverMessage): void {
    switch (message.type) {
      case "prepare": {
        const { serial, cause, force, service, neighbours } = message;
        const wish = { cause, force, ...(service === undefined ? {} : { service }) };
        this.check(neighbours === undefined ? wish : { ...wish, neighbours }).then(
          () => this.parts.restoreInAdvance().then(() => this.prepare({ cause, force }, serial)),
          (error: unknown) => this.parts.send(refused(serial, error)),
        );
        return;
      }
      case "refused":
        for (const each of this.waiting)
          if (each.serial === message.serial)
            each.reject(new TandemError(message.code, message.message, message.remedy, exitCodes.refused));
        return;
      case "prepared":
        this.token = message.token;
        this.parts.dispatch({ type: "abdicate", cause: message.cause });
        return;
      case "abdicated":
        void this.abdicated(message.token, message.epoch);
        return;
      case "declined":
        if (message.token === this.token) this.parts.dispatch({ type: "declined" });
        return;
      case "tookOver":
        this.settle(message.report);
        return;
    }
  }

  private prepare(wish: HandoverWish, serial: number | null, retries = gapRetries): boolean {
    this.offer = { token: randomInt(1, 2 ** 47), atNs: native.bootTimeNs(), wish, serial, retries };
    return this.parts.send({ type: "prepared", token: this.offer.token, cause: wish.cause });
  }

  /** Too late it is of no use: the active may have gone on, alone even. */
  private async abdicated(token: number, epoch: number): Promise<void> {
    const { offer } = this;
    this.offer = null;
    let gaps = offer === null || offer.wish.force ? 0 : await this.parts.outputGaps();
    if (offer?.retries === 0 && this.gapRefusal(offer.wish, gaps) === null) gaps = 0;
    const role = this.parts.role();
    const fresh =
      offer?.token === token && native.bootTimeNs() - offer.atNs <= BigInt(Math.round(this.parts.validMs * 1e6));
    const usable = fresh && mayTakeOver(role) && role.epoch === epoch;
    if (offer === null || !usable || gaps > 0) this.parts.send({ type: "declined", token });
    if (offer === null || !usable) return;
    if (gaps > 0) {
      await this.retry(offer, gaps);
      return;
    }
    this.accepted = token;
    this.parts.takeOverSince(offer.atNs);
    this.parts.dispatch({ type: "abdicated", cause: offer.wish.cause });
  }

  /** The active has its voice back and sends again what is missing. */
  private async retry({ wish, serial, retries }: Offer, gaps: number): Promise<void> {
    const error = this.gapRefusal(wish, retries === 0 ? gaps : await this.gapsClose());
    const role = this.parts.role();
    if (!mayTakeOver(role)) return;
    if (error === null) this.prepare(wish, serial, retries - 1);
    else if (serial !== null) this.parts.send(refused(serial, error));
    else for (const { reject } of this.waiting) reject(error);
  }

  /** Waits until no session has a gap in its output; how many have one all the same. */
  private async gapsClose(): Promise<number> {
    for (let waited = 0; ; waited += gapLookMs) {
      const gaps = await this.parts.outputGaps();
      if (gaps === 0 || waited >= gapWaitMs) return gaps;
      await delay(gapLookMs);
    }
  }

  /** An operator can do without; an active that is stopped or has lost its application cannot wait for ever. */
  private gapRefusal({ cause }: HandoverWish, gaps: number): TandemError | null {
    if (gaps === 0 || cause !== "switchover") return null;
    return this.refusal(`the mirror link keeps losing output, and ${gaps} delivered sessions lack some of it`);
  }

  /** Throws the refusal (exit code 5) that names what is not ready. */
  private async check({ cause, force, service, neighbours }: HandoverWish): Promise<void> {
    const state = this.parts.role();
    const { paused } = state;
    if (!mayTakeOver(state)) throw this.refusal("the standby does not protect the active");
    const objection = this.parts.objection();
    if (objection !== null) throw this.refusal(objection);
    if (paused !== null && (cause === "application" || cause === "uplink"))
      throw this.refusal(`automatic takeover is paused (${paused})`);
    if (!this.parts.hasCarrier()) throw this.refusal("the standby's uplinks have no carrier");
    if (neighbours !== undefined && !(await this.parts.reachesAny(neighbours)))
      throw this.refusal("the neighbours that do not answer the active do not answer the standby either");
    if (force) return;
    const { ring, sessions } = await this.parts.recorderStatus();
    if (ring.backlog > ring.size * backlogShare)
      throw this.refusal(`the recorder is ${ring.backlog} bytes behind, of ${ring.size}`);
    const open = sessions.filter(({ state }) => state !== "closed" && state !== "half-open");
    const unready = open.filter((session) => !session.ready && session.service !== service);
    if (unready.length > 0) {
      const counts = new Map<string, number>();
      for (const { reasons } of unready) for (const each of reasons) counts.set(each, (counts.get(each) ?? 0) + 1);
      const named = unready.slice(0, namedSessions).map((each) => this.parts.sessionName(each));
      throw this.refusal(
        `${unready.length} of ${open.length} sessions are not ready (${Array.from(counts, ([reason, count]) => `${count} ${reason}`).join(", ")}): ` +
          named.join("; ") +
          (unready.length > named.length ? "; ..." : ""),
      );
    }
    if (service !== undefined && !open.some((session) => session.service === service && session.ready))
      throw this.refusal("the standby holds no session of the service ready");
    const error = this.gapRefusal({ cause, force }, await this.gapsClose());
    if (error !== null) throw error;
  }

  private refusal(why: string): TandemError {
    return new TandemError(
      "HANDOVER_REFUSED",
      `The voice is not handed over: ${why}.`,
      "See `tandem sessions --not-ready`; with --force what is not ready is lost.",
      exitCodes.refused,
    );
  }

  private async wait(begin: (serial: number) => boolean): Promise<TakeoverReport> {
    const serial = ++this.serial;
    let end = () => {};
    try {
      return await new Promise<TakeoverReport>((resolve, reject) => {
        const entry: Waiting = { serial, resolve, reject };
        const timer = setTimeout(
          () =>
            reject(
              new TandemError(
                "HANDOVER_TIMEOUT",
                "The other router has not answered in time.",
                "See `tandem status` on both routers: who has the voice has kept it.",
                exitCodes.timeout,
              ),
            ),
          this.parts.patienceMs,
        );
        end = () => {
          clearTimeout(timer);
          this.waiting.delete(entry);
        };
        this.waiting.add(entry);
        if (!begin(serial)) reject(this.refusal("the control channel to the other router is down"));
      });
    } finally {
      end();
    }
  }

  private settle(report: TakeoverReport): void {
    for (const { resolve } of this.waiting) resolve(report);
  }
}

function refused(serial: number, error: unknown): ControlMessageOf<"refused"> {
  const known = error instanceof TandemError ? error : null;
  return {
    type: "refused",
    serial,
    code: known?.code ?? "HANDOVER_REFUSED",
    message: known?.message ?? String(error),
    remedy: known?.remedy ?? "See the log of the other router.",
  };
}
