// The operator socket: agent.sock, root's alone, by which the command line asks the agent. One JSON object a line.
//
//   asked:     {"command": "status", ...arguments}
//   answered:  {"progress": "one sentence"} or {"item": ...}, any number; then {"ok": true, "result": ...}
//              or {"ok": false, "error": {"code", "message", "remedy", "exitCode"}}
//
// Knows nothing of what the commands do: whoever can do one registers it. Both sides check what comes with the schemas
// of the command (commands.ts).

import { chmodSync, rmSync } from "node:fs";
import net from "node:net";
import type { Readable } from "node:stream";
import { z } from "zod";
import { type ExitCode, exitCodes, sentenceOf, TandemError } from "../errors.js";

/** What a command takes, what it answers, and what it sends meanwhile. */
export interface OperatorCommand<
  A extends z.ZodObject = z.ZodObject,
  R extends z.ZodType = z.ZodType,
  I extends z.ZodType = z.ZodType,
> {
  name: string;
  /** Strict: an argument it does not know is an error. */
  arguments: A;
  result: R;
  item: I;
}

/** What a command has beside its arguments. */
export interface Exchange<Item = never> {
  /** Tells the operator, in one sentence, what is being done. */
  progress(sentence: string): void;
  /** Sends one item of a stream. False: the operator reads too slowly, and this item was dropped. */
  item(value: Item): boolean;
  /** Aborted when the operator goes. */
  readonly gone: AbortSignal;
}

export type CommandRun<C extends OperatorCommand> = (
  asked: z.output<C["arguments"]>,
  exchange: Exchange<z.input<C["item"]>>,
) => Promise<z.input<C["result"]>>;

/** Longest request, bytes. */
const maxRequest = 64 << 10;
/** Longest line of an answer that the command line accepts, bytes. */
const maxAnswer = 64 << 20;
const maxConnections = 32;
/** Who connects and asks nothing must not hold a place for ever. */
const idleMs = 30_000;
/** Bytes that may wait for an operator who does not read; items beyond are dropped. */
const maxPending = 8 << 20;

const request = z.looseObject({ command: z.string().min(1).max(64) });
const exitCode = z.literal(Object.values(exitCodes)) as z.ZodType<ExitCode>;
const done = z.union([
  z.object({ ok: z.literal(true), result: z.unknown() }),
  z.object({
    ok: z.literal(false),
    error: z.object({ code: z.string(), message: z.string(), remedy: z.string(), exitCode }),
  }),
]);
const answerLine = z.union([z.object({ progress: z.string() }), z.object({ item: z.unknown() }), done]);

/** What `run` comes to, as the last line of an answer: a TandemError as it is, anything else as COMMAND_FAILED. */
export async function answerOf(run: () => Promise<unknown>): Promise<z.input<typeof done>> {
  try {
    return { ok: true, result: await run() };
  } catch (error) {
    const known =
      error instanceof TandemError
        ? error
        : new TandemError(
            "COMMAND_FAILED",
            `The agent failed: ${sentenceOf(error)}.`,
            "Its log says more: journalctl -u tandem",
          );
    const { code, message, remedy, exitCode } = known;
    return { ok: false, error: { code, message, remedy, exitCode } };
  }
}

/** The other way round. Throws the TandemError that the answer is, or AGENT_VERSION. */
export function resultOf<R extends z.ZodType>(schema: R, answer: unknown, command: string): z.output<R> {
  const said = parsed(done, answer, command);
  if (said.ok) return parsed(schema, said.result, command);
  const { code, message, remedy, exitCode } = said.error;
  throw new TandemError(code, message, remedy, exitCode);
}

/** The agent's side. */
export class OperatorServer {
  readonly #commands = new Map<string, { command: OperatorCommand; run: CommandRun<OperatorCommand> }>();
  readonly #sockets = new Set<net.Socket>();
  #server: net.Server | null = null;
  #path = "";

  /** What `run` throws is the answer: a TandemError as it is, anything else as COMMAND_FAILED. */
  register<C extends OperatorCommand>(command: C, run: CommandRun<C>): void {
    if (this.#commands.has(command.name)) throw new Error(`the command ${command.name} is registered twice`);
    // The arguments were parsed with this command's own schema before `run` sees them.
    this.#commands.set(command.name, { command, run: run as unknown as CommandRun<OperatorCommand> });
  }

  /** Listens at `socketPath`, mode 0600; what was there is replaced. */
  async listen(socketPath: string): Promise<void> {
    rmSync(socketPath, { force: true });
    const server = net.createServer((socket) => this.#serve(socket));
    server.maxConnections = maxConnections;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(socketPath, resolve);
    });
    chmodSync(socketPath, 0o600);
    this.#server = server;
    this.#path = socketPath;
  }

