// What applications import: both sides of Tandem.

export type { Base, Endpoint, Mode, Position, Role } from "../app/messages.js";
export { TandemError } from "../errors.js";
export { type Agent, type ConnectOptions, connectAgent } from "./agent.js";
export type { HandoverAnswer, ProtectedSession, ProtectOptions } from "./protected-session.js";
export type { Replica, ReplicaOptions } from "./replica.js";
export {
  type ServedConnection,
  type ServeProtectedOptions,
  type ServeReplicatedOptions,
  serveProtected,
  serveReplicated,
} from "./serve.js";
export type { ResumeOptions, StandbySession, Takeover } from "./session.js";
