// The timers that the role machine asks for: how long each is, and which time does not count. Timers that end in speaking
// alone count only time in which this process listened, and had a link to speak on.

import { native } from "../../addon/native.js";
import type { Config } from "../config/schema.js";
import type { TimerName } from "../role/role.js";

/** A stall that TCP rides out is better than protection given up: sessions cannot be joined again in mid-stream. */
const mirrorPatienceLeases = 10;
/** They do not end in speaking alone. */
const harmless: ReadonlySet<TimerName> = new Set(["joinWait", "mirrorPatience", "takeBack"]);

const nanoseconds = (milliseconds: number): bigint => BigInt(Math.round(milliseconds * 1e6));

export interface RoleTimerParts {
  /** How often seen() is called. */
  seenEveryMs: number;
  /** Whoever may be there is not heard, or would not hear us. */
  isCutOff(now: bigint): boolean;
  due(name: TimerName): void;
}

export class RoleTimers {
  readonly #config: Config;
  readonly #parts: RoleTimerParts;
  readonly #timers = new Map<TimerName, NodeJS.Timeout>();
  /** When this process was last seen running, and when it last did after a long pause; boot clock. */
  #awakeNs = native.bootTimeNs();
  #thawedNs = 0n;

  constructor(config: Config, parts: RoleTimerParts) {
    this.#config = config;
    this.#parts = parts;
  }

  /** Set anew, a timer starts anew. */
  set(name: TimerName): void {
    const delayMs = this.#delayOf(name);
    const dueNs = native.bootTimeNs() + nanoseconds(delayMs);
    clearTimeout(this.#timers.get(name));
    const timer = setTimeout(() => {
      const now = native.bootTimeNs();
      this.seen(now);
      const slept = now - dueNs > this.#leaseNs() || now - this.#thawedNs < nanoseconds(delayMs);
      if (!harmless.has(name) && (slept || this.#parts.isCutOff(now))) this.set(name);
      else this.#parts.due(name);
    }, delayMs);
    this.#timers.set(name, timer);
  }

  /** Called often: a long time without a call was not listened through. */
  seen(now: bigint): void {
    if (now - this.#awakeNs > this.#leaseNs() + 2n * nanoseconds(this.#parts.seenEveryMs)) this.#thawedNs = now;
    this.#awakeNs = now;
  }

  clear(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
  }

  #delayOf(name: TimerName): number {
    const { deadMs, controllerMs } = this.#config.pair.heartbeat;
    switch (name) {
      case "startAlone":
      case "partnerGone":
        // The data plane of a router whose agent died alone speaks until its controller would have been missed.
        return Math.max(this.#config.pair.startAloneMs, controllerMs + 2 * deadMs, this.#patienceMs());
      case "confirmSilence":
        return Math.max(2 * deadMs, this.#patienceMs());
      case "claimSecond":
        return controllerMs + 2 * deadMs;
      case "mirrorPatience":
        return mirrorPatienceLeases * deadMs;
      case "takeBack":
        // By then an abdication is too old for the standby, and what it might have said after one is over.
        return controllerMs;
      default:
        return 2 * deadMs;
    }
  }

  /** A standby that is granted the voice by somebody outside may take over for so long: that long an active waits that
   * has lost it. A standby that hears and is not heard surrenders within mirrorPatienceLeases, and a few. */
  #patienceMs(): number {
    const { arbiter, heartbeat } = this.#config.pair;
    if (arbiter.kind !== "external") return 0;
    return arbiter.patienceMs * (1 + heartbeat.driftPpm / 1e6) + (mirrorPatienceLeases + 5) * heartbeat.deadMs;
  }

  #leaseNs(): bigint {
    return nanoseconds(this.#config.pair.heartbeat.deadMs);
  }
}
