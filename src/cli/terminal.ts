// How the command line writes: colours only on a terminal that wants them, tables, and looking again and again.
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { styleText } from "node:util";
import { TandemError } from "../errors.js";

export type Colour = "green" | "yellow" | "red" | "bold" | "dim";
export type Paint = (colour: Colour, text: string) => string;

/** Not where NO_COLOR is set and not empty (no-color.org), and not on a terminal that has none. */
export function wantsColour(stream: { isTTY?: boolean }, environment: NodeJS.ProcessEnv = process.env): boolean {
  return stream.isTTY === true && !environment.NO_COLOR && environment.TERM !== "dumb";
}

export function painter(colour: boolean): Paint {
  return (name, text) => (colour ? styleText(name, text, { validateStream: false }) : text);
}

/** Columns as wide as their widest cell; `right`: those that hold numbers. Cells may be painted. */
export function table(head: string[], rows: string[][], right: ReadonlySet<string> = new Set()): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => width(row[column] ?? ""))));
  return all
    .map((row) =>
      head
        .map((name, column) => {
          const cell = row[column] ?? "";
          const space = " ".repeat((widths[column] ?? 0) - width(cell));
          return right.has(name) ? space + cell : cell + space;
        })
        .join("  ")
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}

function width(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is the escape sequence of a colour
  return text.replace(/\u001b\[[0-9;]*m/g, "").length;
}

/** Writes to standard output, and waits when the reader is slower. */
export async function write(text: string | Uint8Array): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, "drain");
}

export interface Look<T> {
  ask: () => Promise<T>;
  render: (answer: T, paint: Paint) => string;
  json?: boolean;
  /** Seconds; undefined: once. */
  watch?: number;
}

/** Shows what `ask` answers, once or again and again; with `json` one document a line. While it is watched an agent may
 * go and come back. */
export async function show<T>({ ask, render, json, watch }: Look<T>): Promise<void> {
  const paint = painter(wantsColour(process.stdout));
  const text = async (): Promise<string> => {
    const answer = await ask();
    return json ? `${JSON.stringify(answer)}\n` : render(answer, paint);
  };
  if (watch === undefined) return write(await text());
  const redraw = process.stdout.isTTY === true && !json;
  if (redraw) await write("\u001b[2J");
  for (;;) {
    const next = await text().catch((error: unknown) => {
      if (!(error instanceof TandemError)) throw error;
      const { code, message, remedy, exitCode } = error;
      return json ? `${JSON.stringify({ error: { code, message, remedy, exitCode } })}\n` : `${message}\n`;
    });
    // Home, draw over what is there line by line, and clear what is left: no flicker.
    await write(redraw ? `\u001b[H${next.replaceAll("\n", "\u001b[K\n")}\u001b[J` : next);
    await delay(watch * 1000);
  }
}
