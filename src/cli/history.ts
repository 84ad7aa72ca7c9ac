// tandem history: the decisions of this router, from its journal.
import { Command } from "commander";
import { historyCommand as question } from "../observe/commands.js";
import type { JournalEntry } from "../observe/journal.js";
import { ask } from "../observe/operator.js";
import { type AgentOptions, agentSocket, configOption, jsonOption, wholeNumber } from "./options.js";
import { type Paint, show } from "./terminal.js";

export function historyCommand(): Command {
  return new Command("history")
    .summary("show what this router decided, and why")
    .description("Shows the last decisions of this router from its journal, the oldest first.")
    .addOption(configOption())
    .option("-l, --limit <number>", "so many at most", wholeNumber, 50)
    .addOption(jsonOption())
    .action(async (options: AgentOptions & { limit: number }) => {
      const socket = agentSocket(options);
      await show({
        ask: () => ask(socket, question, { limit: options.limit }),
        render: ({ entries }, paint) => entries.map((entry) => renderEntry(entry, paint)).join(""),
        json: options.json,
      });
    });
}

function renderEntry({ time, epoch, sentence }: JournalEntry, paint: Paint): string {
  return `${paint("dim", time)}  epoch ${epoch}  ${sentence}\n`;
}
