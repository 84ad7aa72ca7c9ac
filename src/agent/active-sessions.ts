// The active's side of its sessions: shows the standby the sockets of the services until it holds them completely, and
// carries what applications that take part hand over, confirm and log.
//
//   found ──snapshots──► streams complete at the standby ──standbyReady──► handed over ──► ready
//
// The sockets are looked at under their lock and never touched (bpf/snapshot.bpf.c). What the standby holds of them is
// forgotten with the control connection: one that comes back is told everything anew.

import type { Logger } from "pino";
import type { Native, SocketFacts } from "../../addon/native.js";
import { type RefusalCode, refusal } from "../app/errors.js";
import type { Unframed } from "../app/framing.js";
import type { Base } from "../app/messages.js";
import type { Confirm, Handover, ProtectionHandlers, ProtectRequest } from "../app/protections.js";
import type { AppServer } from "../app/server.js";
import type { Config } from "../config/schema.js";
import { sentenceOf } from "../errors.js";
import type { BorrowedSockets } from "../net/borrowed-sockets.js";
import type { SocketSnapshot } from "../net/snapshots.js";
import type { SocketOwner } from "../net/socket-owners.js";
import { type ControlMessage, type ControlMessageOf, maxEntries, maxSnapshots } from "../pair/messages.js";
import { endpointsOf, writeKey } from "../session/flow-key.js";
import { ServiceLookup } from "../session/service-of.js";
import type { ReadSocket } from "./witness.js";

/** Between two looks while a session is not complete at the standby, and when all are. */
const busyMs = 100;
const idleMs = 1000;
/** Snapshots sent in one look; the others have their turn at the next. */
const mostSnapshots = 2000;
/** And of sockets that are complete at the standby, as far as we heard: whatever it lost since then, it is told again. */
const mostShownAgain = 32;
/** Most of one receive queue (tcp_rmem), bytes. */
const mostPeeked = 32 << 20;
/** Bytes of one fill message. */
const fillBytes = 1 << 20;

/** Ids of protected sessions are out of the recorder's way, whose sessions the same application may be offered. */
const firstId = 2 ** 40;
const nothing = new Uint8Array(0);
const noBase: Base = { input: 0, output: 0 };

/** A confirm or a log on its way to the standby. */
type Stored = (stored: boolean) => void;

/** A socket whose application takes part. */
interface Protected {
  id: number;
  key: string;
  service: number;
  cookie: bigint;
  base: Base;
  md5Key: Uint8Array;
  /** Our duplicate of the application's descriptor. */
  fd: number;
  waiting: Map<number, Stored>;
}

/** What the standby has said of a session. */
interface Held {
  /** Number of the standby's adoption of it, and when we heard of that, ms. */
  adoption: number;
  adoptedAt: number;
  input: boolean;
  output: boolean;
  needsFill: boolean;
  /** How far output was recorded when the streams were complete and the standby's application there; null: not yet. */
  standbyReady: number | null;
  /** Null: ready. */
  reason: string | null;
  /** The facts it was told, and when it was told anything, ms. */
  facts: string;
  sentAt: number;
}

export interface ActiveSessionsParts {
  services: Config["services"];
  /** The connected sockets of the services, each under its lock. */
  takeSnapshots: () => SocketSnapshot[];
  /** Which process holds a socket, by the socket's inode. */
  findOwners: () => Map<number, SocketOwner>;
  borrowed: Pick<BorrowedSockets, "with">;
  native: Pick<Native, "socketFacts" | "peekInput" | "tcpInfo" | "closeFd" | "closeAtOnce">;
  applications: () => Pick<AppServer, "standbyReady" | "ready" | "unready" | "progress">;
  /** False: nobody hears it. */
  send: (message: Unframed<ControlMessage>, parts?: readonly Uint8Array[]) => boolean;
  /** Keeps the end of this socket from being heard by its peer. */
  silence: (key: Uint8Array) => void;
  /** An application died with these sessions, which it had not released; their sockets are silenced. */
  onCrash: (sockets: { key: Uint8Array }[]) => void;
  log: Logger;
}

export class ActiveSessions implements ProtectionHandlers {
  readonly #parts: ActiveSessionsParts;
  readonly #held = new Map<string, Held>();
  readonly #protected = new Map<number, Protected>();
  readonly #byKey = new Map<string, Protected>();
  #timer: NodeJS.Timeout | null = null;
  #nextId = firstId;
  #nextSerial = 1;
  #graceMs = 0;
  readonly #services: ServiceLookup;

  constructor(parts: ActiveSessionsParts) {
    this.#parts = parts;
    this.#services = new ServiceLookup(parts.services);
  }

