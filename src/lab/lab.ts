// The lab: a peer, two routers and their links as network namespaces on one machine. Nothing in it is mocked.
//
//   peer ── lan (a bridge) ──┬── a: up0        a: mir0 ── mirror link ── b: mir0
//                            ├── b: up0
//                            └── host, if the lab has one
//
// The mirror link is a "cable" (one veth pair, the fastest) or a "switch" (a bridge in a namespace of its own), which
// is what can lose, duplicate, reorder and corrupt frames: XDP sends past every hook at the routers' own ends.

import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { exitCodes, TandemError } from "../errors.js";
import { Capture, type CaptureOptions } from "./capture.js";
import { type Impairment, type ImpairmentCounts, Impairments } from "./impair.js";
import {
  inNamespace,
  ipBatch,
  type LabProcess,
  processesIn,
  run,
  type SpawnInNamespace,
  signalAllIn,
  spawnIn,
} from "./namespaces.js";
import { abandoned, claim, release } from "./ownership.js";

export type RouterName = "a" | "b";
/** "host": somebody else on the LAN, where the lab has one: members of a cluster, a gateway that answers pings. */
export type NodeName = "peer" | "host" | "lan" | "mirlan" | RouterName;
/** "peer", "host", "a", "b": that node's cable to the LAN. */
export type LinkName = "peer" | "host" | RouterName | "mirror";
/** Where frames can be impaired: as they leave a bridge. "lan" and "mirror" are all ports of one: every frame between
 * any two nodes, once; "mirror-to-a" and "mirror-to-b" one direction of the mirror link. */
export type ImpairPlace = "lan" | "to-peer" | "to-a" | "to-b" | "mirror" | "mirror-to-a" | "mirror-to-b";

/** Addresses of every lab, without prefix lengths (/24 and /64). The service's are the agent's to add, not the lab's. */
export const addressPlan = {
  service: { v4: "10.77.0.1", v6: "fd77::1" },
  peer: { v4: "10.77.0.10", v6: "fd77::10" },
  host: { v4: "10.77.0.20", v6: "fd77::20" },
  uplink: { a: { v4: "10.77.0.2", v6: "fd77::2" }, b: { v4: "10.77.0.3", v6: "fd77::3" } },
  mirror: { a: "10.78.0.1", b: "10.78.0.2" },
} as const;

/** Device names, the same on both routers. */
export const devices = { uplink: "up0", mirror: "mir0", peer: "eth0", host: "eth0" } as const;

export interface LabOptions {
  /** Up to 12 letters, digits and dashes; default: random. */
  id?: string;
  mirrorMtu?: number;
  uplinkMtu?: number;
  mirror?: "cable" | "switch";
  /** One more node on the LAN. */
  host?: boolean;
}

const routers: readonly RouterName[] = ["a", "b"];
const allNodes: readonly NodeName[] = ["peer", "host", "lan", "mirlan", "a", "b"];
const namespaceOf = (id: string, node: NodeName): string => `tandem-${id}-${node}`;
const bpffs = "/sys/fs/bpf";
const pinsOf = (id: string): string => `${bpffs}/tandem-lab-${id}`;
const directoryOf = (id: string): string => `/run/tandem-lab/${id}`;
/** How long processes may take to die, ms: a namespace lives as long as the last of them. */
const deathLimitMs = 3000;

const living = new Set<Lab>();
let watchingExit = false;

/** Whatever ends this process by its own doing takes its labs along; only SIGKILL leaves them to the next run. */
function watchExit(): void {
  if (watchingExit) return;
  watchingExit = true;
  const destroyAll = (): void => {
    for (const lab of living) lab.destroy();
  };
  process.on("exit", destroyAll);
  for (const [signal, number] of [
    ["SIGINT", 2],
    ["SIGTERM", 15],
    ["SIGHUP", 1],
  ] as const) {
    process.once(signal, () => {
      destroyAll();
      process.exit(128 + number);
    });
  }
}

