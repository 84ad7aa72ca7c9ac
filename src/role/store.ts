// What a router must remember across restarts: stored, with fsync and an atomic rename, before it counts.
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { errnoOf, TandemError } from "../errors.js";
import type { Stored } from "./role.js";

const storedSchema = z.strictObject({
  epoch: z.int().min(0).max(0xffff_ffff),
  spoke: z.boolean(),
  partnerEntitled: z.boolean(),
});

export class RoleStore {
  private readonly file: string;

  constructor(private readonly directory: string) {
    mkdirSync(directory, { recursive: true, mode: 0o750 });
    this.file = path.join(directory, "role.json");
  }

  /** A router without a past begins at epoch 0. Throws TandemError STATE_CORRUPT. */
  read(): Stored {
    let text: string;
    try {
      text = readFileSync(this.file, "utf8");
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return { epoch: 0, spoke: false, partnerEntitled: false };
      throw error;
    }
    try {
      return storedSchema.parse(JSON.parse(text));
    } catch {
      throw new TandemError(
        "STATE_CORRUPT",
        `${this.file} does not hold this router's epoch.`,
        "If the partner is up and active, remove the file: this router learns the epoch from it.",
      );
    }
  }

  write(stored: Stored): void {
    const temporary = `${this.file}.new`;
    const file = openSync(temporary, "w", 0o640);
    writeSync(file, JSON.stringify(stored));
    fsyncSync(file);
    closeSync(file);
    renameSync(temporary, this.file);
    const directory = openSync(this.directory, "r");
    fsyncSync(directory);
    closeSync(directory);
  }
}
