// The standby's side of the sessions: joins the recorder, the active's agent and the applications of this router.
//
//   recorded from its SYN on ───────────────────────────────────────────────────────────► offered ──► ready
//   shown by the active ──► streams complete ──standbyReady──► its application hands over ──► offered ──► ready
//
// Offered: a live application gets the stream as it arrives, the others the state they would resume from. A service with a
// command needs no application: it is started with the connection at the takeover.

import type { Logger } from "pino";
import { native } from "../../addon/native.js";
import type { Unframed } from "../app/framing.js";
import type { AppServer } from "../app/server.js";
import type { Config } from "../config/schema.js";
import { sentenceOf } from "../errors.js";
import { type ControlMessage, type ControlMessageOf, maxControlParts, maxEntries } from "../pair/messages.js";
import type { RecorderClient, RecorderNotice } from "../recorder/client.js";
import type { FromRecorder, SessionLeak, SessionSummary, TakenSession } from "../recorder/messages.js";
import { readKey } from "../session/flow-key.js";
import { packHeldPlan } from "../session/held-plan.js";
import { Reason, reasonNames } from "../session/reasons.js";
import { startCommand } from "./resume-command.js";

/** What a feed's descriptor holds, bytes: an application that is not scheduled for some milliseconds at full rate still
 * finds all of it there, instead of falling behind for good (what is behind counts as the session's memory). */
const feedBufferBytes = 4 << 20;
/** Bytes of all sessions of one answer that the active is to hold: the control channel must keep up. */
const mostHeldBytes = 32 << 20;
const nothing = new Uint8Array(0);

/** What the active's application had made of the session at its resume point. */
interface State {
  inputOffset: number;
  outputOffset: number;
  bytes: Uint8Array;
}

type Events = Extract<FromRecorder, { type: "events" }>;
type Join = Omit<Events["joins"][number], "id">;

interface Held {
  summary: SessionSummary;
  join: Join;
  state: State;
  /** The hand-over that the recorder has not judged yet. */
  pending: State | null;
  handedOver: boolean;
  /** Null: ready. */
  reason: string | null;
  asked: boolean;
  offered: boolean;
  finTold: boolean;
  recorded: number;
  /** The application's end of a feed that the recorder has not attached yet; -1: none. */
  attachingFd: number;
}

const complete: Join = { adoption: 0, input: true, output: true, needsFill: false };

/** It is adopted, or will be; else it was recorded from its SYN on. */
function foundMidStream({ joined, reasons }: SessionSummary): boolean {
  return joined || reasons.includes(reasonNames[Reason.JoinedMidStream]);
}

export interface StandbySessionsParts {
  config: Config;
  applications: () => AppServer;
  /** False: nobody hears it. */
  send: (message: Unframed<ControlMessage>, parts?: readonly Uint8Array[]) => boolean;
  /** The audit found these; perhaps none. */
  leaked: (leaks: readonly SessionLeak[]) => void;
  log: Logger;
}

export class StandbySessions {
  readonly #parts: StandbySessionsParts;
  readonly #held = new Map<number, Held>();
  readonly #byKey = new Map<string, Held>();
  /** Sessions in which an application of the active takes part, with its TCP MD5 key; they may come later than the news. */
  readonly #watched = new Map<string, Uint8Array | null>();
  #recorder: RecorderClient | null = null;

  constructor(parts: StandbySessionsParts) {
    this.#parts = parts;
  }

