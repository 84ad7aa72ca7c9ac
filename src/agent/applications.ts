// Joins recorder and applications: each session of a registered service gets a feed, and both hear of each other.

import { native } from "../../addon/native.js";
import { type AppServer, createAppServer } from "../app/server.js";
import type { Config } from "../config/schema.js";
import { errnoOf, sentenceOf, TandemError } from "../errors.js";
import type { RecorderClient, RecorderNotice } from "../recorder/client.js";
import type { SessionSummary } from "../recorder/messages.js";
import type { Role } from "../role/role.js";

/** What a feed's descriptor holds, bytes: an application that is not scheduled for some milliseconds at full rate still
 * finds all of it there, instead of falling behind for good (what is behind counts as the session's memory). */
const feedBufferBytes = 4 << 20;

export class Applications {
  readonly server: AppServer;
  private recorder: RecorderClient | null = null;
  /** The application's end of each feed that the recorder has not attached yet. */
  private readonly attaching = new Map<number, { session: SessionSummary; feedFd: number }>();
  private readonly opened = new Map<number, { finTold: boolean }>();

  /** Throws TandemError APP_SOCKET. */
  constructor(
    private readonly config: Config,
    socketPath: string,
  ) {
    const known = new Set(config.services.map((service) => service.name));
    try {
      this.server = createAppServer({
        path: socketPath,
        native,
        router: config.router,
        role: "fenced",
        accept: (service) => (known.has(service) ? null : "unknown-service"),
        onRegister: ({ service }) => {
          void this.offerAll(service);
        },
        onGone: ({ service }) => {
          for (const [id, name] of this.services) if (name === service) this.drop(id);
        },
      });
    } catch (error) {
      throw new TandemError(
        "APP_SOCKET",
        `The applications' socket ${socketPath} cannot be made: ${sentenceOf(error)}.`,
        errnoOf(error) === "EADDRINUSE"
          ? "Another agent is using it: stop that one, or set paths.run to another directory."
          : "Check paths.run in the configuration.",
      );
    }
  }

  private readonly services = new Map<number, string>();

  use(recorder: RecorderClient): void {
    this.recorder = recorder;
  }

  setRole(role: Role): void {
    this.server.setRole(role);
  }

  has(service: number): boolean {
    const name = this.config.services[service]?.name;
    return this.server.registrations().some((registration) => registration.service === name);
  }

  /** Everything the recorder tells without being asked. */
  notice(notice: RecorderNotice): void {
    switch (notice.type) {
      case "events":
        for (const session of notice.opened) this.offer(session);
        for (const { id, cause } of notice.closed) {
          if (this.opened.delete(id)) this.server.closed(id, cause);
          this.services.delete(id);
        }
        for (const { id, final, reasons } of notice.readiness)
          if (final && this.opened.delete(id)) this.server.notReady(id, reasons[0] ?? "unknown");
        return;
      case "progress":
        this.server.progress(notice.entries.map(([id, outputEnd, , inputEnd]) => [id, outputEnd, inputEnd] as const));
        for (const [id, , , , inputFin] of notice.entries) {
          const entry = this.opened.get(id);
          if (inputFin < 0 || !entry || entry.finTold) continue;
          entry.finTold = true;
          this.server.fin(id, inputFin);
        }
        return;
      case "feed":
        this.feedChanged(notice.id, notice.what);
        return;
    }
  }

  /** A session that begins with its takeover (it was half-open): offered with an empty feed. */
  offerTaken(
    session: Pick<SessionSummary, "id" | "service" | "localIp" | "localPort" | "peerIp" | "peerPort">,
  ): boolean {
    const [ours, theirs] = native.socketPair();
    native.closeFd(ours);
    if (this.open(session, 0, theirs)) return true;
    native.closeFd(theirs);
    return false;
  }

  close(): void {
    this.server.close();
  }

  private async offerAll(service: string): Promise<void> {
    const status = await this.recorder?.status(true);
    for (const session of status?.sessions ?? [])
      if (this.config.services[session.service]?.name === service) this.offer(session);
  }

  private offer(session: SessionSummary): void {
    if (session.mode !== "live" || !session.fromStart || session.fed >= 0 || session.state === "closed") return;
    if (session.state === "half-open" || this.attaching.has(session.id) || !this.has(session.service)) return;
    const [recorderFd, feedFd] = native.socketPair();
    native.setBufferSizes(recorderFd, feedBufferBytes, 0);
    this.attaching.set(session.id, { session, feedFd });
    this.recorder?.attachFeed(session.id, recorderFd);
  }

  private feedChanged(id: number, what: "attached" | "refused" | "lost" | "ended"): void {
    const waiting = this.attaching.get(id);
    this.attaching.delete(id);
    if (what === "attached" && waiting) {
      if (this.open(waiting.session, waiting.session.outputEnd, waiting.feedFd)) return;
      native.closeFd(waiting.feedFd);
      this.recorder?.detachFeed(id);
    } else if (waiting) native.closeFd(waiting.feedFd);
    if (what === "lost" && this.opened.delete(id)) this.server.notReady(id, "feed-lost");
  }

  private open(session: Parameters<Applications["offerTaken"]>[0], outputOffset: number, feedFd: number): boolean {
    const service = this.config.services[session.service]?.name;
    if (service === undefined) return false;
    const offered = this.server.openSession(
      {
        id: session.id,
        service,
        local: { ip: session.localIp, port: session.localPort },
        peer: { ip: session.peerIp, port: session.peerPort },
        outputOffset,
      },
      feedFd,
    );
    if (!offered) return false;
    this.opened.set(session.id, { finTold: false });
    this.services.set(session.id, service);
    return true;
  }

  private drop(id: number): void {
    if (this.opened.delete(id)) this.recorder?.detachFeed(id);
    this.services.delete(id);
  }
}
