// What applications import: the standby's side of Tandem.

export type { Endpoint, Role } from "../app/messages.js";
export { TandemError } from "../errors.js";
export { type ConnectOptions, connectStandby, type StandbyConnection } from "./connection.js";
export type { Replica, ReplicaOptions } from "./replica.js";
export { type ServeReplicatedOptions, serveReplicated } from "./serve.js";
export type { StandbySession, Takeover } from "./session.js";
