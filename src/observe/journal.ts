// The journal: every decision as one plain sentence with its time, kept across restarts; and the log beside it.
import { appendFileSync, mkdirSync } from "node:fs";
import path from "node:path";
import { type Logger, pino } from "pino";

export interface JournalEntry {
  time: string;
  router: string;
  epoch: number;
  sentence: string;
  /** Takeovers: milliseconds by step, and what else belongs to the decision. */
  facts?: Record<string, unknown>;
}

/** Appends one JSON line a decision to journal.jsonl in the state directory, and says the same to the log. */
export class Journal {
  private readonly file: string;

  constructor(
    stateDirectory: string,
    private readonly router: string,
    readonly log: Logger,
  ) {
    mkdirSync(stateDirectory, { recursive: true, mode: 0o750 });
    this.file = path.join(stateDirectory, "journal.jsonl");
  }

  write(epoch: number, sentence: string, facts?: Record<string, unknown>): void {
    const entry: JournalEntry = { time: new Date().toISOString(), router: this.router, epoch, sentence };
    if (facts) entry.facts = facts;
    appendFileSync(this.file, `${JSON.stringify(entry)}\n`);
    this.log.info({ epoch, ...facts }, sentence);
  }
}

/** Logs to standard error: standard output belongs to what a command answers. */
export function createLog(router: string, level: string): Logger {
  return pino({ level, base: { router }, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination(2));
}
