// What an agent says of itself: the schema of `tandem status --json`, and the Unix socket that answers it.
import { chmodSync, rmSync } from "node:fs";
import http from "node:http";
import { z } from "zod";

const count = z.number().int().min(0);

export const agentStatusSchema = z.object({
  router: z.enum(["a", "b"]),
  role: z.enum(["fenced", "joining", "standby", "active", "solo"]),
  /** One sentence: why it has this role. */
  reason: z.string(),
  epoch: count,
  gate: z.enum(["fenced", "reflect", "solo"]),
  /** Milliseconds left of the voice; null: not bounded by a lease. */
  voiceMs: z.number().nullable(),
  partner: z.object({ role: z.string(), epoch: count }).nullable(),
  agreed: z.boolean(),
  paths: z.array(z.object({ name: z.string(), up: z.boolean(), rttMs: z.number() })),
  sessions: z.object({
    total: count,
    ready: count,
    /** Sessions that are not ready, by the name of their reason. */
    notReady: z.record(z.string(), count),
  }),
  recorder: z.object({
    records: count,
    /** Bytes waiting in the ring. */
    backlog: count,
    /** Bytes of streams held. */
    held: count,
    badChecksums: count,
    auditBreaches: count,
  }),
  /** Packets by reason (enum td_reason). */
  packets: z.record(z.string(), count),
  lastTakeover: z.unknown().nullable(),
});
export type AgentStatus = z.infer<typeof agentStatusSchema>;

export interface StatusServer {
  close(): void;
}

/** Answers GET /status on a Unix socket only its owner can open. */
export async function serveStatus(socketPath: string, status: () => Promise<AgentStatus>): Promise<StatusServer> {
  rmSync(socketPath, { force: true });
  const server = http.createServer((request, response) => {
    if (request.url !== "/status") {
      response.writeHead(404).end();
      return;
    }
    status().then(
      (answer) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer)),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(socketPath, resolve);
  });
  chmodSync(socketPath, 0o600);
  return {
    close() {
      server.close();
      server.closeAllConnections();
      rmSync(socketPath, { force: true });
    },
  };
}
