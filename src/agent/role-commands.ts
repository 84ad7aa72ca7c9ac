// What an operator may ask of the roles: switchover, failover, pause, resume.

import type { z } from "zod";
import { failoverCommand, pauseCommand, resumeCommand, switchoverCommand } from "../observe/commands.js";
import type { OperatorServer } from "../observe/operator.js";
import type { agentStatusSchema } from "../observe/status.js";
import type { RoleState } from "../role/role.js";
import type { TakeoverReport } from "../takeover/report.js";
import type { Switchover } from "./switchover.js";

type Status = z.input<typeof agentStatusSchema>;

export interface RoleCommandParts {
  status(): Promise<Status>;
  role(): RoleState;
  /** For both routers; false: the other one could not be told. */
  pause(reason: string | null): boolean;
}

/** How long the role of this router may take to follow what was done, ms. */
const settleMs = 2000;
const pollMs = 5;

export function registerRoleCommands(operator: OperatorServer, switchover: Switchover, parts: RoleCommandParts): void {
  const changed = async (action: () => Promise<TakeoverReport>) => {
    const before = await parts.status();
    const report = await action();
    const deadline = performance.now() + settleMs;
    while (parts.role().role === before.role && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    return { before, after: await parts.status(), report };
  };
  operator.register(switchoverCommand, ({ force }, { progress }) => {
    progress("The standby is asked whether every session is ready.");
    return changed(() => switchover.request({ cause: "switchover", force }));
  });
  operator.register(failoverCommand, ({ force }, { progress }) => {
    progress("The standby is to take over, at the latest when the active's lease has run out.");
    return changed(() => switchover.failover(force));
  });
  const paused = async (reason: string | null, progress: (sentence: string) => void) => {
    const before = await parts.status();
    if (!parts.pause(reason)) progress("The other router is not connected: say it there, too.");
    return { before, after: await parts.status() };
  };
  operator.register(pauseCommand, ({ reason }, { progress }) => paused(reason, progress));
  operator.register(resumeCommand, (_, { progress }) => paused(null, progress));
}
