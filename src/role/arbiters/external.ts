// The arbiter `external`: keepalived, Pacemaker or a person says which router may speak, by `tandem arbiter`. What was
// said last is in a file that a reboot removes and a restart of the agent does not.
//
// It is as strict as who says it. One thing it cannot know is guarded here: a standby that heard nothing of the active
// for longer than `patienceMs` takes nothing over any more, since an active that may speak goes on alone by then (the
// agent lets it wait that much longer), and what the standby has is of the past.

import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { errnoOf } from "../../errors.js";
import type { Answer, Arbiter, ArbiterNews, ArbiterStatus, Wish } from "./arbiter.js";

export type Statement = "granted" | "revoked";

export interface ExternalArbiterSettings {
  /** Where the last statement is kept. */
  file: string;
  patienceMs: number;
  /** Boot clock. */
  now: () => bigint;
}

export class ExternalArbiter implements Arbiter {
  #statement: Statement;

  constructor(
    private readonly settings: ExternalArbiterSettings,
    private readonly news: ArbiterNews,
  ) {
    this.#statement = readStatement(settings.file);
  }

  /** What somebody outside says. */
  state(statement: Statement): void {
    writeStatement(this.settings.file, statement);
    if (statement === this.#statement) return;
    this.#statement = statement;
    if (statement === "granted") this.news.allows();
    else this.news.lost("The external arbiter has revoked the voice.");
  }

  async ask({ purpose, epoch, silentSinceNs }: Wish): Promise<Answer> {
    const { patienceMs, now } = this.settings;
    if (purpose === "takeover" && silentSinceNs !== null && Number(now() - silentSinceNs) / 1e6 > patienceMs) {
      const why = `The external arbiter has not named this router within ${patienceMs} ms: the active may have gone on alone.`;
      return { type: "refused", why, stale: true };
    }
    if (this.#statement === "granted") return { type: "granted", epoch };
    return { type: "refused", why: "The external arbiter has not granted the voice to this router.", stale: false };
  }

  voiceUntilNs(): null {
    return null;
  }

  release(): void {}

  objection(): string | null {
    return this.#statement === "granted" ? null : "the external arbiter has not granted it the voice";
  }

  status(): ArbiterStatus {
    const lastAnswer = this.#statement === "granted" ? "This router may speak." : "This router must not speak alone.";
    return { kind: "external", reachable: true, leaseMs: null, lastAnswer };
  }

  close(): void {}
}

/** Where the last statement is kept: gone after a reboot, and not after a restart of the agent. */
export function statementFile(runDirectory: string): string {
  return path.join(runDirectory, "arbiter");
}

/** Revoked, if nothing was ever said. */
function readStatement(file: string): Statement {
  try {
    return readFileSync(file, "utf8") === "granted" ? "granted" : "revoked";
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "revoked";
    throw error;
  }
}

export function writeStatement(file: string, statement: Statement): void {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
  writeFileSync(`${file}.new`, statement, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}
