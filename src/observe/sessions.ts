// A session as an operator sees it: both directions, how far each is kept, and why it is ready or not.
import { z } from "zod";
import type { SessionSummary } from "../recorder/messages.js";
import { reasonNames, reasonSentences } from "../session/reasons.js";

const offset = z.number().int().min(0);

export const sessionView = z.object({
  id: z.int().describe("Its number on this router; not used again while the agent runs."),
  service: z.string().describe("The service's name in the configuration."),
  local: z.string().describe("Service address and port."),
  peer: z.string().describe("The peer's address and port."),
  state: z.string().describe("half-open, established, peer-finished, active-finished, closing or closed."),
  mode: z.string().describe("Where its resume point comes from, by configuration."),
  ready: z.boolean().describe("A takeover now would continue it."),
  reasons: z
    .array(z.object({ number: z.int(), name: z.string(), sentence: z.string() }))
    .describe("Why it is not ready; from one numbered list."),
  since: z.iso.datetime().describe("Since when it has been ready, or not ready for these reasons; UTC."),
  joined: z.boolean().describe("It was there before the standby, which joined it mid-stream."),
  resumePoint: z
    .object({
      input: offset.describe("Input offset from which the standby's application goes on."),
      output: offset
        .nullable()
        .describe("Output offset up to which its state has answered; null: the state is its own."),
      source: z
        .string()
        .describe("Who says so: live (its own reading), confirmed, delivered (the active's socket), start."),
    })
    .nullable()
    .describe("Null: there is no application."),
  input: z
    .object({
      firstSequence: z.int().nullable().describe("Sequence number of the first byte the standby has; null: none."),
      recorded: offset.describe("Offset up to which the standby has all of it, without a gap."),
      vouched: offset.describe("Offset up to which the active's TCP has said that it has it, too."),
      lag: offset.nullable().describe("Bytes vouched for and not yet with the standby's application."),
    })
    .describe("From the peer. Offset 0 is the first byte after the SYN."),
  output: z
    .object({
      firstSequence: z.int().nullable().describe("Sequence number of the first byte the standby has; null: none."),
      recorded: offset.describe("Offset up to which the standby has all that was sent."),
      acknowledged: offset.describe("Offset up to which the peer has it."),
      lag: offset.describe("Bytes sent that the peer has not acknowledged: the standby would send them again."),
    })
    .describe("To the peer."),
  memory: z.int().min(0).describe("Bytes its streams take."),
});
export type SessionView = z.infer<typeof sessionView>;

const numbers = new Map(Object.entries(reasonNames).map(([number, name]) => [name, Number(number)]));

/** `services`: their names by number. `bootMs`: Unix time, ms, of the boot clock's zero. */
export function viewOf(session: SessionSummary, services: readonly string[], bootMs: number): SessionView {
  const { resumePoint, firstSequence } = session;
  return {
    id: session.id,
    service: services[session.service] ?? String(session.service),
    local: endpoint(session.localIp, session.localPort),
    peer: endpoint(session.peerIp, session.peerPort),
    state: session.state,
    mode: session.mode,
    ready: session.ready,
    reasons: session.reasons.map((name) => {
      const number = numbers.get(name) ?? 0;
      return { number, name, sentence: (reasonSentences as Record<number, string>)[number] ?? "" };
    }),
    since: new Date(bootMs + session.since / 1e6).toISOString(),
    joined: session.joined,
    resumePoint: resumePoint === null ? null : { input: resumePoint, ...resumeSource(session) },
    input: {
      firstSequence: firstSequence?.input ?? null,
      recorded: session.inputRecorded,
      vouched: session.inputEnd,
      lag: resumePoint === null ? null : Math.max(0, session.inputEnd - resumePoint),
    },
    output: {
      firstSequence: firstSequence?.output ?? null,
      recorded: session.outputEnd,
      acknowledged: session.peerAck,
      lag: Math.max(0, session.outputEnd - session.peerAck),
    },
    memory: session.memory,
  };
}

function resumeSource({ mode, resume }: SessionSummary): { output: number | null; source: string } {
  return mode === "confirmed" ? { output: resume.outputOffset, source: resume.source } : { output: null, source: mode };
}

/** RFC 3986, 3.2.2: brackets around an IPv6 address. */
export function endpoint(ip: string, port: number): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}
