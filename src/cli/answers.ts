// What each command prints with --json: the contract with whoever scripts it, and the source of docs/cli.md.
import { z } from "zod";
import { drillReportSchema } from "../drill/report.js";
import { demoReportSchema } from "../lab/demo-report.js";
import {
  arbiterCommand,
  captureAnswer,
  failoverCommand,
  historyCommand,
  pauseCommand,
  reloadCommand,
  resumeCommand,
  resyncCommand,
  sessionCommand,
  sessionsCommand,
  statusCommand,
  switchoverCommand,
} from "../observe/commands.js";
import { doctorAnswer } from "./doctor.js";

const configCheck = z.object({
  file: z.string(),
  right: z.boolean(),
  problems: z
    .array(
      z.object({
        line: z.int().describe("Counted from 1."),
        path: z.string().describe("Keys joined by dots, list entries from 0; empty: the whole file."),
        message: z.string(),
        remedy: z.string(),
      }),
    )
    .describe("All that is wrong, by line; then the exit code is 3."),
});
const pairInit = z.object({
  directory: z.string(),
  files: z.object({ a: z.array(z.string()), b: z.array(z.string()) }).describe("Which files each router needs."),
});
const detach = z.object({
  addresses: z.array(z.string()).describe("Service addresses, which stay."),
  device: z.string().describe("The device that carries them."),
});

const drillList = z.object({
  drills: z.array(
    z.object({
      name: z.string(),
      title: z.string(),
      description: z.string(),
      where: z.array(z.enum(["lab", "live"])),
    }),
  ),
});

/** By the command's full name. */
export const answers: Readonly<Record<string, z.ZodType>> = {
  status: statusCommand.result,
  sessions: sessionsCommand.result,
  session: sessionCommand.result,
  history: historyCommand.result,
  doctor: doctorAnswer,
  capture: captureAnswer,
  switchover: switchoverCommand.result,
  failover: failoverCommand.result,
  pause: pauseCommand.result,
  resume: resumeCommand.result,
  resync: resyncCommand.result,
  "arbiter status": arbiterCommand.result,
  "arbiter grant": arbiterCommand.result,
  "arbiter revoke": arbiterCommand.result,
  "config check": configCheck,
  reload: reloadCommand.result,
  "pair init": pairInit,
  detach,
  "lab demo": demoReportSchema,
  "drill list": drillList,
  "drill run": drillReportSchema,
};
