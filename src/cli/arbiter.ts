// tandem arbiter: who decides that a router may speak alone, and, where that is somebody outside, what he says.
import path from "node:path";
import { Command } from "commander";
import type { z } from "zod";
import { notExternal } from "../agent/arbiter-command.js";
import { loadConfig } from "../config/load.js";
import { exitCodes, TandemError } from "../errors.js";
import { arbiterCommand as question } from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import { type Statement, statementFile, writeStatement } from "../role/arbiters/external.js";
import { type AgentOptions, configOption, jsonOption } from "./options.js";
import { arbiterOf } from "./status.js";
import { type Paint, painter, wantsColour, write } from "./terminal.js";

export function arbiterCommand(): Command {
  return new Command("arbiter")
    .summary("the arbiter: what it says, and to speak for an external one")
    .description(
      "Shows what the arbiter of the pair says; with arbiter external, `grant` and `revoke` are what keepalived, Pacemaker or an operator says of this router.",
    )
    .addCommand(
      verb("status", null, "show the arbiter", "Shows what the arbiter of the pair said last, and whether it answers."),
    )
    .addCommand(
      verb(
        "grant",
        "granted",
        "let this router speak",
        "Names this router: it may speak alone, and as the standby it takes over. Say it only when the other router has been revoked or is off.",
      ),
    )
    .addCommand(
      verb(
        "revoke",
        "revoked",
        "forbid this router to speak",
        "Forbids this router to speak. When the command returns, nothing of the services leaves any more; the standby may take the sessions over once it is granted.",
      ),
    );
}

function verb(name: string, statement: Statement | null, summary: string, description: string): Command {
  return new Command(name)
    .summary(summary)
    .description(description)
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async ({ config: file, json }: AgentOptions) => {
      const config = loadConfig(file);
      const socket = path.join(config.paths.run, "agent.sock");
      try {
        const answer = await ask(socket, question, statement ? { statement } : {});
        await write(json ? `${JSON.stringify(answer)}\n` : render(answer, painter(wantsColour(process.stdout))));
      } catch (error) {
        const absent = error instanceof TandemError && error.exitCode === exitCodes.unreachable;
        if (!absent || statement === null) throw error;
        if (config.pair.arbiter.kind !== "external") throw notExternal(config.pair.arbiter.kind);
        // Whoever says it does not say it again: an agent that starts later finds it.
        writeStatement(statementFile(config.paths.run), statement);
        process.stderr.write("tandem: The agent does not run; it will find this when it starts.\n");
      }
    });
}

function render({ role, reason, arbiter }: z.output<typeof question.result>, paint: Paint): string {
  return `${paint("bold", "arbiter")}   ${arbiterOf(arbiter, paint)}\n${paint("bold", "role")}      ${role}. ${reason}\n`;
}
