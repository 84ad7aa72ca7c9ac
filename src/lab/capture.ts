// A capture at any place of the lab: the npm package cap in a process of its own inside the namespace, where a flood
// can starve only itself. The filter runs in the kernel, so it is the filter that keeps the packets few.

import { fileURLToPath } from "node:url";
import { z } from "zod";
import { type LabProcess, spawnIn } from "./namespaces.js";

/** TCP segments with SYN, FIN or RST, both families (libpcap's tcp[] does not look into IPv6). */
export const flagsFilter = "(tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0) or (ip6[6] = 6 and ip6[53] & 7 != 0)";

export interface CaptureOptions {
  /** libpcap's filter language; default: flagsFilter. */
  filter?: string;
  /** Write a pcap file as well. Times in it are those of the reading program: cap has none. */
  file?: string;
}

const segment = z.object({
  /** Wall clock of the reader, ms. */
  timeMs: z.number(),
  from: z.string(),
  fromPort: z.number(),
  to: z.string(),
  toPort: z.number(),
  seq: z.number(),
  ack: z.number(),
  syn: z.boolean(),
  fin: z.boolean(),
  rst: z.boolean(),
});
const ackGap = z.object({
  from: z.string(),
  fromPort: z.number(),
  to: z.string(),
  toPort: z.number(),
  /** Longest time between two acknowledgements that advance, since the start or resetGaps(), ms. */
  longestGapMs: z.number(),
});
const sender = z.object({
  /** Source address of the Ethernet header, as `ip link` writes it. */
  mac: z.string(),
  frames: z.number(),
  /** Ordinal, in the capture, of the first and the last frame it sent. */
  first: z.number(),
  last: z.number(),
});
const summarySchema = z.object({
  /** All frames the filter let through, TCP or not. */
  frames: z.number(),
  bytes: z.number(),
  /** TCP segments with SYN, FIN or RST, at most the first 100,000. */
  flagged: z.array(segment),
  /** Flows seen, each direction its own: how steadily what comes the other way arrives. Of use only when the filter
   * lets plain acknowledgements through. */
  gaps: z.array(ackGap),
  /** Who sent the frames, on the link. */
  senders: z.array(sender),
});
export type Sender = z.infer<typeof sender>;
export type AckGap = z.infer<typeof ackGap>;
export type FlaggedSegment = z.infer<typeof segment>;
export type CaptureSummary = z.infer<typeof summarySchema>;
export interface FlagCounts {
  syn: number;
  fin: number;
  rst: number;
}

/** Counts what came from one address. */
export function flagsFrom(summary: CaptureSummary, address: string): FlagCounts {
  const counts = { syn: 0, fin: 0, rst: 0 };
  for (const { from, syn, fin, rst } of summary.flagged) {
    if (from !== address) continue;
    if (syn) counts.syn++;
    if (fin) counts.fin++;
    if (rst) counts.rst++;
  }
  return counts;
}

const readyLimitMs = 10_000;

export class Capture {
  readonly #process: LabProcess;
  #output = "";

  private constructor(process: LabProcess) {
    this.#process = process;
  }

  static async start(
    namespace: string,
    device: string,
    { filter = flagsFilter, file }: CaptureOptions,
  ): Promise<Capture> {
    const program = fileURLToPath(new URL("./capture-process.js", import.meta.url));
    const argv = [process.execPath, program, device, filter, ...(file === undefined ? [] : [file])];
    const capture = new Capture(spawnIn(namespace, argv, { stdio: ["pipe", "pipe", "pipe"] }));
    await capture.#ready();
    return capture;
  }

  async #ready(): Promise<void> {
    const { child } = this.#process;
    let complaint = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      complaint += text;
    });
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the capture did not start in time")), readyLimitMs);
      child.stdout?.setEncoding("utf8").on("data", (text: string) => {
        this.#output += text;
        if (!this.#output.startsWith("ready\n")) return;
        clearTimeout(timer);
        resolve();
      });
      void this.#process.exited.then(() => {
        clearTimeout(timer);
        reject(new Error(`the capture ended: ${complaint.trim()}`));
      });
    });
  }

  /** From now on counts for longestGapMs. */
  resetGaps(): void {
    this.#process.child.stdin?.write("reset\n");
  }

  /** Ends it and says what it saw. Rejects when its process was killed meanwhile. */
  async stop(): Promise<CaptureSummary> {
    this.#process.child.stdin?.end();
    const { code, signal } = await this.#process.exited;
    if (code !== 0) throw new Error(`the capture was ended by ${signal ?? `exit code ${code}`}`);
    return summarySchema.parse(JSON.parse(this.#output.slice("ready\n".length)));
  }
}
