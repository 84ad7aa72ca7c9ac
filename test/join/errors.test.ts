// What a real agent refuses, each with its own code, message and remedy: descriptors that are no session of a service,
// words about a session that cannot be true, and what becomes of sessions whose agent goes away. The session itself goes
// on in every case. (What needs no kernel and no other router is in test/app.)

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { z } from "zod";
import { native, type UnixChannel } from "../../addon/native.js";
import { type RefusalCode, refusals } from "../../src/app/errors.js";
import { encodeFrame, MessageReader } from "../../src/app/framing.js";
import { MAX_INPUT_BUFFER, MAX_LINE, MAX_OUTPUT, MAX_STATE, TO_APPLICATION } from "../../src/app/messages.js";
import { addressPlan, Lab, type RouterName } from "../../src/lab/lab.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { type Agent, connectAgent } from "../../src/sdk/index.js";
import { SocketLender } from "./lent-sockets.js";
import { skip } from "./mill-scene.js";

const { v4 } = addressPlan.service;
const port = 7002;
const answers = z.looseObject({
  type: z.string(),
  request: z.number().optional(),
  id: z.number().optional(),
  code: z.string().optional(),
  message: z.string().optional(),
  remedy: z.string().optional(),
  fatal: z.boolean().optional(),
  stored: z.boolean().optional(),
});
type Answer = z.infer<typeof answers>;

type Message = { type: string } & Record<string, unknown>;

/** An application without the SDK, which would not say what is wrong. */
class BareApplication {
  readonly heard: Answer[] = [];
  readonly #channel: UnixChannel;
  #open = true;
  #requests = 0;

  constructor(path: string, version = 1) {
    const reader = new MessageReader(TO_APPLICATION);
    this.#channel = native.unixChannel(native.unixConnect(path), {
      onData: (data, fds) => reader.push(data, fds, ({ body }) => this.heard.push(answers.parse(body))),
      onClose: () => {
        this.#open = false;
      },
    });
    this.say({ type: "hello", version, application: "bare" });
  }

  get open(): boolean {
    return this.#open;
  }

  say(message: Message, parts: Uint8Array[] = [], fd?: number): void {
    const body = fd === undefined ? message : { ...message, fds: 1 };
    this.#channel.send(encodeFrame(body, parts, MAX_LINE), fd === undefined ? undefined : [fd]);
  }

  async ask(message: Message, parts: Uint8Array[] = [], fd?: number): Promise<Answer> {
    const request = ++this.#requests;
    this.say({ ...message, request }, parts, fd);
    return this.hears((each) => each.request === request);
  }

  async hears(what: (answer: Answer) => boolean): Promise<Answer> {
    for (let round = 0; round < 2000; round++) {
      const answer = this.heard.find(what);
      if (answer !== undefined) return answer;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return assert.fail(`nothing of this was heard: ${JSON.stringify(this.heard.slice(-5))}`);
  }

  close(): void {
    this.#channel.destroy();
  }
}

function assertRefused(answer: Answer, code: RefusalCode, fatal = false): void {
  const { message, remedy } = refusals[code];
  assert.deepEqual([answer.type, answer.code, answer.remedy, answer.fatal], ["error", code, remedy, fatal]);
  assert.ok(answer.message?.startsWith(message), answer.message);
}

