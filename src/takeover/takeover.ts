// The takeover: an ordered plan with a clock on each step.
//
//   detect → fence → drain → restore → announce → release → nudge
//
// detect    the last grant has run out, or the active has abdicated, and JavaScript has heard of it
// fence     the arbiter agrees, the old epoch is refused, and no CPU works with the old gate any more
// drain     the recorder takes what is left in the ring and fixes where each input ends
// restore   every ready session becomes a socket in repair mode, behind the closed gate
// announce  the gate opens, and the neighbours learn where the addresses live now
// release   what became of each session is told; the sockets leave repair mode, the injector tells them what options cannot, applications get them
// nudge     what the peers have not acknowledged is sent again at once: a restored socket alone would wait seconds

import { native } from "../../addon/native.js";
import { offsets } from "../abi.gen.js";
import type { Config } from "../config/schema.js";
import type { Announcer } from "../net/announce.js";
import type { DataPlane } from "../net/dataplane.js";
import { type IpPacket, sendPackets } from "../net/nudge.js";
import type { RecorderClient } from "../recorder/client.js";
import type { LostSession, TakenSession } from "../recorder/messages.js";
import { readKey } from "../session/flow-key.js";
import { buildPacket, buildUnacked, TCP_ACK, TCP_RST } from "../session/segment.js";
import { gapQuestion } from "./gaps.js";
import { handshakeQuestion } from "./handshakes.js";
import type { Question } from "./peer-questions.js";
import { type TakeoverReport, type TakeoverStep, takeoverSteps } from "./report.js";

export interface TakeoverParts {
  config: Config;
  dataPlane: DataPlane;
  recorder: RecorderClient;
  /** Gives the connection to its application; false: none takes it. */
  give: (session: TakenSession) => boolean;
  /** What is given in `action` leaves together. */
  together: (action: () => void) => void;
  announcers: Announcer[];
  /** The old active says nothing from now on. Must not take long. */
  fenced: () => void;
  /** Before-hooks; resolves soon whatever they do. */
  before: (step: "fence" | "announce" | "nudge") => Promise<void>;
  /** Puts the new epoch on disk. */
  store: () => void;
  /** Of sessions that go on only if their peer says so. */
  ask: (questions: Question[]) => void;
  /** A session that was half-open goes on: tells its application, before it is given. */
  offer: (session: TakenSession) => void;
  /** A session that waited for an answer is lost. */
  lost: (session: LostSession) => void;
}

export { type TakeoverReport, type TakeoverStep, takeoverSteps };

/** Frames of the injector need some sender; the stack answers the route's next hop, not this. */
const injectorMac = Uint8Array.of(0x02, 0x7a, 0x11, 0, 0, 1);

const noBytes = new Uint8Array(0);

/** Instants of the boot clock. */
export interface TakeoverClock {
  /** The last heartbeat that was answered, whose lease has run out by now; or when this router was prepared for a
   * hand-over, and the active has fenced itself by now. */
  sinceNs: bigint;
  /** When it was known, and the arbiter was asked, which has agreed by now. */
  detectedNs: bigint;
  /** Until when the gate may let anything out without a renewal. */
  voiceUntilNs: bigint;
}

