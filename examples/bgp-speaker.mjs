// A small BGP speaker (RFC 4271, IPv4, passive) whose sessions outlive its router, in confirmed mode. On both routers:
//
//   node examples/bgp-speaker.mjs --listen 10.77.0.1:179 --as 65001 --announce 203.0.113.0/24
//
// Whatever it writes is logged, so that a message is never cut in two: the successor goes on between two messages. What it
// has made of its peer's messages is confirmed after each. Timers are nobody's state: each router keeps its own.

import net from "node:net";
import { parseArgs } from "node:util";
import { connectAgent, serveProtected } from "tandem";

const { values } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:179" },
    as: { type: "string", default: "65001" },
    hold: { type: "string", default: "90" },
    announce: { type: "string", multiple: true, default: [] },
    service: { type: "string", default: "bgp" },
    socket: { type: "string", default: "/run/tandem/app.sock" },
  },
});
const separator = values.listen.lastIndexOf(":");
const host = values.listen.slice(0, separator);
const ownAs = Number(values.as);

const OPEN = 1;
const UPDATE = 2;
const NOTIFICATION = 3;
const KEEPALIVE = 4;
const headerBytes = 19;
const asTrans = 23456; // RFC 6793
const say = (event, value) => console.log(JSON.stringify({ [event]: value }));

const u16 = (number) => [(number >> 8) & 0xff, number & 0xff];
const u32 = (number) => [...u16(number >>> 16), ...u16(number & 0xffff)];
const address = (text) => text.split(".").map(Number);

function message(type, body = []) {
  return Buffer.from([...new Array(16).fill(0xff), ...u16(headerBytes + body.length), type, ...body]);
}

/** With multiprotocol IPv4 unicast (RFC 4760) and four-octet AS numbers (RFC 6793). */
function openMessage() {
  const capabilities = [1, 4, 0, 1, 0, 1, 65, 4, ...u32(ownAs)];
  const parameters = [2, capabilities.length, ...capabilities];
  const twoOctets = ownAs > 0xffff ? asTrans : ownAs;
  const head = [4, ...u16(twoOctets), ...u16(Number(values.hold)), ...address(host)];
  return message(OPEN, [...head, parameters.length, ...parameters]);
}

/** All announced prefixes, then the end of the table (RFC 4724). */
function routes(fourOctets) {
  const path = [2, 1, ...(fourOctets ? u32(ownAs) : u16(ownAs > 0xffff ? asTrans : ownAs))];
  const origin = [0x40, 1, 1, 0];
  const attributes = [...origin, 0x40, 2, path.length, ...path, 0x40, 3, 4, ...address(host)];
  const prefixes = values.announce.flatMap((text) => {
    const [network, bits] = text.split("/");
    return [Number(bits), ...address(network).slice(0, (Number(bits) + 7) >> 3)];
  });
  const end = message(UPDATE, [0, 0, 0, 0]);
  if (prefixes.length === 0) return end;
  return Buffer.concat([message(UPDATE, [0, 0, ...u16(attributes.length), ...attributes, ...prefixes]), end]);
}

function readPrefixes(bytes) {
  const prefixes = [];
  for (let at = 0; at < bytes.length; ) {
    const bits = bytes[at];
    const octets = (bits + 7) >> 3;
    const network = [...bytes.subarray(at + 1, at + 1 + octets), 0, 0, 0, 0].slice(0, 4);
    prefixes.push(`${network.join(".")}/${bits}`);
    at += 1 + octets;
  }
  return prefixes;
}

/** Has the path been through us already (RFC 4271, 9.1.2)? */
function isLoop(attributes, fourOctets) {
  for (let at = 0; at < attributes.length; ) {
    const long = (attributes[at] & 0x10) !== 0;
    const start = at + (long ? 4 : 3);
    const end = start + (long ? attributes.readUInt16BE(at + 2) : attributes[at + 2]);
    const width = fourOctets ? 4 : 2;
    // AS_PATH: segments of a type, a count and so many AS numbers.
    for (let segment = start; attributes[at + 1] === 2 && segment < end; segment += 2 + width * attributes[segment + 1])
      for (let index = 0; index < attributes[segment + 1]; index++)
        if (attributes.readUIntBE(segment + 2 + width * index, width) === ownAs) return true;
    at = end;
  }
  return false;
}

