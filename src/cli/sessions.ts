// tandem sessions, tandem session: what the standby keeps of each connection, and why it is ready or not.
import { Command } from "commander";
import type { z } from "zod";
import { sessionsCommand as question, sessionCommand as questionOfOne } from "../observe/commands.js";
import { bytes } from "../observe/format.js";
import { ask } from "../observe/operator.js";
import type { SessionView } from "../observe/sessions.js";
import { type AgentOptions, agentSocket, configOption, jsonOption, watchOption, wholeNumber } from "./options.js";
import { type Paint, show, table } from "./terminal.js";

interface SessionsOptions extends AgentOptions {
  service?: string;
  notReady?: boolean;
  peer?: string;
  limit: number;
  watch?: number;
}

export function sessionsCommand(): Command {
  return new Command("sessions")
    .summary("list the sessions that the standby keeps")
    .description(
      "Lists the sessions that the standby keeps, those that are not ready first: how far each direction is recorded, and from where a takeover would go on. The active asks the standby.",
    )
    .addOption(configOption())
    .option("-s, --service <name>", "only those of this service")
    .option("-n, --not-ready", "only those that a takeover would lose")
    .option("-p, --peer <address>", "only those with this peer: an address, alone or with its port")
    .option("-l, --limit <number>", "so many at most", wholeNumber, 100)
    .addOption(jsonOption())
    .addOption(watchOption())
    .action(async (options: SessionsOptions) => {
      const { service, notReady, peer, limit } = options;
      const socket = agentSocket(options);
      await show({
        ask: () => ask(socket, question, { service, notReady, peer, limit }),
        render: renderSessions,
        ...options,
      });
    });
}

export function sessionCommand(): Command {
  return new Command("session")
    .summary("show one session")
    .description("Shows all that the standby knows of one session.")
    .argument("<id>", "its number, from tandem sessions", wholeNumber)
    .addOption(configOption())
    .addOption(jsonOption())
    .addOption(watchOption())
    .action(async (id: number, options: AgentOptions & { watch?: number }) => {
      const socket = agentSocket(options);
      await show({ ask: () => ask(socket, questionOfOne, { id }), render: renderSession, ...options });
    });
}

export function renderSessions(answer: z.output<typeof question.result>, paint: Paint): string {
  const { keptBy, total, sessions } = answer;
  if (keptBy === null) return "There is no standby that keeps sessions.\n";
  if (total === 0) return "No session.\n";
  const rows = sessions.map((session) => [
    String(session.id),
    session.service,
    session.peer,
    session.state,
    session.ready ? paint("green", "ready") : paint("yellow", session.reasons.map(({ name }) => name).join(",")),
    bytes(session.input.recorded),
    session.input.lag === null ? "-" : bytes(session.input.lag),
    bytes(session.output.recorded),
    bytes(session.output.lag),
    session.resumePoint === null ? "-" : `${session.resumePoint.input} ${session.resumePoint.source}`,
    ago(session.since),
  ]);
  const head = ["ID", "SERVICE", "PEER", "STATE", "READY", "IN", "LAG", "OUT", "UNACKED", "RESUME AT", "SINCE"];
  const more = total > sessions.length ? `${total - sessions.length} more; --limit shows them.\n` : "";
  return table(head, rows, new Set(["ID", "IN", "LAG", "OUT", "UNACKED"])) + more;
}

export function renderSession(session: SessionView, paint: Paint): string {
  const { input, output, resumePoint } = session;
  const count = (value: number | null): string => (value === null ? "not known" : String(value));
  const lines: [string, string][] = [
    ["session", `${session.id}, service ${session.service}, ${session.mode}`],
    ["between", `${session.local} and peer ${session.peer}`],
    ["state", session.state],
    ["ready", session.ready ? paint("green", "yes") : paint("yellow", "no")],
    ...session.reasons.map(({ number, name, sentence }): [string, string] => ["", `${number} ${name}: ${sentence}`]),
    ["since", `${session.since} (${ago(session.since)})`],
    ["joined", session.joined ? "mid-stream" : "from its first byte on"],
    ["resume at", resumeText(resumePoint)],
    ["input", `recorded to ${input.recorded}, vouched for to ${input.vouched}, lag ${count(input.lag)}`],
    ["", `first sequence number of the standby ${count(input.firstSequence)}`],
    ["output", `recorded to ${output.recorded}, acknowledged to ${output.acknowledged}, lag ${output.lag}`],
    ["", `first sequence number of the standby ${count(output.firstSequence)}`],
    ["memory", bytes(session.memory)],
  ];
  return lines.map(([name, text]) => `${paint("bold", name.padEnd(9))} ${text}\n`).join("");
}

function resumeText(point: SessionView["resumePoint"]): string {
  if (point === null) return "nowhere: it has no application";
  const output = point.output === null ? "" : ` and output byte ${point.output}`;
  return `input byte ${point.input}${output} (${point.source})`;
}

/** "3 s", "12 min", "5 h", "2 d". */
function ago(time: string, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}
