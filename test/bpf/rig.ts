// The data plane's objects, loaded and configured straight through the addon, without an agent: what all tests of the
// BPF programs start from.

import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { type BpfObject, native } from "../../addon/native.js";
import * as abi from "../../src/abi.gen.js";
import { parseIp } from "../../src/net/addresses.js";

export const needsRoot = process.getuid?.() === 0 ? false : "needs root";

export const projectRoot = ((): string => {
  const here = path.dirname(fileURLToPath(import.meta.url));
  return here.includes(`${path.sep}build${path.sep}js`)
    ? path.resolve(here, "../../../..")
    : path.resolve(here, "../..");
})();

export const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value >>> 0).buffer);

export type Mode = "fenced" | "reflect" | "solo";
const modes = { fenced: abi.TD_MODE_FENCED, reflect: abi.TD_MODE_REFLECT, solo: abi.TD_MODE_SOLO };
export const forever = 0xffff_ffff_ffff_ffffn;

/** Names of all reasons by number, "DROP_COOKIE" for TD_DROP_COOKIE. */
export const reasonNames = new Map<number, string>(
  Object.entries(abi)
    .filter(([name, value]) => /^TD_(PASS|DROP)_/.test(name) && typeof value === "number")
    .map(([name, value]) => [value as number, name.slice(3)]),
);

export const linkDefaults = {
  cookie: 0x1122334455667788n,
  localIp: "10.78.0.1",
  partnerIp: "10.78.0.2",
  localMac: "02:00:00:00:00:01",
  partnerMac: "02:00:00:00:00:02",
  ifindex: 1,
  recordMax: 1600,
};
export type LinkSetting = typeof linkDefaults;

export const macBytes = (text: string): Uint8Array =>
  Uint8Array.from(text.split(":"), (byte) => Number.parseInt(byte, 16));

export interface RigOptions {
  /** Where the objects are; default build/bpf. */
  objects?: string;
  ringBytes?: number;
  /** Default: none. */
  virtualMac?: string;
}

export class Rig {
  readonly mirror: BpfObject;
  readonly uplink: BpfObject;
  readonly witness: BpfObject;
  private readonly cpus = native.bpfPossibleCpus();

  constructor(options: RigOptions = {}) {
    const directory = options.objects ?? path.join(projectRoot, "build", "bpf");
    const load = (name: string, shared: Record<string, number>, rodata: Record<string, Uint8Array> = {}): BpfObject => {
      return native.bpfLoad(path.join(directory, `${name}.bpf.o`), {
        rodata,
        reuse: shared,
        ...(name === "mirror" ? { maxEntries: { records: options.ringBytes ?? 1 << 20 } } : {}),
      });
    };
    const some = (object: BpfObject, names: string[]): Record<string, number> =>
      Object.fromEntries(names.map((map) => [map, object.maps[map]!.fd]));
    const cookie = new Uint8Array(BigUint64Array.of(native.netnsCookie()).buffer);
    this.mirror = load("mirror", {});
    this.uplink = load(
      "uplink",
      some(this.mirror, ["addresses", "services", "gate", "voice", "link", "counters", "ticks"]),
      options.virtualMac === undefined ? {} : { virtual_mac: macBytes(options.virtualMac) },
    );
    const known = { ...some(this.mirror, ["addresses", "services"]), ...some(this.uplink, ["crash"]) };
    this.witness = load("witness", known, { netns_cookie: cookie });
  }

  map(name: string): number {
    const found = this.mirror.maps[name] ?? this.uplink.maps[name] ?? this.witness.maps[name];
    if (!found) throw new Error(`no map ${name}`);
    return found.fd;
  }

  program(name: string): number {
    const found = this.mirror.programs[name] ?? this.uplink.programs[name] ?? this.witness.programs[name];
    if (!found) throw new Error(`no program ${name}`);
    return found.fd;
  }

  gate(mode: Mode, epoch = 7, quarantineUntilNs = 0n): void {
    const value = Buffer.alloc(abi.sizes.td_gate);
    value.writeUInt32LE(modes[mode], abi.offsets.td_gate.mode);
    value.writeUInt32LE(epoch, abi.offsets.td_gate.epoch);
    value.writeBigUInt64LE(quarantineUntilNs, abi.offsets.td_gate.quarantine_until_ns);
    const fd = native.bpfMapCreate({ type: 2, name: "gate_inner", keySize: 4, valueSize: value.length, maxEntries: 1 });
    native.bpfMapUpdate(fd, u32(0), value);
    native.bpfMapUpdate(this.map("gate"), u32(0), u32(fd));
    native.closeFd(fd);
  }

  voice(untilNs: bigint): void {
    native.bpfMapUpdate(this.map("voice"), u32(0), new Uint8Array(BigUint64Array.of(untilNs).buffer));
  }

  recording(on: boolean): void {
    native.bpfMapUpdate(this.map("recorder"), u32(0), u32(on ? 1 : 0));
  }

  link(setting: Partial<LinkSetting> = {}): void {
    const all = { ...linkDefaults, ...setting };
    const at = abi.offsets.td_link;
    const value = Buffer.alloc(abi.sizes.td_link);
    value.writeBigUInt64LE(all.cookie, at.cookie);
    value.set(parseIp(all.localIp).bytes.subarray(0, 4), at.local_ip);
    value.set(parseIp(all.partnerIp).bytes.subarray(0, 4), at.partner_ip);
    value.set(macBytes(all.localMac), at.local_mac);
    value.set(macBytes(all.partnerMac), at.partner_mac);
    value.writeUInt32LE(all.ifindex, at.ifindex);
    value.writeUInt32LE(all.recordMax, at.record_max);
    native.bpfMapUpdate(this.map("link"), u32(0), value);
    native.bpfMapUpdate(this.map("mirror_dev"), u32(0), u32(all.ifindex));
  }

