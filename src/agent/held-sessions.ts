// On the active: sessions whose application died, of services with `onCrash: hold`. Their peers are answered from here
// until somebody goes on with them.
//
//   crashed ──what is left of its socket is ended──► asked for ──plan──► held ──► given to the application that is back
//                                                        └─ refused: silent  └──► the standby's, at the deadline
//
// The standby has all of such a session, so its socket is restored as in a takeover, only here, and every segment of it
// passes the standby as before. Nobody reads it: its kernel acknowledges what still fits into the receive queue, says a
// window of zero then, and answers probes and keepalives. When it is given away nothing of it has been read.

import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { native } from "../../addon/native.js";
import { TD_MARK_INJECT } from "../abi.gen.js";
import type { Unframed } from "../app/framing.js";
import type { Config } from "../config/schema.js";
import { sentenceOf } from "../errors.js";
import { sendPackets } from "../net/nudge.js";
import type { SocketSnapshot } from "../net/snapshots.js";
import { endSockets } from "../net/stale-sockets.js";
import { type ControlMessage, type ControlMessageOf, maxEntries } from "../pair/messages.js";
import type { TakenSession } from "../recorder/messages.js";
import { endpointsOf, readKey } from "../session/flow-key.js";
import { unpackHeldPlan } from "../session/held-plan.js";
import { buildFrame, TCP_RST } from "../session/segment.js";
import { sendLogged, wake } from "../takeover/takeover.js";

/** Out of the way of the recorder's ids, and of those of protected sessions. */
const firstId = 2 ** 41;

const nothing = new Uint8Array(0);
/** The data plane takes what is injected for this host's by its mark. */
const noMac = new Uint8Array(6);

/** TCP_CLOSE (include/net/tcp_states.h). */
const tcpClose = 7;

interface Held {
  session: TakenSession;
  state: Uint8Array;
}

export interface HeldSessionsParts {
  services: Config["services"];
  /** Interface numbers of the uplinks, by index. */
  uplinks: () => number[];
  takeSnapshots: () => Pick<SocketSnapshot, "key" | "rcvNxt" | "flags">[];
  /** False: nobody hears it. */
  send: (message: Unframed<ControlMessage>) => boolean;
  /** Keeps the end of this socket from being heard by its peer. */
  silence: (key: Uint8Array) => void;
  /** To its application, or its service's command. False: nobody is here; the descriptor stays the caller's. */
  giveBack: (session: TakenSession, state: Uint8Array) => boolean;
  /** Nobody waits for anything of this service any more. */
  settled: (service: number) => void;
  journal: (sentence: string) => void;
  log: Logger;
  /** Until what a dead socket had sent has long reached the standby, ms. */
  graceMs: number;
}

export class HeldSessions {
  readonly #parts: HeldSessionsParts;
  /** Dead, and not held: their services by key (hexadecimal). */
  readonly #crashed = new Map<string, number>();
  readonly #held = new Map<string, Held>();
  #nextId = firstId;

  constructor(parts: HeldSessionsParts) {
    this.#parts = parts;
  }

  /** Sessions whose peers are answered from here. */
  get count(): number {
    return this.#held.size;
  }

