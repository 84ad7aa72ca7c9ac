// The command line as a whole: one verb a file, put together here.
import { Command, type CommanderError } from "commander";
import { exitCodes, TandemError } from "../errors.js";
import { productVersion } from "../version.js";
import { agentCommand } from "./agent.js";
import { arbiterCommand } from "./arbiter.js";
import { captureCommand } from "./capture.js";
import { changeCommands } from "./change.js";
import { completionCommand } from "./completion.js";
import { configCommand, reloadCommand } from "./config.js";
import { detachCommand } from "./detach.js";
import { doctorCommand } from "./doctor.js";
import { drillCommand } from "./drill.js";
import { historyCommand } from "./history.js";
import { labCommand } from "./lab.js";
import { pairCommand } from "./pair.js";
import { sessionCommand, sessionsCommand } from "./sessions.js";
import { statusCommand } from "./status.js";

/** Throws TandemError USAGE instead of ending the process; CommanderError where help or version was shown. */
export function createProgram(): Command {
  const program = new Command("tandem")
    .description("TCP high availability for a pair of Linux routers")
    .version(productVersion)
    .showSuggestionAfterError()
    .helpCommand(false);
  for (const command of [
    agentCommand(),
    statusCommand(),
    sessionsCommand(),
    sessionCommand(),
    historyCommand(),
    doctorCommand(),
    captureCommand(),
    ...changeCommands(),
    arbiterCommand(),
    configCommand(),
    reloadCommand(),
    pairCommand(),
    detachCommand(),
    labCommand(),
    drillCommand(),
    completionCommand(),
  ])
    program.addCommand(command);
  refuseAlike(program, program.name());
  return program;
}

/** What is wrong with the words of a command is said as every other error is. Neither setting is inherited by commands
 * that are added. */
function refuseAlike(command: Command, name: string): void {
  command.configureOutput({ outputError: () => {} });
  command.exitOverride((error) => {
    if (shown.has(error.code)) throw error;
    throw new TandemError("USAGE", usageSentence(error), `See: ${name} --help`, exitCodes.usage);
  });
  for (const each of command.commands) refuseAlike(each, `${name} ${each.name()}`);
}
const shown = new Set(["commander.help", "commander.helpDisplayed", "commander.version"]);

/** From "error: unknown command 'statsu'\n(Did you mean status?)". */
function usageSentence({ message }: CommanderError): string {
  const [what = "", hint] = message.replace(/^error: /, "").split("\n");
  const sentence = `${what.charAt(0).toUpperCase()}${what.slice(1)}${what.endsWith(".") ? "" : "."}`;
  return hint === undefined ? sentence : `${sentence} ${hint.replace(/^\(|\)$/g, "")}`;
}
