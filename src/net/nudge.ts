// Sends whole IP packets that the agent composed itself: nudges, resets of lost sessions, repeated SYN-ACKs.
// Through the package raw-socket, marked, so that the gate knows them for the agent's own.
import rawSocket from "raw-socket";
import * as abi from "../abi.gen.js";

const solSocket = 1;
const soMark = 36;
/** Sends only, takes the IP header from us, and receives nothing (raw(7)). */
const protocolRaw = 255;

/** Nothing that is sent here is worth holding up a takeover for longer: TCP repeats all of it by itself, later. */
const limitMs = 1000;

export interface IpPacket {
  family: 4 | 6;
  destination: string;
  /** From the IP header on; the kernel fills in an IPv4 header checksum. */
  bytes: Uint8Array;
}

export interface NudgeResult {
  sent: number;
  failed: number;
  firstError: string | null;
}

/** Sockets at work. The package holds its own only weakly: with nothing else pointing there, the garbage collector takes
 * socket, packets and our waiting for them away together, and the promise never settles. */
const atWork = new Set<ReturnType<typeof rawSocket.createSocket>>();

/** Sends them in order; a packet that cannot be sent is counted and skipped. */
export async function sendPackets(packets: IpPacket[]): Promise<NudgeResult> {
  const result: NudgeResult = { sent: 0, failed: 0, firstError: null };
  for (const family of [4, 6] as const) {
    const group = packets.filter((packet) => packet.family === family);
    if (group.length === 0) continue;
    const socket = rawSocket.createSocket({
      addressFamily: family === 4 ? rawSocket.AddressFamily.IPv4 : rawSocket.AddressFamily.IPv6,
      protocol: protocolRaw,
    });
    atWork.add(socket);
    socket.pauseRecv();
    socket.setOption(solSocket, soMark, abi.TD_MARK_OWN);
    let limit: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      limit = setTimeout(resolve, limitMs);
      let left = group.length;
      const done = (error: Error | null) => {
        if (error) {
          result.failed++;
          result.firstError ??= error.message;
        } else result.sent++;
        if (--left === 0) resolve();
      };
      socket.on("error", (error) => {
        result.firstError ??= error.message;
        resolve();
      });
      for (const { bytes, destination } of group)
        socket.send(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0, bytes.length, destination, done);
    });
    clearTimeout(limit);
    socket.close();
    atWork.delete(socket);
  }
  return result;
}
