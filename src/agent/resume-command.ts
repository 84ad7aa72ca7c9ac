// A session of an unmodified application is resumed as inetd would: a program is started with the connection as its
// standard input and output, and told about the session in its environment.

import type { Logger } from "pino";
import { native } from "../../addon/native.js";
import { sentenceOf } from "../errors.js";

export interface ResumedSession {
  service: string;
  localIp: string;
  localPort: number;
  peerIp: string;
  peerPort: number;
  /** The connection's first byte is input byte `inputOffset` of the session; what is written is byte `outputOffset`. */
  inputOffset: number;
  outputOffset: number;
  /** Is all that the former program had written recorded, and so on its way? Null: not known. */
  clean: boolean | null;
}

/** Names and values are text; unknown is the empty string. */
export function environmentOf(session: ResumedSession): Record<string, string> {
  return {
    TANDEM_SERVICE: session.service,
    TANDEM_LOCAL_ADDRESS: session.localIp,
    TANDEM_LOCAL_PORT: String(session.localPort),
    TANDEM_PEER_ADDRESS: session.peerIp,
    TANDEM_PEER_PORT: String(session.peerPort),
    TANDEM_INPUT_OFFSET: String(session.inputOffset),
    TANDEM_OUTPUT_OFFSET: String(session.outputOffset),
    TANDEM_CLEAN: session.clean === null ? "" : session.clean ? "yes" : "no",
  };
}

/** Programs that were started and have not been seen to end. */
const running = new Set<number>();
/** To be started: one in each turn of the event loop, or a thousand of them would hold up the heartbeat's controller. */
const waiting: (() => void)[] = [];

/** `fd` becomes the program's alone, soon. The program outlives the agent; its standard error is the agent's. */
export function startCommand(command: readonly string[], session: ResumedSession, fd: number, log: Logger): void {
  const passed = { PATH: process.env.PATH, LANG: process.env.LANG, ...environmentOf(session) };
  const environment = Object.entries(passed).flatMap(([name, value]) =>
    value === undefined ? [] : `${name}=${value}`,
  );
  waiting.push(() => {
    if (running.size === 0) process.on("SIGCHLD", reapEnded);
    try {
      running.add(native.spawnWith([...command], environment, fd));
    } catch (error) {
      reapEnded();
      log.error(`${command[0]} could not be started for a session: ${sentenceOf(error)}`);
    }
    native.closeFd(fd);
  });
  if (waiting.length === 1) setImmediate(startNext);
}

function startNext(): void {
  waiting[0]?.();
  waiting.shift();
  if (waiting.length > 0) setImmediate(startNext);
}

function reapEnded(): void {
  for (const pid of running) if (native.reap(pid)) running.delete(pid);
  if (running.size === 0) process.off("SIGCHLD", reapEnded);
}
