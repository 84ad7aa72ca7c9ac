// The data plane of one router as user space holds it: loads, attaches and pins the BPF programs, fills their maps.
//
// It is pinned so that it outlives the agent: a killed agent's router falls silent by itself when its voice runs out.
// What fails while it is being put up is undone; what was there before (another XDP program, an address) is left.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, statfsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type BpfObject, type LinkInfo, type MapInfo, type NativeError, native } from "../../addon/native.js";
import * as abi from "../abi.gen.js";
import { addressDeviceOf, type Config } from "../config/schema.js";
import { errnoOf, sentenceOf, TandemError } from "../errors.js";
import type { Mode } from "../role/role.js";
import { formatMac, parseIp, parseMac } from "./addresses.js";
import type { Claim } from "./claims.js";
import { expedited } from "./expedited.js";

const mapTypeArray = 2;
const bpfFsMagic = 0xcafe4a11; // include/uapi/linux/magic.h
/** Of our TC filters. */
export const tcPriority = 0x7a11;
const tcHandle = 1;
const backstopTable = "tandem";

const modeNumbers: Record<Mode, number> = {
  fenced: abi.TD_MODE_FENCED,
  reflect: abi.TD_MODE_REFLECT,
  solo: abi.TD_MODE_SOLO,
  yield: abi.TD_MODE_YIELD,
};

export interface Counter {
  reason: number;
  packets: bigint;
  bytes: bigint;
}

export interface UplinkDevice {
  index: number;
  link: LinkInfo;
}

/** The directory of the compiled BPF objects, from the compiled sources or an installed package. */
export function objectDirectory(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  for (let depth = 0; depth < 5; depth++) {
    const candidate = path.join(directory, "build", "bpf");
    if (existsSync(path.join(candidate, "mirror.bpf.o"))) return candidate;
    directory = path.dirname(directory);
  }
  throw new TandemError("BPF_MISSING", "The BPF objects are not built.", "Run `make build`.");
}

export class DataPlane {
  readonly uplinks: UplinkDevice[] = [];
  readonly mirror: LinkInfo;
  /** The longest inner frame that can be reflected, bytes from its Ethernet header on. */
  readonly recordMax: number;

  private readonly objects: BpfObject[] = [];
  private readonly maps: Record<string, MapInfo> = {};
  private readonly pins: string;
  private readonly undo: (() => void)[] = [];
  private readonly addedAddresses: { ifindex: number; ip: string; prefix: number }[] = [];
  /** Service addresses as keys of the data plane's maps. */
  private readonly addressKeys = new Map<string, Uint8Array>();
  private innerGate = -1;
  private partnerMac = new Uint8Array(6);

  /** Throws TandemError; then nothing of it is left. */
  constructor(
    private readonly config: Config,
    private readonly cookie: Uint8Array,
  ) {
    const own = config.pair.routers[config.router];
    this.pins = config.paths.bpf;
    const byName = new Map(native.links().map((link) => [link.name, link]));
    const device = (name: string, key: string): LinkInfo => {
      const link = byName.get(name);
      if (link?.up && link.mac.length === 6) return link;
      throw new TandemError(
        "DEVICE_UNUSABLE",
        link
          ? `The device ${name} (${key}) is down or has no Ethernet address.`
          : `There is no device ${name} (${key}).`,
        link ? `Run: ip link set ${name} up` : "Correct the name in the configuration; `ip link` lists the devices.",
      );
    };
    this.mirror = device(own.mirror.device, "mirror");
    own.uplinks.forEach((uplink, index) => {
      this.uplinks.push({ index, link: device(uplink.device, `uplink ${index}`) });
    });
    this.recordMax = Math.min(this.mirror.mtu - abi.TD_OVERHEAD_IP + 14, abi.TD_FRAME_MAX);
    this.checkMtu();
    this.checkPins();
    try {
      this.load();
      this.fill();
      this.attach();
      this.setGate("fenced", 0);
      this.addAddresses(byName);
      this.raiseBackstop();
    } catch (error) {
      for (const step of this.undo.reverse()) step();
      this.close();
      throw error;
    }
    this.undo.length = 0;
  }

  /** The iterators that src/net/snapshots.ts and src/net/socket-owners.ts run. */
  iterator(name: "snapshot" | "owners"): number {
    return required(this.object("snapshot").programs[name]);
  }

  mapFd(name: string): number {
    const map = this.maps[name];
    if (!map) throw new Error(`the BPF objects have no map ${name}`);
    return map.fd;
  }

