// tandem capture: the frames of one session as they pass the mirror link, in a file that Wireshark opens.
import { closeSync, openSync, writeSync } from "node:fs";
import { Command } from "commander";
import { errnoOf, exitCodes, sentenceOf, TandemError } from "../errors.js";
import { captureCommand as question } from "../observe/commands.js";
import { ask } from "../observe/operator.js";
import { pcapngHeader, pcapngPacket } from "../observe/pcapng.js";
import { type AgentOptions, agentSocket, configOption, jsonOption, positiveNumber, wholeNumber } from "./options.js";

interface CaptureOptions extends AgentOptions {
  write: string;
  count?: number;
  seconds?: number;
}

export function captureCommand(): Command {
  return new Command("capture")
    .summary("capture one session from the mirror stream")
    .description(
      "Writes the frames of one session, as the standby records them, to a pcapng file for Wireshark, tcpdump or tshark, until Ctrl-C. What tcpdump on an uplink does not see is in it: both directions, in the order in which the standby had them. Ask the standby.",
    )
    .argument("<id>", "the session's number, from tandem sessions", wholeNumber)
    .addOption(configOption())
    .requiredOption("-W, --write <file>", "where to; - is standard output")
    .option("--count <number>", "end after so many frames", wholeNumber)
    .option("--seconds <number>", "end after so long", positiveNumber)
    .addOption(jsonOption())
    .action(async (id: number, options: CaptureOptions) => {
      const socket = agentSocket(options);
      if (options.write === "-" && process.stdout.isTTY === true)
        throw new TandemError(
          "CAPTURE_TERMINAL",
          "A terminal cannot show a capture file.",
          "Name a file with --write, or pipe it: tandem capture 7 --write - | tshark -r -",
          exitCodes.usage,
        );
      const file = openFile(options.write);
      const enough = new AbortController();
      const end = () => enough.abort();
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, end);
      const timer = options.seconds === undefined ? null : setTimeout(end, options.seconds * 1000);
      const seen = { file: options.write, frames: 0, dropped: 0 };
      try {
        writeWhole(file, pcapngHeader("tandem mirror"));
        await ask(
          socket,
          question,
          { id },
          {
            enough: enough.signal,
            silenceMs: 0,
            onItem: ({ packets, dropped }) => {
              seen.dropped += dropped;
              for (const { timeNs, direction, frame, segments } of packets) {
                if (enough.signal.aborted) return;
                const comment = segments > 1 ? `${segments} segments that continued one another` : undefined;
                const packet = { timeNs: BigInt(timeNs), direction, frame: Buffer.from(frame, "base64"), comment };
                if (!writeWhole(file, pcapngPacket(packet)) || ++seen.frames === options.count) end();
              }
            },
          },
        );
      } finally {
        if (timer !== null) clearTimeout(timer);
        for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, end);
        if (file !== 1) closeSync(file);
      }
      // Standard output may be the capture itself.
      if (options.json) process.stderr.write(`${JSON.stringify(seen)}\n`);
      else process.stderr.write(`${seen.frames} frames captured, ${seen.dropped} segments dropped.\n`);
    });
}

/** False: the reader has seen enough. Throws TandemError CAPTURE_FILE. */
function writeWhole(file: number, bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; )
    try {
      at += writeSync(file, bytes, at);
    } catch (error) {
      if (errnoOf(error) === "EPIPE") return false;
      if (errnoOf(error) !== "EAGAIN") throw unwritable(error);
      // A pipe that others made non-blocking: its reader is slow.
      Atomics.wait(pause, 0, 0, 5);
    }
  return true;
}
const pause = new Int32Array(new SharedArrayBuffer(4));

function unwritable(error: unknown): TandemError {
  return new TandemError(
    "CAPTURE_FILE",
    `The capture cannot be written: ${sentenceOf(error)}.`,
    "Name another file with --write.",
  );
}

function openFile(name: string): number {
  if (name === "-") return 1;
  try {
    return openSync(name, "w", 0o600);
  } catch (error) {
    throw unwritable(error);
  }
}