  uplinkDevice(ifindex: number, index: number): void {
    const value = Buffer.alloc(abi.sizes.td_uplink);
    value.writeUInt32LE(index, abi.offsets.td_uplink.index);
    native.bpfMapUpdate(this.map("uplinks"), u32(ifindex), value);
    native.bpfMapUpdate(this.map("uplink_dev"), u32(index), u32(ifindex));
    native.bpfMapUpdate(this.map("uplink_ifindex"), u32(index), u32(ifindex));
  }

  /** Takes an uplink out again: frames by this device then belong to no uplink. */
  removeUplink(ifindex: number, index: number): void {
    native.bpfMapDelete(this.map("uplinks"), u32(ifindex));
    native.bpfMapDelete(this.map("uplink_dev"), u32(index));
    native.bpfMapUpdate(this.map("uplink_ifindex"), u32(index), u32(0));
  }

  service(address: string, kind: "passive" | "active", port: number, id: number, flags = 0, crashedNs = 0n): void {
    const { family, bytes } = parseIp(address);
    const known = Buffer.alloc(abi.sizes.td_address);
    known.set(bytes, abi.offsets.td_address.ip);
    known.writeUInt32LE(family, abi.offsets.td_address.family);
    native.bpfMapUpdate(this.map("addresses"), known, u32(1));
    const at = abi.offsets.td_service_key;
    const key = Buffer.alloc(abi.sizes.td_service_key);
    key.set(bytes, at.ip);
    key.writeUInt16BE(port, at.port);
    key[at.family] = family;
    key[at.kind] = kind === "passive" ? abi.TD_SERVICE_PASSIVE : abi.TD_SERVICE_ACTIVE;
    const value = Buffer.alloc(abi.sizes.td_service);
    value.writeUInt16LE(id, abi.offsets.td_service.id);
    value.writeUInt16LE(flags, abi.offsets.td_service.flags);
    value.writeBigUInt64LE(crashedNs, abi.offsets.td_service.crashed_ns);
    native.bpfMapUpdate(this.map("services"), key, value);
  }

  verdict(key: Uint8Array, verdicts: number): void {
    const value = Buffer.alloc(abi.sizes.td_verdict_entry);
    value.writeUInt32LE(verdicts, abi.offsets.td_verdict_entry.verdicts);
    native.bpfMapUpdate(this.map("crash"), key, value);
  }

  /** The verdicts kept for a session; 0 when there is no entry. */
  verdictOf(key: Uint8Array): number {
    const value = native.bpfMapLookup(this.map("crash"), key, abi.sizes.td_verdict_entry);
    return value ? Buffer.from(value).readUInt32LE(abi.offsets.td_verdict_entry.verdicts) : 0;
  }

  closed(key: Uint8Array, seq: number, ack: number): void {
    const value = Buffer.alloc(abi.sizes.td_closed);
    value.writeUInt32LE(seq >>> 0, abi.offsets.td_closed.seq);
    value.writeUInt32LE(ack >>> 0, abi.offsets.td_closed.ack);
    native.bpfMapUpdate(this.map("closed"), key, value);
  }

  ahead(key: Uint8Array, end: number): void {
    const value = Buffer.alloc(abi.sizes.td_ahead);
    value.writeUInt32LE(end >>> 0, abi.offsets.td_ahead.end);
    native.bpfMapUpdate(this.map("ahead"), key, value);
  }

  /** What the peer of such a session was heard to say. */
  heardOf(key: Uint8Array): { answers: number; held: number } {
    const value = Buffer.from(native.bpfMapLookup(this.map("ahead"), key, abi.sizes.td_ahead) ?? []);
    const { answers, held } = abi.offsets.td_ahead;
    return { answers: value.readUInt32LE(answers), held: value.readUInt32LE(held) };
  }

  /** Packets by reason, those that are not zero. */
  counters(): Record<string, number> {
    const found: Record<string, number> = {};
    for (const [reason, name] of reasonNames) {
      const bytes = native.bpfMapLookup(this.map("counters"), u32(reason), abi.sizes.td_counter * this.cpus);
      if (!bytes) continue;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      let packets = 0n;
      for (let at = 0; at < bytes.byteLength; at += abi.sizes.td_counter) packets += view.getBigUint64(at, true);
      if (packets > 0n) found[name] = Number(packets);
    }
    return found;
  }

  clearCounters(): void {
    const zero = new Uint8Array(abi.sizes.td_counter * this.cpus);
    for (const reason of reasonNames.keys()) native.bpfMapUpdate(this.map("counters"), u32(reason), zero);
  }

  close(): void {
    for (const object of [this.mirror, this.uplink, this.witness]) object.close();
  }
}

/** td_flow_key. Ports in host order. */
export function flowKey(local: string, localPort: number, peer: string, peerPort: number): Uint8Array {
  const at = abi.offsets.td_flow_key;
  const key = Buffer.alloc(abi.sizes.td_flow_key);
  const { family, bytes } = parseIp(local);
  key.set(bytes, at.local_ip);
  key.set(parseIp(peer).bytes, at.peer_ip);
  key.writeUInt16BE(localPort, at.local_port);
  key.writeUInt16BE(peerPort, at.peer_port);
  key[at.family] = family;
  return key;
}
