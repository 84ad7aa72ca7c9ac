// tandem status: the pair, its roles, gate, lease, paths and readiness.
import { Command } from "commander";
import { statusCommand as question } from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import type { AgentStatus } from "../observe/status.js";
import { type AgentOptions, agentSocket, configOption, jsonOption, watchOption } from "./options.js";
import { type Colour, type Paint, show } from "./terminal.js";

export function statusCommand(): Command {
  return new Command("status")
    .summary("show the pair: roles, gate, lease, paths, readiness")
    .description(
      "Shows what this router's agent knows of the pair: roles, gate, lease, paths, and how many sessions a takeover would keep.",
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .addOption(watchOption())
    .action(async (options: AgentOptions & { watch?: number }) => {
      const socket = agentSocket(options);
      await show({ ask: () => ask(socket, question, {}), render: renderStatus, ...options });
    });
}

const roleColours: Record<string, Colour> = {
  active: "green",
  standby: "green",
  solo: "yellow",
  joining: "yellow",
  fenced: "red",
};

export function renderStatus(status: AgentStatus, paint: Paint): string {
  const { partner } = status;
  const role = (name: string): string => paint(roleColours[name] ?? "bold", name);
  const here = `${status.router} ${role(status.role)}`;
  const there = `${status.router === "a" ? "b" : "a"} ${partner ? role(partner.role) : paint("red", "not heard")}`;
  const paths = status.paths.map(
    ({ name, up, rttMs }) => `${name} ${up ? `${paint("green", "up")}, ${rttMs.toFixed(2)} ms` : paint("red", "down")}`,
  );
  const lines: [string, string][] = [
    ["pair", status.router === "a" ? `${here} | ${there}` : `${there} | ${here}`],
    ["router", `${status.router}, epoch ${status.epoch}, gate ${status.gate}. ${status.reason}`],
    ["lease", leaseOf(status, paint)],
    ["partner", partnerOf(status, paint)],
    ["arbiter", arbiterOf(status.arbiter, paint)],
    ["takeover", status.paused === null ? "automatic" : `${paint("yellow", "paused")}: ${status.paused}`],
    ["paths", paths.join("; ")],
    ["sessions", sessionsOf(status, paint)],
  ];
  if (status.held > 0)
    lines.push(["held", paint("yellow", `${status.held} sessions, until their application is back or holdMs is over`)]);
  for (const { address, mac } of status.duplicates)
    lines.push(["duplicate", paint("red", `${address} is also answered for by ${mac}`)]);
  const { auditBreaches } = status.recorder;
  if (auditBreaches > 0)
    lines.push(["audit", paint("red", `${auditBreaches} breaches: bytes passed that the standby had not recorded`)]);
  return lines.map(([name, text]) => `${paint("bold", name.padEnd(9))} ${text}\n`).join("");
}

/** The recorder of a router that speaks alone holds only what was. */
function sessionsOf({ role, sessions }: AgentStatus, paint: Paint): string {
  if (role === "solo" || role === "fenced") return paint("yellow", "none is kept: there is no standby");
  const unready = sessions.total - sessions.ready;
  const reasons = Object.entries(sessions.notReady).map(([name, count]) => `${count} ${name}`);
  const few = unready > 0 ? paint("yellow", `${unready} not ready`) : "0 not ready";
  return `${sessions.ready} ready, ${few}${reasons.length > 0 ? ` (${reasons.join(", ")})` : ""}`;
}

function leaseOf({ voiceMs, gate, arbiter }: AgentStatus, paint: Paint): string {
  if (voiceMs !== null) return voiceMs > 0 ? `speaks for ${voiceMs.toFixed(0)} ms more` : paint("red", "has run out");
  if (gate !== "solo") return "does not speak";
  return arbiter.leaseMs === null ? "speaks alone: no lease bounds it" : "speaks alone, by the arbiter's word";
}

export function arbiterOf({ kind, reachable, leaseMs, lastAnswer }: AgentStatus["arbiter"], paint: Paint): string {
  const lease = leaseMs === null ? "" : `, may speak alone for ${leaseMs.toFixed(0)} ms more`;
  const reach = reachable ? "" : `, ${paint("red", "not reachable")}`;
  return `${kind}${reach}${lease}${lastAnswer === null ? "" : `. ${lastAnswer}`}`;
}

function partnerOf({ partner, agreed }: AgentStatus, paint: Paint): string {
  if (!partner) return paint("red", "not heard");
  const agreement = agreed ? "configurations agree" : paint("red", "the routers do not agree: see tandem doctor");
  return `${partner.role}, epoch ${partner.epoch}; ${agreement}`;
}