/** Whole messages at the beginning of `bytes`: type and body. */
function* messagesIn(bytes) {
  for (let at = 0; at + headerBytes <= bytes.length; ) {
    const length = bytes.readUInt16BE(at + 16);
    if (at + length > bytes.length) return;
    yield { type: bytes[at + 18], body: bytes.subarray(at + headerBytes, at + length), end: at + length };
    at += length;
  }
}

function serve({ socket, takeover, protect }) {
  /** What the successor needs: what was said, what was agreed, and the peer's routes. */
  const state = takeover?.state.length
    ? JSON.parse(String(takeover.state))
    : { said: [], hold: Number(values.hold), fourOctets: false, routes: [] };
  let processed = takeover?.inputOffset ?? 0;
  let pending = Buffer.alloc(0);
  let keepalives = null;
  let silence = null;
  const packed = () => Buffer.from(JSON.stringify(state));

  const session = protect({
    handover: () => ({
      inputOffset: processed,
      outputOffset: session.outputOffset,
      state: packed(),
      inputBuffer: pending,
    }),
  });
  session.on("ready", () => say("ready", state.routes));
  session.on("unready", (reason) => say("unready", reason));

  const write = (bytes) => void session.write(bytes, { logged: true });
  /** Once in a session, whoever of us says it. */
  function sayOnce(what, bytes) {
    if (state.said.includes(what)) return;
    state.said.push(what);
    write(bytes);
  }
  function stop() {
    clearInterval(keepalives);
    clearTimeout(silence);
  }
  function startTimers() {
    stop();
    if (state.hold === 0) return;
    keepalives = setInterval(() => write(message(KEEPALIVE)), (state.hold * 1000) / 3);
    heard();
  }
  function heard() {
    clearTimeout(silence);
    silence = setTimeout(() => {
      write(message(NOTIFICATION, [4, 0])); // hold timer expired
      void session.close();
    }, state.hold * 1000);
  }

  function take({ type, body }) {
    if (type === OPEN) {
      state.hold = Math.min(Number(values.hold), body.readUInt16BE(3));
      state.fourOctets = body.includes(Buffer.from([65, 4]), 10);
      sayOnce("open", openMessage());
      sayOnce("accepted", message(KEEPALIVE));
      startTimers();
    } else if (type === KEEPALIVE) {
      sayOnce("routes", routes(state.fourOctets));
    } else if (type === UPDATE) {
      const withdrawn = body.readUInt16BE(0);
      const reach = 4 + withdrawn + body.readUInt16BE(2 + withdrawn);
      const routes = readPrefixes(body.subarray(reach));
      const loop = isLoop(body.subarray(4 + withdrawn, reach), state.fourOctets);
      const gone = [...readPrefixes(body.subarray(2, 2 + withdrawn)), ...(loop ? routes : [])];
      const kept = state.routes.filter((prefix) => !gone.includes(prefix));
      state.routes = [...new Set([...kept, ...(loop ? [] : routes)])].sort();
      say("routes", state.routes);
    } else if (type === NOTIFICATION) {
      say("notification", [...body]);
      void session.close();
    }
  }

  if (takeover !== null) {
    // Said since the last confirm: not to be said again.
    for (const { type, body } of messagesIn(takeover.outputSinceConfirm)) {
      const what =
        type === OPEN ? "open" : type === UPDATE ? "routes" : state.said.includes("open") ? "accepted" : null;
      if (what !== null && !state.said.includes(what)) state.said.push(what);
      if (type === NOTIFICATION) say("said", [...body]);
    }
    say("takenOver", state);
    if (state.said.includes("open")) {
      startTimers();
      write(message(KEEPALIVE)); // our predecessor's last one is a while ago
    }
  }

  socket.on("data", (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    heard();
    let done = 0;
    for (const each of messagesIn(pending)) {
      take(each);
      done = each.end;
    }
    if (done === 0) return;
    pending = pending.subarray(done);
    processed += done;
    void session.confirm(processed, session.outputOffset, packed());
  });
  socket.on("end", () => void session.close());
  socket.on("close", stop);
  socket.on("error", (error) => say("error", error.message));
}

const listener = net.createServer({ allowHalfOpen: true });
serveProtected({
  agent: connectAgent({ path: values.socket, application: "bgp-speaker" }),
  service: values.service,
  mode: "confirmed",
  listener,
  onConnection: serve,
  onState: ({ registered, error }) => say(registered ? "registered" : "notRegistered", error?.message ?? true),
});
listener.listen(Number(values.listen.slice(separator + 1)), host, () => say("listening", values.listen));
