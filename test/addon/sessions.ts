// What the restore test's programs agree on: the streams' bytes, and the state that active.py prints.

/** State of one session as active.py reads it; byte strings in base64. */
export interface SessionDump {
  localIp: string;
  localPort: number;
  peerIp: string;
  peerPort: number;
  sndUna: number;
  unacked: string;
  rcvSeq: number;
  received: string;
  mss: number;
  sndWscale: number | null;
  rcvWscale: number | null;
  sackPermitted: boolean;
  timestamp: number | null;
  /** The five numbers of struct tcp_repair_window. */
  window: number[];
  /** TCP MD5 key as text. */
  md5: string | null;
  /** Stream offsets from which the standby's application reads and writes. */
  readOffset: number;
  writeOffset: number;
}

const period = 65521;
const table = Buffer.from(
  Array.from({ length: 3 * period }, (_, index) => {
    const at = index % period;
    return (7 * at + Math.floor(at / 251)) & 255;
  }),
);

/** The stream's bytes from an offset on; the same formula is in active.py and peer.py. At most 131,042 bytes: Node.js reads 65,536 at once. */
export function pattern(offset: number, length: number): Buffer {
  const start = offset % period;
  return table.subarray(start, start + length);
}
