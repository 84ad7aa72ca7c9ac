// What the active's application tells of itself: its hand-over, confirms that move the resume point, logged output.
//
//   input    ───────────┃ resume ━━━━━━━━ input buffer ━━━━━━━┃ read ━━━ recorded ━━━┃
//   output   ━━ recorded, kept from the resume point on ━━┃ recorded end ━━ logged ━━┃
//
// The resume point is one triple: both offsets here, the state beside them with the agent. It moves forwards only.

import { Reason, reasonNames } from "./reasons.js";
import type { Session } from "./session.js";
import { StreamWindow } from "./stream-window.js";

export interface Handover {
  /** Where the state stands in both streams, bytes. */
  inputOffset: number;
  outputOffset: number;
  /** Read by the application and not yet processed, from inputOffset on. */
  input: Uint8Array;
  /** Output from outputStart to outputOffset or beyond: what may not be recorded. */
  outputStart: number;
  output: Uint8Array;
}

export type Confirm = Omit<Handover, "input">;

/** Null: the session goes on from there; else the name of the reason why not, and nothing changed. Everything recorded
 * before the application handed over must have been ingested. */
export function takeHandover(session: Session, handover: Handover): string | null {
  const { inputOffset, outputOffset, input, outputStart, output } = handover;
  if (!session.tracked || session.closedAt !== 0) return "not-recorded";
  if (!session.awaitsHandover) return "not-awaited";
  const read = inputOffset + input.length;
  if (!session.inputProven || read < session.input.base || read > session.input.end)
    return reasonNames[Reason.InputIncomplete];
  const outputEnd = outputStart + output.length;
  const keeps = session.mode === "confirmed";
  const before = keeps ? session.output.base - outputOffset : 0; // recorded no more, and to be kept
  if (
    !session.outputProven ||
    outputStart > Math.max(session.loggedEnd, session.output.end) ||
    Math.max(outputEnd, session.loggedEnd) < outputOffset ||
    (before > 0 && (outputStart > outputOffset || outputEnd < session.output.base))
  )
    return reasonNames[Reason.OutputIncomplete];

  session.vouch(read);
  // The application's own copy of what it has read is the true one: it also settles what was ambiguous.
  session.input.trim(read);
  const skipped = outputOffset - outputStart;
  const fits =
    session.input.prepend(inputOffset, input) &&
    (before <= 0 || session.output.prepend(outputOffset, output.subarray(skipped, skipped + before))) &&
    storeLogged(session, outputStart, output);
  if (!fits) {
    session.giveUp(Reason.Memory);
    return reasonNames[Reason.Memory];
  }
  session.held = false;
  session.resume = { inputOffset, outputOffset, source: "confirmed" };
  if (keeps) session.keepOutput = outputOffset;
  session.dropReason(Reason.AwaitingHandover);
  session.trimInput();
  session.releaseOutput();
  return null;
}

/** Moves the resume point of a confirmed session; one that is behind changes nothing. One that cannot be kept ends the
 * session's record: the state that belongs to it is stored already. */
export function takeConfirm(session: Session, confirm: Confirm): void {
  const { inputOffset, outputOffset, outputStart, output } = confirm;
  const { resume } = session;
  if (!session.tracked || session.closedAt !== 0 || session.mode !== "confirmed" || session.awaitsHandover) return;
  if (inputOffset < resume.inputOffset || outputOffset < resume.outputOffset) return;
  if (inputOffset > session.input.end) {
    session.giveUpLeaking(
      `the application has worked off input up to ${inputOffset}, and recorded is up to ${session.input.end}`,
    );
    return;
  }
  takeLog(session, outputStart, output);
  if (!session.tracked) return;
  if (outputOffset > session.loggedEnd) {
    session.giveUp(Reason.OutputIncomplete);
    return;
  }
  session.vouch(inputOffset);
  session.resume = { inputOffset, outputOffset, source: "confirmed" };
  session.keepOutput = outputOffset;
  session.trimInput();
  session.releaseOutput();
}

/** Keeps output that has not been recorded, until it is. It must continue what is there: a gap means that somebody's
 * numbers are wrong, and the session cannot be relied on. */
export function takeLog(session: Session, outputStart: number, output: Uint8Array): void {
  if (!session.tracked || session.closedAt !== 0 || !session.outputProven) return;
  if (outputStart > session.loggedEnd) session.giveUp(Reason.OutputIncomplete);
  else if (!storeLogged(session, outputStart, output)) session.giveUp(Reason.Memory);
}

function storeLogged(session: Session, start: number, bytes: Uint8Array): boolean {
  if (start + bytes.length <= session.output.end) return true;
  session.logged ??= new StreamWindow(session.output.limit, session.output.budget, session.output.end);
  return session.logged.write(start, bytes, 0, bytes.length);
}