  /** Replaces the gate; returns after no CPU acts on the old one any more. */
  setGate(mode: Mode, epoch: number, quarantineUntilNs = 0n): void {
    const inner = native.bpfMapCreate({
      type: mapTypeArray,
      name: "gate_inner",
      keySize: 4,
      valueSize: abi.sizes.td_gate,
      maxEntries: 1,
    });
    native.bpfMapUpdate(inner, word(0), gateBytes(mode, epoch, quarantineUntilNs));
    expedited(() => native.bpfMapUpdate(this.mapFd("gate"), word(0), word(inner)));
    if (this.innerGate >= 0) native.closeFd(this.innerGate);
    this.innerGate = inner;
  }

  /** Opens a closed gate in place: nobody needs to be waited for, since before it nothing passed. */
  openGate(mode: Mode, epoch: number, quarantineUntilNs: bigint): void {
    native.bpfMapUpdate(this.innerGate, word(0), gateBytes(mode, epoch, quarantineUntilNs));
  }

  /** Nanoseconds of the boot clock until which this router may speak. */
  setVoice(untilNs: bigint): void {
    const value = Buffer.alloc(abi.sizes.td_voice);
    value.writeBigUInt64LE(untilNs, 0);
    native.bpfMapUpdate(this.mapFd("voice"), word(0), value);
  }

  setRecording(on: boolean): void {
    native.bpfMapUpdate(this.mapFd("recorder"), word(0), word(on ? 1 : 0));
  }

  /** Looks the partner's link-layer address up again; true when it is known. */
  refreshPartner(): boolean {
    const partner = this.config.pair.routers[this.config.router === "a" ? "b" : "a"].mirror.address;
    const hop = native.route(partner)?.gateway ?? partner;
    const known = native.neighbour(this.mirror.ifindex, hop);
    if (known && known.mac.length === 6 && Buffer.compare(known.mac, this.partnerMac) !== 0) {
      this.partnerMac = Uint8Array.from(known.mac);
      this.writeLink();
    }
    return this.partnerMac.some((byte) => byte !== 0);
  }

  /** Sessions that ended just before a takeover: their late segments are acknowledged instead of reset. */
  rememberClosed(entries: { key: Uint8Array; seq: number; ack: number }[]): void {
    for (const entry of entries) {
      const value = Buffer.alloc(abi.sizes.td_closed);
      value.writeUInt32LE(entry.ack, abi.offsets.td_closed.ack);
      value.writeUInt32LE(entry.seq, abi.offsets.td_closed.seq);
      native.bpfMapUpdate(this.mapFd("closed"), entry.key, value);
    }
  }

  /** Nothing that the socket of this session sends when it is closed reaches its peer: as if its task had died. */
  silence(key: Uint8Array): void {
    const value = Buffer.alloc(abi.sizes.td_verdict_entry);
    value.writeBigUInt64LE(native.bootTimeNs(), abi.offsets.td_verdict_entry.time_ns);
    value.writeUInt32LE(abi.TD_VERDICT_FIN_CRASH | abi.TD_VERDICT_RST_CRASH, abi.offsets.td_verdict_entry.verdicts);
    native.bpfMapUpdate(this.mapFd("crash"), key, value);
  }

  /** The socket of another process that the agent is holding (td_borrowed). */
  noteBorrowed(note: Uint8Array): void {
    native.bpfMapUpdate(this.mapFd("borrowed"), word(0), note);
  }

  /** After a takeover: sessions whose peer may have output that our stack has not sent yet (map "ahead"). */
  rememberAhead(entries: { key: Uint8Array; seq: number }[]): void {
    for (const { key, seq } of entries) {
      const value = Buffer.alloc(abi.sizes.td_ahead);
      value.writeUInt32LE(seq, abi.offsets.td_ahead.end);
      native.bpfMapUpdate(this.mapFd("ahead"), key, value);
    }
  }

  /** What the peer of such a session has said since: how many acknowledgements, and whether one of them named output beyond
   * the gap. Null: the session is forgotten. */
  answersOf(key: Uint8Array): { answers: number; held: boolean } | null {
    const value = native.bpfMapLookup(this.mapFd("ahead"), key, abi.sizes.td_ahead);
    if (value === null) return null;
    const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
    const at = abi.offsets.td_ahead;
    return { answers: view.getUint32(at.answers, true), held: view.getUint32(at.held, true) !== 0 };
  }

  /** The peer of such a session holds nothing ahead. */
  forgetAhead(key: Uint8Array): void {
    native.bpfMapDelete(this.mapFd("ahead"), key);
  }

