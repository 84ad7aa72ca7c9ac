// Network namespaces by name: run something in one, find and signal what runs in one. Never `ip netns exec` for our
// own programs: it remounts /sys and so hides the BPF file system; nsenter with --net alone does not.

import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from "node:child_process";
import { readdirSync, readlinkSync, statSync } from "node:fs";

export const namespacePath = (namespace: string): string => `/run/netns/${namespace}`;

/** The arguments that run `argv` in the namespace, as the same process (nsenter execs, it does not fork). */
export function inNamespace(namespace: string, argv: readonly string[]): [string, ...string[]] {
  return ["nsenter", `--net=${namespacePath(namespace)}`, "--", ...argv];
}

/** Runs a program to its end and gives its standard output. The error it throws carries what the program said. */
export function run(argv: readonly string[], input?: string): string {
  const [program, ...rest] = argv;
  if (program === undefined) throw new Error("nothing to run");
  try {
    return execFileSync(program, rest, {
      encoding: "utf8",
      input: input ?? "",
      stdio: ["pipe", "pipe", "pipe"],
      maxBuffer: 1 << 26,
    });
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim();
    throw new Error(`${argv.join(" ")}: ${said || (error as Error).message}`, { cause: error });
  }
}

/** Several commands of iproute2 in one process: one a line, without the leading "ip". */
export function ipBatch(namespace: string | null, lines: readonly string[]): void {
  if (lines.length === 0) return;
  run(["ip", ...(namespace === null ? [] : ["-n", namespace]), "-batch", "-"], `${lines.join("\n")}\n`);
}

/** Processes in the namespace, whoever started them. Empty when there is no such namespace. */
export function processesIn(namespace: string): number[] {
  let inode: number;
  try {
    inode = statSync(namespacePath(namespace)).ino;
  } catch {
    return [];
  }
  const wanted = `net:[${inode}]`;
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      try {
        return readlinkSync(`/proc/${entry}/ns/net`) === wanted;
      } catch {
        return false; // ended meanwhile, or a zombie
      }
    })
    .map(Number);
}

/** Signals every process of the namespace, all found first, so that they get it as nearly at once as can be. */
export function signalAllIn(namespace: string, signal: NodeJS.Signals): { processes: number; atMs: number } {
  const processes = processesIn(namespace);
  const atMs = Number(process.hrtime.bigint()) / 1e6;
  for (const pid of processes) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
  return { processes: processes.length, atMs };
}

/** A program that runs in a namespace of the lab. */
export interface LabProcess {
  readonly pid: number;
  readonly child: ChildProcess;
  /** What it wrote to standard output and standard error and nobody else read, the last 256 KiB of each. */
  stdout(): string;
  stderr(): string;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  signal(signal: NodeJS.Signals): void;
}

export interface SpawnInNamespace {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Default: standard input closed, both outputs collected. */
  stdio?: SpawnOptions["stdio"];
}

const keptOutput = 256 * 1024;

export function spawnIn(namespace: string, argv: readonly string[], options: SpawnInNamespace = {}): LabProcess {
  const [program, ...rest] = inNamespace(namespace, argv);
  const child = spawn(program, rest, {
    stdio: options.stdio ?? ["ignore", "pipe", "pipe"],
    env: options.env ?? process.env,
    cwd: options.cwd,
    // A group of its own: Ctrl-C on the terminal is for us, who end it in order.
    detached: true,
  });
  let stdout = "";
  let stderr = "";
  if (options.stdio === undefined) {
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      stdout = (stdout + text).slice(-keptOutput);
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-keptOutput);
    });
  }
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
  exited.catch(() => {}); // Whoever waits for it gets the error; nobody has to.
  if (child.pid === undefined) throw new Error(`cannot start ${argv.join(" ")}: is nsenter (util-linux) installed?`);
  return {
    pid: child.pid,
    child,
    stdout: () => stdout,
    stderr: () => stderr,
    exited,
    signal: (signal) => void child.kill(signal),
  };
}