/** Removes everything a lab of this id may have made. Does nothing when there is nothing. */
function removeAll(id: string): void {
  const namespaces = allNodes.map((node) => namespaceOf(id, node));
  const deadline = performance.now() + deathLimitMs;
  for (const namespace of namespaces) signalAllIn(namespace, "SIGKILL");
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  while (namespaces.some((namespace) => processesIn(namespace).length > 0) && performance.now() < deadline) {
    Atomics.wait(sleeper, 0, 0, 5);
    for (const namespace of namespaces) signalAllIn(namespace, "SIGKILL");
  }
  const existing = namespaces.filter((namespace) => existsSync(`/run/netns/${namespace}`));
  ipBatch(
    null,
    existing.map((namespace) => `netns del ${namespace}`),
  );
  removePins(pinsOf(id));
  rmSync(directoryOf(id), { recursive: true, force: true });
  release(id);
}

/** A BPF file system has no rename into or copy out: unlink what is there, depth first. */
function removePins(directory: string): void {
  if (existsSync(directory)) rmSync(directory, { recursive: true, force: true });
}

/** Removes what killed runs have left. Returns their ids. */
export function sweep(): string[] {
  const ids = abandoned();
  for (const id of ids) removeAll(id);
  return ids;
}

export class Lab {
  readonly id: string;
  /** For files of this lab (state, sockets, captures); removed with it. */
  readonly directory: string;
  /** For BPF pins of this lab; removed with it. */
  readonly pins: string;
  readonly mirror: "cable" | "switch";
  readonly #impairments: Impairments;

  private constructor(id: string, mirror: "cable" | "switch") {
    this.id = id;
    this.mirror = mirror;
    this.directory = directoryOf(id);
    this.pins = pinsOf(id);
    this.#impairments = new Impairments(path.join(this.pins, "impair"));
  }

  /** Builds it, and first removes what killed runs have left. Throws with one sentence when it cannot. */
  static create(options: LabOptions = {}): Lab {
    if (process.getuid?.() !== 0) throw new Error("the lab makes network namespaces: run it as root");
    const id = options.id ?? randomBytes(3).toString("hex");
    if (!/^[a-z0-9-]{1,12}$/.test(id))
      throw new TandemError(
        "USAGE",
        `No lab can have the name ${JSON.stringify(id)}.`,
        "Name it with 1 to 12 lower-case letters, digits and dashes.",
        exitCodes.usage,
      );
    sweep();
    claim(id);
    const lab = new Lab(id, options.mirror ?? "cable");
    watchExit();
    living.add(lab);
    try {
      lab.#build(options);
    } catch (error) {
      lab.destroy();
      throw error;
    }
    return lab;
  }

  namespace(node: NodeName): string {
    return namespaceOf(this.id, node);
  }