  close(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
    if (this.#server) rmSync(this.#path, { force: true });
  }

  #serve(socket: net.Socket): void {
    this.#sockets.add(socket);
    const gone = new AbortController();
    socket.setTimeout(idleMs, () => socket.destroy());
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#sockets.delete(socket);
      gone.abort();
    });
    void (async () => {
      for await (const line of lines(socket, maxRequest)) {
        socket.setTimeout(0);
        const answer = await this.#answer(line, socket, gone.signal);
        socket.write(`${JSON.stringify(answer)}\n`);
        socket.setTimeout(idleMs);
      }
      socket.end();
    })().catch(() => socket.destroy());
  }

  #answer(line: string, socket: net.Socket, gone: AbortSignal): Promise<z.input<typeof answerLine>> {
    const say = (value: z.input<typeof answerLine>): boolean => {
      if (socket.destroyed || socket.writableLength > maxPending) return false;
      socket.write(`${JSON.stringify(value)}\n`);
      return true;
    };
    return answerOf(async () => {
      const { command: name, ...rest } = parseRequest(line);
      const entry = this.#commands.get(name);
      if (!entry)
        throw new TandemError(
          "COMMAND_UNKNOWN",
          `The agent does not know the command ${JSON.stringify(name)}.`,
          "The command line is of a newer version than the running agent: restart the agent.",
        );
      const asked = entry.command.arguments.safeParse(rest);
      if (!asked.success) throw badArguments(`${name}: ${z.prettifyError(asked.error)}`);
      return entry.run(asked.data, {
        progress: (sentence) => say({ progress: sentence }),
        item: (value) => say({ item: value }),
        gone,
      });
    });
  }
}

export interface AskOptions<Item> {
  onProgress?: (sentence: string) => void;
  onItem?: (item: Item) => void;
  /** The operator has enough: resolves with null. */
  enough?: AbortSignal;
  /** How long the agent may say nothing; 0: for ever. Default 10 s. */
  silenceMs?: number;
}

/** The command line's side: one command. Throws TandemError: the agent's own, or AGENT_UNREACHABLE, AGENT_SILENT,
 * AGENT_VERSION. */
export async function ask<A extends z.ZodObject, R extends z.ZodType, I extends z.ZodType>(
  socketPath: string,
  command: OperatorCommand<A, R, I>,
  asked: z.input<A>,
  options: AskOptions<z.output<I>> & { enough: AbortSignal },
): Promise<z.output<R> | null>;
export async function ask<A extends z.ZodObject, R extends z.ZodType, I extends z.ZodType>(
  socketPath: string,
  command: OperatorCommand<A, R, I>,
  asked: z.input<A>,
  options?: AskOptions<z.output<I>>,
): Promise<z.output<R>>;
export async function ask<A extends z.ZodObject, R extends z.ZodType, I extends z.ZodType>(
  socketPath: string,
  command: OperatorCommand<A, R, I>,
  asked: z.input<A>,
  options: AskOptions<z.output<I>> = {},
): Promise<z.output<R> | null> {
  const { silenceMs = 10_000, enough } = options;
  const socket = net.connect(socketPath);
  let silent = false;
  socket.setTimeout(silenceMs, () => {
    silent = true;
    socket.destroy();
  });
  const stop = () => socket.destroy();
  enough?.addEventListener("abort", stop, { once: true });
  try {
    socket.write(`${JSON.stringify({ ...asked, command: command.name })}\n`);
    for await (const line of lines(socket, maxAnswer)) {
      const answer = parsed(answerLine, JSON.parse(line), command.name);
      if ("progress" in answer) options.onProgress?.(answer.progress);
      else if ("item" in answer) options.onItem?.(parsed(command.item, answer.item, command.name));
      else return resultOf(command.result, answer, command.name);
    }
    throw new Error("it closed the connection");
  } catch (error) {
    if (error instanceof TandemError) throw error;
    if (enough?.aborted) return null;
    if (silent)
      throw new TandemError(
        "AGENT_SILENT",
        `The agent at ${socketPath} said nothing for ${silenceMs / 1000} s.`,
        "It is stopped, or the machine is overloaded: see its log (journalctl -u tandem).",
        exitCodes.timeout,
      );
    throw new TandemError(
      "AGENT_UNREACHABLE",
      `The agent at ${socketPath} does not answer: ${sentenceOf(error)}.`,
      "Start it: systemctl start tandem (or: tandem agent --config FILE). Ask as root: its socket is its owner's alone.",
      exitCodes.unreachable,
    );
  } finally {
    enough?.removeEventListener("abort", stop);
    socket.destroy();
  }
}

function parseRequest(line: string): z.output<typeof request> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw badArguments("it is not JSON");
  }
  const { data, error } = request.safeParse(value);
  if (error) throw badArguments(z.prettifyError(error));
  return data;
}

function badArguments(what: string): TandemError {
  return new TandemError(
    "COMMAND_ARGUMENTS",
    `The agent does not understand the request: ${what}.`,
    "Install the same release of Tandem for the command line and for the agent.",
    exitCodes.usage,
  );
}

function parsed<T extends z.ZodType>(schema: T, value: unknown, command: string): z.output<T> {
  const { data, error } = schema.safeParse(value);
  if (error)
    throw new TandemError(
      "AGENT_VERSION",
      `The agent answered ${command} in a way this command line does not know: ${z.prettifyError(error)}.`,
      "Install the same release of Tandem for the command line and for the agent, and restart the agent.",
    );
  return data;
}

/** Splits a stream into lines. Throws RangeError when one is longer than `limit` bytes. */
async function* lines(stream: Readable, limit: number): AsyncGenerator<string> {
  let pieces: Buffer[] = [];
  let held = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      if (held + end - start > limit) throw new RangeError("a line is too long");
      yield Buffer.concat([...pieces, chunk.subarray(start, end)]).toString("utf8");
      pieces = [];
      held = 0;
      start = end + 1;
    }
    held += chunk.length - start;
    if (held > limit) throw new RangeError("a line is too long");
    pieces.push(chunk.subarray(start));
  }
}
