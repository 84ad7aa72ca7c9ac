// Applications as a whole: registered with the agent whatever happens to it, with one handler for every connection.

import type net from "node:net";
import { TandemError } from "../errors.js";
import { type Agent, connectAgent } from "./agent.js";
import type { ProtectedSession } from "./protected-session.js";
import type { Replica, ReplicaOptions } from "./replica.js";
import type { ResumeOptions, StandbySession, Takeover } from "./session.js";

interface Registered {
  service: string;
  /** Registered with an agent, or not any more and why; it is tried again until close(). */
  onState?: (state: { registered: boolean; error: TandemError | null }) => void;
}

export interface ServeReplicatedOptions extends Registered {
  /** Path of the agent's Unix socket. Default /run/tandem/app.sock. */
  socketPath?: string;
  /** The same code for both routers. A session that was handed over begins at the session's offsets, with its state;
   * call connection.protect() to have it handed over in turn. */
  onConnection: (connection: Replica, session: StandbySession) => void;
  /** Accepts the service's connections, for sessions to be handed over that began before the standby was there; listen()
   * is yours, with allowHalfOpen. */
  listener?: net.Server;
  replica?: ReplicaOptions;
  /** Milliseconds between two attempts. Default 500. */
  retryDelay?: number;
}

/** Live mode: runs the connection handler on a replica of each session, and on what the listener accepts. Returns at
 * once. close() ends the registration; sessions already taken over go on. */
export function serveReplicated(options: ServeReplicatedOptions): { close(): void } {
  const { socketPath: path, retryDelay = 500 } = options;
  const agent = connectAgent({ retryDelay, ...(path === undefined ? {} : { path }) });
  const serve = (session: StandbySession) => options.onConnection(session.replica(options.replica), session);
  agent.on("session", serve);
  options.listener?.on("connection", (socket) => serve(agent.accepted(socket, options.service)));
  keepRegistered(agent, "live", retryDelay, options);
  return agent;
}

/** A connection that this router serves: accepted, or taken over. */
export interface ServedConnection {
  socket: net.Socket;
  /** Null: accepted, both streams begin. */
  takeover: Takeover | null;
  /** Protects it: call it at once, before anything is read or written. */
  protect(options: ResumeOptions): ProtectedSession;
}

export interface ServeProtectedOptions extends Registered {
  agent: Agent;
  mode: "confirmed" | "delivered";
  /** Accepts the service's connections; listen() is yours. Not given: the application connects by itself. */
  listener?: net.Server;
  /** Serves a connection, from its first byte or from a resume point. */
  onConnection: (connection: ServedConnection) => void;
}

/** Confirmed or delivered mode: one handler for the connections that are accepted and those that are taken over. */
export function serveProtected(options: ServeProtectedOptions): void {
  const { agent, service, mode, listener, onConnection } = options;
  listener?.on("connection", (socket) =>
    onConnection({
      socket,
      takeover: null,
      protect: ({ replay: _, ...rest }) => agent.protect(socket, { service, ...rest }),
    }),
  );
  agent.on("session", (session) => {
    if (session.service !== service) return;
    session.once("takeover", (takeover) =>
      onConnection({ socket: takeover.socket, takeover, protect: (rest) => takeover.protect(rest) }),
    );
  });
  keepRegistered(agent, mode, 500, options);
}

/** Registers, and again when it is refused. */
function keepRegistered(
  agent: Agent,
  mode: "live" | "confirmed" | "delivered",
  retryDelay: number,
  { service, onState }: Registered,
): void {
  const failed = (error: TandemError) => onState?.({ registered: false, error });
  agent.on("registered", (name) => {
    if (name === service) onState?.({ registered: true, error: null });
  });
  agent.on("refused", (name, error) => {
    if (name === service) failed(error);
  });
  agent.on("disconnected", failed);
  const register = (): void => {
    agent.register(service, mode).catch((error: unknown) => {
      if (!(error instanceof TandemError)) throw error;
      if (agent.closed) return;
      failed(error);
      setTimeout(register, retryDelay).unref();
    });
  };
  register();
}
