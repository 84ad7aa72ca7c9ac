// How the applications of random schedules read and write: awkwardly.

import type { Duplex } from "node:stream";

/** Some of what is there, of any size; null: nothing is. */
export function readSome(stream: Duplex, random: () => number): Buffer | null {
  return stream.read(1 + Math.floor(random() * 3000)) ?? stream.read();
}

/** Resolves when the stream takes more, or never will. */
export function drained(stream: Duplex): Promise<void> {
  if (!stream.writableNeedDrain) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off("drain", done).off("close", done);
      resolve();
    };
    stream.on("drain", done).on("close", done);
  });
}
