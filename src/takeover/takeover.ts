// The takeover: an ordered plan with a clock on each step.
//
//   detect → fence → drain → restore → announce → release → nudge
//
// detect    the last grant has run out, and JavaScript has heard of it
// fence     the old epoch is refused, and no CPU works with the old gate any more
// drain     the recorder takes what is left in the ring and fixes where each input ends
// restore   every ready session becomes a socket in repair mode, behind the closed gate
// announce  the gate opens, and the neighbours learn where the addresses live now
// release   the sockets leave repair mode, the injector tells them what options cannot, applications get them
// nudge     what the peers have not acknowledged is sent again at once: a restored socket alone would wait seconds

import { native } from "../../addon/native.js";
import { offsets } from "../abi.gen.js";
import type { AppServer } from "../app/server.js";
import type { Config } from "../config/schema.js";
import type { Announcer } from "../net/announce.js";
import type { DataPlane } from "../net/dataplane.js";
import { type IpPacket, sendPackets } from "../net/nudge.js";
import type { RecorderClient } from "../recorder/client.js";
import type { LostSession, TakenSession } from "../recorder/messages.js";
import { readKey } from "../session/flow-key.js";
import { buildPacket, buildUnacked, TCP_ACK, TCP_RST } from "../session/segment.js";

export const takeoverSteps = ["detect", "fence", "drain", "restore", "announce", "release", "nudge"] as const;
export type TakeoverStep = (typeof takeoverSteps)[number];

export interface TakeoverReport {
  cause: string;
  epoch: number;
  /** Milliseconds by step. */
  stepsMs: Record<TakeoverStep, number>;
  totalMs: number;
  sessions: number;
  halfOpen: number;
  lost: { count: number; reasons: Record<string, number> };
  /** Packets sent in the nudge step. */
  nudged: number;
  /** Handed to an application; the others had none any more and were closed. */
  handedOver: number;
}

export interface TakeoverParts {
  config: Config;
  dataPlane: DataPlane;
  recorder: RecorderClient;
  applications: AppServer;
  announcers: Announcer[];
  /** Puts the new epoch on disk. */
  store: () => void;
  /** Takes the half-open sessions, to hand them over once their peer has answered. */
  awaitHandshake: (sessions: TakenSession[]) => void;
}

/** Frames of the injector need some sender; the stack answers the route's next hop, not this. */
const injectorMac = Uint8Array.of(0x02, 0x7a, 0x11, 0, 0, 1);

const noBytes = new Uint8Array(0);

/** `detectedFromNs`: boot clock of the last heartbeat that was answered. The lease has run out by now. */
export async function takeOver(
  parts: TakeoverParts,
  cause: string,
  epoch: number,
  detectedFromNs: bigint,
): Promise<TakeoverReport> {
  const { config, dataPlane, recorder, applications, announcers } = parts;
  const stepsMs = {} as Record<TakeoverStep, number>;
  let last = detectedFromNs;
  const done = (step: TakeoverStep, at = native.bootTimeNs()) => {
    stepsMs[step] = Number(at - last) / 1e6;
    last = at;
  };
  done("detect");

  dataPlane.setGate("fenced", epoch);
  dataPlane.setRecording(false);
  done("fence");

  const restoring = recorder.takeover();
  // The disk is waited for while the recorder's thread restores, and before the gate can open.
  parts.store();
  const report = await restoring;
  done("drain", last + BigInt(Math.round(report.drainNs)));
  done("restore");

  dataPlane.rememberClosed(report.closed);
  dataPlane.rememberAhead(report.sessions);
  // Counted from the lease, not from now: were this process to stand still here, the old active may go on alone before
  // it moves again.
  dataPlane.setVoice(detectedFromNs + BigInt(config.pair.heartbeat.controllerMs) * 1_000_000n);
  dataPlane.openGate("solo", epoch, native.bootTimeNs() + BigInt(config.quarantineMs) * 1_000_000n);
  for (const announcer of announcers) announcer.announce();
  done("announce");

  const established = report.sessions.filter((session) => session.synAck === null);
  const halfOpen = report.sessions.filter((session) => session.synAck !== null);
  native.restoreRelease(
    established.map(({ fd }) => fd),
    true,
  );
  recorder.inject({
    uplinks: dataPlane.uplinks.map(({ link }) => ({ ifindex: link.ifindex, mac: link.mac })),
    peerMac: injectorMac,
  });
  for (const session of established) if (session.outputFin) native.shutdownWrite(session.fd);
  // What is still unacknowledged is looked at before an application can add to it.
  const nudges = established.flatMap(unacknowledged);
  let handedOver = 0;
  for (const session of established) if (handOver(applications, session)) handedOver++;
  done("release");

  const resets = report.lost.flatMap((session) =>
    config.services[session.service]?.lost === "reset" ? resetsOf(session) : [],
  );
  const sent = await sendPackets([...nudges, ...resets]);
  parts.awaitHandshake(halfOpen);
  done("nudge");

  const reasons: Record<string, number> = {};
  for (const { reasons: names } of report.lost) for (const name of names) reasons[name] = (reasons[name] ?? 0) + 1;
  return {
    cause,
    epoch,
    stepsMs,
    totalMs: takeoverSteps.reduce((sum, step) => sum + stepsMs[step], 0),
    sessions: established.length,
    halfOpen: halfOpen.length,
    lost: { count: report.lost.length, reasons },
    nudged: sent.sent,
    handedOver,
  };
}

/** False: no application took it; the socket is closed, which the peer sees as a meant end. */
export function handOver(applications: AppServer, session: TakenSession): boolean {
  const { id, fd, inputOffset, outputOffset } = session;
  if (applications.takeover(id, { inputOffset, outputOffset }, fd)) return true;
  native.closeFd(fd);
  return false;
}

/** The packets of a session's output that its peer has not acknowledged; answers to the window probe count already. */
function unacknowledged(session: TakenSession): IpPacket[] {
  const { unacked, outputFin } = session;
  if (unacked === null) return [];
  const queued = unacked.bytes.length + (outputFin ? 1 : 0);
  const left = Math.min(native.outQueue(session.fd).unacked, queued);
  if (left === 0) return [];
  const acked = Math.min(queued - left, unacked.bytes.length);
  const { peerIp, family } = readKey(session.key);
  const timestamps =
    unacked.timestamps === null ? null : { ...unacked.timestamps, value: native.tcpTimestamp(session.fd) };
  return buildUnacked({
    ...unacked,
    seq: (unacked.seq + acked) >>> 0,
    bytes: unacked.bytes.subarray(acked),
    fin: outputFin,
    timestamps,
  }).map((bytes) => ({ family, destination: peerIp, bytes }));
}

/** A lost session's peer is told at once, instead of waiting for a stack that does not know it. */
function resetsOf(session: LostSession): IpPacket[] {
  const { family, peerIp, localPort, peerPort } = readKey(session.key);
  const key = offsets.td_flow_key;
  return session.reset.seqs.map((seq) => ({
    family,
    destination: peerIp,
    bytes: buildPacket({
      family,
      sourceIp: session.key.subarray(key.local_ip, key.local_ip + 16),
      destinationIp: session.key.subarray(key.peer_ip, key.peer_ip + 16),
      sourcePort: localPort,
      destinationPort: peerPort,
      seq,
      ack: session.reset.ack,
      flags: TCP_RST | TCP_ACK,
      window: 0,
      payload: noBytes,
      timestamps: null,
    }),
  }));
}
