// Loss, duplication, reordering and corruption of what leaves by a port of one of the lab's bridges, by a TC program
// of the lab's own (bpf/impair.bpf.c): the kernels this must run on may lack netem. Reordering is HTB's doing.

import { existsSync, mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { memberSizes, offsets, sizes, TD_IMPAIR_PAYLOAD, TD_IMPAIR_TCP } from "../abi.gen.js";
import { inNamespace, run } from "./namespaces.js";

/** Each the share of the matching frames it happens to, 0 to 1. */
export interface Impairment {
  loss?: number;
  duplicate?: number;
  reorder?: number;
  /** One bit is turned; no checksum is mended. */
  corrupt?: number;
  /** Only TCP, also inside the mirror link's Geneve: heartbeats are spared. */
  onlyTcp?: boolean;
  /** Only frames of more than 200 bytes: acknowledgements are spared. */
  onlyLong?: boolean;
  /** The generator's start; the same one gives the same choices to the same frames. */
  seed?: bigint;
}

/** What was done, frames. */
export interface ImpairmentCounts {
  seen: number;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
}

/** Thrown where the kernel or the build lacks what it takes; the message says what. */
export class ImpairUnavailable extends Error {}

type Member = keyof (typeof offsets)["td_impairment"];

/** Linux's default for gro_max_size, bytes. */
const groMaxDefault = 65_536;
/** HTB's class 1:2, see bpf/impair.bpf.c: what is put there is overtaken. */
const slowClass = 0x10002;
const compiled = fileURLToPath(new URL("../../../bpf/impair.bpf.o", import.meta.url));
const bytesAsHex = z.array(z.string().transform((text) => Number.parseInt(text, 16)));
const lookupAnswer = z.object({ value: bytesAsHex });
const linkList = z.array(z.object({ ifname: z.string(), ifindex: z.number() }));

const ppm = (share = 0): number => {
  if (!(share >= 0 && share <= 1)) throw new RangeError(`an impairment is a share from 0 to 1, not ${share}`);
  return Math.round(share * 1_000_000);
};
const hex = (bytes: Uint8Array): string[] => [
  "hex",
  ...Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")),
];

/** The impaired ports of one lab. */
export class Impairments {
  readonly #pins: string;
  readonly #impaired = new Map<string, Set<string>>();

  /** `pins`: a directory of its own on the BPF file system; whoever made the lab removes it. */
  constructor(pins: string) {
    this.#pins = pins;
  }

  /** From now on this, and only this, happens to what leaves by the port. All shares 0: it is as it was before. */
  set(namespace: string, port: string, impairment: Impairment): void {
    const { loss, duplicate, reorder, corrupt } = impairment;
    const rates = {
      loss_ppm: ppm(loss),
      duplicate_ppm: ppm(duplicate),
      reorder_ppm: ppm(reorder),
      corrupt_ppm: ppm(corrupt),
    };
    const off = Object.values(rates).every((rate) => rate === 0);
    const ports = this.#impaired.get(namespace) ?? new Set();
    if (off) {
      if (ports.delete(port)) this.#restore(namespace, port, ports.size === 0);
      return;
    }
    this.#load(namespace);
    const value = Buffer.alloc(sizes.td_impairment);
    const put = (member: Member, number: number): void => {
      value.writeUInt32LE(number, offsets.td_impairment[member]);
    };
    for (const [member, rate] of Object.entries(rates)) put(member as keyof typeof rates, rate);
    put("match", (impairment.onlyTcp ? TD_IMPAIR_TCP : 0) | (impairment.onlyLong ? TD_IMPAIR_PAYLOAD : 0));
    put("slow_priority", slowClass);
    value.writeBigUInt64LE(impairment.seed || 0x7a11d0n, offsets.td_impairment.seed);
    run([
      "bpftool",
      "map",
      "update",
      "pinned",
      this.#map(namespace),
      "key",
      ...this.#key(namespace, port),
      "value",
      ...hex(value),
    ]);
    if (ports.has(port)) return;
    this.#attach(namespace, port);
    this.#impaired.set(namespace, ports.add(port));
  }

  /** Since set() was called for this port. */
  counts(namespace: string, port: string): ImpairmentCounts {
    if (!this.#impaired.get(namespace)?.has(port)) throw new Error(`${port} is not impaired`);
    const argv = [
      "bpftool",
      "-j",
      "map",
      "lookup",
      "pinned",
      this.#map(namespace),
      "key",
      ...this.#key(namespace, port),
    ];
    const value = Buffer.from(lookupAnswer.parse(JSON.parse(run(argv))).value);
    const get = (member: Member): number => {
      if (memberSizes.td_impairment[member] !== 8) throw new Error(`td_impairment.${member} is not 64 bits wide`);
      return Number(value.readBigUInt64LE(offsets.td_impairment[member]));
    };
    return {
      seen: get("seen"),
      lost: get("lost"),
      duplicated: get("duplicated"),
      reordered: get("reordered"),
      corrupted: get("corrupted"),
    };
  }

  // Interface numbers are a namespace's own, and they are the map's keys: one map for each namespace.
  #map(namespace: string): string {
    return path.join(this.#pins, namespace, "impairments");
  }

  #key(namespace: string, port: string): string[] {
    const index = this.#links(namespace).find(({ ifname }) => ifname === port)?.ifindex;
    if (index === undefined) throw new Error(`${namespace} has no ${port}`);
    const key = Buffer.alloc(4);
    key.writeUInt32LE(index);
    return hex(key);
  }

  #links(namespace: string): z.infer<typeof linkList> {
    return linkList.parse(JSON.parse(run(["ip", "-n", namespace, "-j", "link", "show", "type", "veth"])));
  }

  #load(namespace: string): void {
    const directory = path.join(this.#pins, namespace);
    const program = path.join(directory, "tc_impair");
    if (existsSync(program)) return;
    if (!existsSync(compiled)) throw new ImpairUnavailable(`${compiled} is not built: make bpf`);
    try {
      mkdirSync(directory, { recursive: true });
      run(["bpftool", "prog", "load", compiled, program, "type", "classifier", "pinmaps", directory]);
    } catch (error) {
      throw new ImpairUnavailable(`this kernel does not take impair.bpf.o: ${(error as Error).message}`);
    }
  }

  #attach(namespace: string, port: string): void {
    const program = path.join(this.#pins, namespace, "tc_impair");
    // Frames that GRO has merged would be lost by the dozen, and a corrupt one would get a right checksum again.
    this.#mergeUpTo(namespace, 1);
    const commands = [
      `tc qdisc add dev ${port} root handle 1: htb default 1`,
      `tc class add dev ${port} parent 1: classid 1:1 htb rate 10gbit quantum 60000`,
      // No burst: of two frames soon after each other the second waits, 1.2 ms for 1500 bytes, and 20 ms at the most.
      `tc class add dev ${port} parent 1: classid 1:2 htb rate 10mbit burst 1 cburst 1 quantum 1514`,
      `tc qdisc add dev ${port} parent 1:2 pfifo limit 16`,
      `tc qdisc add dev ${port} clsact`,
      `tc filter add dev ${port} egress pref 1 handle 1 bpf object-pinned ${program} direct-action`,
    ];
    try {
      run(inNamespace(namespace, ["sh", "-ec", commands.join("\n")]));
    } catch (error) {
      this.#restore(namespace, port, true);
      throw new ImpairUnavailable(`this kernel lacks HTB or TC's BPF: ${(error as Error).message}`);
    }
  }

  #mergeUpTo(namespace: string, bytes: number): void {
    const lines = this.#links(namespace).map(({ ifname }) => `link set ${ifname} gro_max_size ${bytes}`);
    run(["ip", "-n", namespace, "-batch", "-"], `${lines.join("\n")}\n`);
  }

  #restore(namespace: string, port: string, last: boolean): void {
    run(inNamespace(namespace, ["sh", "-c", `tc qdisc del dev ${port} clsact; tc qdisc del dev ${port} root; true`]));
    if (last) this.#mergeUpTo(namespace, groMaxDefault);
  }
}