  /** All counters that are not zero. */
  counters(): Counter[] {
    const found: Counter[] = [];
    const cpus = native.bpfPossibleCpus();
    for (let reason = 0; reason < abi.TD_REASON_MAX; reason++) {
      const bytes = native.bpfMapLookup(this.mapFd("counters"), word(reason), abi.sizes.td_counter * cpus);
      if (bytes === null) continue;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const sum: Counter = { reason, packets: 0n, bytes: 0n };
      for (let at = 0; at < bytes.byteLength; at += abi.sizes.td_counter) {
        sum.packets += view.getBigUint64(at + abi.offsets.td_counter.packets, true);
        sum.bytes += view.getBigUint64(at + abi.offsets.td_counter.bytes, true);
      }
      if (sum.packets > 0n) found.push(sum);
    }
    return found;
  }

  /** Who else was last heard to say that a service address is his. */
  claims(): Claim[] {
    return [...this.addressKeys].flatMap(([address, key]) => {
      const bytes = native.bpfMapLookup(this.mapFd("claims"), key, abi.sizes.td_claim);
      if (bytes === null) return [];
      const claim = Buffer.from(bytes);
      const at = abi.offsets.td_claim;
      const heardNs = claim.readBigUInt64LE(at.heard_ns);
      const mac = claim.subarray(at.mac, at.mac + 6);
      return heardNs === 0n ? [] : [{ address, mac: formatMac(mac), heardNs }];
    });
  }

  programs(): { name: string; fd: number }[] {
    return this.objects.flatMap((object) =>
      Object.entries(object.programs).map(([name, program]) => ({ name, fd: program.fd })),
    );
  }

  /** Lets go of the descriptors; all that is pinned works on. */
  close(): void {
    for (const object of this.objects) object.close();
    if (this.innerGate >= 0) native.closeFd(this.innerGate);
    this.innerGate = -1;
  }

  /** Takes everything down: programs, pins, backstop, and the addresses this run added. */
  remove(): void {
    for (const { ifindex, ip, prefix } of this.addedAddresses) quietly(() => native.addressDelete(ifindex, ip, prefix));
    detach(this.pins, [this.mirror, ...this.uplinks.map((uplink) => uplink.link)], this.config.virtualMac);
    this.close();
  }

  private checkMtu(): void {
    for (const { link } of this.uplinks) {
      const needed = link.mtu + abi.TD_OVERHEAD_IP;
      if (this.mirror.mtu >= needed) continue;
      throw new TandemError(
        "MIRROR_MTU",
        `The mirror link's MTU is ${this.mirror.mtu}, but uplink ${link.name} (MTU ${link.mtu}) needs ${needed}.`,
        `Run on both routers: ip link set ${this.mirror.name} mtu ${needed} (4 more for each VLAN tag on the uplink).`,
      );
    }
  }

  /** Asked in advance: sysfs, where a BPF file system is not mounted, answers mkdir in a way that Node tries for ever. */
  private checkPins(): void {
    let there = this.pins;
    while (!existsSync(there)) there = path.dirname(there);
    if (statfsSync(there).type === bpfFsMagic) return;
    throw new TandemError(
      "BPFFS_MISSING",
      `${this.pins} (paths.bpf) is not on a BPF file system.`,
      "Run: mount -t bpf bpf /sys/fs/bpf, or correct paths.bpf.",
    );
  }

  private load(): void {
    const directory = objectDirectory();
    const cookie = Buffer.alloc(8);
    cookie.writeBigUInt64LE(native.netnsCookie());
    const open = (name: string, rodata: Record<string, Uint8Array> = {}) => {
      const reuse: Record<string, number> = {};
      for (const [map, info] of Object.entries(this.maps)) reuse[map] = info.fd;
      try {
        const object = native.bpfLoad(path.join(directory, `${name}.bpf.o`), {
          rodata,
          reuse,
          maxEntries: name === "mirror" ? { records: this.config.recorder.ringBytes } : {},
        });
        this.objects.push(object);
        for (const [map, info] of Object.entries(object.maps)) if (!map.includes(".")) this.maps[map] ??= info;
        return object;
      } catch (error) {
        const { summary } = error as Partial<NativeError>;
        throw new TandemError(
          "BPF_LOAD",
          `The BPF object ${name} does not load: ${summary ?? sentenceOf(error)}`,
          errnoOf(error) === "EPERM"
            ? "The agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run it as root or through its systemd unit."
            : "The kernel must be 6.1 or newer with BTF (CONFIG_DEBUG_INFO_BTF).",
        );
      }
    };
    open("mirror");
    const { virtualMac } = this.config;
    open("uplink", virtualMac === undefined ? {} : { virtual_mac: parseMac(virtualMac) });
    open("witness", { netns_cookie: cookie });
    open("snapshot");
  }

