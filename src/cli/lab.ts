// tandem lab: a router pair, its peer and their links on this machine, to see, to rehearse and to take apart.
import path from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import { runDemo } from "../lab/demo.js";
import { breaches, renderDemo } from "../lab/demo-report.js";
import { addressPlan, devices, Lab, type NodeName } from "../lab/lab.js";
import { labPorts, RouterPair } from "../lab/router-pair.js";
import { authority } from "../lab/traffic.js";

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("a whole number above 0 is needed.");
  return value;
}

export function labCommand(): Command {
  const command = new Command("lab").description("a router pair in network namespaces of this machine");
  command
    .command("demo")
    .description("kill the active router in the middle of many transfers and show that the peer cannot tell")
    .option("--json", "print the report as one JSON document, and nothing else, on standard output")
    .option("--id <id>", "name of the lab (up to 12 lower-case letters, digits, dashes)")
    .option("--megabytes <number>", "size of each file", positive, 200)
    .option("--interactive <number>", "interactive sessions", positive, 32)
    .action(async (options: { json?: boolean; id?: string; megabytes: number; interactive: number }) => {
      const started = performance.now();
      const say = (line: string): void => {
        process.stderr.write(`${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${line}\n`);
      };
      const size = { fileBytes: options.megabytes * 1_000_000, interactive: options.interactive };
      const report = await inLab(() => runDemo({ id: options.id, ...size }, say));
      const wrong = breaches(report);
      const colour = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
      process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : renderDemo(report, colour));
      if (wrong.length > 0)
        throw new TandemError(
          "DEMO_FAILED",
          `The peer could tell: ${wrong.join("; ")}.`,
          "That is a defect of Tandem unless the machine was overloaded. Please report it with the output of --json.",
        );
      if (!options.json) process.stdout.write("\nNo program of the peer noticed more than a pause.\n");
    });
  command
    .command("up")
    .description("build a lab with a running router pair, and keep it until Ctrl-C")
    .option("--id <id>", "name of the lab (up to 12 lower-case letters, digits, dashes)")
    .action(async (options: { id?: string }) => {
      await inLab(async () => {
        const lab = Lab.create({ id: options.id });
        try {
          const pair = new RouterPair(lab);
          await pair.start();
          process.stdout.write(guide(pair));
          // Ctrl-C, and the other signals, end this process and the lab with it.
          await new Promise(() => setInterval(() => {}, 1 << 30));
        } finally {
          lab.destroy();
        }
      });
    });
  return command;
}

/** Whatever the lab throws, as an error with a remedy. */
async function inLab<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof TandemError) throw error;
    throw new TandemError(
      "LAB_FAILED",
      `The lab: ${sentenceOf(error)}`,
      "It needs root, the Debian packages of `make setup`, and some idle CPU. What it had made is removed.",
      exitCodes.failed,
    );
  }
}

/** What there is, and what to try from another terminal. */
function guide(pair: RouterPair): string {
  const { lab } = pair;
  const { service } = addressPlan;
  const tandem = `node ${path.relative(process.cwd(), process.argv[1] ?? "tandem")}`;
  const at = (node: NodeName): string => `nsenter --net=/run/netns/${lab.namespace(node)}`;
  const down = [devices.uplink, devices.mirror].map((device) => `ip -n ${lab.namespace("a")} link set ${device} down`);
  const commands: [string, string][] = [
    [
      "an interactive session, which returns each line",
      `${at("peer")} socat - TCP:${authority(service.v4, labPorts.echo)}`,
    ],
    [
      "a download",
      `${at("peer")} curl -g 'http://${authority(service.v6, labPorts.web)}/bytes/1000000000' | sha256sum`,
    ],
    ["what router b says of itself", `${tandem} status --config ${pair.configFile("b")}`],
    ["the death of router a", [`ip netns pids ${lab.namespace("a")} | xargs kill -9`, ...down].join("; ")],
  ];
  return `${[
    `Lab ${lab.id}: router a is active, router b stands by. Ctrl-C ends it and removes all of it.`,
    "",
    `  namespaces      ${(["peer", "a", "b", "lan"] as const).map((node) => lab.namespace(node)).join("  ")}`,
    `  service         ${service.v4} and ${service.v6}: HTTP on ${labPorts.web}, echo on ${labPorts.echo}`,
    `  configurations  ${pair.configFile("a")}`,
    `                  ${pair.configFile("b")}`,
    "",
    "From another terminal:",
    ...commands.flatMap(([what, text]) => ["", `  # ${what}`, `  ${text}`]),
    "",
  ].join("\n")}\n`;
}
