// The typed door to the native addon: what it offers, and a readable error when it cannot be loaded.
// Mechanism is in C++ (one family a file), policy in TypeScript. File descriptors are plain numbers; whoever gets one
// closes it with closeFd. Failures throw NativeError with the errno name in `code`.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { SocketOptions } from "../src/session/socket-options.js";

/** Every function of the addon throws this shape. */
export interface NativeError extends Error {
  /** errno name ("EPERM"), or "BPF_OPEN", "BPF_LOAD". */
  code: string;
  errno: number;
  syscall: string;
  /** BPF_LOAD only: the verifier's last telling lines, joined by newlines. */
  summary?: string;
  /** BPF_LOAD only: the whole log. */
  log?: string;
}

// ── bpf.cc ──────────────────────────────────────────────────────────────────────────────────────────────────────
export interface MapInfo {
  fd: number;
  type: number;
  keySize: number;
  valueSize: number;
  maxEntries: number;
}
export interface ProgramInfo {
  fd: number;
  type: number;
  section: string;
}
export interface LoadOptions {
  /** Bytes that replace the initial value of a `const volatile` global, by its name. */
  rodata?: Record<string, Uint8Array>;
  /** max_entries by map name (a ring buffer: bytes). */
  maxEntries?: Record<string, number>;
  /** Maps to use instead of making new ones (shared between objects), by map name; names the object lacks are passed over. */
  reuse?: Record<string, number>;
  /** Programs not to load, by name. */
  skip?: string[];
}
export interface BpfObject {
  maps: Record<string, MapInfo>;
  programs: Record<string, ProgramInfo>;
  /** Closes all its descriptors; what is pinned or attached stays. */
  close(): void;
}
export interface ProgramStatistics {
  id: number;
  name: string;
  runTimeNs: bigint;
  runCount: bigint;
}
export interface BtfMember {
  name: string;
  offset: number;
  size: number;
}
export interface XdpAttachment {
  /** Program id, 0 if none. */
  programId: number;
  mode: "none" | "native" | "generic" | "offload" | "multi";
}

// ── ring.cc ─────────────────────────────────────────────────────────────────────────────────────────────────────
export interface RingBatch {
  /** Bytes written into the target: records one after another, each padded to 8 bytes, first word below. */
  bytes: number;
  records: number;
  /** Producer minus consumer position after this drain, bytes. */
  backlog: number;
}
export interface Ring {
  /** Copies as many whole samples as fit. Every sample becomes {u32 length, u32 1, length bytes, padding to 8}.
   * With `records` each sample is a td_record, and gets TD_RECORD_CHECKSUM_OK where its TCP checksum is right; inward
   * records that continue one another become one, and the second word says how many segments it stands for. */
  drain(target: Uint8Array): RingBatch;
  /** Producer minus consumer position, bytes. */
  backlog(): number;
  size: number;
  close(): void;
}

// ── restore.cc ──────────────────────────────────────────────────────────────────────────────────────────────────
export interface RestoreSession {
  family: 4 | 6;
  localIp: Uint8Array; // 16 bytes as in td_flow_key
  peerIp: Uint8Array;
  localPort: number; // host order
  peerPort: number;
  /** First unacknowledged output byte, and the bytes from there that were already sent (may be empty). */
  sndUna: number;
  unacked: Uint8Array;
  /** Next input byte the restored TCP expects after `received`: rcv_nxt = rcvSeq + received.length. */
  rcvSeq: number;
  /** Bytes that are in the receive queue already. */
  received: Uint8Array;
  mss: number; // the peer's announced MSS
  /** Both or neither: shift counts. */
  sndWscale: number | null;
  rcvWscale: number | null;
  sackPermitted: boolean;
  /** The value our clock is to continue from (opaque 32 bits), null: timestamps off. */
  timestamp: number | null;
  /** struct tcp_repair_window, in bytes (scaled); null: leave what the kernel chose. */
  window: { sndWl1: number; sndWnd: number; maxWindow: number; rcvWnd: number; rcvWup: number } | null;
  /** What the application had set; null: the defaults. A congestion control that is not there is passed over. */
  options: SocketOptions | null;
  /** TCP MD5 key (RFC 2385), 1 to 80 bytes; null: the session is unsigned. */
  md5: Uint8Array | null;
}
/** A descriptor in repair mode, or the errno name and the step that failed. */
export type RestoreResult = { fd: number } | { code: string; step: string; message: string };