  private fill(): void {
    this.writeLink();
    const ports = Buffer.alloc(2);
    this.config.services.forEach((service, id) => {
      for (const address of service.addresses) {
        const { family, bytes } = parseIp(address);
        const addressKey = Buffer.alloc(abi.sizes.td_address);
        addressKey.set(bytes, abi.offsets.td_address.ip);
        addressKey.writeUInt32LE(family, abi.offsets.td_address.family);
        native.bpfMapUpdate(this.mapFd("addresses"), addressKey, word(1));
        native.bpfMapUpdate(this.mapFd("claims"), addressKey, new Uint8Array(abi.sizes.td_claim));
        this.addressKeys.set(address, addressKey);
        const key = Buffer.alloc(abi.sizes.td_service_key);
        key.set(bytes, abi.offsets.td_service_key.ip);
        ports.writeUInt16BE(service.port ?? service.remotePort ?? 0);
        key.set(ports, abi.offsets.td_service_key.port);
        key[abi.offsets.td_service_key.family] = family;
        key[abi.offsets.td_service_key.kind] =
          service.port === undefined ? abi.TD_SERVICE_ACTIVE : abi.TD_SERVICE_PASSIVE;
        const value = Buffer.alloc(abi.sizes.td_service);
        value.writeUInt16LE(id, abi.offsets.td_service.id);
        const flags =
          (service.onCrash === "close" ? abi.TD_SERVICE_CRASH_MEANT : 0) |
          (service.exitZeroMeansClose ? abi.TD_SERVICE_EXIT_ZERO_MEANT : 0) |
          (service.mode === "delivered" ? abi.TD_SERVICE_DELIVERED : 0);
        value.writeUInt16LE(flags, abi.offsets.td_service.flags);
        native.bpfMapUpdate(this.mapFd("services"), key, value);
      }
    });
    native.bpfMapUpdate(this.mapFd("mirror_dev"), word(0), word(this.mirror.ifindex));
    for (const { index, link } of this.uplinks) {
      const value = Buffer.alloc(abi.sizes.td_uplink);
      value.writeUInt32LE(index, abi.offsets.td_uplink.index);
      value.set(link.mac, abi.offsets.td_uplink.mac);
      native.bpfMapUpdate(this.mapFd("uplinks"), word(link.ifindex), value);
      native.bpfMapUpdate(this.mapFd("uplink_dev"), word(index), word(link.ifindex));
      native.bpfMapUpdate(this.mapFd("uplink_ifindex"), word(index), word(link.ifindex));
    }
  }

  private writeLink(): void {
    const { a, b } = this.config.pair.routers;
    const [own, partner] = this.config.router === "a" ? [a, b] : [b, a];
    const value = Buffer.alloc(abi.sizes.td_link);
    const at = abi.offsets.td_link;
    value.set(this.cookie, at.cookie);
    value.set(parseIp(own.mirror.address).bytes.subarray(0, 4), at.local_ip);
    value.set(parseIp(partner.mirror.address).bytes.subarray(0, 4), at.partner_ip);
    value.set(this.mirror.mac, at.local_mac);
    value.set(this.partnerMac, at.partner_mac);
    value.writeUInt32LE(this.mirror.ifindex, at.ifindex);
    value.writeUInt32LE(this.recordMax, at.record_max);
    native.bpfMapUpdate(this.mapFd("link"), word(0), value);
  }

  private attach(): void {
    mkdirSync(this.pins, { recursive: true, mode: 0o700 });
    this.undo.push(() =>
      detach(this.pins, [this.mirror, ...this.uplinks.map((uplink) => uplink.link)], this.config.virtualMac),
    );
    // Tracing first: from the first segment on, no death goes unseen.
    for (const [name, program] of Object.entries(this.object("witness").programs))
      this.pinned(`link-${name}`, () => native.bpfTracingAttach(program.fd));
    const generic = this.config.xdp === "generic";
    const uplink = this.object("uplink").programs;
    const mirror = this.object("mirror").programs;
    for (const { link } of this.uplinks) {
      const inward = generic ? uplink.tc_uplink_in_reflect : uplink.tc_uplink_in;
      native.bpfTcAttach(link.ifindex, "ingress", required(inward), tcPriority, tcHandle);
      native.bpfTcAttach(link.ifindex, "egress", required(uplink.tc_uplink_out), tcPriority, tcHandle);
      if (!generic) this.attachXdp(link, required(uplink.xdp_uplink));
      this.acceptVirtualMac(link);
    }
    native.bpfTcAttach(this.mirror.ifindex, "ingress", required(mirror.tc_mirror_in), tcPriority, tcHandle);
    this.attachXdp(this.mirror, required(mirror.xdp_mirror));
  }