  #build({ mirrorMtu = 2000, uplinkMtu = 1500, host = false }: LabOptions): void {
    mkdirSync(this.directory, { recursive: true });
    const absent: NodeName[] = [];
    if (this.mirror !== "switch") absent.push("mirlan");
    if (!host) absent.push("host");
    const nodes = allNodes.filter((node) => !absent.includes(node));
    const ends = nodes.filter((node) => node === "peer" || node === "host");
    const ns = (node: NodeName): string => this.namespace(node);
    ipBatch(
      null,
      nodes.map((node) => `netns add ${ns(node)}`),
    );
    for (const node of nodes) {
      const isRouter = node === "a" || node === "b";
      // Before there are devices, so that they get it from "default". Nothing has to wait for duplicate address
      // detection; addresses outlive a link that goes down, as an administrator would restore them.
      run([
        ...inNamespace(ns(node), ["sysctl", "-q", "-w"]),
        ...["all", "default"].flatMap((which) => [
          `net.ipv6.conf.${which}.accept_dad=0`,
          `net.ipv6.conf.${which}.accept_ra=0`,
          `net.ipv6.conf.${which}.keep_addr_on_down=1`,
          `net.ipv4.conf.${which}.rp_filter=0`,
        ]),
        ...(isRouter ? ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] : []),
      ]);
    }
    const cable = (from: string, fromNode: NodeName, to: string, toNode: NodeName, mtu: number): string =>
      `link add name ${from} mtu ${mtu} netns ${ns(fromNode)} type veth peer name ${to} mtu ${mtu} netns ${ns(toNode)}`;
    const { uplink, mirror } = devices;
    ipBatch(null, [
      ...ends.map((end) => cable(devices[end], end, `${end}0`, "lan", uplinkMtu)),
      ...routers.map((router) => cable(uplink, router, `${router}0`, "lan", uplinkMtu)),
      ...(this.mirror === "cable"
        ? [cable(mirror, "a", mirror, "b", mirrorMtu)]
        : routers.map((router) => cable(mirror, router, `${router}0`, "mirlan", mirrorMtu))),
    ]);
    const bridge = (ports: readonly string[], mtu: number): string[] => [
      `link add br0 mtu ${mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      ...ports.map((port) => `link set ${port} master br0`),
      ...["lo", "br0", ...ports].map((port) => `link set ${port} up`),
    ];
    const lanPorts = [...ends, ...routers].map((node) => `${node}0`);
    const mirrorPorts = ["a0", "b0"];
    // Transmit checksums are computed by the sender: XDP forwards a frame as it is, partial checksum and all.
    // GRO at a bridge port gives veth the NAPI ring without which XDP cannot send into its other end.
    for (const end of ends) this.#offload(end, [devices[end]]);
    this.#offload("lan", lanPorts);
    ipBatch(ns("lan"), bridge(lanPorts, uplinkMtu));
    if (this.mirror === "switch") {
      this.#offload("mirlan", mirrorPorts);
      ipBatch(ns("mirlan"), bridge(mirrorPorts, mirrorMtu));
    }
    const address = (device: string, { v4, v6 }: { v4: string; v6: string }): string[] => [
      `addr add ${v4}/24 dev ${device}`,
      `addr add ${v6}/64 dev ${device} nodad`,
    ];
    for (const end of ends)
      ipBatch(ns(end), [...address(devices[end], addressPlan[end]), "link set lo up", `link set ${devices[end]} up`]);
    for (const router of routers) {
      this.#offload(router, [uplink, mirror]);
      // Behind a bridge frames arrive as skbs that a GRO before has called verified, outer headers only; another GRO
      // would believe that of the segment inside. As with a NIC, whose receive checksums have to be off.
      if (this.mirror === "switch") run(inNamespace(ns(router), ["ethtool", "-K", mirror, "gro", "off"]));
      ipBatch(ns(router), [
        ...address(uplink, addressPlan.uplink[router]),
        `addr add ${addressPlan.mirror[router]}/24 dev ${mirror}`,
        "link set lo up",
        `link set ${uplink} up`,
        `link set ${mirror} up`,
      ]);
      // A queue as every NIC has one: without it veth drops what its ring of 256 frames has no room for.
      run(inNamespace(ns(router), ["tc", "qdisc", "add", "dev", mirror, "root", "pfifo", "limit", "1000"]));
    }
    if (existsSync(bpffs)) mkdirSync(this.pins, { recursive: true });
  }

  #offload(node: NodeName, names: readonly string[]): void {
    const commands = names.map((name) => `ethtool -K ${name} tx off gro on >/dev/null`);
    run(inNamespace(this.namespace(node), ["sh", "-ec", commands.join("\n")]));
  }

  /** Starts a program there. It ends with the lab; a router's programs also with kill(). */
  spawn(node: NodeName, argv: readonly string[], options: SpawnInNamespace = {}): LabProcess {
    return spawnIn(this.namespace(node), argv, options);
  }

  /** Runs a program there to its end and gives its standard output; throws when it fails. */
  run(node: NodeName, argv: readonly string[], input?: string): string {
    return run(inNamespace(this.namespace(node), argv), input);
  }

  /** The router dies: SIGKILL to all its processes at once, then its links go down. Returns how many processes it had,
   * and when the first one got it (monotonic clock). */
  kill(router: RouterName): { processes: number; atMs: number } {
    const killed = signalAllIn(this.namespace(router), "SIGKILL");
    const { uplink, mirror } = devices;
    ipBatch(this.namespace(router), [`link set ${uplink} down`, `link set ${mirror} down`]);
    return killed;
  }

  /** After kill(): the links of the router come up again, with their addresses; its programs are the caller's. */
  repower(router: RouterName): void {
    const { uplink, mirror } = devices;
    ipBatch(this.namespace(router), [`link set ${uplink} up`, `link set ${mirror} up`]);
  }

  /** The router's programs stand still; its kernel, and so its BPF programs and its TCP, goes on. */
  freeze(router: RouterName): void {
    signalAllIn(this.namespace(router), "SIGSTOP");
  }

  thaw(router: RouterName): void {
    signalAllIn(this.namespace(router), "SIGCONT");
  }

  /** Pulls the cable: both ends lose their carrier. */
  cut(link: LinkName): void {
    this.#setLink(link, "down");
  }

  heal(link: LinkName): void {
    this.#setLink(link, "up");
  }

  #setLink(link: LinkName, state: "up" | "down"): void {
    for (const { node, device } of this.#middle(link)) {
      ipBatch(this.namespace(node), [`link set ${device} ${state}`]);
    }
  }

  /** Where a link can be cut without touching a router; a mirror cable has no middle, so router b's end is used. */
  #middle(link: LinkName): { node: NodeName; device: string }[] {
    if (link !== "mirror") return [{ node: "lan", device: `${link}0` }];
    if (this.mirror === "cable") return [{ node: "b", device: devices.mirror }];
    return routers.map((router) => ({ node: "mirlan", device: `${router}0` }));
  }

  /** From now on frames are lost and so on; what is not named is off, and {} turns all off. Throws ImpairUnavailable
   * where the kernel or the build lacks what it takes. */
  impair(place: ImpairPlace, impairment: Impairment): void {
    for (const { node, device } of this.#ports(place)) this.#impairments.set(this.namespace(node), device, impairment);
  }

  /** What impair() has done there since it was called, both directions together. */
  impaired(place: ImpairPlace): ImpairmentCounts {
    const counts = this.#ports(place).map(({ node, device }) => this.#impairments.counts(this.namespace(node), device));
    const sum = (member: keyof ImpairmentCounts): number => counts.reduce((total, each) => total + each[member], 0);
    return {
      seen: sum("seen"),
      lost: sum("lost"),
      duplicated: sum("duplicated"),
      reordered: sum("reordered"),
      corrupted: sum("corrupted"),
    };
  }

  #ports(place: ImpairPlace): { node: NodeName; device: string }[] {
    if (place.startsWith("mirror")) {
      if (this.mirror === "cable")
        throw new Error('a mirror cable cannot be impaired; create the lab with mirror: "switch"');
      const ports = this.#middle("mirror");
      return place === "mirror"
        ? ports
        : ports.filter(({ device }) => device === `${place.slice("mirror-to-".length)}0`);
    }
    const nodes = place === "lan" ? (["peer", "a", "b"] as const) : [place.slice("to-".length)];
    return nodes.map((node) => ({ node: "lan", device: `${node}0` }));
  }

  /** Captures with the npm package cap, in the namespace; resolves when the capture is running. */
  capture(node: NodeName, device: string, options: CaptureOptions = {}): Promise<Capture> {
    return Capture.start(this.namespace(node), device, options);
  }

  /** Ends everything that runs in the lab and removes all of it. Again: does nothing. */
  destroy(): void {
    if (!living.delete(this)) return;
    removeAll(this.id);
  }
}

/** Names of everything that labs of this id have on the machine now; what a test of cleanliness wants empty. */
export function remains(id: string): string[] {
  const namespaces = allNodes.map((node) => namespaceOf(id, node));
  const list = (directory: string): string[] => (existsSync(directory) ? readdirSync(directory) : []);
  return [
    ...list("/run/netns").filter((name) => namespaces.includes(name)),
    ...namespaces.flatMap((namespace) => processesIn(namespace).map((pid) => `process ${pid}`)),
    ...list(bpffs).filter((name) => name === path.basename(pinsOf(id))),
    ...list("/run/tandem-lab").filter((name) => name === id || name === `${id}.json`),
  ];
}