// ── descriptors.cc ──────────────────────────────────────────────────────────────────────────────────────────────
export interface UnixChannel {
  fd: number;
  /** Queues when the socket is full; order is kept. Descriptors travel with the first byte and are duplicated at once:
   * the caller may close its own after this returns. */
  send(data: Uint8Array, fds?: number[]): void;
  /** Bytes queued and not yet in the socket. */
  pending(): number;
  /** Closes after the queue is written (end) or at once (destroy). */
  end(): void;
  destroy(): void;
}
export interface TcpInfo {
  state: number;
  lastAckRecvMs: number;
  unacked: number;
  bytesReceived: bigint;
  bytesAcked: bigint;
  segsIn: number;
  segsOut: number;
  rttUs: number;
  retransmits: number;
  sndMss: number;
  sndWnd: number;
  rcvWnd: number;
  raw: Uint8Array;
}

/** Which connection a descriptor is. IPv4 on an AF_INET6 socket is told as IPv4. */
export interface SocketFacts {
  tcp: boolean;
  mptcp: boolean;
  /** 0: neither. Then the addresses and ports are zero. */
  family: 0 | 4 | 6;
  localIp: Uint8Array; // 16 bytes as in td_flow_key
  localPort: number; // host order
  /** Zero while not connected. */
  peerIp: Uint8Array;
  peerPort: number;
  /** SO_COOKIE. */
  cookie: bigint;
  /** As in /proc/PID/fd: socket:[inode]. */
  inode: number;
  connected: boolean;
}

// ── pulse.cc ────────────────────────────────────────────────────────────────────────────────────────────────────
export interface PulsePath {
  localIp: string;
  partnerIp: string;
  port: number;
  /** Interface to bind to. */
  device: string;
}
export interface PulseOptions {
  /** 0 mirror, 1 uplink. One or two. */
  paths: PulsePath[];
  key: Uint8Array; // 16 bytes
  incarnation: bigint;
  intervalNs: bigint;
  leaseNs: bigint;
  /** JavaScript must call pet() at least this often, or the thread stops sending and granting. */
  petLimitNs: bigint;
  driftPpm: number;
  /** Descriptor of the map "voice". */
  voiceMapFd: number;
}
export interface PulseSay {
  role: number;
  epoch: number;
  flags: number;
}
export interface PulsePartner {
  role: number;
  epoch: number;
  flags: number;
  incarnation: bigint;
  /** Boot clock, when it was received. */
  atNs: bigint;
}
/** From the thread; delivered on the loop of the JavaScript thread that started it. All times are boot clock. */
export type PulseEvent =
  | ({ type: "partner" } & PulsePartner) // role, epoch, flags or incarnation changed, or it is heard again
  | { type: "silent"; lastHeardNs: bigint } // nothing on any path for a lease
  | { type: "path"; path: number; up: boolean } // one path: no answer for a lease, or again (so it carries both ways)
  // lastAnsweredNs: of an answer the partner can have had; not of what was answered after a standstill of ours.
  | { type: "expired"; lastAnsweredNs: bigint; atNs: bigint } // granting: lease × (1 + drift) since the last answer; granting is revoked already
  | { type: "voiceLost"; untilNs: bigint } // voiced: until_ns has passed
  | { type: "petMissed" };
export interface PulseSnapshot {
  granting: boolean;
  voiceUntilNs: bigint;
  lastAnsweredNs: bigint;
  partner: PulsePartner | null;
  paths: { up: boolean; lastHeardNs: bigint; rttNs: bigint; sent: bigint; received: bigint; refused: bigint }[];
  priority: "realtime" | "nice" | "normal";
  memoryLocked: boolean;
}
export interface Pulse {
  /** What heartbeats and answers carry from now on. */
  say(state: PulseSay): void;
  /** Standby: answers from now on carry a grant (only to heartbeats of this epoch from an active); from the first
   * grant given on, expiry is watched for. False revokes; when this returns no further grant can leave. `watch`: expiry
   * is told a lease × (1 + drift) after the last grant, or after this call if none was given; also after a revocation. */
  grant(on: boolean, watch?: boolean): void;
  /** Active in REFLECT: each granted answer sets voice.until_ns to the heartbeat's sending time + lease, if that is
   * later. False: the thread leaves the voice map alone. */
  hold(on: boolean): void;
  pet(): void;
  snapshot(): PulseSnapshot;
  stop(): void;
}

