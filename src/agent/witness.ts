// On the active: what the witness saw of the service's sockets, in batches for the standby.
import { native, type Ring } from "../../addon/native.js";
import * as abi from "../abi.gen.js";

export interface EndedSocket {
  key: Uint8Array;
  /** enum td_verdict, or-ed. */
  verdicts: number;
  /** What its application had read: tells it from a later socket of the same tuple. */
  copiedSeq: number;
}

/** How far an application has read. */
export interface ReadSocket {
  key: Uint8Array;
  copiedSeq: number;
}

/** A socket whose application died with it: its end is silenced. */
export interface CrashedSocket {
  key: Uint8Array;
  /** Of the task, as the kernel keeps it (wait(2)). */
  exitCode: number;
}

export interface Witnessed {
  ended: EndedSocket[];
  crashed: CrashedSocket[];
}

/** Sockets asked for at once. */
const takenAtOnce = 1024;

/** Drains the ring "events" and the map "readings". */
export class Witness {
  private readonly ring: Ring;
  private readonly batch = new Uint8Array(1 << 16);

  /** Descriptors of the two maps. */
  constructor(
    events: number,
    private readonly readings: number,
  ) {
    this.ring = native.ringOpen(events, { records: false });
  }

  /** What happened since the last call, each kind in order. */
  take(): Witnessed {
    const ended: EndedSocket[] = [];
    const crashed: CrashedSocket[] = [];
    const view = new DataView(this.batch.buffer);
    const field = abi.offsets.td_event;
    for (;;) {
      const { bytes } = this.ring.drain(this.batch);
      if (bytes === 0) return { ended, crashed };
      for (let at = 0; at < bytes; ) {
        const length = view.getUint32(at, true);
        const event = at + 8;
        at = event + ((length + 7) & ~7);
        if (length < abi.sizes.td_event) continue;
        const key = this.batch.slice(event + field.key, event + field.key + abi.sizes.td_flow_key);
        const copiedSeq = view.getUint32(event + field.copied_seq, true);
        switch (view.getUint32(event + field.kind, true)) {
          case abi.TD_EVENT_CLOSED:
            ended.push({ key, verdicts: view.getUint32(event + field.verdicts, true), copiedSeq });
            break;
          case abi.TD_EVENT_CRASHED:
            crashed.push({ key, exitCode: view.getUint32(event + field.exit_code, true) });
            break;
        }
      }
    }
  }

  /** Sockets of delivered services whose applications have read since the last call, each where it has got to. */
  takeRead(): ReadSocket[] {
    const read: ReadSocket[] = [];
    const length = abi.sizes.td_flow_key + 4;
    for (;;) {
      const entries = native.bpfMapTake(this.readings, takenAtOnce);
      const view = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
      for (let at = 0; at < entries.length; at += length)
        read.push({
          key: entries.subarray(at, at + abi.sizes.td_flow_key),
          copiedSeq: view.getUint32(at + abi.sizes.td_flow_key, true),
        });
      if (entries.length < takenAtOnce * length) return read;
    }
  }

  close(): void {
    this.ring.close();
  }
}