export async function takeOver(
  parts: TakeoverParts,
  cause: string,
  epoch: number,
  { sinceNs, detectedNs, voiceUntilNs }: TakeoverClock,
): Promise<TakeoverReport> {
  const { config, dataPlane, recorder, announcers } = parts;
  const stepsMs = {} as Record<TakeoverStep, number>;
  let last = sinceNs;
  const done = (step: TakeoverStep, at = native.bootTimeNs()) => {
    stepsMs[step] = Number(at - last) / 1e6;
    last = at;
  };
  done("detect", detectedNs);

  await parts.before("fence");
  // Recording goes on for what an active that has abdicated still forwards; all else of the old epoch is refused.
  dataPlane.setGate("fenced", epoch);
  done("fence");

  const taking = recorder.takeover();
  parts.fenced();
  // The disk is waited for while the recorder's thread restores, and before the gate can open.
  parts.store();
  const { closed, ahead, drainNs } = await taking.restored;
  done("drain", last + BigInt(Math.round(drainNs)));
  done("restore");

  await parts.before("announce");
  dataPlane.rememberClosed(closed);
  dataPlane.rememberAhead(ahead);
  dataPlane.setVoice(voiceUntilNs);
  dataPlane.openGate("solo", epoch, native.bootTimeNs() + BigInt(config.quarantineMs) * 1_000_000n);
  dataPlane.setRecording(false);
  for (const announcer of announcers) announcer.announce();
  done("announce");

  const report = await taking.report;
  const established = report.sessions.filter((session) => session.synAck === null);
  const halfOpen = report.sessions.filter((session) => session.synAck !== null);
  const nudges = wake(established, () =>
    recorder.inject({
      uplinks: dataPlane.uplinks.map(({ link }) => ({ ifindex: link.ifindex, mac: link.mac })),
      peerMac: injectorMac,
    }),
  );
  let handedOver = 0;
  parts.together(() => {
    for (const session of established) if (session.gap === null && handOver(parts.give, session)) handedOver++;
  });
  done("release");

  await parts.before("nudge");
  const resets = report.lost.flatMap((session) =>
    config.services[session.service]?.lost === "reset" ? resetsOf(session) : [],
  );
  const sent = await sendPackets([...nudges, ...resets]);
  release(halfOpen, false);
  parts.ask(report.sessions.flatMap((session) => questionOf(parts, session) ?? []));
  done("nudge");

  const reasons: Record<string, number> = {};
  for (const { reasons: names } of report.lost) for (const name of names) reasons[name] = (reasons[name] ?? 0) + 1;
  return {
    cause,
    epoch,
    stepsMs,
    totalMs: takeoverSteps.reduce((sum, step) => sum + stepsMs[step], 0),
    sessions: established.length,
    prepared: report.prepared,
    halfOpen: halfOpen.length,
    lost: { count: report.lost.length, reasons },
    nudged: sent.sent,
    handedOver,
  };
}

function release(sessions: TakenSession[], probe: boolean): void {
  native.restoreRelease(
    sessions.map(({ fd }) => fd),
    probe,
  );
}

function questionOf(parts: TakeoverParts, session: TakenSession): Question | null {
  const { synAck, gap } = session;
  const give = () => handOver(parts.give, session);
  if (synAck !== null)
    return handshakeQuestion(session, synAck, () => {
      parts.offer(session);
      give();
    });
  if (gap === null) return null;
  const ends = () => {
    native.restoreDrop(session.fd);
    if (parts.config.services[session.service]?.lost === "reset") void sendPackets(resetsOf(gap.lost));
    parts.lost(gap.lost);
  };
  return gapQuestion(session, gap, parts.dataPlane, { goesOn: give, ends });
}

/** The sockets leave repair mode; `inject` is called when they can hear what socket options cannot tell them. Returns what
 * their peers have not acknowledged, looked at before an application can add to it. */
export function wake(sessions: TakenSession[], inject: () => void): IpPacket[] {
  // The probe's answer clears what the peer has already. With nothing unacknowledged there is nothing to learn from it.
  release(
    sessions.filter(({ unacked }) => unacked === null),
    false,
  );
  release(
    sessions.filter(({ unacked }) => unacked !== null),
    true,
  );
  inject();
  for (const session of sessions) if (session.outputFin) native.shutdownWrite(session.fd);
  return sessions.flatMap(unacknowledged);
}

/** False: no application took it; the socket is closed, which the peer sees as a meant end. */
function handOver(give: TakeoverParts["give"], session: TakenSession): boolean {
  if (sendLogged(session) && give(session)) return true;
  native.closeAtOnce(session.fd);
  return false;
}

/** Output that the application had logged and the active had not sent yet, before anything that its successor writes. The
 * send buffer is made to hold it whatever the peer's window is. */
export function sendLogged({ fd, logged }: TakenSession): boolean {
  if (logged.length === 0) return true;
  try {
    let sent = native.writeSome(fd, logged, 0, logged.length);
    if (sent < logged.length) native.setBufferSizes(fd, 2 * logged.length, 0);
    while (sent < logged.length) {
      const taken = native.writeSome(fd, logged, sent, logged.length - sent);
      if (taken === 0) return false;
      sent += taken;
    }
    return true;
  } catch {
    return false; // the peer has ended the connection
  }
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
      md5: session.reset.md5,
    }),
  }));
}
