// A socket of another process, held for a moment. If its owner lets go of it in this very moment, our close is the last
// one, and decides its FIN or RST: the witness is told beforehand whose doing that would be.
//
//   the owner still has it         our close decides nothing, unless the owner dies right now: a crash
//   the owner lives without it     it has closed it, and meant that
//   the owner is dying, or dead    a crash

import { readFileSync, readlinkSync } from "node:fs";
import type { Native } from "../../addon/native.js";
import * as abi from "../abi.gen.js";
import type { SocketOwner } from "./socket-owners.js";

/** task->flags (include/linux/sched.h). */
const PF_EXITING = 0x4;
const nobody = new Uint8Array(abi.sizes.td_borrowed);

export class BorrowedSockets {
  /** `note` puts a td_borrowed where the witness finds it. */
  constructor(
    private readonly native: Pick<Native, "pidfdGetfd" | "socketFacts" | "closeFd">,
    private readonly note: (borrowed: Uint8Array) => void,
  ) {}

  /** Runs `look` with a descriptor of the owner's socket, unless what the owner has there is not the socket of this
   * cookie any more. Throws NativeError, and what `look` throws. */
  with({ pid, fd }: SocketOwner, cookie: bigint, look: (fd: number) => void): void {
    this.note(noteOf(cookie));
    try {
      const borrowed = this.native.pidfdGetfd(pid, fd);
      try {
        const { cookie: found, inode } = this.native.socketFacts(borrowed);
        if (found !== cookie) return;
        look(borrowed);
        if (!has(pid, fd, inode) && lives(pid)) this.note(nobody);
      } finally {
        this.native.closeFd(borrowed);
      }
    } finally {
      this.note(nobody);
    }
  }
}

function noteOf(cookie: bigint): Uint8Array {
  const note = Buffer.alloc(abi.sizes.td_borrowed);
  note.writeBigUInt64LE(cookie, abi.offsets.td_borrowed.cookie);
  note.writeUInt32LE(process.pid, abi.offsets.td_borrowed.pid);
  return note;
}

function has(pid: number, fd: number, inode: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`;
  } catch {
    return false;
  }
}

/** False from the beginning of its exit on, when it still has its descriptors (do_exit, kernel/exit.c). */
function lives(pid: number): boolean {
  try {
    // The name, in brackets, may hold anything; `flags` is the seventh field after it (proc(5)).
    const [, fields = ""] = /^.*\)(.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, "latin1")) ?? [];
    return (Number(fields.trim().split(" ")[6]) & PF_EXITING) === 0;
  } catch {
    return false;
  }
}