  /** The application of these sessions died. Keys in hexadecimal. */
  async crashed(service: number, keys: readonly string[]): Promise<void> {
    for (const key of keys) this.#crashed.set(key, service);
    try {
      this.#resetHere(new Set(keys));
      endSockets(keys.map((key) => Buffer.from(key, "hex")));
    } catch (error) {
      this.#parts.log.warn(`What is left of sockets of a dead application could not be ended: ${sentenceOf(error)}`);
      return;
    }
    await delay(this.#parts.graceMs);
    const asked = keys.filter((key) => this.#crashed.has(key));
    for (let at = 0; at < asked.length; at += maxEntries)
      this.#parts.send({ type: "hold", keys: asked.slice(at, at + maxEntries) });
  }

  /** What the standby says. */
  hear(message: ControlMessage, parts: readonly Uint8Array[]): void {
    if (message.type === "held")
      this.#restore(message, parts).catch((error) =>
        this.#parts.log.warn(`A session cannot be held: ${sentenceOf(error)}`),
      );
    else if (message.type === "notHeld") this.#refused(message.entries);
  }

  /** Is this session's dead socket out of the way, or about to be, for another one? Then its end is not the session's. */
  isCrashed(key: string): boolean {
    return this.#crashed.has(key);
  }

  /** Sockets of these sessions are gone: those that their applications had, or, when the peer ended it, ours. */
  ended(keys: readonly string[]): void {
    const services = new Set<number>();
    for (const key of keys) {
      const held = this.#held.get(key);
      if (held === undefined || native.tcpInfo(held.session.fd).state !== tcpClose) continue;
      this.#held.delete(key);
      native.closeAtOnce(held.session.fd);
      services.add(held.session.service);
    }
    for (const service of services) this.#settle(service);
  }

  /** An application of this service has registered. */
  applicationHere(name: string): void {
    const service = this.#parts.services.findIndex((each) => each.name === name);
    let given = 0;
    for (const [key, held] of this.#held) if (held.session.service === service && this.#give(key, held)) given++;
    if (given === 0) return;
    this.#parts.journal(
      `An application of service ${name} is here again and goes on with ${sessions(given)} held for it.`,
    );
    this.#settle(service);
  }

  /** Lets go of them, unheard by their peers: of one service, when nobody has come for them, or of all, when another
   * router goes on with them. */
  drop(service?: number): void {
    for (const [key, of] of this.#crashed) if (service === undefined || of === service) this.#crashed.delete(key);
    for (const [key, { session }] of this.#held) {
      if (service !== undefined && session.service !== service) continue;
      this.#held.delete(key);
      this.#parts.silence(session.key);
      native.closeAtOnce(session.fd);
    }
  }

  /** What is left of these sockets hears a reset of its peer, which nobody else does: before Linux 6.12 nothing else ends a
   * socket whose owner is gone (tcp_abort, net/ipv4/tcp.c). Signed ones would not believe it. */
  #resetHere(keys: ReadonlySet<string>): void {
    const uplinks = this.#parts.uplinks();
    for (const { key, rcvNxt, flags } of this.#parts.takeSnapshots()) {
      if (flags.md5 || !keys.has(Buffer.from(key).toString("hex"))) continue;
      const { family, localIp, localPort, peerIp, peerPort } = endpointsOf(key);
      const reset = {
        family,
        sourceIp: peerIp,
        destinationIp: localIp,
        sourcePort: peerPort,
        destinationPort: localPort,
        seq: rcvNxt,
        ack: 0,
        flags: TCP_RST,
        window: 0,
        payload: nothing,
        timestamps: null,
      };
      const towards = native.route(readKey(key).peerIp)?.ifindex;
      const uplink = towards !== undefined && uplinks.includes(towards) ? towards : (uplinks[0] ?? 0);
      native.injectFrames(uplink, [buildFrame(reset, noMac, noMac)], TD_MARK_INJECT);
    }
  }

  async #restore({ key: name, plan: numbers }: ControlMessageOf<"held">, parts: readonly Uint8Array[]): Promise<void> {
    if (!this.#crashed.has(name)) return;
    const { uplink, restore, taken, frames, state } = unpackHeldPlan(Buffer.from(name, "hex"), numbers, parts);
    const [result] = native.restore([restore]);
    if (result === undefined || !("fd" in result)) {
      this.#parts.silence(taken.key);
      this.#parts.log.warn(`A session cannot be held: ${result?.message ?? "no result"}`);
      return;
    }
    this.#crashed.delete(name);
    const session = { ...taken, id: this.#nextId++, fd: result.fd };
    const nudges = wake([session], () =>
      native.injectFrames(this.#parts.uplinks()[uplink] ?? 0, frames, TD_MARK_INJECT),
    );
    sendLogged(session);
    const held = { session: { ...session, logged: nothing }, state };
    this.#held.set(name, held);
    await sendPackets(nudges);
    if (this.#held.get(name) === held && this.#give(name, held)) this.#settle(session.service);
  }

  #give(key: string, { session, state }: Held): boolean {
    if (!this.#parts.giveBack(session, state)) return false;
    this.#held.delete(key);
    return true;
  }

  #refused(entries: ControlMessageOf<"notHeld">["entries"]): void {
    const counts = new Map<string, number>();
    const services = new Set<number>();
    for (const [key, why] of entries) {
      const service = this.#crashed.get(key);
      if (service === undefined) continue;
      counts.set(why, (counts.get(why) ?? 0) + 1);
      if (why !== "lost") continue;
      this.#crashed.delete(key);
      services.add(service);
    }
    if (counts.size === 0) return;
    const reasons = Array.from(counts, ([why, count]) => `${count} ${why}`).join(", ");
    this.#parts.journal(`Sessions of an application that died cannot be held (${reasons}): their peers hear nothing.`);
    for (const service of services) this.#settle(service);
  }

  #settle(service: number): void {
    for (const of of this.#crashed.values()) if (of === service) return;
    for (const { session } of this.#held.values()) if (session.service === service) return;
    this.#parts.settled(service);
  }
}

function sessions(count: number): string {
  return `${count} session${count === 1 ? "" : "s"}`;
}
