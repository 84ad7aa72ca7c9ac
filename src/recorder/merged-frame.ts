// Several input segments that the recorder took as one (addon/src/record_merge.h), as one valid frame: IP length and
// checksums are still those of the first of them.

/** Mends the frame in place, as GRO would have made it. Offsets are of the IP and the TCP header, bytes. */
export function mendMerged(frame: Uint8Array, l3Offset: number, l4Offset: number): void {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const length = frame.length - l3Offset;
  const tcpLength = frame.length - l4Offset;
  const ipv6 = (view.getUint8(l3Offset) & 0xf0) === 0x60;
  let pseudo: number;
  if (ipv6) {
    view.setUint16(l3Offset + 4, length - 40);
    pseudo = sum(view, l3Offset + 8, 32);
  } else {
    view.setUint16(l3Offset + 2, length);
    view.setUint16(l3Offset + 10, 0);
    view.setUint16(l3Offset + 10, fold(sum(view, l3Offset, l4Offset - l3Offset)));
    pseudo = sum(view, l3Offset + 12, 8);
  }
  view.setUint16(l4Offset + 16, 0);
  view.setUint16(l4Offset + 16, fold(pseudo + 6 + tcpLength + sum(view, l4Offset, tcpLength)));
}

/** RFC 1071. */
function sum(view: DataView, start: number, length: number): number {
  let total = 0;
  for (let at = start; at + 1 < start + length; at += 2) total += view.getUint16(at);
  if (length % 2 === 1) total += view.getUint8(start + length - 1) << 8;
  return total;
}

function fold(total: number): number {
  let folded = total;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000);
  return ~folded & 0xffff;
}
