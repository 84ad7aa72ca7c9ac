// What a router must remember across restarts: on the disk before it counts.
//
// One file of two slots, written in turns: a write that a power failure cuts leaves the other slot as it was. A takeover
// waits for this write, and a slot in place is one flush where a new file with a rename is two.

import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fdatasyncSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import { z } from "zod";
import { TandemError } from "../errors.js";
import type { Stored } from "./role.js";

/** A sector: written whole or not at all by most disks, and checked because of the others. */
const slotBytes = 512;
const slotSchema = z.strictObject({
  serial: z.int().min(0),
  epoch: z.int().min(0).max(0xffff_ffff),
  spoke: z.boolean(),
  partnerEntitled: z.boolean(),
});
type Slot = z.infer<typeof slotSchema>;

export class RoleStore {
  private readonly name: string;
  private readonly file: number;
  private readonly pauseFile: string;
  private serial = 0;

  /** Makes directory and file where they are missing. */
  constructor(private readonly directory: string) {
    mkdirSync(directory, { recursive: true, mode: 0o750 });
    this.name = path.join(directory, "role");
    this.pauseFile = path.join(directory, "paused");
    this.file = openSync(this.name, constants.O_RDWR | constants.O_CREAT, 0o640);
    this.syncDirectory();
  }

  /** A router without a past begins at epoch 0. Throws TandemError STATE_CORRUPT. */
  read(): Stored {
    const bytes = Buffer.alloc(2 * slotBytes);
    const length = readSync(this.file, bytes, 0, bytes.length, 0);
    if (length === 0) return { epoch: 0, spoke: false, partnerEntitled: false };
    const slots = [0, 1].flatMap((index) => decode(bytes.subarray(index * slotBytes, (index + 1) * slotBytes)) ?? []);
    const newest = slots.sort((a, b) => b.serial - a.serial)[0];
    if (newest === undefined)
      throw new TandemError(
        "STATE_CORRUPT",
        `${this.name} does not hold this router's epoch.`,
        "If the partner is up and active, remove the file: this router learns the epoch from it.",
      );
    const { serial, ...stored } = newest;
    this.serial = serial;
    return stored;
  }

  /** After `read`. Returns when it is on the disk. */
  write(stored: Stored): void {
    this.serial++;
    writeSync(this.file, encode({ serial: this.serial, ...stored }), 0, slotBytes, (this.serial % 2) * slotBytes);
    fdatasyncSync(this.file);
  }

  /** Why an operator has paused automatic takeovers; null: he has not. */
  readPause(): string | null {
    try {
      return readFileSync(this.pauseFile, "utf8");
    } catch {
      return null;
    }
  }

  writePause(reason: string | null): void {
    if (reason === null) {
      rmSync(this.pauseFile, { force: true });
      return;
    }
    const temporary = `${this.pauseFile}.new`;
    const file = openSync(temporary, "w", 0o640);
    writeSync(file, reason);
    fsyncSync(file);
    closeSync(file);
    renameSync(temporary, this.pauseFile);
    this.syncDirectory();
  }

  private syncDirectory(): void {
    const directory = openSync(this.directory, "r");
    fsyncSync(directory);
    closeSync(directory);
  }
}

function checkOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** Check, space, JSON, newline, and spaces to the end. */
function encode(slot: Slot): Buffer {
  const text = JSON.stringify(slot);
  return Buffer.from(`${checkOf(text)} ${text}\n`.padEnd(slotBytes));
}

/** Null: never written, or cut. */
function decode(bytes: Buffer): Slot | null {
  const line = bytes.toString("latin1").split("\n")[0] ?? "";
  const text = line.slice(17);
  if (line.slice(0, 16) !== checkOf(text)) return null;
  return slotSchema.parse(JSON.parse(text));
}
