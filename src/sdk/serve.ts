// Keeps an application registered with its agent whatever happens to the agent, and runs its connection handler on a
// replica of each session.

import { setTimeout as delay } from "node:timers/promises";
import { TandemError } from "../errors.js";
import { connectStandby, type StandbyConnection } from "./connection.js";
import type { Replica, ReplicaOptions } from "./replica.js";
import type { StandbySession } from "./session.js";

export interface ServeReplicatedOptions {
  /** Path of the agent's Unix socket. Default /run/tandem/app.sock. */
  socketPath?: string;
  service: string;
  /** The same code the active runs for an accepted connection. */
  onConnection: (connection: Replica, session: StandbySession) => void;
  replica?: ReplicaOptions;
  /** Registered with an agent, or not any more and why; it is tried again until close(). */
  onState?: (state: { registered: boolean; error: TandemError | null }) => void;
  /** Milliseconds between two attempts. Default 500. */
  retryDelay?: number;
}

/** Returns at once. close() ends the registration; sessions already taken over go on. */
export function serveReplicated(options: ServeReplicatedOptions): { close(): void } {
  const stop = new AbortController();
  let current: StandbyConnection | null = null;

  async function once(): Promise<void> {
    const connection = await connectStandby(options.socketPath === undefined ? {} : { path: options.socketPath });
    current = connection;
    const ended = new Promise<TandemError | null>((resolve) => connection.once("end", resolve));
    connection.on("session", (session) => options.onConnection(session.replica(options.replica), session));
    try {
      if (stop.signal.aborted) return;
      await connection.register(options.service);
      options.onState?.({ registered: true, error: null });
      const error = await ended;
      if (error !== null) throw error;
    } finally {
      connection.close();
    }
  }

  async function serve(): Promise<void> {
    while (!stop.signal.aborted) {
      try {
        await once();
      } catch (error) {
        if (!(error instanceof TandemError)) throw error;
        if (!stop.signal.aborted) options.onState?.({ registered: false, error });
      }
      await delay(options.retryDelay ?? 500, undefined, { signal: stop.signal }).catch(() => {});
    }
  }

  void serve();
  return {
    close() {
      stop.abort();
      current?.close();
    },
  };
}
