// Load from the peer's namespace, by programs nobody here wrote: curl moves files, socat holds interactive sessions.
// For very many sessions at once one process of our own (session-load) does what as many socats would.

import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { PassThrough } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { deterministicBytes } from "./demo-server.js";
import { type EchoReport, EchoSession } from "./echo-session.js";
import type { Lab } from "./lab.js";
import type { LabProcess } from "./namespaces.js";

/** Host and port as in a URL: IPv6 in brackets. */
export const authority = (host: string, port: number): string => `${host.includes(":") ? `[${host}]` : host}:${port}`;

export interface TransferReport {
  direction: "upload" | "download";
  bytes: number;
  /** Of what the sending side had and of what the receiving side got. */
  sentSha256: string;
  receivedSha256: string;
  receivedBytes: number;
  ok: boolean;
  /** What the program said when it failed. */
  failure: string | null;
}

export interface Transfer {
  readonly process: LabProcess;
  readonly done: Promise<TransferReport>;
}

/** Writes the file that upload() sends, and gives the SHA-256 of these bytes, which download() needs as well. */
export async function writeTransferFile(file: string, bytes: number): Promise<string> {
  const hash = createHash("sha256");
  const tap = new PassThrough();
  tap.on("data", (chunk: Buffer) => hash.update(chunk));
  await pipeline(deterministicBytes(bytes), tap, createWriteStream(file));
  return hash.digest("hex");
}

const uploadAnswer = z.object({ bytes: z.number(), sha256: z.string() });
// No time-outs of curl's own: a takeover is to be invisible, and a hang is caught by who waits for it.
const curl = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*"];

/** curl's --limit-rate; bytes a second. */
const limit = (rate: number | undefined): string[] => (rate === undefined ? [] : ["--limit-rate", String(rate)]);

/** curl -T; the server answers with what it got. `rate`: bytes a second at most. */
export function upload(lab: Lab, target: string, file: string, bytes: number, sha256: string, rate?: number): Transfer {
  const process = lab.spawn("peer", [...curl, ...limit(rate), "-T", file, `http://${target}/upload`]);
  const done = process.exited.then(({ code, signal }): TransferReport => {
    const parsed = code === 0 ? uploadAnswer.safeParse(jsonOrNull(process.stdout())) : null;
    const got = parsed?.success ? parsed.data : { bytes: 0, sha256: "" };
    const failure = code === 0 ? null : process.stderr().trim() || `curl: ${signal ?? `exit code ${code}`}`;
    return {
      direction: "upload",
      bytes,
      sentSha256: sha256,
      receivedSha256: got.sha256,
      receivedBytes: got.bytes,
      ok: failure === null && got.bytes === bytes && got.sha256 === sha256,
      failure,
    };
  });
  return { process, done };
}

/** curl into sha256sum, both in the peer's namespace. `rate`: bytes a second at most. */
export function download(lab: Lab, target: string, bytes: number, sha256: string, rate?: number): Transfer {
  const script = 'set -o pipefail; curl "$@" -w "%{stderr}%{size_download}\\n" | sha256sum';
  const process = lab.spawn("peer", ["bash", "-c", script, ...curl, ...limit(rate), `http://${target}/bytes/${bytes}`]);
  const done = process.exited.then(({ code, signal }): TransferReport => {
    const said = process.stderr().trim().split("\n");
    const receivedBytes = Number(said.at(-1)) || 0;
    const receivedSha256 = process.stdout().split(" ")[0] ?? "";
    const failure = code === 0 ? null : said.join("; ") || `curl: ${signal ?? `exit code ${code}`}`;
    return {
      direction: "download",
      bytes,
      sentSha256: sha256,
      receivedSha256,
      receivedBytes,
      ok: failure === null && receivedBytes === bytes && receivedSha256 === sha256,
      failure,
    };
  });
  return { process, done };
}

function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Interactive sessions, whoever carries them. */
export interface Sessions {
  /** From now on counts for longestGapMs. */
  resetGaps(): void;
  /** Stops asking, waits for what is owed, ends the sessions. One report a session. */
  finish(): Promise<EchoReport[]>;
  /** Stops asking; the sessions end with the lab. */
  abandon(): void;
}

export interface CountedSessions extends Sessions {
  /** Answers so far, all sessions together. */
  answered(): number;
}

const finishLimitMs = 60_000;

/** One socat each; a numbered line every `intervalMs` in each session, spread evenly. */
export function socatSessions(
  lab: Lab,
  host: string,
  port: number,
  { count, intervalMs }: { count: number; intervalMs: number },
): CountedSessions {
  const socats = Array.from({ length: count }, () =>
    lab.spawn("peer", ["socat", "-", `TCP:${authority(host, port)},nodelay`], { stdio: ["pipe", "pipe", "pipe"] }),
  );
  const sessions = socats.map(({ child }) => {
    if (child.stdin === null || child.stdout === null) throw new Error("socat has no pipes");
    return new EchoSession(child.stdin, child.stdout);
  });
  let next = 0;
  const timer = setInterval(() => sessions[next++ % count]?.send(), intervalMs / count);
  timer.unref(); // a run that fails before finish() must still come to its end
  return {
    resetGaps: () => {
      for (const session of sessions) session.resetGap();
    },
    abandon: () => clearInterval(timer),
    answered: () => sessions.reduce((total, { answered }) => total + answered, 0),
    finish: async () => {
      clearInterval(timer);
      const reports = await Promise.all(sessions.map((session) => session.finish(finishLimitMs)));
      await Promise.all(socats.map(({ exited }) => exited));
      return reports;
    },
  };
}

const echoReport = z.object({
  sent: z.number(),
  received: z.number(),
  bytesIn: z.number(),
  bytesOut: z.number(),
  lost: z.number(),
  duplicated: z.number(),
  changed: z.number(),
  sentSha256: z.string(),
  receivedSha256: z.string(),
  longestGapMs: z.number(),
  brokenBy: z.string().nullable(),
});

/** All in one process; resolves when all are connected. */
export async function manySessions(
  lab: Lab,
  host: string,
  port: number,
  { count, intervalMs }: { count: number; intervalMs: number },
): Promise<Sessions> {
  const program = fileURLToPath(new URL("./session-load.js", import.meta.url));
  const { child, exited } = lab.spawn(
    "peer",
    [process.execPath, program, host, String(port), String(count), String(intervalMs)],
    { stdio: ["pipe", "pipe", "pipe"] },
  );
  let output = "";
  let complaint = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaint += text;
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (output.startsWith("connected\n")) resolve();
    });
    void exited.then(() => reject(new Error(complaint.trim() || "session-load ended")));
  });
  return {
    resetGaps: () => void child.stdin?.write("reset\n"),
    abandon: () => child.kill(),
    finish: async () => {
      child.stdin?.write("stop\n");
      const { code, signal } = await exited;
      if (code !== 0) throw new Error(`session-load: ${signal ?? complaint.trim()}`);
      return z.array(echoReport).parse(JSON.parse(output.slice("connected\n".length)));
    },
  };
}