  /** Every segment passes the standby from now on, which holds nothing of earlier ones. `graceMs`: until the last segment
   * that did not pass it has arrived. */
  begin(graceMs: number): void {
    this.end("standby-absent");
    this.#graceMs = graceMs;
    this.#timer = setTimeout(() => this.#look(), graceMs);
    for (const entry of this.#protected.values()) this.#watch(entry);
  }

  /** There is no standby. */
  end(reason: string): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#held.clear();
    for (const entry of this.#protected.values()) {
      for (const answer of entry.waiting.values()) answer(false);
      entry.waiting.clear();
      this.#parts.applications().unready(entry.id, reason);
    }
  }

  onProtect(request: ProtectRequest, answer: (result: { id: number } | { refused: RefusalCode }) => boolean): void {
    const { fd } = request;
    const entry = this.#examine(request);
    if (typeof entry === "string") {
      this.#parts.native.closeFd(fd);
      answer({ refused: entry });
      return;
    }
    // An earlier socket of the same addresses, not released: it cannot live any more.
    const former = this.#byKey.get(entry.key);
    if (former !== undefined) this.#forget(former);
    this.#protected.set(entry.id, entry);
    this.#byKey.set(entry.key, entry);
    if (!answer({ id: entry.id })) {
      this.#forget(entry);
      return;
    }
    this.#watch(entry);
    const applications = this.#parts.applications();
    const held = this.#held.get(entry.key);
    if (held?.standbyReady != null) applications.standbyReady(entry.id, held.standbyReady);
    if (held?.reason === null) applications.ready(entry.id);
    else applications.unready(entry.id, held?.reason ?? "standby-absent");
  }

