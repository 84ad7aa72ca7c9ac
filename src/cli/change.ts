// Commands that change the pair: each shows it before, asks, acts, and shows it after.
import { setTimeout as delay } from "node:timers/promises";
import { Command } from "commander";
import type { z } from "zod";
import {
  failoverCommand,
  pauseCommand,
  resumeCommand,
  resyncCommand,
  statusCommand,
  switchoverCommand,
} from "../observe/commands.js";
import { ask, type OperatorCommand } from "../observe/operator.js";
import type { AgentStatus } from "../observe/status.js";
import { confirm } from "./confirm.js";
import { type AgentOptions, agentSocket, configOption, jsonOption } from "./options.js";
import { renderStatus } from "./status.js";
import { painter, wantsColour, write } from "./terminal.js";

interface ChangeOptions extends AgentOptions {
  reason?: string;
  force?: boolean;
  yes?: boolean;
}

type Changed = { before: AgentStatus; after: AgentStatus };
type ChangeCommand = OperatorCommand<z.ZodObject, z.ZodType<Changed>, z.ZodNever>;

/** How long a change may take without a word. */
const silenceMs = 60_000;

export function changeCommands(): Command[] {
  return [
    change(switchoverCommand, {
      summary: "hand the sessions over to the other router, as planned",
      description:
        "Hands all sessions over from the active router to the standby, which then is the active one. Refused (exit code 5) when a session would be lost, unless --force is given. It can be asked of either router.",
      question: "Hand the sessions over to the other router?",
      force: "also when sessions are not ready and will be lost",
      moves: true,
    }),
    change(failoverCommand, {
      summary: "let the standby take over from a sick active",
      description:
        "Lets the standby take over although the active still lives. Prefer switchover, which asks the active first.",
      question: "Take over from the active router?",
      force: "also when sessions are not ready and will be lost",
      moves: true,
    }),
    change(pauseCommand, {
      summary: "stop automatic takeovers",
      description: "From now on the standby does not take over by itself; switchover and failover still work.",
      question: "Pause automatic takeovers? If the active dies meanwhile, the service stands still.",
      reason: "shown in the status of both routers",
    }),
    change(resumeCommand, {
      summary: "allow automatic takeovers again",
      description: "Ends a pause: the standby takes over by itself again.",
    }),
    change(resyncCommand, {
      summary: "forget what the standby keeps, and join all sessions anew",
      description:
        "Makes the standby forget all that it keeps and join the sessions anew. Until they have joined, a takeover would lose them: refused (exit code 5) while sessions are ready, unless --force is given.",
      question: "Forget all recorded sessions and join them anew?",
      force: "also when sessions are ready now",
    }),
  ];
}

interface ChangeTexts {
  summary: string;
  description: string;
  /** Asked before anything is done; absent: nothing can be lost by it. */
  question?: string;
  /** What becomes of --reason; absent: there is none. */
  reason?: string;
  /** What --force means; absent: there is none. */
  force?: string;
  /** The routers change places, and need a moment for it. */
  moves?: boolean;
}

function change(question: ChangeCommand, texts: ChangeTexts): Command {
  const command = new Command(question.name)
    .summary(texts.summary)
    .description(texts.description)
    .addOption(configOption());
  if (texts.force) command.option("-f, --force", texts.force);
  if (texts.reason) command.option("-r, --reason <text>", texts.reason);
  if (texts.question) command.option("-y, --yes", "do not ask");
  return command.addOption(jsonOption()).action(async (options: ChangeOptions) => {
    const socket = agentSocket(options);
    const paint = painter(wantsColour(process.stdout));
    const before = await ask(socket, statusCommand, {});
    if (!options.json) await write(`${paint("bold", "before")}\n${renderStatus(before, paint)}\n`);
    if (texts.question && !options.yes) await confirm(texts.question);
    const asked = {
      ...(texts.force ? { force: options.force ?? false } : {}),
      ...(options.reason ? { reason: options.reason } : {}),
    };
    const answer = await ask(socket, question, asked, {
      silenceMs,
      onProgress: (sentence) => {
        if (!options.json) process.stdout.write(`${sentence}\n`);
      },
    });
    if (options.json) return write(`${JSON.stringify(answer)}\n`);
    const after = texts.moves ? await settled(socket, answer) : answer.after;
    await write(`\n${paint("bold", "after")}\n${renderStatus(after, paint)}`);
  });
}

/** The pair when each router has found its place again, and as many sessions are ready as before; what it is then, if
 * that takes long: not every session can be joined again. */
async function settled(socket: string, { before, after }: Changed): Promise<AgentStatus> {
  let status = after;
  const inPlace = () => ["active standby", "standby active"].includes(`${status.role} ${status.partner?.role}`);
  const joined = () => status.sessions.ready >= before.sessions.ready;
  for (let looks = 0; looks < 50 && !(inPlace() && (joined() || looks >= 20)); looks++) {
    await delay(100);
    status = await ask(socket, statusCommand, {});
  }
  return status;
}
