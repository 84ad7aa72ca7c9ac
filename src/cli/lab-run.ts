// What tandem lab does: apart from its definition, since the other commands need nothing of a lab.
import { exitCodes, sentenceOf, TandemError } from "../errors.js";
import { runDemo } from "../lab/demo.js";
import { breaches, renderDemo } from "../lab/demo-report.js";
import { addressPlan, devices, Lab, type NodeName } from "../lab/lab.js";
import { labPorts, RouterPair } from "../lab/router-pair.js";
import { authority } from "../lab/traffic.js";
import { wantsColour } from "./terminal.js";

export interface DemoOptions {
  json?: boolean;
  id?: string;
  megabytes: number;
  interactive: number;
}

/** Throws TandemError LAB_FAILED, DEMO_FAILED. */
export async function showDemo({ json, id, megabytes, interactive }: DemoOptions): Promise<void> {
  const started = performance.now();
  const say = (line: string): void => {
    process.stderr.write(`${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${line}\n`);
  };
  const report = await inLab(() => runDemo({ id, fileBytes: megabytes * 1_000_000, interactive }, say));
  const wrong = breaches(report);
  const colour = wantsColour(process.stdout);
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : renderDemo(report, colour));
  if (wrong.length > 0)
    throw new TandemError(
      "DEMO_FAILED",
      `The peer could tell: ${wrong.join("; ")}.`,
      "That is a defect of Tandem unless the machine was overloaded. Please report it with the output of --json.",
    );
  if (!json) process.stdout.write("\nNo program of the peer noticed more than a pause.\n");
}

/** Until this process is ended. Throws TandemError LAB_FAILED. */
export async function keepLab(id: string | undefined): Promise<void> {
  await inLab(async () => {
    const lab = Lab.create({ id });
    try {
      const pair = new RouterPair(lab);
      await pair.start(true);
      process.stdout.write(guide(pair));
      // Ctrl-C, and the other signals, end this process and the lab with it.
      await new Promise(() => setInterval(() => {}, 1 << 30));
    } finally {
      lab.destroy();
    }
  });
}

/** Whatever the lab throws, as an error with a remedy. */
export async function inLab<T>(action: () => Promise<T>): Promise<T> {
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
  // The other terminal may be anywhere, and its PATH may know neither us nor the Node.js that the package brings.
  const tandem = `${process.execPath} ${process.argv[1]}`;
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
    ["the pair", `${tandem} status --config ${pair.configFile("b")}`],
    ["the sessions, as the standby keeps them", `${tandem} sessions --config ${pair.configFile("b")}`],
    [
      "an orderly change of places; again, and the sessions are back",
      `${tandem} switchover --config ${pair.configFile("a")}`,
    ],
    ["what router a finds in its own namespace", `${at("a")} ${tandem} doctor --config ${pair.configFile("a")}`],
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
