// What the kernel can do, asked by doing it: the real objects are loaded, the real programs attached, a socket is
// restored. Nothing of it stays.
import { execFileSync } from "node:child_process";
import { existsSync, statfsSync } from "node:fs";
import path from "node:path";
import { type BpfObject, type NativeError, native } from "../../addon/native.js";
import type { Config } from "../config/schema.js";
import { errnoOf, sentenceOf, TandemError } from "../errors.js";
import { missingCapabilities } from "../net/capabilities.js";
import { objectDirectory } from "../net/dataplane.js";
import { type Finding, found, ok } from "./finding.js";

const bpfFsMagic = 0xcafe4a11; // include/uapi/linux/magic.h
/** Useful, not needed (include/uapi/linux/capability.h). */
const useful = [
  { bit: 14n, name: "CAP_IPC_LOCK", what: "its memory is not locked: under memory pressure a heartbeat may come late" },
  { bit: 19n, name: "CAP_SYS_PTRACE", what: "sockets of programs that know nothing of Tandem cannot be joined" },
  { bit: 23n, name: "CAP_SYS_NICE", what: "it cannot raise its priority: a busy machine makes takeovers slower" },
];

export function checkCapabilities(): Finding[] {
  const { effective } = native.capabilities();
  const missing = missingCapabilities(effective);
  const unit = (names: string): string =>
    `In the systemd unit: AmbientCapabilities=${names} and CapabilityBoundingSet=${names}; or run it as root`;
  return [
    missing.length === 0
      ? ok("capabilities", "All needed capabilities are there.")
      : found("problem", "capabilities", `${missing.join(", ")} are missing.`, unit(missing.join(" "))),
    ...useful
      .filter(({ bit }) => (effective & (1n << bit)) === 0n)
      .map(({ name, what }) => found("warning", "capabilities", `Without ${name} ${what}.`, unit(name))),
  ];
}

export function checkBpfFileSystem(config: Config): Finding[] {
  let there = config.paths.bpf;
  while (!existsSync(there)) there = path.dirname(there);
  return statfsSync(there).type === bpfFsMagic
    ? [ok("bpffs", `${config.paths.bpf} is on a BPF file system.`)]
    : [found("problem", "bpffs", `${config.paths.bpf} is not on a BPF file system.`, "mount -t bpf bpf /sys/fs/bpf")];
}

/** Runs `use` with the programs of all objects, loaded as the agent loads them, and lets go of them. */
export function withPrograms(config: Config, use: (programs: ReadonlyMap<string, number>) => Finding[]): Finding[] {
  const objects: BpfObject[] = [];
  const programs = new Map<string, number>();
  const reuse: Record<string, number> = {};
  const cookie = Buffer.alloc(8);
  cookie.writeBigUInt64LE(native.netnsCookie());
  let name = "";
  try {
    const directory = objectDirectory();
    for (name of ["mirror", "uplink", "witness", "snapshot"]) {
      const object = native.bpfLoad(path.join(directory, `${name}.bpf.o`), {
        rodata: name === "witness" ? { netns_cookie: cookie } : {},
        reuse,
        maxEntries: name === "mirror" ? { records: config.recorder.ringBytes } : {},
      });
      objects.push(object);
      for (const [map, info] of Object.entries(object.maps)) if (!map.includes(".")) reuse[map] ??= info.fd;
      for (const [program, { fd }] of Object.entries(object.programs)) programs.set(program, fd);
    }
    return [ok("bpf", "The kernel loads all BPF objects."), ...use(programs)];
  } catch (error) {
    if (error instanceof TandemError) return [found("problem", "bpf", error.message, error.remedy)];
    const { summary } = error as Partial<NativeError>;
    return [
      found(
        "problem",
        "bpf",
        `The kernel refuses the BPF object ${name}: ${summary ?? sentenceOf(error)}`,
        errnoOf(error) === "EPERM"
          ? "Run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
          : "Use a kernel 6.1 or newer with CONFIG_DEBUG_INFO_BTF=y",
      ),
    ];
  } finally {
    for (const object of objects) object.close();
  }
}

/** The witness: programs at the trace points of TCP. */
export function checkTracing(programs: ReadonlyMap<string, number>): Finding[] {
  const attached = [...programs].filter(([name]) => name.startsWith("witness_"));
  for (const [name, fd] of attached)
    try {
      native.closeFd(native.bpfTracingAttach(fd));
    } catch (error) {
      return [
        found(
          "problem",
          "tracing",
          `The program ${name} cannot be attached: ${sentenceOf(error)}.`,
          "Use a kernel with CONFIG_BPF_EVENTS=y, CONFIG_FTRACE=y and CONFIG_DEBUG_INFO_BTF=y",
        ),
      ];
    }
  return [ok("tracing", "Deaths of sockets and processes can be traced.")];
}

/** A session between two ports of 127.0.0.1 that exists for a moment, and says nothing. */
export function checkRestore(): Finding[] {
  const loopback = Uint8Array.from([127, 0, 0, 1, ...new Array<number>(12).fill(0)]);
  const [result] = native.restore([
    {
      family: 4,
      localIp: loopback,
      peerIp: loopback,
      localPort: 9,
      peerPort: 9,
      sndUna: 1,
      unacked: new Uint8Array(0),
      rcvSeq: 1,
      received: new Uint8Array(0),
      mss: 1000,
      sndWscale: null,
      rcvWscale: null,
      sackPermitted: true,
      timestamp: null,
      window: null,
      options: null,
      md5: null,
    },
  ]);
  if (result && "fd" in result) {
    native.closeFd(result.fd);
    return [ok("tcp-repair", "A TCP session can be restored.")];
  }
  return [
    found(
      "problem",
      "tcp-repair",
      `No TCP session can be restored: ${result ? `${result.step}: ${result.message}` : "no answer"}.`,
      "Run it with CAP_NET_ADMIN, on a kernel with CONFIG_CHECKPOINT_RESTORE=y",
    ),
  ];
}

/** The backstop on the side doors is a table of nftables. */
export function checkNftables(): Finding[] {
  try {
    execFileSync("nft", ["--check", "-f", "-"], {
      input: "table inet tandem_probe {\nchain input { type filter hook input priority -300; policy accept; }\n}\n",
      stdio: ["pipe", "ignore", "pipe"],
    });
    return [ok("nftables", "The backstop on the side doors can be raised.")];
  } catch (error) {
    return errnoOf(error) === "ENOENT"
      ? [found("problem", "nftables", "nft is not installed.", "apt-get install nftables")]
      : [found("problem", "nftables", `nft: ${sentenceOf(error).trim()}.`, "modprobe nf_tables")];
  }
}
