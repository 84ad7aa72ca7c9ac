// Takeovers come all at once, once in a router's life, and peers wait for each: what runs in one is compiled by then. So
// once it is registered, and before it has sessions to keep up with, an application takes over some that do not exist, from
// the message's bytes to the answer of a replica that echoes, and drops them.

import { native } from "../../addon/native.js";
import { MessageReader } from "../app/framing.js";
import { encodeMessage, parseAgentMessage, TO_APPLICATION } from "../app/messages.js";
import { StandbySession } from "./session.js";
import { SocketStandIn } from "./socket-stand-in.js";

/** Reading the message is worth more of them, and costs no descriptors: by then V8 has optimised it. */
const messages = 600;
const messagesAtOnce = 50; // a millisecond or two
const takeovers = 64;
const takeoversAtOnce = 4;
/** A turn of the loop for the request, for its answer, and for what else the application has to do. */
const pauseMs = 5;

const nothing = Buffer.alloc(0);
const request = Buffer.from("rehearsal");
const endpoint = { ip: "::", port: 0 };
const start = { inputOffset: 0, outputOffset: 0 };
const session = { id: 1, service: "", mode: "live" as const, local: endpoint, peer: endpoint, ...start };
const facts = { id: 1, ...start, confirmed: start, base: { input: 0, output: 0 }, clean: null };
const takeover = encodeMessage({ type: "takeover", ...facts, fds: 1 }, [nothing, nothing]);

let rehearsed = false;

/** Once in a process's life. Returns at once; it is done in pieces, while the application goes on. */
export function rehearseTakeovers(): void {
  if (rehearsed) return;
  rehearsed = true;
  const reader = new MessageReader(TO_APPLICATION);
  const read = (left: number): void => {
    for (let count = 0; count < messagesAtOnce; count++) reader.push(takeover, [-1], parseAgentMessage);
    if (left > messagesAtOnce) setImmediate(read, left - messagesAtOnce);
    else take(takeovers);
  };
  const take = (left: number): void => {
    try {
      for (let count = 0; count < takeoversAtOnce; count++) takeOne(reader);
    } catch {
      return; // no descriptors are left for it: then it is as slow as it is
    }
    if (left > takeoversAtOnce) setTimeout(take, pauseMs, left - takeoversAtOnce).unref();
  };
  read(messages);
}

function takeOne(reader: MessageReader): void {
  const feed = native.socketPair();
  const connected = pairBeside(feed);
  const imagined = new StandbySession({ ...session, recorded: 0, joined: false }, nothing, feed[1]);
  const replica = imagined.replica();
  replica.on("error", () => {});
  replica.pipe(replica);
  const [peer, connection] = connected;
  reader.push(takeover, [connection], (raw) => {
    const message = parseAgentMessage(raw);
    const standIn = SocketStandIn.make() ?? undefined;
    if (message?.type === "takeover")
      imagined.goOn(raw.fds.shift() as number, standIn, message, raw.parts, () => {
        throw new Error("nobody protects a rehearsal");
      });
  });
  native.writeSome(peer, request, 0, request.length);
  setTimeout(() => {
    replica.destroy();
    for (const fd of [feed[0], peer]) native.closeFd(fd);
  }, pauseMs).unref();
}

/** Another one; without it neither. Throws NativeError. */
function pairBeside(first: [number, number]): [number, number] {
  try {
    return native.socketPair();
  } catch (error) {
    for (const fd of first) native.closeFd(fd);
    throw error;
  }
}