  /** Also of a router that is fenced, whose network stack ignores what comes for it: nothing is to be done at a takeover. */
  private acceptVirtualMac(link: LinkInfo): void {
    const { virtualMac } = this.config;
    if (virtualMac === undefined) return;
    try {
      forwardingEntry("replace", virtualMac, link.name);
    } catch (error) {
      throw new TandemError(
        "VIRTUAL_MAC",
        `${link.name} does not take the virtual MAC ${virtualMac}: ${sentenceOf(error).trim()}.`,
        "The device must be able to receive a second address, or all frames (ip link set DEVICE promisc on).",
      );
    }
  }

  /** The pinned link of an earlier run is given the new program: no instant without one. */
  private attachXdp(link: LinkInfo, programFd: number): void {
    const pin = `xdp-${link.name}`;
    const file = path.join(this.pins, pin);
    if (existsSync(file)) {
      const old = native.bpfGetPinned(file);
      try {
        native.bpfLinkUpdate(old, programFd);
        return;
      } catch {
        rmSync(file); // the device it was for is gone
      } finally {
        native.closeFd(old);
      }
    }
    this.pinned(pin, () => {
      try {
        return native.bpfXdpAttach(link.ifindex, programFd, this.config.xdp);
      } catch (error) {
        const code = errnoOf(error);
        if (code === "EBUSY" || code === "EEXIST") {
          const { programId } = native.bpfXdpQuery(link.ifindex);
          throw new TandemError(
            "XDP_BUSY",
            `Another XDP program (id ${programId}) is on ${link.name}.`,
            `See what it is: bpftool prog show id ${programId}. Take it off: ip link set dev ${link.name} xdp off`,
          );
        }
        if (code === "EOPNOTSUPP" || code === "ENOTSUP")
          throw new TandemError(
            "XDP_UNSUPPORTED",
            `The driver of ${link.name} has no native XDP.`,
            "Set `xdp: generic` in the configuration (slower), or use a device whose driver has native XDP.",
          );
        throw new TandemError(
          "XDP_ATTACH",
          `The XDP program cannot be attached to ${link.name} (MTU ${link.mtu}): ${sentenceOf(error)}.`,
          "Native XDP limits the MTU (about 3,500 bytes on most drivers), and LRO must be off: ethtool -K DEVICE lro off",
        );
      }
    });
  }

  private pinned(name: string, attach: () => number): void {
    const file = path.join(this.pins, name);
    const link = attach();
    rmSync(file, { force: true });
    try {
      native.bpfPin(link, file);
    } catch (error) {
      throw new TandemError(
        "BPF_PIN",
        `${file} cannot be pinned: ${sentenceOf(error)}.`,
        "The directory must be on a BPF file system. Run: mount -t bpf bpf /sys/fs/bpf",
      );
    } finally {
      native.closeFd(link);
    }
  }

  private object(name: "mirror" | "uplink" | "witness" | "snapshot"): BpfObject {
    const object = this.objects[["mirror", "uplink", "witness", "snapshot"].indexOf(name)];
    if (!object) throw new Error(`${name} is not loaded`);
    return object;
  }

  private addAddresses(links: Map<string, LinkInfo>): void {
    const name = addressDeviceOf(this.config);
    const device = links.get(name);
    if (!device)
      throw new TandemError(
        "DEVICE_UNUSABLE",
        `There is no device ${name} (addressDevice).`,
        "Name lo or an uplink there.",
      );
    const present = new Set(native.addresses().map((address) => address.ip));
    for (const ip of new Set(this.config.services.flatMap((service) => service.addresses))) {
      const { family, bytes } = parseIp(ip);
      if ([...present].some((other) => Buffer.compare(parseIp(other).bytes, bytes) === 0)) continue;
      const prefix = family === 4 ? 32 : 128;
      native.addressAdd(device.ifindex, ip, prefix);
      this.addedAddresses.push({ ifindex: device.ifindex, ip, prefix });
      this.undo.push(() => quietly(() => native.addressDelete(device.ifindex, ip, prefix)));
    }
  }