describe("what an agent refuses", { skip }, () => {
  let lab: Lab;
  let pair: RouterPair;
  let service: SocketLender;
  let remote: SocketLender;
  let bare: BareApplication;
  let standby: Agent;
  /** A session of the service: the application's descriptor, and the peer's end. */
  let fd = -1;
  let peer: net.Socket;

  const socketPath = (router: RouterName) => path.join(pair.runDirectory(router), "app.sock");

  before(async () => {
    lab = Lab.create();
    pair = new RouterPair(lab, {
      heartbeat: { deadMs: 300, controllerMs: 5000 },
      overrides: {
        services: [
          { name: "errors", addresses: [v4], port, mode: "confirmed" },
          { name: "other", addresses: [v4], port: port + 1 },
        ],
      },
    });
    pair.startAgent("a");
    await pair.untilRole("a", "solo", 30_000);
    service = new SocketLender(lab, "a");
    remote = new SocketLender(lab, "peer");
    native.closeFd(await service.lend(`socket.create_server(("${v4}", ${port}))`));
    ({ fd, peer } = await session());
    bare = new BareApplication(socketPath("a"));
  });

  after(() => {
    bare?.close();
    standby?.close();
    peer?.destroy();
    lab?.destroy();
  });

  async function session(): Promise<{ fd: number; peer: net.Socket }> {
    const theirs = await remote.lend(`socket.create_connection(("${v4}", ${port}))`);
    return {
      fd: await service.lend("made[0].accept()[0]"),
      peer: new net.Socket({ fd: theirs, readable: true, writable: true, allowHalfOpen: true }),
    };
  }

  /** A line comes from the application's socket at the peer. */
  async function assertGoesOn(text: string): Promise<void> {
    const came = once(peer, "data");
    native.writeSome(fd, Buffer.from(text), 0, text.length);
    assert.equal(String((await came)[0]), text);
  }

  const inet = "socket.socket(socket.AF_INET, socket.SOCK_STREAM)";
  const strange: [string, string, RefusalCode][] = [
    ["a file", 'os.open("/etc/hostname", os.O_RDONLY)', "not-a-socket"],
    ["a pipe", "os.pipe()[0]", "not-a-socket"],
    ["UDP", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "not-tcp"],
    ["a Unix socket", "socket.socketpair()[0]", "not-tcp"],
    ["a TCP socket that nobody connected", inet, "not-connected"],
    ["a listener", "made[0]", "not-connected"],
  ];
  for (const [what, expression, code] of strange)
    test(`${what}: ${code}`, async () => {
      const strangeFd = await service.lend(expression);
      assertRefused(await bare.ask({ type: "protect" }, [], strangeFd), code);
      native.closeFd(strangeFd);
    });

  test("MPTCP: mptcp", async (t) => {
    const lender = new SocketLender(lab, "a");
    // IPPROTO_MPTCP
    const mptcp = await lender.lend("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)").catch(() => null);
    if (mptcp === null) {
      t.skip("this kernel has no MPTCP");
      return;
    }
    assertRefused(await bare.ask({ type: "protect" }, [], mptcp), "mptcp");
    native.closeFd(mptcp);
    await lender.end();
  });

  test("a connection of no service, or not of the one that is named: unknown-service", async () => {
    const listener = 'socket.create_server(("127.0.0.1", 7009))';
    const connected = `(made.append(${listener}), socket.create_connection(("127.0.0.1", 7009)))[1]`;
    const elsewhere = await service.lend(connected);
    assertRefused(await bare.ask({ type: "protect" }, [], elsewhere), "unknown-service");
    native.closeFd(elsewhere);
    for (const name of ["none", "other"])
      assertRefused(await bare.ask({ type: "protect", service: name }, [], fd), "unknown-service");
    await assertGoesOn("not protected");
  });

  test("a version from before the first: version, and the connection ends; a later one: the agent's own", async () => {
    const old = new BareApplication(socketPath("a"), 0);
    assertRefused(await old.hears(({ type }) => type === "error"), "version", true);
    await pair.until("the connection ends", () => !old.open);
    const newer = new BareApplication(socketPath("a"), 99);
    assert.equal((await newer.hears(({ type }) => type === "welcome")).version, 1);
    newer.close();
  });

  test("a second time, by whomever: already-protected; and the first protection holds", async () => {
    const first = await bare.ask({ type: "protect" }, [], fd);
    assert.equal(first.type, "protected");
    assertRefused(await bare.ask({ type: "protect" }, [], fd), "already-protected");
    const another = new BareApplication(socketPath("a"));
    assertRefused(await another.ask({ type: "protect" }, [], fd), "already-protected");
    another.close();
    await assertGoesOn("protected once");
  });

  test("resume points that cannot be, of a session that is ready: nothing changes, and the next right one is stored", async () => {
    pair.startAgent("b");
    await pair.untilRole("b", "standby", 30_000);
    standby = connectAgent({ path: socketPath("b"), retryDelay: 100 });
    await standby.register("errors", "confirmed");
    const { id } = await bare.hears(({ type }) => type === "standbyReady");
    const written = "not protectedprotected once".length;
    const at = (inputOffset: number, outputOffset: number) => ({ id, inputOffset, outputOffset, outputStart: written });
    const nothing = Buffer.alloc(0);
    const confirm = (inputOffset: number, outputOffset: number, state = nothing, output = nothing) =>
      bare.ask({ type: "confirm", ...at(inputOffset, outputOffset) }, [state, output]);

    const large = Buffer.alloc(MAX_INPUT_BUFFER + 1);
    const handover = (parts: Buffer[]) => bare.ask({ type: "handover", ...at(0, written) }, parts);
    assertRefused(await handover([large, nothing, nothing]), "state-too-large");
    assertRefused(await handover([nothing, large, nothing]), "buffer-too-large");
    bare.say({ type: "handover", ...at(0, written) }, [nothing, nothing, nothing]);
    await bare.hears(({ type }) => type === "ready");

    peer.write("four");
    await pair.until("four bytes are there", () => native.tcpInfo(fd).bytesReceived === 4n);
    assertRefused(await confirm(5, written), "confirm-beyond");
    assertRefused(await confirm(4, written + 1), "confirm-beyond");
    assertRefused(await confirm(4, written - 1), "confirm-behind");
    assertRefused(await confirm(4, written, Buffer.alloc(MAX_STATE + 1)), "state-too-large");
    assertRefused(await confirm(4, written, nothing, Buffer.alloc(MAX_OUTPUT + 1)), "buffer-too-large");
    assert.equal((await confirm(4, written, Buffer.from("four"))).stored, true);
    assertRefused(await confirm(3, written), "confirm-behind");
    assertRefused(await bare.ask({ type: "release", id: 1, how: "close" }), "unknown-session");
    assert.equal(bare.heard.findLast(({ type }) => type === "ready" || type === "unready")?.type, "ready");
    const { sessions, recorder } = await pair.status("b");
    assert.deepEqual([sessions.ready, recorder.auditBreaches], [1, 0]);
    await assertGoesOn("ready");
  });

  test("released, it is nobody's, and may be protected again", async () => {
    const { id } = await bare.hears(({ type }) => type === "protected");
    assert.equal((await bare.ask({ type: "release", id, how: "detach" })).type, "released");
    assertRefused(await bare.ask({ type: "release", id, how: "detach" }), "unknown-session");
    assert.equal((await bare.ask({ type: "protect" }, [], fd)).type, "protected");
    await assertGoesOn("again");
  });
});

