// What an operator asks of one router and only the other one knows: the question goes over the control channel, and the
// answer comes back as if it had been known here. Only questions go that way; what changes something is asked there.

import type { z } from "zod";
import type { Unframed } from "../app/framing.js";
import { exitCodes, TandemError } from "../errors.js";
import { sessionCommand, sessionsCommand } from "../observe/commands.js";
import { answerOf, resultOf } from "../observe/operator.js";
import type { ControlMessage, ControlMessageOf } from "../pair/messages.js";

const patienceMs = 3000;
/** Of the sessions that one answer carries; they fit into a message of the control channel. */
const mostSessions = 1000;

/** The commands that may come from the partner, by their names. */
export interface Questions {
  sessions: (asked: z.output<typeof sessionsCommand.arguments>) => Promise<z.input<typeof sessionsCommand.result>>;
  session: (asked: z.output<typeof sessionCommand.arguments>) => Promise<z.input<typeof sessionCommand.result>>;
}

export class PartnerQuestions {
  readonly #send: (message: Unframed<ControlMessage>, parts?: readonly Uint8Array[]) => boolean;
  readonly #known: Questions;
  readonly #waiting = new Map<number, (json: string) => void>();
  #serial = 0;

  /** `send`: false when nobody hears it. `known`: what this router answers. */
  constructor(send: (message: Unframed<ControlMessage>, parts?: readonly Uint8Array[]) => boolean, known: Questions) {
    this.#send = send;
    this.#known = known;
  }

  /** Throws TandemError: the partner's own, PARTNER_ABSENT, PARTNER_SILENT. */
  sessions(asked: z.output<typeof sessionsCommand.arguments>): Promise<z.output<typeof sessionsCommand.result>> {
    return this.#ask("sessions", { ...asked, limit: Math.min(asked.limit, mostSessions) }, sessionsCommand.result);
  }

  /** As `sessions`. */
  session(asked: z.output<typeof sessionCommand.arguments>): Promise<z.output<typeof sessionCommand.result>> {
    return this.#ask("session", asked, sessionCommand.result);
  }

  hear(message: ControlMessageOf<"question" | "answer">, parts: readonly Uint8Array[]): void {
    if (message.type === "question") void this.#answer(message);
    else {
      const [json = new Uint8Array(0)] = parts;
      this.#waiting.get(message.serial)?.(Buffer.from(json).toString("utf8"));
    }
  }

  async #answer({ serial, command, asked }: ControlMessageOf<"question">): Promise<void> {
    const answer = await answerOf(async () =>
      command === "sessions"
        ? this.#known.sessions(sessionsCommand.arguments.parse(asked))
        : this.#known.session(sessionCommand.arguments.parse(asked)),
    );
    this.#send({ type: "answer", serial }, [Buffer.from(JSON.stringify(answer))]);
  }

  async #ask<R extends z.ZodType>(
    command: keyof Questions,
    asked: Record<string, unknown>,
    result: R,
  ): Promise<z.output<R>> {
    const serial = ++this.#serial;
    let timer: NodeJS.Timeout | undefined;
    try {
      const json = await new Promise<string>((resolve, reject) => {
        this.#waiting.set(serial, resolve);
        timer = setTimeout(() => reject(silent()), patienceMs);
        if (!this.#send({ type: "question", serial, command, asked })) reject(absent());
      });
      return resultOf(result, JSON.parse(json), command);
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(serial);
    }
  }
}

function absent(): TandemError {
  return new TandemError(
    "PARTNER_ABSENT",
    "Only the standby knows that, and there is no connection to it.",
    "See on the other router: systemctl status tandem",
    exitCodes.unreachable,
  );
}

function silent(): TandemError {
  return new TandemError(
    "PARTNER_SILENT",
    `Only the standby knows that, and it did not answer for ${patienceMs / 1000} s.`,
    "Ask there: it may be overloaded.",
    exitCodes.timeout,
  );
}
