// One bound for the stream buffers of all sessions: past it a session becomes not ready, never the process short.

export class MemoryBudget {
  /** Bytes taken now. */
  used = 0;

  /** `limit`: bytes of all stream buffers together. */
  constructor(readonly limit: number) {}

  /** False, and nothing taken, when the bytes are not to be had. */
  take(bytes: number): boolean {
    if (this.used + bytes > this.limit) return false;
    this.used += bytes;
    return true;
  }

  give(bytes: number): void {
    this.used -= bytes;
  }
}
