// The socket on which the applications of this router speak with the agent, and who of us answers them: about sessions
// of the active the standby's side, about connections of their own the active's.

import { native } from "../../addon/native.js";
import { type AppServer, createAppServer } from "../app/server.js";
import type { Config } from "../config/schema.js";
import { errnoOf, sentenceOf, TandemError } from "../errors.js";
import type { ActiveSessions } from "./active-sessions.js";
import type { HeldSessions } from "./held-sessions.js";
import type { StandbySessions } from "./standby-sessions.js";

/** Throws TandemError APP_SOCKET. */
export function openApplications(
  config: Config,
  socketPath: string,
  active: ActiveSessions,
  standby: StandbySessions,
  held: HeldSessions,
): AppServer {
  try {
    return createAppServer({
      path: socketPath,
      native,
      router: config.router,
      role: "fenced",
      accept: (service, mode) => {
        const known = config.services.find(({ name }) => name === service);
        if (known === undefined) return "unknown-service";
        return known.mode === mode ? null : "mode-not-supported";
      },
      onRegister: ({ service }) => {
        standby.applicationHere(service);
        held.applicationHere(service);
      },
      onGone: ({ service }) => standby.applicationGone(service),
      onProtect: (request, answer) => active.onProtect(request, answer),
      onHandover: (id, handover) => active.onHandover(id, handover),
      onConfirm: (id, confirm, answer) => active.onConfirm(id, confirm, answer),
      onLog: (id, outputStart, output, answer) => active.onLog(id, outputStart, output, answer),
      onRelease: (id, how, answer) => active.onRelease(id, how, answer),
      onApplicationGone: (ids, process) => active.onApplicationGone(ids, process),
    });
  } catch (error) {
    throw new TandemError(
      "APP_SOCKET",
      `The applications' socket ${socketPath} cannot be made: ${sentenceOf(error)}.`,
      errnoOf(error) === "EADDRINUSE"
        ? "Another agent is using it: stop that one, or set paths.run to another directory."
        : "Check paths.run in the configuration.",
    );
  }
}
