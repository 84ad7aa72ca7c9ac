// tandem status: what the agent on this router says of itself, as a few lines or as JSON.
import http from "node:http";
import path from "node:path";
import { Command } from "commander";
import { loadConfig } from "../config/load.js";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import { type AgentStatus, agentStatusSchema } from "../observe/status.js";

export function statusCommand(): Command {
  return new Command("status")
    .description("show roles, gate, lease, paths and the readiness of the sessions")
    .requiredOption("--config <file>", "the configuration file of the agent to ask")
    .option("--json", "as one JSON document")
    .action(async (options: { config: string; json?: boolean }) => {
      const status = await askStatus(path.join(loadConfig(options.config).paths.run, "agent.sock"));
      process.stdout.write(options.json ? `${JSON.stringify(status)}\n` : render(status));
    });
}

/** Throws TandemError AGENT_UNREACHABLE. */
export async function askStatus(socketPath: string): Promise<AgentStatus> {
  try {
    return await new Promise<AgentStatus>((resolve, reject) => {
      const request = http.get({ socketPath, path: "/status", timeout: 5000 }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () => {
          const parsed = agentStatusSchema.safeParse(JSON.parse(Buffer.concat(chunks).toString("utf8")));
          if (parsed.success) resolve(parsed.data);
          else reject(new Error(`the agent is of another version (${parsed.error.issues[0]?.message})`));
        });
        response.on("error", reject);
      });
      request.on("timeout", () => request.destroy(new Error("it did not answer within 5 s")));
      request.on("error", reject);
    });
  } catch (error) {
    throw new TandemError(
      "AGENT_UNREACHABLE",
      `The agent at ${socketPath} does not answer: ${sentenceOf(error)}.`,
      "Is it running? Start it with: tandem agent --config FILE",
      exitCodes.unreachable,
    );
  }
}

function render(status: AgentStatus): string {
  const paths = status.paths.map((each) => `${each.name} ${each.up ? `up, ${each.rttMs.toFixed(2)} ms` : "down"}`);
  const reasons = Object.entries(status.sessions.notReady).map(([reason, count]) => `${count} ${reason}`);
  return [
    `router   ${status.router}: ${status.role}, epoch ${status.epoch}, gate ${status.gate}. ${status.reason}`,
    `partner  ${status.partner ? `${status.partner.role}, epoch ${status.partner.epoch}` : "not heard"}`,
    `paths    ${paths.join("; ")}`,
    `sessions ${status.sessions.ready} ready, ${status.sessions.total - status.sessions.ready} not ready${reasons.length > 0 ? ` (${reasons.join(", ")})` : ""}`,
    "",
  ].join("\n");
}
