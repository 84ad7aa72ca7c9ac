// The journal: every decision as one plain sentence with its time, kept across restarts; and the log beside it.
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  statSync,
} from "node:fs";
import path from "node:path";
import { type Logger, pino } from "pino";
import { z } from "zod";

export const journalEntry = z.object({
  time: z.iso.datetime().describe("When, UTC."),
  router: z.string().describe("Who decided."),
  epoch: z.int().min(0).describe("In which epoch."),
  sentence: z.string().describe("What, and why."),
  facts: z
    .record(z.string(), z.unknown())
    .optional()
    .describe("Takeovers: milliseconds by step, and what else belongs to the decision."),
});
export type JournalEntry = z.infer<typeof journalEntry>;

/** The journal begins anew at this size, bytes, and its predecessor is kept. That is some twenty thousand decisions. */
const journalBytes = 4 << 20;

/** Appends one JSON line a decision to journal.jsonl in the state directory, and says the same to the log. What came
 * before the last new beginning is in journal.1.jsonl. */
export class Journal {
  private readonly file: string;
  private readonly former: string;
  /** Of the file, bytes. */
  private size: number;

  constructor(
    stateDirectory: string,
    private readonly router: string,
    readonly log: Logger,
    private readonly limitBytes = journalBytes,
  ) {
    mkdirSync(stateDirectory, { recursive: true, mode: 0o750 });
    this.file = path.join(stateDirectory, "journal.jsonl");
    this.former = path.join(stateDirectory, "journal.1.jsonl");
    this.size = statSync(this.file, { throwIfNoEntry: false })?.size ?? 0;
  }

  write(epoch: number, sentence: string, facts?: Record<string, unknown>): void {
    const entry: JournalEntry = { time: new Date().toISOString(), router: this.router, epoch, sentence };
    if (facts) entry.facts = facts;
    const line = Buffer.from(`${JSON.stringify(entry)}\n`);
    if (this.size > 0 && this.size + line.length > this.limitBytes) {
      renameSync(this.file, this.former);
      this.size = 0;
    }
    appendFileSync(this.file, line);
    this.size += line.length;
    this.log.info({ epoch, ...facts }, sentence);
  }

  /** The last entries, at most `limit`, the oldest first. A line that was cut (the power failed) is passed over. */
  read(limit: number): JournalEntry[] {
    const newest = lastEntries(this.file, limit);
    return newest.length < limit ? [...lastEntries(this.former, limit - newest.length), ...newest] : newest;
  }
}

function lastEntries(name: string, limit: number): JournalEntry[] {
  if (!existsSync(name)) return [];
  const file = openSync(name, "r");
  try {
    const { size } = fstatSync(file);
    // A file of an earlier version may be longer.
    const tail = Buffer.alloc(Math.min(size, journalBytes));
    readSync(file, tail, 0, tail.length, size - tail.length);
    const entries: JournalEntry[] = [];
    const lines = tail.toString("utf8").split("\n");
    for (let at = lines.length - 1; at >= 0 && entries.length < limit; at--) {
      const entry = entryOf(lines[at] ?? "");
      if (entry) entries.push(entry);
    }
    return entries.reverse();
  } finally {
    closeSync(file);
  }
}

function entryOf(line: string): JournalEntry | null {
  try {
    return journalEntry.parse(JSON.parse(line));
  } catch {
    return null;
  }
}

/** Logs to standard error: standard output belongs to what a command answers. */
export function createLog(router: string, level: string): Logger {
  return pino({ level, base: { router }, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination(2));
}