// ── rtnetlink.cc ────────────────────────────────────────────────────────────────────────────────────────────────
export interface LinkInfo {
  ifindex: number;
  name: string;
  mac: Uint8Array; // 6 bytes, empty if none
  mtu: number;
  /** Administratively up; the carrier may be missing. */
  up: boolean;
  /** Up, and somebody is at the other end (IFF_LOWER_UP). */
  carrier: boolean;
  /** Device type of ARPHRD_*: 1 Ethernet, 772 loopback. */
  type: number;
  kind: string; // IFLA_INFO_KIND, "" for a plain device
}
export interface AddressInfo {
  ifindex: number;
  ip: string;
  prefix: number;
}

// ── socket_end.cc ───────────────────────────────────────────────────────────────────────────────────────────────
export interface SocketSelector {
  localIp: string;
  localPort: number;
  peerIp?: string;
  peerPort: number;
}

export interface Native {
  // bpf
  bpfLoad(objectPath: string, options: LoadOptions): BpfObject;
  bpfMapCreate(options: {
    type: number;
    name: string;
    keySize: number;
    valueSize: number;
    maxEntries: number;
    flags?: number;
  }): number;
  /** null: no such key. `valueBytes`: of the answer (per-CPU maps: 8-aligned value × possible CPUs). */
  bpfMapLookup(fd: number, key: Uint8Array, valueBytes: number): Uint8Array | null;
  bpfMapUpdate(fd: number, key: Uint8Array, value: Uint8Array, flags?: number): void;
  /** false: there was none. */
  bpfMapDelete(fd: number, key: Uint8Array): boolean;
  bpfMapKeys(fd: number, keyBytes: number): Uint8Array[];
  /** Takes up to `most` entries out of a hash: key and value, one entry after the other. */
  bpfMapTake(fd: number, most: number): Uint8Array;
  bpfPossibleCpus(): number;
  bpfPin(fd: number, path: string): void;
  bpfGetPinned(path: string): number;
  /** Returns a link descriptor; EBUSY when another program is on the device, EOPNOTSUPP when the driver cannot. */
  bpfXdpAttach(ifindex: number, programFd: number, mode: "native" | "generic"): number;
  bpfXdpQuery(ifindex: number): XdpAttachment;
  bpfLinkUpdate(linkFd: number, programFd: number): void;
  bpfLinkDetach(linkFd: number): void;
  /** A tp_btf program. Returns a link descriptor. */
  bpfTracingAttach(programFd: number): number;
  /** An iterator program. Returns a link descriptor, from which any number of walks start. */
  bpfIteratorAttach(programFd: number): number;
  /** One walk: all that the program wrote (bpf_seq_write). In the caller's network namespace. EFBIG: more than that. */
  bpfIterate(linkFd: number, maxBytes: number): Uint8Array;
  /** clsact, direct action. Replaces what has the same handle and priority; makes the qdisc. */
  bpfTcAttach(ifindex: number, where: "ingress" | "egress", programFd: number, priority: number, handle: number): void;
  bpfTcDetach(ifindex: number, where: "ingress" | "egress", priority: number, handle: number): boolean;
  bpfTestRun(
    programFd: number,
    options: { data?: Uint8Array; context?: Uint8Array; repeat?: number; outBytes?: number },
  ): { retval: number; data: Uint8Array; durationNs: number };
  bpfStatisticsEnable(): number; // descriptor; closing it turns them off again
  bpfProgramStatistics(fd: number): ProgramStatistics;
  bpfProgramIdByFd(fd: number): number;
  /** Struct and enum layouts of a compiled object's BTF. */
  bpfBtf(objectPath: string): {
    structs: Record<string, { size: number; members: BtfMember[] }>;
    enums: Record<string, Record<string, number>>;
  };
  // ring
  ringOpen(mapFd: number, options: { records: boolean }): Ring;
  // restore
  restore(sessions: RestoreSession[]): RestoreResult[];
  /** Leaves repair mode: with a window probe, or silently. Returns an errno name for each, "" for success. */
  restoreRelease(fds: number[], probe: boolean): string[];
  /** Closes one; its peer hears nothing of it. */
  restoreDrop(fd: number): void;
  /** Receives frames (from the Ethernet header on) as if they had come in by the device. Returns how many were taken: not
   * all when its queue is full, or when it is down or gone. */
  injectFrames(ifindex: number, frames: Uint8Array[], mark: number): number;
  // descriptors
  socketPair(): [number, number]; // AF_UNIX, SOCK_STREAM, non-blocking, close-on-exec
  unixListen(path: string, mode: number, onAccept: (fd: number) => void): { close(): void };
  unixConnect(path: string): number;
  unixChannel(
    fd: number,
    handlers: { onData: (data: Uint8Array, fds: number[]) => void; onClose: (error: NativeError | null) => void },
  ): UnixChannel;
  unixPeer(fd: number): { pid: number; uid: number; gid: number };
  /** Non-blocking write; bytes taken, 0 when the socket is full; throws EPIPE and the like. */
  writeSome(fd: number, data: Uint8Array, offset: number, length: number): number;
  closeFd(fd: number): void;
  /** Of a socket that an application is not there for any more: its SO_LINGER would make this thread wait. */
  closeAtOnce(fd: number): void;
  dupFd(fd: number): number;
  tcpSocket(): number; // not connected
  /** The socket `fd` takes the place of whatever is at `old`, non-blocking; `fd` is closed. Nobody may wait for events of
   * `old` (epoll would go on with what it stood for). */
  replaceFd(old: number, fd: number): void;
  /** A duplicate of another process's descriptor. ESRCH, EBADF: it is gone. */
  pidfdGetfd(pid: number, fd: number): number;
  shutdownWrite(fd: number): void;
  setBufferSizes(fd: number, send: number, receive: number): void; // 0: leave
  tcpInfo(fd: number): TcpInfo;
  /** The TSval the socket would send now. */
  tcpTimestamp(fd: number): number;
  /** ENOTSOCK for other descriptors. */
  socketFacts(fd: number): SocketFacts;
  /** What lies unread in the receive queue, at most so many bytes, and stays there; never waits. EBUSY: the application
   * peeks itself, with SO_PEEK_OFF, and ours would move its offset. */
  peekInput(fd: number, max: number): Uint8Array;
  /** Of the kernel's timer interrupt (1 s / HZ), ns: the unit of what it keeps in jiffies. */
  clockTickNs(): number;
  /** Output bytes not yet acknowledged (SIOCOUTQ) and not yet sent (SIOCOUTQNSD). */
  outQueue(fd: number): { unacked: number; unsent: number };
  // pulse
  pulseStart(options: PulseOptions, onEvent: (event: PulseEvent) => void): Pulse;
  bootTimeNs(): bigint;
  // rtnetlink
  links(): LinkInfo[];
  addresses(): AddressInfo[];
  /** EEXIST when it is there. IPv6 addresses are added with IFA_F_NODAD. */
  addressAdd(ifindex: number, ip: string, prefix: number): void;
  addressDelete(ifindex: number, ip: string, prefix: number): void;
  /** null: not known (yet), or there is no such device. */
  neighbour(ifindex: number, ip: string): { mac: Uint8Array; state: number } | null;
  /** null: there is none, as while its device is down. */
  route(
    destination: string,
    source?: string,
  ): { ifindex: number; gateway: string | null; source: string | null } | null;
  netnsCookie(): bigint;
  /** Process-wide capability sets. */
  capabilities(): { effective: bigint };
  // socket_end
  /** Ends the connected TCP sockets of this network namespace that one of these describes (port 0, no peerIp: any), whoever
   * has them. Listeners stay. Returns how many there were. EOPNOTSUPP: a kernel without CONFIG_INET_DIAG_DESTROY. */
  socketsEnd(selectors: SocketSelector[]): number;
  // sd_notify: false when no NOTIFY_SOCKET is set.
  sdNotify(state: string): boolean;
  // spawn
  /** Starts a program (looked for in PATH) with `fd` as its standard input and output, in a session of its own; `fd`
   * blocks from then on. Returns its process number. `environment`: NAME=value. Throws NativeError when it does not run. */
  spawnWith(command: string[], environment: string[], fd: number): number;
  /** Has this child ended? Then it is no zombie any more. */
  reap(pid: number): boolean;
}

const require = createRequire(import.meta.url);

function addonPath(): string {
  // Compiled to build/js/addon/native.js; run from the source tree or from an installed package alike.
  let directory = path.dirname(fileURLToPath(import.meta.url));
  for (let depth = 0; depth < 5; depth++) {
    const candidate = path.join(directory, "addon", "build", "Release", "tandem.node");
    if (existsSync(candidate)) return candidate;
    directory = path.dirname(directory);
  }
  throw Object.assign(new Error("The native addon tandem.node is not built; run `make build`."), {
    code: "ADDON_MISSING",
  });
}

export const native: Native = require(process.env.TANDEM_ADDON ?? addonPath()) as Native;
