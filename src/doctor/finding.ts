// What doctor finds: one sentence each, how bad it is, and the command that mends it.
import { z } from "zod";

export const finding = z.object({
  check: z.string().describe("What was looked at; stable."),
  level: z
    .enum(["ok", "note", "warning", "problem"])
    .describe("problem: protection is impossible or broken. warning: it may break or be slow. note: good to know."),
  what: z.string().describe("What was found, in one sentence."),
  fix: z.string().nullable().describe("The command, or the step, that mends it; null: nothing to mend."),
});
export type Finding = z.infer<typeof finding>;
export type Level = Finding["level"];

/** From worst to best. */
export const levels: readonly Level[] = ["problem", "warning", "note", "ok"];

export const ok = (check: string, what: string): Finding => ({ check, level: "ok", what, fix: null });
export const found = (level: Level, check: string, what: string, fix: string | null): Finding => ({
  check,
  level,
  what,
  fix,
});
