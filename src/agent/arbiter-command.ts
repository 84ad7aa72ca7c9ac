// What somebody outside says of the voice (keepalived, Pacemaker, an operator), by the operator socket.

import { exitCodes, TandemError } from "../errors.js";
import { arbiterCommand } from "../observe/commands.js";
import type { OperatorServer } from "../observe/operator.js";
import type { AgentStatus } from "../observe/status.js";
import type { Arbiter } from "../role/arbiters/arbiter.js";
import { ExternalArbiter } from "../role/arbiters/external.js";

export interface ArbiterCommandParts {
  arbiter(): Arbiter;
  status(): Promise<AgentStatus>;
  /** Resolves when all that was decided so far is carried out. */
  carriedOut(): Promise<void>;
}

export function registerArbiterCommand(operator: OperatorServer, parts: ArbiterCommandParts): void {
  operator.register(arbiterCommand, async ({ statement }) => {
    if (statement !== undefined) {
      const arbiter = parts.arbiter();
      if (!(arbiter instanceof ExternalArbiter)) throw notExternal(arbiter.status().kind);
      arbiter.state(statement);
      // A revocation is answered when nothing of the service leaves any more.
      await parts.carriedOut();
    }
    const { role, reason, arbiter } = await parts.status();
    return { role, reason, arbiter };
  });
}

export function notExternal(kind: string): TandemError {
  return new TandemError(
    "ARBITER_NOT_EXTERNAL",
    `The arbiter of this pair is ${kind}: nobody else has a say.`,
    "Set pair.arbiter to { kind: external } on both routers.",
    exitCodes.refused,
  );
}