  onHandover(id: number, { state, input, output, ...offsets }: Handover): void {
    const entry = this.#protected.get(id);
    if (entry !== undefined) this.#requireReceived(entry, offsets.inputOffset + input.length);
    if (entry === undefined || this.#held.get(entry.key)?.standbyReady == null) return;
    this.#parts.send({ type: "handover", key: entry.key, ...offsets }, [state, input, output]);
  }

  onConfirm(id: number, { state, output, ...offsets }: Confirm, answer: Stored): void {
    const entry = this.#protected.get(id);
    if (entry !== undefined) this.#requireReceived(entry, offsets.inputOffset);
    this.#store(id, answer, (key, serial) =>
      this.#parts.send({ type: "confirm", key, serial, ...offsets, keepState: state === null }, [
        state ?? nothing,
        output,
      ]),
    );
  }

  onLog(id: number, outputStart: number, output: Uint8Array, answer: Stored): void {
    this.#store(id, answer, (key, serial) => this.#parts.send({ type: "log", key, serial, outputStart }, [output]));
  }

  onRelease(id: number, _how: string, answer: () => void): void {
    const entry = this.#protected.get(id);
    if (entry !== undefined) this.#forget(entry);
    answer();
  }

  /** Of a dead application nothing may be heard; one that lives keeps its own descriptors, and its sessions go on. */
  onApplicationGone(ids: number[], { alive }: { alive: boolean }): void {
    const crashed: { key: Uint8Array }[] = [];
    for (const id of ids) {
      const entry = this.#protected.get(id);
      if (entry === undefined) continue;
      if (!alive && this.#parts.services[entry.service]?.onCrash !== "close") {
        const key = Buffer.from(entry.key, "hex");
        this.#parts.silence(key);
        crashed.push({ key });
      }
      if (alive) this.#forget(entry);
      else this.#forget(entry, this.#parts.native.closeAtOnce);
    }
    if (crashed.length > 0) this.#parts.onCrash(crashed);
  }

  /** What applications have read, for the services that resume there. */
  reportRead(read: readonly ReadSocket[]): void {
    if (this.#timer === null) return;
    const entries = read.map(({ key, copiedSeq }): [string, number] => [Buffer.from(key).toString("hex"), copiedSeq]);
    for (let at = 0; at < entries.length; at += maxEntries)
      this.#parts.send({ type: "copied", entries: entries.slice(at, at + maxEntries) });
  }

  /** These sockets are gone (keys in hexadecimal): what the standby said of their sessions counts no more. */
  ended(keys: readonly string[]): void {
    for (const key of keys) this.#held.delete(key);
  }

  /** What the standby says. */
  hear(message: ControlMessage): void {
    if (this.#timer === null) return;
    const applications = this.#parts.applications();
    switch (message.type) {
      case "joins":
        for (const { key, ...join } of message.entries) {
          const held = this.#heldOf(key);
          if (join.adoption !== held.adoption) held.adoptedAt = performance.now();
          Object.assign(held, join);
        }
        return;
      case "standbyReady":
        for (const [key, recorded] of message.entries) {
          this.#heldOf(key).standbyReady = recorded;
          const entry = this.#byKey.get(key);
          if (entry) applications.standbyReady(entry.id, recorded);
        }
        return;
      case "readiness":
        this.#hearReadiness(message);
        return;
      case "recorded":
        applications.progress(
          message.entries.flatMap(([key, outputEnd, inputEnd]) => {
            const entry = this.#byKey.get(key);
            return entry ? [[entry.id, outputEnd, inputEnd] as const] : [];
          }),
        );
        return;
      case "stored": {
        const waiting = this.#byKey.get(message.key)?.waiting;
        const answer = waiting?.get(message.serial);
        waiting?.delete(message.serial);
        answer?.(message.stored);
        return;
      }
    }
  }

  /** Sessions as the standby says it holds them. */
  heldByStandby(): { ready: number; notReady: number } {
    let ready = 0;
    for (const { reason } of this.#held.values()) if (reason === null) ready++;
    return { ready, notReady: this.#held.size - ready };
  }

  /** The same by reasons. */
  readiness(): { total: number; ready: number; notReady: Record<string, number> } {
    const notReady: Record<string, number> = {};
    for (const { reason } of this.#held.values()) if (reason !== null) notReady[reason] = (notReady[reason] ?? 0) + 1;
    return { total: this.#held.size, ready: this.heldByStandby().ready, notReady };
  }

  #hearReadiness({ entries }: ControlMessageOf<"readiness">): void {
    for (const [key, reason] of entries) {
      const held = this.#heldOf(key);
      if (held.reason === reason) continue;
      held.reason = reason;
      const entry = this.#byKey.get(key);
      if (entry === undefined) continue;
      if (reason === null) this.#parts.applications().ready(entry.id);
      else this.#parts.applications().unready(entry.id, reason);
    }
  }

  /** To the standby, input that the active's TCP never acknowledged would be a leak. A FIN received counts one. */
  #requireReceived({ fd, base }: Protected, inputOffset: number): void {
    if (inputOffset > base.input + Number(this.#parts.native.tcpInfo(fd).bytesReceived))
      throw refusal("confirm-beyond");
  }

  #store(id: number, answer: Stored, send: (key: string, serial: number) => boolean): void {
    const entry = this.#protected.get(id);
    if (entry === undefined || this.#held.get(entry.key)?.reason !== null) {
      answer(false);
      return;
    }
    const serial = this.#nextSerial++;
    entry.waiting.set(serial, answer);
    if (send(entry.key, serial)) return;
    entry.waiting.delete(serial);
    answer(false);
  }

  #look(): void {
    const due: SocketSnapshot[] = [];
    const names = new Map<SocketSnapshot, string>();
    let wait = idleMs;
    try {
      const lookedAt = performance.now();
      const settled: SocketSnapshot[] = [];
      for (const socket of this.#parts.takeSnapshots()) {
        const name = Buffer.from(socket.key).toString("hex");
        names.set(socket, name);
        const held = this.#heldOf(name);
        const complete = held.input && held.output && !held.needsFill;
        if (!complete) wait = busyMs;
        if (complete && held.facts === factsOf(socket)) settled.push(socket);
        else due.push(socket);
      }
      this.#tellAbsent(new Set(names.values()));
      // Who has waited longest goes first.
      const sentAt = (socket: SocketSnapshot): number => this.#heldOf(names.get(socket) ?? "").sentAt;
      const [waiting, most] = due.length > 0 ? [due, mostSnapshots] : [settled, mostShownAgain];
      const shown = waiting.sort((a, b) => sentAt(a) - sentAt(b)).slice(0, most);
      this.#fill(shown.filter((socket) => this.#heldOf(names.get(socket) ?? "").needsFill));
      this.#show(shown, names, lookedAt);
    } catch (error) {
      this.#parts.log.warn(`The sockets of the services could not be looked at: ${sentenceOf(error)}`);
    }
    this.#timer = setTimeout(() => this.#look(), wait);
  }

  /** What the standby told us of and no socket is left of, though it may not have heard of the end: a last segment can
   * make it know a session that is over. */
  #tellAbsent(present: ReadonlySet<string>): void {
    const absent = [...this.#held.keys()].filter((name) => !present.has(name));
    for (const name of absent) this.#held.delete(name);
    for (let at = 0; at < absent.length; at += maxEntries)
      this.#parts.send({ type: "absent", keys: absent.slice(at, at + maxEntries) });
  }

  #show(due: SocketSnapshot[], names: Map<SocketSnapshot, string>, lookedAt: number): void {
    const entries: ControlMessageOf<"snapshots">["entries"] = [];
    for (const socket of due) {
      const name = names.get(socket) ?? "";
      const service = this.#services.find(endpointsOf(socket.key));
      if (service < 0) continue;
      const held = this.#heldOf(name);
      held.sentAt = lookedAt;
      held.facts = factsOf(socket);
      const { key: _, timeNs: __, cookie, inode: ___, ...snapshot } = socket;
      const own = this.#byKey.get(name);
      entries.push({
        key: name,
        service,
        passive: this.#parts.services[service]?.port !== undefined,
        base: own?.cookie === cookie ? own.base : noBase,
        adoption: held.adoptedAt + this.#graceMs < lookedAt ? held.adoption : 0,
        snapshot,
      });
    }
    for (let at = 0; at < entries.length; at += maxSnapshots)
      this.#parts.send({ type: "snapshots", entries: entries.slice(at, at + maxSnapshots) });
  }

  /** What lies unread between two looks in which the application has read nothing stands where the first look says. */
  #fill(sockets: SocketSnapshot[]): void {
    if (sockets.length === 0) return;
    const { native, borrowed } = this.#parts;
    const peeked: { socket: SocketSnapshot; bytes: Uint8Array }[] = [];
    let owners: Map<number, SocketOwner> | null = null;
    for (const socket of sockets) {
      const own = this.#byKey.get(Buffer.from(socket.key).toString("hex"));
      const peek = (fd: number): void => {
        peeked.push({ socket, bytes: native.peekInput(fd, mostPeeked) });
      };
      try {
        if (own?.cookie === socket.cookie) {
          peek(own.fd);
          continue;
        }
        owners ??= this.#parts.findOwners();
        const owner = owners.get(socket.inode);
        // Without one it waits in its listener's queue.
        if (owner !== undefined) borrowed.with(owner, socket.cookie, peek);
      } catch (error) {
        this.#parts.log.debug(`A receive queue could not be looked into: ${sentenceOf(error)}`);
      }
    }
    const later = new Map(this.#parts.takeSnapshots().map((socket) => [socket.cookie, socket.copiedSeq]));
    for (const { socket, bytes } of peeked) {
      if (later.get(socket.cookie) !== socket.copiedSeq) continue;
      const key = Buffer.from(socket.key).toString("hex");
      for (let at = 0; at < bytes.length; at += fillBytes) {
        const piece = bytes.subarray(at, at + fillBytes);
        const seq = (socket.copiedSeq + at) >>> 0;
        this.#parts.send({ type: "fill", key, seq }, [piece]);
      }
    }
  }

  #heldOf(name: string): Held {
    let held = this.#held.get(name);
    if (held === undefined) {
      held = {
        adoption: 0,
        adoptedAt: 0,
        input: false,
        output: false,
        needsFill: false,
        standbyReady: null,
        reason: "standby-absent",
        facts: "",
        sentAt: 0,
      };
      this.#held.set(name, held);
    }
    return held;
  }

  #watch({ key, md5Key }: Protected): void {
    this.#parts.send({ type: "watch", key }, [md5Key]);
  }

  #forget(entry: Protected, close = this.#parts.native.closeFd): void {
    close(entry.fd);
    this.#protected.delete(entry.id);
    if (this.#byKey.get(entry.key) === entry) this.#byKey.delete(entry.key);
    for (const answer of entry.waiting.values()) answer(false);
    entry.waiting.clear();
  }

  /** What there is to protect, or why not. */
  #examine({ service, base, md5Key, fd }: ProtectRequest): Protected | RefusalCode {
    let facts: SocketFacts;
    try {
      facts = this.#parts.native.socketFacts(fd);
    } catch {
      return "not-a-socket";
    }
    if (facts.mptcp) return "mptcp";
    if (!facts.tcp) return "not-tcp";
    if (!facts.connected) return "not-connected";
    const { family, localIp, localPort, peerIp, peerPort, cookie } = facts;
    if (family === 0) return "not-connected";
    const index = this.#services.find(facts);
    if (index < 0 || (service !== null && this.#parts.services[index]?.name !== service)) return "unknown-service";
    const bytes = writeKey(family, localIp, localPort, peerIp, peerPort);
    const key = Buffer.from(bytes).toString("hex");
    if (this.#byKey.get(key)?.cookie === cookie) return "already-protected";
    return {
      id: this.#nextId++,
      key,
      service: index,
      cookie,
      base,
      md5Key: md5Key ?? nothing,
      fd,
      waiting: new Map(),
    };
  }
}

/** What the standby can learn from snapshots only: options, and that something is written which was not sent. */
function factsOf({ options, writeSeq, sndNxt }: SocketSnapshot): string {
  return JSON.stringify([options, writeSeq === sndNxt ? null : writeSeq]);
}
