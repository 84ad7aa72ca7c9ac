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

/** Drains the ring "events". */
export class Witness {
  private readonly ring: Ring;
  private readonly batch = new Uint8Array(1 << 16);

  constructor(mapFd: number) {
    this.ring = native.ringOpen(mapFd, { checksums: false });
  }

  /** Sockets that reached CLOSE since the last call. */
  takeEnded(): EndedSocket[] {
    const ended: EndedSocket[] = [];
    const view = new DataView(this.batch.buffer);
    for (;;) {
      const { bytes } = this.ring.drain(this.batch);
      if (bytes === 0) return ended;
      for (let at = 0; at < bytes; ) {
        const length = view.getUint32(at, true);
        const event = at + 8;
        at = event + ((length + 7) & ~7);
        if (length < abi.sizes.td_event) continue;
        if (view.getUint32(event + abi.offsets.td_event.kind, true) !== abi.TD_EVENT_CLOSED) continue;
        const key = event + abi.offsets.td_event.key;
        ended.push({
          key: this.batch.slice(key, key + abi.sizes.td_flow_key),
          verdicts: view.getUint32(event + abi.offsets.td_event.verdicts, true),
          copiedSeq: view.getUint32(event + abi.offsets.td_event.copied_seq, true),
        });
      }
    }
  }

  close(): void {
    this.ring.close();
  }
}
