// The messages of the application protocol, both directions: their shapes, and how a raw one becomes a checked one.
// docs/protocol.md describes them for other languages. Unknown fields are ignored, so that a message can grow.

import { z } from "zod";
import { refusal } from "./errors.js";

/** The newest version this code speaks. Additions of types and fields do not change it; changes of meaning do. */
export const PROTOCOL_VERSION = 1;
/** The oldest one this code still speaks. The connection uses the lower of the two newest. */
export const OLDEST_VERSION = 1;
/** Bytes of one message, without its newline. */
export const MAX_LINE = 65_536;
/** Descriptors one message may carry. */
export const MAX_FDS = 8;
/** Entries of one progress message: at most 3 numbers of 16 digits each, so it fits into a line. */
export const MAX_PROGRESS = 1000;

export const DEFAULT_SOCKET_PATH = "/run/tandem/app.sock";

/** Stream offsets count bytes from the first one after the handshake; 64 bits, of which JSON carries 53. */
const offset = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const sessionId = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER);
const version = z.number().int().min(0).max(65_535);
const serviceName = z.string().min(1).max(64);
const word = z.string().min(1).max(64);
const text = z.string().max(4096);
const endpoint = z.object({ ip: z.union([z.ipv4(), z.ipv6()]), port: z.number().int().min(1).max(65_535) });
/** Chosen by the application, repeated in the answer. */
const request = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional();
const role = z.enum(["fenced", "joining", "standby", "active", "solo"]);

const applicationSchemas = {
  hello: z.object({
    type: z.literal("hello"),
    version,
    role: z.enum(["active", "standby"]).optional(),
    application: z.string().max(64).optional(),
    request,
  }),
  // The mode is any word here, so that one we lack is refused as such.
  register: z.object({ type: z.literal("register"), service: serviceName, mode: word, request }),
};

const agentSchemas = {
  welcome: z.object({ type: z.literal("welcome"), version, router: z.string().max(256), role, modes: z.array(word) }),
  registered: z.object({ type: z.literal("registered"), service: serviceName, mode: word, request }),
  error: z.object({
    type: z.literal("error"),
    code: word,
    message: text,
    remedy: text,
    fatal: z.boolean(),
    service: serviceName.optional(),
    request,
  }),
  role: z.object({ type: z.literal("role"), role }),
  session: z.object({
    type: z.literal("session"),
    id: sessionId,
    service: serviceName,
    local: endpoint,
    peer: endpoint,
    inputOffset: offset,
    outputOffset: offset,
    fds: z.literal(1),
  }),
  progress: z.object({
    type: z.literal("progress"),
    sessions: z.array(z.tuple([sessionId, offset, offset])).max(MAX_PROGRESS),
  }),
  fin: z.object({ type: z.literal("fin"), id: sessionId, inputOffset: offset }),
  closed: z.object({ type: z.literal("closed"), id: sessionId, cause: word }),
  notReady: z.object({ type: z.literal("notReady"), id: sessionId, reason: word }),
  takeover: z.object({
    type: z.literal("takeover"),
    id: sessionId,
    inputOffset: offset,
    outputOffset: offset,
    fds: z.literal(1),
  }),
};

type Message<Schemas extends Record<string, z.ZodType>> = {
  [Type in keyof Schemas]: z.infer<Schemas[Type]>;
}[keyof Schemas];

/** What an application says to its agent. */
export type ApplicationMessage = Message<typeof applicationSchemas>;
/** What an agent says to an application. */
export type AgentMessage = Message<typeof agentSchemas>;
export type AgentMessageOf<Type extends AgentMessage["type"]> = Extract<AgentMessage, { type: Type }>;
export type Role = z.infer<typeof role>;
export type Endpoint = z.infer<typeof endpoint>;

/** A message as the framing delivers it: a JSON object with its type, and the descriptors it named. */
export interface RawMessage {
  type: string;
  body: unknown;
  fds: number[];
}

function parse<Schemas extends Record<string, z.ZodType>>(schemas: Schemas, raw: RawMessage): Message<Schemas> | null {
  if (!Object.hasOwn(schemas, raw.type)) return null;
  const parsed = (schemas[raw.type] as z.ZodType<Message<Schemas>>).safeParse(raw.body);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const where = issue === undefined ? "" : `Field ${issue.path.join(".") || "(all)"}: ${issue.message}.`;
  throw refusal("bad-message", `Type ${raw.type}. ${where}`);
}

/** Null: a type this version does not know. Throws TandemError `bad-message`. Descriptors stay the caller's. */
export function parseApplicationMessage(raw: RawMessage): ApplicationMessage | null {
  return parse(applicationSchemas, raw);
}

/** As parseApplicationMessage, for the other direction. An SDK ignores types it does not know. */
export function parseAgentMessage(raw: RawMessage): AgentMessage | null {
  return parse(agentSchemas, raw);
}
