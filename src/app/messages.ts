// The messages of the application protocol, both directions: their shapes, and how a raw one becomes a checked one.
// docs/protocol.md describes them for other languages. Unknown fields are ignored, so that a message can grow.

import { z } from "zod";
import { refusal } from "./errors.js";
import { encodeFrame, type FrameLimits, type RawMessage, type Unframed } from "./framing.js";

/** The newest version this code speaks. Additions of types and fields do not change it; changes of meaning do. */
export const PROTOCOL_VERSION = 1;
/** The oldest one this code still speaks. The connection uses the lower of the two newest. */
export const OLDEST_VERSION = 1;
/** Bytes of one message, without its newline. */
export const MAX_LINE = 65_536;
/** Descriptors one message may carry. */
export const MAX_FDS = 8;
/** Bytes of an application's state, of its input buffer, and of the output in one message; together they are the most
 * that a message to the agent carries. */
export const MAX_STATE = 256 << 10;
export const MAX_INPUT_BUFFER = 256 << 10;
export const MAX_OUTPUT = 512 << 10;
/** TCP_MD5SIG_MAXKEYLEN (include/uapi/linux/tcp.h). */
const MAX_MD5_KEY = 80;

/** What an agent accepts, and what an application accepts. The parts may be longer than their own limits, so that the
 * refusal can name the part and the connection goes on. */
export const TO_AGENT: FrameLimits = { line: MAX_LINE, parts: (1 << 20) + (64 << 10), fds: MAX_FDS, fdsAhead: 0 };
export const TO_APPLICATION: FrameLimits = { line: MAX_LINE, parts: 32 << 20, fds: MAX_FDS, fdsAhead: MAX_FDS };

/** Entries of one progress message: at most 3 numbers of 16 digits each, so it fits into a line. */
export const MAX_PROGRESS = 1000;

export const DEFAULT_SOCKET_PATH = "/run/tandem/app.sock";

/** Stream offsets count bytes from the first one after the handshake; 64 bits, of which JSON carries 53, and z.int() takes
 * no more. */
const offset = z.int().min(0);
const sessionId = z.int().min(1);
const version = z.int().min(0).max(65_535);
const serviceName = z.string().min(1).max(64);
const word = z.string().min(1).max(64);
const text = z.string().max(4096);
const endpoint = z.object({ ip: z.union([z.ipv4(), z.ipv6()]), port: z.int().min(1).max(65_535) });
/** Chosen by the application, repeated in the answer. */
const request = z.int().min(0).optional();
const role = z.enum(["fenced", "joining", "standby", "active", "solo"]);
/** Where the resume points of a service come from. */
const mode = z.enum(["live", "confirmed", "delivered"]);
export const MODES = mode.options;

/** Where an application stands in both directions of a session. */
const position = z.object({ inputOffset: offset, outputOffset: offset });
/** The offsets of a kernel socket's first byte in each direction. */
const base = z.object({ input: offset, output: offset });
/** The length of a part: what it may be is the agent's to judge. */
const length = z.int().min(0);

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
  /** Part, if any: the session's TCP MD5 key. */
  protect: z.object({
    type: z.literal("protect"),
    service: serviceName.optional(),
    base: base.optional(),
    request,
    fds: z.literal(1),
    parts: z.tuple([z.int().min(1).max(MAX_MD5_KEY)]).optional(),
  }),
  /** Parts: state, input buffer from inputOffset on, output from outputStart on. */
  handover: z.object({
    type: z.literal("handover"),
    id: sessionId,
    inputOffset: offset,
    outputOffset: offset,
    outputStart: offset,
    request,
    parts: z.tuple([length, length, length]),
  }),
  /** Parts: state, output from outputStart on. */
  confirm: z.object({
    type: z.literal("confirm"),
    id: sessionId,
    inputOffset: offset,
    outputOffset: offset,
    outputStart: offset,
    keepState: z.boolean().optional(),
    request,
    parts: z.tuple([length, length]),
  }),
  /** Part: output from outputStart on. */
  log: z.object({
    type: z.literal("log"),
    id: sessionId,
    outputStart: offset,
    request,
    parts: z.tuple([length]),
  }),
  release: z.object({
    type: z.literal("release"),
    id: sessionId,
    how: z.enum(["close", "abort", "detach"]),
    request,
  }),
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
    id: sessionId.optional(),
    request,
  }),
  role: z.object({ type: z.literal("role"), role }),
  protected: z.object({ type: z.literal("protected"), id: sessionId, request }),
  standbyReady: z.object({ type: z.literal("standbyReady"), id: sessionId, recorded: offset }),
  ready: z.object({ type: z.literal("ready"), id: sessionId }),
  unready: z.object({ type: z.literal("unready"), id: sessionId, reason: word }),
  confirmed: z.object({ type: z.literal("confirmed"), id: sessionId, stored: z.boolean(), request }),
  logged: z.object({ type: z.literal("logged"), id: sessionId, stored: z.boolean(), request }),
  released: z.object({ type: z.literal("released"), id: sessionId, request }),
  /** Part: the state. Descriptor: the feed, in the mode live. */
  session: z.object({
    type: z.literal("session"),
    id: sessionId,
    service: serviceName,
    mode,
    local: endpoint,
    peer: endpoint,
    inputOffset: offset,
    outputOffset: offset,
    recorded: offset,
    joined: z.boolean(),
    fds: z.union([z.literal(0), z.literal(1)]),
    parts: z.tuple([length]),
  }),
  progress: z.object({
    type: z.literal("progress"),
    sessions: z.array(z.tuple([sessionId, offset, offset])).max(MAX_PROGRESS),
  }),
  fin: z.object({ type: z.literal("fin"), id: sessionId, inputOffset: offset }),
  closed: z.object({ type: z.literal("closed"), id: sessionId, cause: word }),
  notReady: z.object({ type: z.literal("notReady"), id: sessionId, reason: word }),
  /** Parts: the state, the output from confirmed.outputOffset on. */
  takeover: z.object({
    type: z.literal("takeover"),
    id: sessionId,
    inputOffset: offset,
    outputOffset: offset,
    confirmed: position,
    base,
    clean: z.boolean().nullable(),
    fds: z.literal(1),
    parts: z.tuple([length, length]),
  }),
};

type Message<Schemas extends Record<string, z.ZodType>> = {
  [Type in keyof Schemas]: z.infer<Schemas[Type]>;
}[keyof Schemas];

/** What an application says to its agent; its parts travel beside it. */
export type ApplicationMessage = Unframed<Message<typeof applicationSchemas>>;
export type ApplicationMessageOf<Type extends ApplicationMessage["type"]> = Extract<ApplicationMessage, { type: Type }>;
/** What an agent says to an application; its parts travel beside it. */
export type AgentMessage = Unframed<Message<typeof agentSchemas>>;
export type AgentMessageOf<Type extends AgentMessage["type"]> = Extract<AgentMessage, { type: Type }>;
export type Role = z.infer<typeof role>;
export type Endpoint = z.infer<typeof endpoint>;
export type Mode = z.infer<typeof mode>;
export type Position = z.infer<typeof position>;
export type Base = z.infer<typeof base>;
/** What an application means by letting go: FIN, RST, or nothing (the connection goes on unprotected). */
export type ReleaseHow = ApplicationMessageOf<"release">["how"];

/** One message with its parts as bytes. Throws TandemError `line-too-long`. */
export function encodeMessage(message: AgentMessage | ApplicationMessage, parts: readonly Uint8Array[] = []): Buffer {
  return encodeFrame(message, parts, MAX_LINE);
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
