// What the operator can ask of this agent about sessions: registered with the operator socket. Switchover and its like
// are registered by those who do them.

import { native } from "../../addon/native.js";
import type { Config } from "../config/schema.js";
import { exitCodes, TandemError } from "../errors.js";
import { formatIp, parseIp } from "../net/addresses.js";
import { captureCommand, resyncCommand, sessionCommand, sessionsCommand } from "../observe/commands.js";
import type { OperatorServer } from "../observe/operator.js";
import { endpoint, viewOf } from "../observe/sessions.js";
import type { AgentStatus } from "../observe/status.js";
import type { RecorderClient } from "../recorder/client.js";
import { mendMerged } from "../recorder/merged-frame.js";
import type { SessionSummary } from "../recorder/messages.js";
import type { Role } from "../role/role.js";
import type { Questions } from "./partner-questions.js";

export interface SessionKeeper {
  config: Config;
  role: () => Role;
  recorder: () => RecorderClient;
  status: () => Promise<AgentStatus>;
  /** The standby, for what it alone knows. */
  partner: () => Questions;
  /** Forgets all sessions and records anew. */
  resync: () => Promise<void>;
}

/** Returns what this router answers when its partner's operator asks. */
export function registerSessionCommands(operator: OperatorServer, keeper: SessionKeeper): Questions {
  const { config } = keeper;
  const services = config.services.map(({ name }) => name);
  const bootMs = (): number => Date.now() - Number(native.bootTimeNs()) / 1e6;
  const keeps = (): boolean => keeper.role() === "standby" || keeper.role() === "joining";
  // What the recorder still holds after a takeover is the past.
  const open = async (): Promise<SessionSummary[]> =>
    keeps() ? (await keeper.recorder().status(true)).sessions.filter(({ state }) => state !== "closed") : [];
  const find = async (id: number): Promise<SessionSummary> => {
    const found = (await open()).find((session) => session.id === id);
    if (found) return found;
    throw new TandemError(
      "SESSION_UNKNOWN",
      `There is no session ${id}${keeps() ? "" : ": this router is not the standby, which keeps the sessions"}.`,
      keeps() ? "`tandem sessions` lists them; it may have ended." : "If the other router stands by, ask there.",
    );
  };

  const sessions: Questions["sessions"] = async ({ service, notReady, peer, limit }) => {
    if (service !== undefined && !services.includes(service))
      throw new TandemError(
        "SERVICE_UNKNOWN",
        `There is no service ${JSON.stringify(service)}.`,
        `The configuration has: ${services.join(", ")}.`,
        exitCodes.usage,
      );
    const peerText = peer === undefined ? undefined : canonical(peer);
    const matching = (await open()).filter(
      (session) =>
        (service === undefined || services[session.service] === service) &&
        !(notReady && session.ready) &&
        (peerText === undefined ||
          peerText === session.peerIp ||
          peerText === endpoint(session.peerIp, session.peerPort)),
    );
    matching.sort((one, other) => Number(one.ready) - Number(other.ready) || one.id - other.id);
    const zero = bootMs();
    return {
      keptBy: keeps() ? config.router : null,
      total: matching.length,
      sessions: matching.slice(0, limit).map((session) => viewOf(session, services, zero)),
    };
  };
  const session: Questions["session"] = async ({ id }) => viewOf(await find(id), services, bootMs());

  operator.register(sessionsCommand, async (asked) =>
    keeper.role() === "active" ? keeper.partner().sessions(asked) : sessions(asked),
  );
  operator.register(sessionCommand, async (asked) =>
    keeper.role() === "active" ? keeper.partner().session(asked) : session(asked),
  );

  operator.register(captureCommand, async ({ id }, { item, gone }) => {
    await find(id);
    const bootNs = BigInt(Date.now()) * 1_000_000n - native.bootTimeNs();
    let unsent = 0;
    const stop = keeper.recorder().capture(id, (frames, dropped) => {
      const packets = frames.map(({ timeNs, out, frame, segments, l3Offset, l4Offset }) => {
        if (segments > 1) mendMerged(frame, l3Offset, l4Offset);
        return {
          timeNs: String(bootNs + BigInt(timeNs)),
          direction: out ? ("out" as const) : ("in" as const),
          frame: Buffer.from(frame).toString("base64"),
          segments,
        };
      });
      unsent += dropped;
      if (item({ packets, dropped: unsent })) unsent = 0;
      else unsent += packets.reduce((total, { segments }) => total + segments, 0);
    });
    try {
      if (!gone.aborted) await new Promise((resolve) => gone.addEventListener("abort", resolve, { once: true }));
    } finally {
      stop();
    }
    return null;
  });

  operator.register(resyncCommand, async ({ force }, { progress }) => {
    const before = await keeper.status();
    if (!keeps())
      throw new TandemError(
        "NOT_STANDBY",
        `This router is ${keeper.role()}: it keeps no sessions that could be joined anew.`,
        "Ask the other router.",
        exitCodes.refused,
      );
    if (before.sessions.ready > 0 && !force)
      throw new TandemError(
        "SESSIONS_READY",
        `${before.sessions.ready} sessions are ready now, and would not be until they have joined again.`,
        "Say --force if that is meant.",
        exitCodes.refused,
      );
    progress("Forgetting all sessions, and recording anew.");
    await keeper.resync();
    return { before, after: await keeper.status() };
  });
  return { sessions, session };
}

/** An address, alone or with a port, as `endpoint` writes it. */
function canonical(text: string): string {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? text;
  try {
    const { family, bytes } = parseIp(host);
    const ip = formatIp(family, bytes);
    return match ? endpoint(ip, Number(match[3])) : ip;
  } catch {
    throw new TandemError(
      "PEER_UNREADABLE",
      `${JSON.stringify(text)} is neither an IP address nor one with a port.`,
      "Write 192.0.2.7, 192.0.2.7:40000, 2001:db8::7 or [2001:db8::7]:40000.",
      exitCodes.usage,
    );
  }
}
