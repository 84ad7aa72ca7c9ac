// Joins what watches the agent: metrics, health, history and the status page, and the server that gives them out.

import type { Logger } from "pino";
import { errnoOf, sentenceOf, TandemError } from "../errors.js";
import type { RecorderNotice } from "../recorder/client.js";
import type { TakeoverCause } from "../role/role.js";
import type { TakeoverReport } from "../takeover/takeover.js";
import type { DrillResult } from "./commands.js";
import { History, pastTakeovers } from "./history.js";
import { type Answer, HttpServer } from "./http.js";
import { JoinClock } from "./join-clock.js";
import type { JournalEntry } from "./journal.js";
import { Metrics } from "./metrics.js";
import type { Observation } from "./observation.js";
import { renderMain, renderPage } from "./page.js";
import { pageScript } from "./page-script.js";
import { pageStyle } from "./page-style.js";

export interface MonitorOptions {
  /** Where to listen; null: nowhere. */
  listen: { address: string; port: number } | null;
  version: string;
  log: Logger;
  /** Of which the takeovers are shown. */
  journal: readonly JournalEntry[];
  /** One look at the agent, with so many sessions at most. */
  observe: (sessions: number) => Promise<Observation>;
}

/** Sessions that the status page lists. */
const listedSessions = 50;
const sampleMs = 1000;
/** However many ask, the recorder's thread is not asked more often: it goes through all sessions for an answer. */
const looksApartMs = 250;

export class Monitor {
  private readonly history = new History();
  private readonly metrics: Metrics;
  private readonly joins = new JoinClock((seconds) => this.metrics.joined(seconds));
  private readonly looks = new Map<number, { at: number; seen: Promise<Observation> }>();
  private server: HttpServer | null = null;
  private timer: NodeJS.Timeout | null = null;

  constructor(private readonly options: MonitorOptions) {
    const { version, journal } = options;
    this.metrics = new Metrics({ version, observe: () => this.look(0) });
    for (const { report, timeMs } of pastTakeovers(journal)) {
      this.history.takeover(report, timeMs);
      this.metrics.lastTakeover(report, timeMs);
    }
  }

  /** Throws TandemError HTTP_BIND. */
  async start(): Promise<void> {
    const { listen } = this.options;
    if (listen === null) return;
    try {
      this.server = await HttpServer.listen(listen, this.routes(), (asked, error) =>
        this.options.log.warn(`${asked} could not be answered: ${sentenceOf(error)}`),
      );
    } catch (error) {
      throw new TandemError(
        "HTTP_BIND",
        `HTTP cannot listen on ${listen.address}, TCP port ${listen.port}: ${sentenceOf(error)}.`,
        errnoOf(error) === "EADDRINUSE"
          ? "Free the port (ss -tlpn shows who has it), set http.port otherwise, or http: off."
          : "The address must be this router's own: correct http.address, or set http: off.",
      );
    }
    this.timer = setInterval(() => {
      // An agent that cannot be looked at just now leaves a gap.
      this.look(0).then(
        (look) => this.history.sample(look),
        () => {},
      );
    }, sampleMs);
  }

  takeover(report: TakeoverReport, cause: TakeoverCause): void {
    const now = Date.now();
    this.metrics.takeover(report, cause, now);
    this.history.takeover(report, now);
  }

  drill(result: DrillResult): void {
    this.metrics.drill(result, Date.now());
  }

  /** What the recorder tells. */
  notice(notice: RecorderNotice): void {
    this.joins.notice(notice, performance.now());
  }

  /** One more session of the last takeover is lost. */
  lost(): void {
    this.metrics.lost();
  }

  /** The recorder begins anew. */
  recordsAnew(): void {
    this.joins.forgetAll();
  }

  close(): void {
    if (this.timer) clearInterval(this.timer);
    this.server?.close();
  }

  /** One look for all who ask within a moment. */
  private look(sessions: number): Promise<Observation> {
    const now = performance.now();
    const last = this.looks.get(sessions);
    if (last && now - last.at < looksApartMs) return last.seen;
    const seen = this.options.observe(sessions);
    this.looks.set(sessions, { at: now, seen });
    return seen;
  }

  private routes() {
    const asset = (contentType: string, body: string) => async (): Promise<Answer> => ({
      status: 200,
      contentType: `${contentType}; charset=utf-8`,
      body,
    });
    const page = (render: typeof renderPage) => async (): Promise<Answer> => ({
      status: 200,
      contentType: "text/html; charset=utf-8",
      body: render(await this.look(listedSessions), this.history).text,
    });
    return {
      "/": page(renderPage),
      "/live": page(renderMain),
      "/page.css": asset("text/css", pageStyle),
      "/page.js": asset("text/javascript", pageScript),
      "/metrics": async () => ({
        status: 200,
        contentType: this.metrics.contentType,
        body: await this.metrics.scrape(),
      }),
      "/healthz": async () => healthOf(await this.look(0)),
    };
  }
}

/** Healthy is a router that has the voice or could take it over: 200; any other: 503. */
function healthOf({ role, reason, agreed }: Observation): Answer {
  const healthy = role === "active" || role === "solo" || (role === "standby" && agreed);
  return {
    status: healthy ? 200 : 503,
    contentType: "application/json",
    body: `${JSON.stringify({ healthy, role, protected: role === "active" || role === "standby", reason })}\n`,
  };
}
