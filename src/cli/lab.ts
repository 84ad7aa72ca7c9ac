// tandem lab: a router pair, its peer and their links on this machine, to see, to rehearse and to take apart.
import { Command } from "commander";
import { wholeNumber } from "./options.js";

export function labCommand(): Command {
  const command = new Command("lab")
    .summary("a router pair on this machine, to see and to rehearse")
    .description("A router pair in network namespaces of this machine, with a peer and its links.");
  command
    .command("demo")
    .summary("kill the active router under load")
    .description("Kills the active router in the middle of many transfers, and shows that the peer cannot tell.")
    .option("--json", "print the report as one JSON document, and nothing else, on standard output")
    .option("--id <id>", "name of the lab (up to 12 lower-case letters, digits, dashes)")
    .option("--megabytes <number>", "size of each file", wholeNumber, 200)
    .option("--interactive <number>", "interactive sessions", wholeNumber, 32)
    .action(async (options: { json?: boolean; id?: string; megabytes: number; interactive: number }) => {
      const { showDemo } = await import("./lab-run.js");
      await showDemo(options);
    });
  command
    .command("up")
    .summary("keep a lab until Ctrl-C")
    .description("Builds a lab with a running router pair, and keeps it until Ctrl-C.")
    .option("--id <id>", "name of the lab (up to 12 lower-case letters, digits, dashes)")
    .action(async (options: { id?: string }) => {
      const { keepLab } = await import("./lab-run.js");
      await keepLab(options.id);
    });
  return command;
}