  /** Default deny at the side doors: a service's segments use the listed uplinks, or nothing (lo is this host). */
  private raiseBackstop(): void {
    const doors = ["lo", ...this.uplinks.map((uplink) => uplink.link.name)].map((name) => `"${name}"`).join(", ");
    const rules = this.config.services.flatMap((service) =>
      service.addresses.map((address) => {
        const ip = parseIp(address).family === 4 ? "ip" : "ip6";
        const [inward, outward] =
          service.port === undefined
            ? [`tcp sport ${service.remotePort}`, `tcp dport ${service.remotePort}`]
            : [`tcp dport ${service.port}`, `tcp sport ${service.port}`];
        return {
          input: `iifname != { ${doors} } ${ip} daddr ${address} ${inward} counter drop`,
          output: `oifname != { ${doors} } ${ip} saddr ${address} ${outward} counter drop`,
        };
      }),
    );
    const script = [
      `table inet ${backstopTable}`,
      `delete table inet ${backstopTable}`,
      `table inet ${backstopTable} {`,
      "chain input { type filter hook input priority -300; policy accept;",
      ...rules.map((rule) => rule.input),
      "}",
      "chain output { type filter hook output priority 300; policy accept;",
      ...rules.map((rule) => rule.output),
      "}",
      "}",
    ].join("\n");
    try {
      execFileSync("nft", ["-f", "-"], { input: script, stdio: ["pipe", "ignore", "pipe"] });
    } catch (error) {
      throw new TandemError(
        "BACKSTOP",
        `The backstop on the side doors cannot be raised: ${sentenceOf(error).trim()}.`,
        "Install nftables (apt-get install nftables); the kernel needs nf_tables.",
      );
    }
  }
}

/** Takes down what an agent with this configuration left behind. The service addresses stay. */
export function detachDataPlane(config: Config): void {
  const own = config.pair.routers[config.router];
  const names = new Set([own.mirror.device, ...own.uplinks.map((uplink) => uplink.device)]);
  detach(
    config.paths.bpf,
    native.links().filter((link) => names.has(link.name)),
    config.virtualMac,
  );
}

/** Takes down what a data plane with these pins and devices put up, whoever did it. */
function detach(pins: string, links: LinkInfo[], virtualMac: string | undefined): void {
  if (virtualMac !== undefined) for (const { name } of links) quietly(() => forwardingEntry("del", virtualMac, name));
  for (const link of links)
    for (const where of ["ingress", "egress"] as const)
      quietly(() => native.bpfTcDetach(link.ifindex, where, tcPriority, tcHandle));
  quietly(() => {
    for (const name of readdirSync(pins)) {
      // A link that other processes still hold must not stay attached.
      quietly(() => {
        const fd = native.bpfGetPinned(path.join(pins, name));
        try {
          native.bpfLinkDetach(fd);
        } finally {
          native.closeFd(fd);
        }
      });
      rmSync(path.join(pins, name), { force: true });
    }
    rmSync(pins, { recursive: true, force: true });
  });
  quietly(() => {
    execFileSync("nft", ["delete", "table", "inet", backstopTable], { stdio: "ignore" });
  });
}

/** In the device's filter (ndo_dflt_fdb_add, net/core/rtnetlink.c). */
function forwardingEntry(what: "replace" | "del", mac: string, device: string): void {
  const words = ["fdb", what, mac, "dev", device, "self", ...(what === "replace" ? ["permanent"] : [])];
  execFileSync("bridge", words, { stdio: ["ignore", "ignore", "pipe"] });
}

/** What cannot be done there need not be: the thing is gone already, or the machine does not allow it. */
function quietly(step: () => unknown): void {
  try {
    step();
  } catch {
    // Nothing to do about it.
  }
}

function required(program: { fd: number } | undefined): number {
  if (!program) throw new Error("the BPF objects and this program are of different versions");
  return program.fd;
}

function word(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function gateBytes(mode: Mode, epoch: number, quarantineUntilNs: bigint): Uint8Array {
  const bytes = Buffer.alloc(abi.sizes.td_gate);
  bytes.writeUInt32LE(modeNumbers[mode], abi.offsets.td_gate.mode);
  bytes.writeUInt32LE(epoch, abi.offsets.td_gate.epoch);
  bytes.writeBigUInt64LE(quarantineUntilNs, abi.offsets.td_gate.quarantine_until_ns);
  return bytes;
}
