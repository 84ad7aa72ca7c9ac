// Reads td_record fields in place from a batch of the ring reader: no object a record, no copy.
//
// A batch: {u32 length, u32 segments, td_record, frame, padding to 8}, one after another; input segments that continued
// one another are one record (addon/src/record_merge.h). It starts 8-aligned, so every field is naturally aligned; typed
// arrays read it in host order, which is the order the data plane writes.

import { offsets, sizes, TD_RECORD_OUT } from "../abi.gen.js";

const R = offsets.td_record;

export class RecordCursor {
  #u8: Uint8Array = new Uint8Array(0);
  #u16: Uint16Array = new Uint16Array(0);
  #u32: Uint32Array = new Uint32Array(0);
  /** Where the record is, bytes from the start of the batch. */
  #at = 0;
  #end = 0;
  #next = 0;
  #buffer: ArrayBufferLike | null = null;
  #offset = -1;

  /** Starts with a batch: `bytes` of `batch` are valid. Throws RangeError if it is not 8-aligned. */
  start(batch: Uint8Array, bytes: number): void {
    if (batch.buffer !== this.#buffer || batch.byteOffset !== this.#offset || batch.length !== this.#u8.length) {
      if (batch.byteOffset % 8 !== 0) throw new RangeError("a batch must be 8-aligned");
      this.#buffer = batch.buffer;
      this.#offset = batch.byteOffset;
      this.#u8 = batch;
      this.#u16 = new Uint16Array(batch.buffer, batch.byteOffset, batch.length >> 1);
      this.#u32 = new Uint32Array(batch.buffer, batch.byteOffset, batch.length >> 2);
    }
    this.#end = bytes;
    this.#next = 0;
  }

  /** Moves to the next record; false at the end. A record whose lengths do not agree is passed over as `malformed`. */
  next(): boolean {
    for (;;) {
      const at = this.#next;
      if (at + 8 > this.#end) return false;
      const length = this.#u32[at >> 2] as number;
      const stop = at + 8 + length;
      if (stop > this.#end) {
        this.malformed++;
        this.#next = this.#end;
        return false;
      }
      this.#next = (stop + 7) & ~7;
      this.#at = at + 8;
      if (
        length >= sizes.td_record &&
        sizes.td_record + this.frameLength <= length &&
        this.l4Offset + 20 <= this.payloadOffset &&
        this.payloadOffset + this.payloadLength <= this.frameLength
      )
        return true;
      this.malformed++;
    }
  }

  /** Records passed over since the start of the recorder. */
  malformed = 0;

  /** The batch; payloadStart and the like are positions in it. */
  get bytes(): Uint8Array {
    return this.#u8;
  }
  /** How many segments it stands for. */
  get segments(): number {
    return this.#u32[(this.#at >> 2) - 1] as number;
  }
  /** Nanoseconds of the boot clock; exact to 2^53, that is 104 days, then to 2 ns. */
  get time(): number {
    const at = (this.#at + R.time_ns) >> 2;
    return (this.#u32[at] as number) + (this.#u32[at + 1] as number) * 0x1_0000_0000;
  }
  get flow(): number {
    return this.#u32[(this.#at + R.flow) >> 2] as number;
  }
  get seq(): number {
    return this.#u32[(this.#at + R.seq) >> 2] as number;
  }
  get ack(): number {
    return this.#u32[(this.#at + R.ack) >> 2] as number;
  }
  get tsval(): number {
    return this.#u32[(this.#at + R.tsval) >> 2] as number;
  }
  get tsecr(): number {
    return this.#u32[(this.#at + R.tsecr) >> 2] as number;
  }
  get copiedSeq(): number {
    return this.#u32[(this.#at + R.copied_seq) >> 2] as number;
  }
  get writeSeq(): number {
    return this.#u32[(this.#at + R.write_seq) >> 2] as number;
  }
  get rcvNxt(): number {
    return this.#u32[(this.#at + R.rcv_nxt) >> 2] as number;
  }
  get window(): number {
    return this.#u16[(this.#at + R.window) >> 1] as number;
  }
  get frameLength(): number {
    return this.#u16[(this.#at + R.frame_length) >> 1] as number;
  }
  get l3Offset(): number {
    return this.#u16[(this.#at + R.l3_offset) >> 1] as number;
  }
  get l4Offset(): number {
    return this.#u16[(this.#at + R.l4_offset) >> 1] as number;
  }
  get payloadOffset(): number {
    return this.#u16[(this.#at + R.payload_offset) >> 1] as number;
  }
  get payloadLength(): number {
    return this.#u16[(this.#at + R.payload_length) >> 1] as number;
  }
  get service(): number {
    return this.#u16[(this.#at + R.service) >> 1] as number;
  }
  get tcpFlags(): number {
    return this.#u8[this.#at + R.tcp_flags] as number;
  }
  /** TD_RECORD_* or-ed. */
  get flags(): number {
    return this.#u8[this.#at + R.flags] as number;
  }
  get out(): boolean {
    return (this.flags & TD_RECORD_OUT) !== 0;
  }
  get epoch(): number {
    return this.#u32[(this.#at + R.epoch) >> 2] as number;
  }
  get uplink(): number {
    return this.#u8[this.#at + R.uplink] as number;
  }
  /** Positions in `bytes`. */
  get keyStart(): number {
    return this.#at + R.key;
  }
  get frameStart(): number {
    return this.#at + sizes.td_record;
  }
  get payloadStart(): number {
    return this.frameStart + this.payloadOffset;
  }
  get optionsStart(): number {
    return this.frameStart + this.l4Offset + 20;
  }
}
