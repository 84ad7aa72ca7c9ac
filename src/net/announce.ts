// Tells the neighbours where a service address lives now: gratuitous ARP (RFC 5227, section 3) and unsolicited
// neighbour advertisements (RFC 4861, section 7.2.6), sent through the package cap, repeated.
import cap from "cap";
import { parseIp } from "./addresses.js";

/** When the announcements are repeated, ms after the first: past the longest queue drain time on the LAN. */
const repeatMs = [20, 100, 500, 1500, 4000];

const broadcast = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
const allNodes = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);

/** A gratuitous ARP request: sender and target are both the announced address. 42 bytes. */
export function gratuitousArp(mac: Uint8Array, ip: Uint8Array): Buffer {
  const frame = Buffer.alloc(42);
  frame.set(broadcast, 0);
  frame.set(mac, 6);
  frame.writeUInt16BE(0x0806, 12);
  frame.writeUInt16BE(1, 14); // hardware: Ethernet
  frame.writeUInt16BE(0x0800, 16);
  frame[18] = 6;
  frame[19] = 4;
  frame.writeUInt16BE(1, 20); // request: hosts that ignore unasked replies take it, too
  frame.set(mac, 22);
  frame.set(ip.subarray(0, 4), 28);
  frame.set(ip.subarray(0, 4), 38);
  return frame;
}

/** An unsolicited neighbour advertisement with the override flag. 86 bytes. */
export function unsolicitedAdvertisement(mac: Uint8Array, ip: Uint8Array): Buffer {
  const frame = Buffer.alloc(86);
  frame.set(allNodes, 0);
  frame.set(mac, 6);
  frame.writeUInt16BE(0x86dd, 12);
  frame.writeUInt32BE(0x6000_0000, 14);
  frame.writeUInt16BE(32, 18); // payload
  frame[20] = 58; // ICMPv6
  frame[21] = 255; // RFC 4861, section 7.1.2: a smaller hop limit is refused
  frame.set(ip, 22);
  frame.set([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 38);
  frame[54] = 136; // neighbour advertisement
  frame[58] = 0x20; // override
  frame.set(ip, 62);
  frame[78] = 2; // option: target link-layer address
  frame[79] = 1;
  frame.set(mac, 80);
  let sum = 32 + 58;
  for (let at = 22; at < 54; at += 2) sum += frame.readUInt16BE(at);
  for (let at = 54; at < 86; at += 2) sum += frame.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  frame.writeUInt16BE(~sum & 0xffff, 56);
  return frame;
}

/** One uplink's announcer, opened in advance so that a takeover waits for nothing. */
export class Announcer {
  private readonly sender = new cap.Cap();
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly frames: Buffer[];

  constructor(device: string, mac: Uint8Array, addresses: string[]) {
    // The filter lets nothing through that exists: this capture only sends.
    this.sender.open(device, "ether proto 0x88b6 and ether src 00:00:00:00:00:00", 1 << 16, Buffer.alloc(64));
    this.frames = addresses.map((address) => {
      const { family, bytes } = parseIp(address);
      return family === 4 ? gratuitousArp(mac, bytes) : unsolicitedAdvertisement(mac, bytes);
    });
  }

  /** Announces now and some times again; a second call starts anew. */
  announce(): void {
    this.silence();
    this.sendAll();
    for (const delay of repeatMs) {
      const timer = setTimeout(() => {
        this.timers.delete(timer);
        this.sendAll();
      }, delay);
      this.timers.add(timer);
    }
  }

  /** No repetition may follow once the voice is lost. */
  silence(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
  }

  close(): void {
    this.silence();
    this.sender.close();
  }

  private sendAll(): void {
    for (const frame of this.frames) {
      try {
        this.sender.send(frame, frame.length);
      } catch {
        // The gate has closed meanwhile (the kernel says ENOBUFS for what it drops at egress), or the device is down:
        // nothing is to be said, or will be said again.
      }
    }
  }
}
