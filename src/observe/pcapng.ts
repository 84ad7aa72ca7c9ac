// Capture files that Wireshark opens: pcapng (draft-ietf-opsawg-pcapng), one Ethernet interface, nanoseconds.

const SECTION_HEADER = 0x0a0d0d0a;
const INTERFACE_DESCRIPTION = 1;
const ENHANCED_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const LINKTYPE_ETHERNET = 1;
const OPT_COMMENT = 1;
const IF_NAME = 2;
const IF_TSRESOL = 9;
const EPB_FLAGS = 2;

export interface CapturedPacket {
  /** Unix time, ns. */
  timeNs: bigint;
  direction: "in" | "out";
  /** From the Ethernet header on. */
  frame: Uint8Array;
  /** What the reader should know about it. */
  comment?: string;
}

/** What the file begins with. */
export function pcapngHeader(interfaceName: string): Buffer {
  const section = Buffer.alloc(16);
  section.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
  section.writeUInt16LE(1, 4);
  section.writeBigInt64LE(-1n, 8); // section length: not given
  const description = Buffer.alloc(8);
  description.writeUInt16LE(LINKTYPE_ETHERNET, 0); // snap length 0: no limit
  return Buffer.concat([
    block(SECTION_HEADER, section, []),
    block(INTERFACE_DESCRIPTION, description, [
      [IF_NAME, Buffer.from(interfaceName)],
      [IF_TSRESOL, Buffer.from([9])],
    ]),
  ]);
}

export function pcapngPacket({ timeNs, direction, frame, comment }: CapturedPacket): Buffer {
  const fixed = Buffer.alloc(20 + padded(frame.length));
  fixed.writeUInt32LE(Number(timeNs >> 32n), 4);
  fixed.writeUInt32LE(Number(timeNs & 0xffff_ffffn), 8);
  fixed.writeUInt32LE(frame.length, 12);
  fixed.writeUInt32LE(frame.length, 16);
  fixed.set(frame, 20);
  const flags = Buffer.alloc(4);
  flags.writeUInt32LE(direction === "in" ? 1 : 2);
  const options: Option[] = [[EPB_FLAGS, flags]];
  if (comment) options.push([OPT_COMMENT, Buffer.from(comment)]);
  return block(ENHANCED_PACKET, fixed, options);
}

type Option = [code: number, value: Buffer];

function block(type: number, fixed: Buffer, options: Option[]): Buffer {
  const parts = options.map(([code, value]) => {
    const option = Buffer.alloc(4 + padded(value.length));
    option.writeUInt16LE(code, 0);
    option.writeUInt16LE(value.length, 2);
    option.set(value, 4);
    return option;
  });
  const end = Buffer.alloc(options.length > 0 ? 4 : 0); // opt_endofopt
  const body = Buffer.concat([fixed, ...parts, end]);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(12 + body.length);
  const head = Buffer.alloc(4);
  head.writeUInt32LE(type);
  return Buffer.concat([head, length, body, length]);
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
