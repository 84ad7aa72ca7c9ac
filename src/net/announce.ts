// Tells the neighbours where a service address lives now: gratuitous ARP (RFC 5227, section 3) and unsolicited
// neighbour advertisements (RFC 4861, section 7.2.6), sent through the package cap, repeated. And asks who has one,
// claiming nothing: ARP probes (RFC 5227, section 2.1.1) and solicitations without a source (RFC 4862, section 5.4.2).
import cap from "cap";
import { native } from "../../addon/native.js";
import { parseIp } from "./addresses.js";
import { expedited } from "./expedited.js";

/** When the announcements are repeated, ms after the first: past the longest queue drain time on the LAN. */
const repeatMs = [20, 100, 500, 1500, 4000];

/** A filter that lets nothing through that exists. */
const noFrame = "ether proto 0x88b6 and ether src 00:00:00:00:00:00";
const leastBuffer = 1 << 16;
/** Kept for ever, some hundred bytes each: the package leaves its poll in the event loop, wherever its memory has gone. */
const used: InstanceType<typeof cap.Cap>[] = [];

const broadcast = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
const allNodes = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
const solicitation = 135;
const advertisement = 136;
const noOption = new Uint8Array(0);

/** A gratuitous ARP request: sender and target are both the announced address. 42 bytes. */
export function gratuitousArp(mac: Uint8Array, ip: Uint8Array): Buffer {
  const frame = arpProbe(mac, ip);
  frame.set(ip.subarray(0, 4), 28);
  return frame;
}

/** An ARP request whose sender has no address. 42 bytes. */
export function arpProbe(mac: Uint8Array, ip: Uint8Array): Buffer {
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
  frame.set(ip.subarray(0, 4), 38);
  return frame;
}

/** An unsolicited neighbour advertisement with the override flag. 86 bytes. */
export function unsolicitedAdvertisement(mac: Uint8Array, ip: Uint8Array): Buffer {
  const frame = neighbourMessage(advertisement, ip, Buffer.from([2, 1, ...mac])); // option: target link-layer address
  frame.set(allNodes, 0);
  frame.set(mac, 6);
  frame.set(ip, 22);
  frame.set([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 38);
  frame[58] = 0x20; // override
  return withChecksum(frame);
}

/** A solicitation as for duplicate address detection: no source, to the solicited-node multicast address. 78 bytes. */
export function neighbourProbe(mac: Uint8Array, ip: Uint8Array): Buffer {
  const frame = neighbourMessage(solicitation, ip, noOption);
  frame.set([0x33, 0x33, 0xff, ...ip.subarray(13, 16)], 0);
  frame.set(mac, 6);
  frame.set([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...ip.subarray(13, 16)], 38);
  return withChecksum(frame);
}

/** RFC 4861, sections 4.3 and 4.4, without addresses and checksum. */
function neighbourMessage(type: number, target: Uint8Array, option: Uint8Array): Buffer {
  const frame = Buffer.alloc(78 + option.length);
  frame.writeUInt16BE(0x86dd, 12);
  frame.writeUInt32BE(0x6000_0000, 14);
  frame.writeUInt16BE(24 + option.length, 18); // payload
  frame[20] = 58; // ICMPv6
  frame[21] = 255; // section 7.1: a smaller hop limit is refused
  frame[54] = type;
  frame.set(target, 62);
  frame.set(option, 78);
  return frame;
}

/** Over the pseudo-header of RFC 8200, section 8.1, and the message. */
function withChecksum(frame: Buffer): Buffer {
  let sum = frame.length - 54 + 58;
  for (let at = 22; at < frame.length; at += 2) sum += frame.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  frame.writeUInt16BE(~sum & 0xffff, 56);
  return frame;
}

/** One uplink's announcer. A capture (package cap) is open only while it sends: one that is open sees every packet of the
 * device, keeps it promiscuous, and aborts the process when somebody sets the device down. */
export class Announcer {
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly announcements: Buffer[];
  private readonly probes: Buffer[];

  constructor(
    private readonly device: string,
    mac: Uint8Array,
    addresses: string[],
  ) {
    const parsed = addresses.map(parseIp);
    this.announcements = parsed.map(({ family, bytes }) =>
      family === 4 ? gratuitousArp(mac, bytes) : unsolicitedAdvertisement(mac, bytes),
    );
    this.probes = parsed.map(({ family, bytes }) => (family === 4 ? arpProbe(mac, bytes) : neighbourProbe(mac, bytes)));
  }

  /** Announces now and some times again; a second call starts anew. */
  announce(): void {
    this.silence();
    this.send(this.announcements);
    for (const delay of repeatMs) {
      const timer = setTimeout(() => {
        this.timers.delete(timer);
        this.send(this.announcements);
      }, delay);
      this.timers.add(timer);
    }
  }

  /** Asks once who has the addresses; the data plane hears the answers (map "claims"). Also while this router is fenced. */
  probe(): void {
    this.send(this.probes);
  }

  /** No repetition may follow once the voice is lost. */
  silence(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
  }

  private send(frames: readonly Buffer[]): void {
    // While the device is down nothing is to be said, or will be said again.
    if (!native.links().some(({ name, up }) => name === this.device && up)) return;
    // In one go: the event loop must not come to look at the capture.
    expedited(() => {
      const sender = new cap.Cap();
      used.push(sender);
      try {
        sender.open(this.device, noFrame, leastBuffer, Buffer.alloc(64));
      } catch {
        return; // the device has gone at this very moment
      }
      for (const frame of frames) {
        try {
          sender.send(frame, frame.length);
        } catch {
          // The gate has closed meanwhile (the kernel says ENOBUFS for what it drops at egress).
        }
      }
      sender.close();
    });
  }
}
