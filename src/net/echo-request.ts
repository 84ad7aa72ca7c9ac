// Does any of these hosts answer? ICMP echo (RFC 792, RFC 4443), through the package raw-socket.

import { randomBytes } from "node:crypto";
import net from "node:net";
import rawSocket from "raw-socket";

const icmp = 1;
const icmpv6 = 58;
const types = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
/** Echo requests to one host, evenly over the time there is: one that is lost must not look like a dead host. */
const attempts = 3;
const headerBytes = 8;

type RawSocket = ReturnType<typeof rawSocket.createSocket>;

/** The package holds its own only weakly (see nudge.ts). */
const atWork = new Set<RawSocket>();

/** True as soon as one of the addresses has answered; false when none has for `limitMs`. */
export async function anyAnswers(addresses: readonly string[], limitMs: number): Promise<boolean> {
  const sockets: RawSocket[] = [];
  const timers: NodeJS.Timeout[] = [];
  try {
    return await new Promise<boolean>((resolve, reject) => {
      timers.push(setTimeout(() => resolve(false), limitMs));
      for (const family of [4, 6] as const) {
        const hosts = addresses.filter((address) => net.isIP(address) === family);
        if (hosts.length === 0) continue;
        const socket = rawSocket.createSocket({
          addressFamily: family === 4 ? rawSocket.AddressFamily.IPv4 : rawSocket.AddressFamily.IPv6,
          protocol: family === 4 ? icmp : icmpv6,
        });
        atWork.add(socket);
        sockets.push(socket);
        const secret = randomBytes(16);
        socket.on("error", reject);
        socket.on("message", (message) => {
          // With its header in IPv4 (raw(7)), without in IPv6 (ipv6(7)).
          const start = family === 4 ? ((message[0] ?? 0) & 0xf) * 4 : 0;
          const told = message.subarray(start + headerBytes);
          if (message[start] === types[family].reply && told.equals(secret)) resolve(true);
        });
        const packet = echoRequest(family, secret);
        for (let attempt = 0; attempt < attempts; attempt++)
          timers.push(
            setTimeout(
              () => {
                // A host without a route does not answer; that is all there is to know.
                for (const host of hosts) socket.send(packet, 0, packet.length, host, () => {});
              },
              (attempt * limitMs) / attempts,
            ),
          );
      }
    });
  } finally {
    for (const timer of timers) clearTimeout(timer);
    for (const socket of sockets) {
      socket.close();
      atWork.delete(socket);
    }
  }
}

function echoRequest(family: 4 | 6, data: Buffer): Buffer {
  const packet = Buffer.alloc(headerBytes + data.length);
  packet[0] = types[family].request;
  data.copy(packet, headerBytes);
  // The kernel computes that of ICMPv6, which covers the addresses, too.
  if (family === 4) packet.writeUInt16BE(checksum(packet), 2);
  return packet;
}

/** RFC 1071, of an even number of bytes. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
