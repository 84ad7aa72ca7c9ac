// Snapshots of the service's sockets: the numbers of each connected one, read by BPF under its lock (bpf/snapshot.bpf.c),
// so that they belong together, while peer and application notice nothing.

import { native } from "../../addon/native.js";
import * as abi from "../abi.gen.js";
import type { JoinSnapshot } from "../session/join-snapshot.js";

const S = abi.offsets.td_socket;
/** A quarter of a million sockets. */
const maxBytes = 1 << 26;
/** Seconds that the kernel's types cannot exceed, though its ticks may. */
const maxSeconds = 0x7fffffff;

/** BPF_TCP_* of linux/bpf.h. */
const states: Record<number, JoinSnapshot["state"]> = {
  1: "established",
  2: "syn-sent",
  3: "syn-recv",
  4: "fin-wait-1",
  5: "fin-wait-2",
  8: "close-wait",
  9: "last-ack",
  11: "closing",
};

/** struct td_socket, where each field is described. */
export interface SocketSnapshot extends JoinSnapshot {
  /** td_flow_key. */
  key: Uint8Array;
  /** Boot clock. */
  timeNs: bigint;
  cookie: bigint;
  /** As in /proc/PID/fd; 0: no process holds the socket. */
  inode: number;
}

export class Snapshots {
  private readonly link: number;
  private readonly ticksPerSecond = 1e9 / native.clockTickNs();

  /** `program`: DataPlane.iterator("snapshot"). Throws NativeError. */
  constructor(program: number) {
    this.link = native.bpfIteratorAttach(program);
  }

  /** All connected sockets of all services in this network namespace. Throws NativeError: EFBIG beyond 300,000. */
  take(): SocketSnapshot[] {
    const bytes = native.bpfIterate(this.link, maxBytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let devices: Map<number, string> | null = null;
    const deviceName = (ifindex: number): string | null => {
      devices ??= new Map(native.links().map((link) => [link.ifindex, link.name]));
      return devices.get(ifindex) ?? null;
    };
    const snapshots: SocketSnapshot[] = [];
    for (let at = 0; at < bytes.length; at += abi.sizes.td_socket)
      snapshots.push(this.read(bytes, view, at, deviceName));
    return snapshots;
  }

  close(): void {
    native.closeFd(this.link);
  }

  private read(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    deviceName: (ifindex: number) => string | null,
  ): SocketSnapshot {
    const u32 = (offset: number): number => view.getUint32(at + offset, true);
    const u16 = (offset: number): number => view.getUint16(at + offset, true);
    const u8 = (offset: number): number => view.getUint8(at + offset);
    const u64 = (offset: number): number => Number(view.getBigUint64(at + offset, true));
    const flags = u32(S.flags);
    const has = (flag: number): boolean => (flags & flag) !== 0;
    const ifSet = (value: number): number | null => (value === 0 ? null : value);
    const seconds = (ticks: number): number => Math.min(maxSeconds, Math.round(ticks / this.ticksPerSecond));
    const ttl = view.getInt16(at + S.ttl, true);
    const congestion = bytes.subarray(at + S.congestion, at + S.congestion + abi.memberSizes.td_socket.congestion);
    return {
      key: bytes.slice(at + S.key, at + S.key + abi.sizes.td_flow_key),
      timeNs: view.getBigUint64(at + S.time_ns, true),
      cookie: view.getBigUint64(at + S.cookie, true),
      inode: u64(S.inode),
      bytesReceived: u64(S.bytes_received),
      bytesAcked: u64(S.bytes_acked),
      rcvNxt: u32(S.rcv_nxt),
      copiedSeq: u32(S.copied_seq),
      sndUna: u32(S.snd_una),
      sndNxt: u32(S.snd_nxt),
      writeSeq: u32(S.write_seq),
      rcvWup: u32(S.rcv_wup),
      rcvWnd: u32(S.rcv_wnd),
      sndWnd: u32(S.snd_wnd),
      sndWl1: u32(S.snd_wl1),
      maxWindow: u32(S.max_window),
      tsRecent: u32(S.ts_recent),
      tsval: u32(S.tsval),
      mss: u16(S.mss),
      state: states[u8(S.state)] ?? "other",
      sndWscale: u8(S.snd_wscale),
      rcvWscale: u8(S.rcv_wscale),
      flags: {
        sack: has(abi.TD_SOCKET_SACK),
        timestamps: has(abi.TD_SOCKET_TIMESTAMPS),
        wscale: has(abi.TD_SOCKET_WSCALE),
        outOfOrder: has(abi.TD_SOCKET_OUT_OF_ORDER),
        urgent: has(abi.TD_SOCKET_URGENT),
        finReceived: has(abi.TD_SOCKET_FIN_RECEIVED),
        finSent: has(abi.TD_SOCKET_FIN_SENT),
        finAcked: has(abi.TD_SOCKET_FIN_ACKED),
        mptcp: has(abi.TD_SOCKET_MPTCP),
        md5: has(abi.TD_SOCKET_MD5),
      },
      options: {
        ttl: ttl < 0 ? null : ttl,
        minTtl: u8(S.min_ttl),
        tos: u8(S.tos),
        noDelay: has(abi.TD_SOCKET_NODELAY),
        keepAlive: has(abi.TD_SOCKET_KEEPALIVE),
        keepIdle: ifSet(seconds(u32(S.keep_idle))),
        keepInterval: ifSet(seconds(u32(S.keep_interval))),
        keepCount: ifSet(u8(S.keep_count)),
        userTimeout: u32(S.user_timeout),
        congestion: Buffer.from(congestion.subarray(0, congestion.indexOf(0))).toString("latin1"),
        maxSegment: ifSet(u16(S.user_mss)),
        device: u32(S.bound_device) === 0 ? null : deviceName(u32(S.bound_device)),
        // The kernel doubles what it is given.
        sendBuffer: ifSet(u32(S.send_buffer) >>> 1),
        receiveBuffer: ifSet(u32(S.receive_buffer) >>> 1),
        priority: u32(S.priority),
        mark: u32(S.mark),
        linger: has(abi.TD_SOCKET_LINGER) ? seconds(u32(S.linger)) : null,
      },
    };
  }
}