  use(recorder: RecorderClient): void {
    this.#recorder = recorder;
    this.#parts.config.services.forEach(({ command }, index) => {
      // An application may have been here before the recorder was.
      if (command !== undefined || this.#hasApplication(index))
        recorder.tell({ type: "application", service: index, present: true });
    });
  }

  /** The active's agent can be told, which it may not have been before: it knows then what to show, and what it has no
   * socket of. */
  partnerHere(): void {
    this.#tellReadiness(Array.from(this.#held.values(), ({ summary, reason }) => [summary.key, reason]));
  }

  /** An application of this router has registered. */
  applicationHere(name: string): void {
    const service = this.#serviceOf(name);
    this.#recorder?.tell({ type: "application", service, present: true });
    for (const held of this.#held.values()) if (held.summary.service === service) this.#consider(held);
  }

  /** It has gone; a service with a command can do without. */
  applicationGone(name: string): void {
    const service = this.#serviceOf(name);
    if (this.#parts.config.services[service]?.command === undefined)
      this.#recorder?.tell({ type: "application", service, present: false });
    for (const held of this.#held.values()) {
      if (held.summary.service !== service) continue;
      if (held.offered && held.summary.mode === "live") this.#recorder?.detachFeed(held.summary.id);
      held.offered = false;
      held.asked = false;
    }
  }

  /** What the recorder tells without being asked. */
  notice(notice: RecorderNotice): void {
    switch (notice.type) {
      case "events":
        this.#onEvents(notice);
        return;
      case "progress":
        this.#onProgress(notice.entries);
        return;
      case "feed":
        this.#onFeed(notice.id, notice.what);
        return;
      case "handedOver":
        this.#onHandedOver(notice.id, notice.refused);
        return;
    }
  }

  /** What the active's agent says. */
  hear(message: ControlMessage, parts: readonly Uint8Array[]): void {
    const recorder = this.#recorder;
    if (recorder === null) return;
    const [first = nothing, second = nothing, third = nothing] = parts;
    switch (message.type) {
      case "snapshots":
        this.#hearSnapshots(message, recorder);
        return;
      case "fill":
        recorder.tell({ type: "fill", key: Buffer.from(message.key, "hex"), seq: message.seq, bytes: first });
        return;
      case "copied":
        recorder.tell({ type: "copied", entries: message.entries.map(([key, seq]) => [Buffer.from(key, "hex"), seq]) });
        return;
      case "ended":
        for (const { key, verdicts, copiedSeq } of message.sockets)
          recorder.socketEnded(Buffer.from(key, "hex"), verdicts, copiedSeq);
        return;
      case "absent":
        recorder.tell({ type: "absent", keys: message.keys.map((key) => Buffer.from(key, "hex")) });
        return;
      case "watch": {
        const md5 = first.length === 0 ? null : first;
        this.#watched.set(message.key, md5);
        const held = this.#byKey.get(message.key);
        if (held) recorder.tell({ type: "watch", id: held.summary.id, md5 });
        return;
      }
      case "hold":
        this.#answerHold(message.keys, recorder).catch((error) =>
          this.#parts.log.warn(`The active's question about sessions to hold has no answer: ${sentenceOf(error)}`),
        );
        return;
      case "handover":
        this.#hearHandover(message, [first, second, third], recorder);
        return;
      case "confirm":
        this.#hearConfirm(message, first, second, recorder);
        return;
      case "log": {
        const held = this.#byKey.get(message.key);
        const stored = held?.reason === null;
        if (held && stored)
          recorder.tell({ type: "log", id: held.summary.id, outputStart: message.outputStart, output: first });
        this.#parts.send({ type: "stored", key: message.key, serial: message.serial, stored });
        return;
      }
    }
  }

  /** Gives a session that this router has taken over to its application, or to the command of its service. False: nobody
   * takes it; the descriptor stays the caller's. */
  takeOver(session: TakenSession): boolean {
    const state = this.#held.get(session.id)?.state.bytes ?? nothing;
    this.#forget(session.id);
    return this.#give(session, state);
  }

  /** The same for a session that this router, the active one, held until its application was back; `state` is what the
   * standby had of it. The input of a live one is with the standby's application only. */
  giveBack(session: TakenSession, state: Uint8Array): boolean {
    if (session.mode === "live") return false;
    this.offerTaken(session, state);
    return this.#give(session, state);
  }

  #give(session: TakenSession, state: Uint8Array): boolean {
    const { id, fd, key, service, inputOffset, outputOffset, resume, base, clean, sinceConfirm } = session;
    const taken = {
      inputOffset: session.mode === "live" ? inputOffset : resume.inputOffset,
      outputOffset,
      confirmed: { inputOffset: resume.inputOffset, outputOffset: resume.outputOffset },
      base,
      clean,
      state,
      outputSinceConfirm: sinceConfirm,
    };
    if (this.#parts.applications().takeover(id, taken, fd)) return true;
    const { command, name } = this.#parts.config.services[service] ?? {};
    if (command === undefined || name === undefined) return false;
    startCommand(command, { service: name, ...readKey(key), ...taken }, fd, this.#parts.log);
    return true;
  }

  /** A session that its application hears of with its takeover only: it was half-open, or held. One that reads the stream
   * gets an empty one first. */
  offerTaken(session: TakenSession, state: Uint8Array = nothing): void {
    const service = this.#parts.config.services[session.service];
    if (service === undefined) return;
    const offer = { ...readKey(session.key), id: session.id, mode: session.mode };
    let feedFd: number | null = null;
    if (session.mode === "live") {
      const [ours, theirs] = native.socketPair();
      native.closeFd(ours);
      feedFd = theirs;
    }
    const offered = this.#parts.applications().openSession(
      {
        id: offer.id,
        service: service.name,
        mode: offer.mode,
        local: { ip: offer.localIp, port: offer.localPort },
        peer: { ip: offer.peerIp, port: offer.peerPort },
        inputOffset: session.resume.inputOffset,
        outputOffset: session.resume.outputOffset,
        recorded: session.outputOffset,
        joined: false,
        state,
      },
      feedFd,
    );
    if (!offered && feedFd !== null) native.closeFd(feedFd);
  }

  /** The recorder forgets everything. */
  forgetAll(): void {
    for (const held of [...this.#held.values()]) this.#forget(held.summary.id);
    this.#watched.clear();
  }

  #onEvents({ opened, closed, readiness, joins, leaks }: Events): void {
    this.#parts.leaked(leaks);
    const told: [string, string | null][] = [];
    for (const summary of opened) {
      const held = this.#hold(summary);
      told.push([summary.key, held.reason]);
    }
    const joined: ControlMessageOf<"joins">["entries"] = [];
    for (const { id, ...join } of joins) {
      const held = this.#held.get(id);
      if (held === undefined) continue;
      held.join = join;
      joined.push({ key: held.summary.key, ...join });
    }
    for (const { id, ready, reasons, final } of readiness) {
      const held = this.#held.get(id);
      if (held === undefined) continue;
      held.reason = ready ? null : (reasons[0] ?? "unknown");
      told.push([held.summary.key, held.reason]);
      if (final) this.#lose(held, held.reason ?? "unknown");
    }
    for (let at = 0; at < joined.length; at += maxEntries)
      this.#parts.send({ type: "joins", entries: joined.slice(at, at + maxEntries) });
    this.#tellReadiness(told);
    const touched = new Set([...opened, ...joins, ...readiness].map(({ id }) => id));
    for (const id of touched) {
      const held = this.#held.get(id);
      if (held) this.#consider(held);
    }
    for (const { id, cause } of closed) {
      const held = this.#held.get(id);
      if (held === undefined) continue;
      if (held.offered) this.#parts.applications().closed(id, cause);
      this.#watched.delete(held.summary.key);
      this.#forget(id);
    }
  }

  #tellReadiness(entries: [string, string | null][]): void {
    for (let at = 0; at < entries.length; at += maxEntries)
      this.#parts.send({ type: "readiness", entries: entries.slice(at, at + maxEntries) });
  }

  #hold(summary: SessionSummary): Held {
    // Opened again: adopted, or adopted anew after it was given up.
    this.#forget(summary.id);
    const held: Held = {
      summary,
      join: foundMidStream(summary) ? { ...complete, input: false, output: false } : complete,
      state: { inputOffset: 0, outputOffset: 0, bytes: nothing },
      pending: null,
      handedOver: false,
      reason: summary.ready ? null : (summary.reasons[0] ?? "unknown"),
      asked: false,
      offered: false,
      finTold: false,
      recorded: summary.outputEnd,
      attachingFd: -1,
    };
    this.#held.set(summary.id, held);
    this.#byKey.set(summary.key, held);
    const md5 = this.#watched.get(summary.key);
    if (md5 !== undefined) this.#recorder?.tell({ type: "watch", id: summary.id, md5 });
    return held;
  }

  /** What can be done about a session that is not ready yet: ask for its hand-over, offer it. */
  #consider(held: Held): void {
    const { summary, join } = held;
    if (!join.input || !join.output || held.offered || !this.#hasApplication(summary.service)) return;
    if (summary.state === "closed" || summary.state === "half-open") return;
    if (summary.joined && summary.mode !== "delivered" && !held.handedOver) {
      if (held.asked) return;
      held.asked = true;
      this.#parts.send({ type: "standbyReady", entries: [[summary.key, held.recorded]] });
      return;
    }
    if (summary.mode !== "live") {
      held.offered = this.#offer(held, null);
      return;
    }
    if (held.attachingFd >= 0) return;
    const [recorderFd, feedFd] = native.socketPair();
    native.setBufferSizes(recorderFd, feedBufferBytes, 0);
    held.attachingFd = feedFd;
    this.#recorder?.attachFeed(summary.id, recorderFd);
  }

  #offer({ summary, state, recorded }: Held, feedFd: number | null): boolean {
    const service = this.#parts.config.services[summary.service];
    if (service === undefined) return false;
    return this.#parts.applications().openSession(
      {
        id: summary.id,
        service: service.name,
        mode: summary.mode,
        local: { ip: summary.localIp, port: summary.localPort },
        peer: { ip: summary.peerIp, port: summary.peerPort },
        inputOffset: state.inputOffset,
        outputOffset: state.outputOffset,
        recorded,
        joined: summary.joined,
        state: state.bytes,
      },
      feedFd,
    );
  }

  #onFeed(id: number, what: "attached" | "refused" | "lost"): void {
    const held = this.#held.get(id);
    if (held === undefined) return;
    const { attachingFd } = held;
    held.attachingFd = -1;
    if (what === "attached" && attachingFd >= 0) {
      held.offered = this.#offer(held, attachingFd);
      if (held.offered) return;
      native.closeFd(attachingFd);
      this.#recorder?.detachFeed(id);
    } else if (attachingFd >= 0) native.closeFd(attachingFd);
    if (what === "lost") this.#lose(held, "feed-lost");
  }

  #onProgress(entries: Extract<RecorderNotice, { type: "progress" }>["entries"]): void {
    const watched: [string, number, number][] = [];
    const offered: [number, number, number][] = [];
    for (const [id, outputEnd, , inputEnd, inputFin] of entries) {
      const held = this.#held.get(id);
      if (held === undefined) continue;
      held.recorded = outputEnd;
      if (this.#watched.has(held.summary.key)) watched.push([held.summary.key, outputEnd, inputEnd]);
      if (!held.offered) continue;
      offered.push([id, outputEnd, inputEnd]);
      if (inputFin < 0 || held.finTold) continue;
      held.finTold = true;
      this.#parts.applications().fin(id, inputFin);
    }
    this.#parts.applications().progress(offered);
    for (let at = 0; at < watched.length; at += maxEntries)
      this.#parts.send({ type: "recorded", entries: watched.slice(at, at + maxEntries) });
  }

  /** What the active takes to answer for these sessions itself until their application is back. */
  async #answerHold(keys: string[], recorder: RecorderClient): Promise<void> {
    const plans = await recorder.planHeld(keys.map((key) => Buffer.from(key, "hex")));
    const refused: ControlMessageOf<"notHeld">["entries"] = [];
    let room = mostHeldBytes;
    keys.forEach((key, index) => {
      const plan = plans[index] ?? null;
      if (plan === null || plan === "ahead") {
        refused.push([key, plan === null ? "lost" : "output-gap"]);
        return;
      }
      const packed = packHeldPlan(plan, this.#byKey.get(key)?.state.bytes ?? nothing);
      const bytes = packed.parts.reduce((sum, { length }) => sum + length, 0);
      if (bytes > Math.min(room, maxControlParts)) {
        refused.push([key, "too-large"]);
        return;
      }
      room -= bytes;
      this.#parts.send({ type: "held", key, plan: packed.plan }, packed.parts);
    });
    if (refused.length > 0) this.#parts.send({ type: "notHeld", entries: refused });
  }

  /** What is complete already is said again, and which adoption counts when the active knows of another or of none: it
   * may have begun anew, or the channel may have ended under our words. */
  #hearSnapshots({ entries }: ControlMessageOf<"snapshots">, recorder: RecorderClient): void {
    recorder.tell({
      type: "snapshot",
      entries: entries.map(({ key, ...rest }) => ({ key: Buffer.from(key, "hex"), ...rest })),
    });
    const known = entries.flatMap(({ key, adoption }) => {
      const held = this.#byKey.get(key);
      if (held === undefined) return [];
      const { join } = held;
      return (join.input && join.output) || join.adoption !== adoption ? [held] : [];
    });
    if (known.length === 0) return;
    this.#parts.send({ type: "joins", entries: known.map(({ summary, join }) => ({ key: summary.key, ...join })) });
    this.#tellReadiness(known.map(({ summary, reason }) => [summary.key, reason]));
    const asked = known.filter((held) => held.asked && !held.handedOver);
    if (asked.length > 0)
      this.#parts.send({
        type: "standbyReady",
        entries: asked.map(({ summary, recorded }) => [summary.key, recorded]),
      });
  }

  #hearHandover(
    { key, inputOffset, outputOffset, outputStart }: ControlMessageOf<"handover">,
    [state, input, output]: [Uint8Array, Uint8Array, Uint8Array],
    recorder: RecorderClient,
  ): void {
    const held = this.#byKey.get(key);
    if (held === undefined || held.pending !== null) return;
    held.pending = { inputOffset, outputOffset, bytes: state };
    recorder.tell({
      type: "handover",
      id: held.summary.id,
      inputOffset,
      outputOffset,
      input,
      outputStart,
      output,
    });
  }

  #onHandedOver(id: number, refused: string | null): void {
    const held = this.#held.get(id);
    if (held?.pending == null) return;
    if (refused === null) {
      held.state = held.pending;
      held.handedOver = true;
    } else held.asked = false; // asked again when something about it changes
    held.pending = null;
    this.#consider(held);
  }

  #hearConfirm(
    { key, serial, inputOffset, outputOffset, outputStart, keepState }: ControlMessageOf<"confirm">,
    state: Uint8Array,
    output: Uint8Array,
    recorder: RecorderClient,
  ): void {
    const held = this.#byKey.get(key);
    const stored = held?.reason === null && held.summary.mode === "confirmed";
    if (held && stored) {
      held.state = { inputOffset, outputOffset, bytes: keepState ? held.state.bytes : state };
      recorder.tell({ type: "confirm", id: held.summary.id, inputOffset, outputOffset, outputStart, output });
    }
    this.#parts.send({ type: "stored", key, serial, stored });
  }

  /** No takeover will follow. */
  #lose(held: Held, reason: string): void {
    if (held.offered) this.#parts.applications().notReady(held.summary.id, reason);
    held.offered = false;
  }

  #forget(id: number): void {
    const held = this.#held.get(id);
    if (held === undefined) return;
    if (held.attachingFd >= 0) native.closeFd(held.attachingFd);
    this.#held.delete(id);
    if (this.#byKey.get(held.summary.key) === held) this.#byKey.delete(held.summary.key);
  }

  #hasApplication(service: number): boolean {
    const name = this.#parts.config.services[service]?.name;
    return this.#parts
      .applications()
      .registrations()
      .some((registration) => registration.service === name);
  }

  #serviceOf(name: string): number {
    return this.#parts.config.services.findIndex((service) => service.name === name);
  }
}
