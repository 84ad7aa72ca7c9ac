// The pair as the running agent sees it: the partner, its version and configuration, the paths, the audit.
import path from "node:path";
import type { Config } from "../config/schema.js";
import { exitCodes, TandemError } from "../errors.js";
import { reloadCommand, statusCommand } from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import type { AgentStatus } from "../observe/status.js";
import { type Finding, found, ok } from "./finding.js";

export async function checkPair(config: Config): Promise<Finding[]> {
  const socket = path.join(config.paths.run, "agent.sock");
  let status: AgentStatus;
  try {
    status = await ask(socket, statusCommand, {});
  } catch (error) {
    if (error instanceof TandemError && error.exitCode === exitCodes.unreachable)
      return [found("note", "agent", "No agent is running with this configuration.", "systemctl start tandem")];
    if (error instanceof TandemError) return [found("problem", "agent", error.message, error.remedy)];
    throw error;
  }
  return [...judge(status), ...(await checkReload(socket))];
}

/** What a status says about the health of the pair. */
export function judge(status: AgentStatus): Finding[] {
  const partner = status.router === "a" ? "b" : "a";
  const findings: Finding[] = [ok("agent", `The agent runs; this router is ${status.role}.`)];
  if (!status.partner)
    findings.push(
      found("warning", "partner", `Router ${partner} is not heard.`, `On router ${partner}: systemctl status tandem`),
    );
  else if (!status.agreed)
    findings.push(
      found(
        "problem",
        "partner",
        `The routers do not agree${status.differences.length > 0 ? ` (${status.differences.join(", ")})` : ": the control channel is not up"}.`,
        "Install the same release on both, and compare both configurations (all but router and paths) and the mirror MTUs",
      ),
    );
  else findings.push(ok("partner", `Router ${partner} is ${status.partner.role}; versions and configurations agree.`));
  for (const { name, up, rttMs } of status.paths)
    findings.push(
      up
        ? ok("path", `The ${name} path answers in ${rttMs.toFixed(2)} ms.`)
        : found(
            "warning",
            "path",
            `The ${name} path is silent.`,
            "ip link; ping the partner there; UDP of pair.heartbeat.port must pass",
          ),
    );
  findings.push(...reflection(status), ...drops(status));
  if (!status.arbiter.reachable)
    findings.push(
      found(
        "warning",
        "arbiter",
        `The arbiter (${status.arbiter.kind}) does not answer: no router newly speaks alone or takes over.`,
        "tandem arbiter status    # says what it answered last",
      ),
    );
  if (status.paused !== null)
    findings.push(found("warning", "takeover", `Automatic takeover is paused: ${status.paused}.`, "tandem resume"));
  const unready = status.sessions.total - status.sessions.ready;
  if (unready > 0)
    findings.push(
      found("warning", "sessions", `${unready} sessions would be lost at a takeover.`, "tandem sessions --not-ready"),
    );
  if (status.held > 0)
    findings.push(
      found(
        "warning",
        "held",
        `An application died, and ${status.held} of its sessions are held until it is back.`,
        "Start it, before the service's holdMs is over; tandem history says which",
      ),
    );
  if (status.recorder.auditBreaches > 0)
    findings.push(
      found(
        "problem",
        "audit",
        `${status.recorder.auditBreaches} times a byte passed that the standby had not recorded.`,
        "tandem history; see which path leads past the mirror link (another uplink, a tunnel)",
      ),
    );
  if (status.recorder.badChecksums > 0)
    findings.push(
      found(
        "warning",
        "checksums",
        `${status.recorder.badChecksums} segments came damaged.`,
        "ethtool -S DEVICE | grep -i err; then ethtool -K DEVICE rx off tx off on the mirror link of the active",
      ),
    );
  return findings;
}

/** Segments that went to the standby, and what came back of them: the real round trip through both XDP programs. */
function reflection({ role, packets }: AgentStatus): Finding[] {
  if (role !== "active") return [];
  const count = (...reasons: string[]): number => reasons.reduce((sum, name) => sum + (packets[name] ?? 0), 0);
  const sent = count("TD_PASS_REFLECT_IN", "TD_PASS_REFLECT_OUT");
  const back = count("TD_PASS_DELIVERED_IN", "TD_PASS_DELIVERED_OUT");
  if (sent < fewSegments)
    return [ok("reflection", "Too few segments have passed yet to judge the standby's reflection.")];
  if (back >= sent * 0.95) return [ok("reflection", `${back} of ${sent} segments came back from the standby.`)];
  return [
    found(
      back === 0 ? "problem" : "warning",
      "reflection",
      `${sent} segments went to the standby, and ${back} came back.`,
      "On the standby: tandem doctor; ethtool -S DEVICE and ip -s link on the mirror link; xdp: generic if its driver cannot send back",
    ),
  ];
}
const fewSegments = 50;

/** Drops of the data plane that an operator can do something about. */
const mendable: [reason: string, level: "warning" | "note", what: string, fix: string][] = [
  [
    "TD_DROP_RING_FULL",
    "warning",
    "segments came faster than the recorder took them, and were sent again",
    "Raise recorder.ringBytes, or give the standby more CPU",
  ],
  [
    "TD_DROP_TOO_LONG",
    "warning",
    "frames were longer than the mirror link carries",
    "ethtool -K DEVICE lro off gro off on the uplinks; a larger MTU on the mirror link",
  ],
  [
    "TD_DROP_FRAGMENT",
    "note",
    "IP fragments for a service came, which are not taken",
    "See who sends them: tcpdump -ni DEVICE 'ip[6:2] & 0x3fff != 0'",
  ],
  [
    "TD_DROP_COOKIE",
    "warning",
    "frames of another pair came by the mirror link",
    "Each pair needs a mirror link or VLAN of its own",
  ],
];

function drops({ packets }: AgentStatus): Finding[] {
  return mendable
    .filter(([reason]) => (packets[reason] ?? 0) > 0)
    .map(([reason, level, what, fix]) => found(level, "drops", `${packets[reason]} times ${what}.`, fix));
}

/** The file on disk may have changed since the agent read it. */
async function checkReload(socket: string): Promise<Finding[]> {
  const { delta } = await ask(socket, reloadCommand, { dryRun: true });
  if (delta.length === 0) return [];
  const keys = delta.map(({ path: key }) => key).join(", ");
  return [
    delta.every(({ live }) => live)
      ? found("note", "configuration", `The file differs from what runs: ${keys}.`, "tandem reload")
      : found("warning", "configuration", `The file differs from what runs: ${keys}.`, "systemctl restart tandem"),
  ];
}