describe("an agent that goes away", { skip }, () => {
  let lab: Lab;
  let pair: RouterPair;
  before(() => {
    lab = Lab.create();
    pair = new RouterPair(lab, {
      heartbeat: { deadMs: 300, controllerMs: 1000 },
      overrides: { services: [{ name: "errors", addresses: [v4], port, mode: "confirmed" }] },
    });
  });
  after(() => lab?.destroy());

  test("agent-absent, agent-gone, and protected again when it is back; the session goes on, and its standby holds all", async () => {
    const socketPath = path.join(pair.runDirectory("a"), "app.sock");
    pair.startAgent("a");
    await pair.untilRole("a", "solo", 30_000);
    const [service, remote] = [new SocketLender(lab, "a"), new SocketLender(lab, "peer")];
    native.closeFd(await service.lend(`socket.create_server(("${v4}", ${port}))`));
    const theirs = await remote.lend(`socket.create_connection(("${v4}", ${port}))`);
    const peer = new net.Socket({ fd: theirs, readable: true, writable: true });
    const ours = await service.lend("made[0].accept()[0]");
    await service.end();
    const socket = new net.Socket({ fd: ours, readable: true, writable: true });
    let got = "";
    peer.setEncoding("utf8").on("data", (text: string) => {
      got += text;
    });

    const application = connectAgent({ path: socketPath, retryDelay: 50 });
    const disconnected: string[] = [];
    application.on("disconnected", ({ code }) => disconnected.push(code));
    const session = application.protect(socket, {
      handover: () => ({ inputOffset: session.inputOffset, outputOffset: session.outputOffset }),
    });
    await pair.until("the agent protects it", () => session.reason === "standby-absent");
    assert.deepEqual(await session.write("one ", { logged: true }), { stored: false });

    const agent = pair.agents.a;
    agent?.signal("SIGKILL");
    await agent?.exited;
    await pair.until("the application knows", () => session.reason === "agent-gone");
    // Nothing waits for an agent that is not there.
    assert.deepEqual(await session.write("two ", { logged: true }), { stored: false });
    assert.deepEqual(await session.confirm(0, session.outputOffset), { stored: false });
    await pair.until("it is tried again in vain", () => disconnected.includes("agent-absent"));
    assert.equal(disconnected[0], "agent-gone");

    pair.startAgent("a");
    await pair.until("it is protected again", () => session.reason === "standby-absent");
    await pair.untilRole("a", "solo", 30_000);
    pair.startAgent("b");
    await pair.untilRole("b", "standby", 30_000);
    const standby = connectAgent({ path: path.join(pair.runDirectory("b"), "app.sock"), retryDelay: 50 });
    await standby.register("errors", "confirmed");
    await pair.until("the session is ready", () => session.ready);
    assert.deepEqual(await session.write("three", { logged: true }), { stored: true });
    await pair.until("the peer has all of it", () => got === "one two three");
    application.close();
    standby.close();
    socket.destroy();
    peer.destroy();
  });
});
