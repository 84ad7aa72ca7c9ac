// The control channel between the two agents: TLS 1.3 with both certificates pinned. Router a listens on its mirror
// address, router b connects and tries again for ever.
import { EventEmitter } from "node:events";
import net from "node:net";
import tls from "node:tls";
import { encodeFrame, MessageReader, type Unframed } from "../app/framing.js";
import type { RouterName } from "../config/schema.js";
import { sentenceOf } from "../errors.js";
import type { PairKeys } from "./keys.js";
import { type ControlMessage, controlMessage, maxControlLine, maxControlParts } from "./messages.js";

const retryMs = 250;
/** Long enough for two small routers under load; whoever connects and says nothing is gone after it. */
const handshakeMs = 5000;
const silenceMs = 15_000;
/** A partner that can be heard answers within this, unless it is very busy: then a new connection costs little. */
const answerMs = 500;
/** Bytes that may wait for the partner. */
const maxWaiting = 64 << 20;

export interface ControlOptions {
  router: RouterName;
  localIp: string;
  partnerIp: string;
  port: number;
  keys: PairKeys;
}

interface ControlEvents {
  up: [];
  down: [reason: string];
  /** `parts`: the bytes that came with it. */
  message: [message: ControlMessage, parts: readonly Uint8Array[]];
  /** Something on the port that is not our partner; counted, never fatal. */
  refused: [reason: string];
}

export class ControlChannel extends EventEmitter<ControlEvents> {
  private socket: tls.TLSSocket | null = null;
  private server: tls.Server | null = null;
  private retry: NodeJS.Timeout | null = null;
  /** Router b: the connection that is being made, since when, and how long the answer to a ping is waited for. */
  private attempt: tls.TLSSocket | null = null;
  private attemptedAt = 0;
  private awaitingPong: NodeJS.Timeout | null = null;
  private stopped = false;

  constructor(private readonly options: ControlOptions) {
    super();
  }

  get connected(): boolean {
    return this.socket !== null;
  }

  /** Resolves once the listener is bound (router a), or at once (router b). Rejects with the bind error. */
  async start(): Promise<void> {
    if (this.options.router === "b") {
      this.connect();
      return;
    }
    const options = { ...this.security(), requestCert: true, handshakeTimeout: handshakeMs };
    const server = tls.createServer(options, (socket) => this.adopt(socket));
    server.maxConnections = 4;
    // Strangers must not hold the few places: the address costs them nothing to see, the handshake would.
    server.prependListener("connection", (socket) => {
      if (socket.remoteAddress !== this.options.partnerIp) socket.destroy();
    });
    server.on("tlsClientError", (error) => this.emit("refused", sentenceOf(error)));
    this.server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.options.port, this.options.localIp, resolve);
    });
    server.on("error", (error) => this.emit("refused", sentenceOf(error)));
  }

  /** False when there is no partner to hear it, or when it no longer keeps up: the connection then begins anew. */
  send(message: Unframed<ControlMessage>, parts: readonly Uint8Array[] = []): boolean {
    if (this.socket === null) return false;
    if (this.socket.writableLength > maxWaiting) {
      this.socket.destroy(new Error("the partner does not keep up"));
      return false;
    }
    this.socket.write(encodeFrame(message, parts, maxControlLine));
    return true;
  }

  /** The mirror path carries again after a silence. What was sent meanwhile waits for TCP's retransmission timer, which
   * doubles each time (RFC 6298, section 5.5) and can be many seconds away: a connection that does not answer soon begins
   * anew. For router b, which connects, to see to, in both directions; router a adopts the new one. */
  carriesAgain(): void {
    const { socket } = this;
    if (performance.now() - this.attemptedAt > answerMs)
      this.attempt?.destroy(new Error("the mirror path carries again, and it is tried anew"));
    if (socket === null || this.options.router === "a" || this.awaitingPong !== null) return;
    this.send({ type: "ping" });
    this.awaitingPong = setTimeout(() => {
      this.awaitingPong = null;
      socket.destroy(new Error("it stood still although the mirror path carries again"));
    }, answerMs);
  }

  stop(): void {
    this.stopped = true;
    if (this.retry) clearTimeout(this.retry);
    this.heardPong();
    this.attempt?.destroy();
    this.socket?.destroy();
    this.server?.close();
  }

  private heardPong(): void {
    if (this.awaitingPong) clearTimeout(this.awaitingPong);
    this.awaitingPong = null;
  }

  private security() {
    const { keys } = this.options;
    return {
      minVersion: "TLSv1.3" as const,
      key: keys.privateKey,
      cert: keys.certificate,
      ca: keys.partnerCertificate,
      rejectUnauthorized: true,
    };
  }

  private connect(): void {
    const { partnerIp, localIp, port } = this.options;
    const carrier = net.connect({ host: partnerIp, port, localAddress: localIp });
    const socket = tls.connect({ ...this.security(), socket: carrier, servername: "tandem-a" });
    this.attempt = socket;
    this.attemptedAt = performance.now();
    socket.setTimeout(silenceMs, () => socket.destroy(new Error("the connection attempt timed out")));
    const failed = (error: Error) => this.emit("refused", sentenceOf(error));
    socket.once("error", failed);
    socket.once("close", () => {
      if (this.attempt === socket) this.attempt = null;
      if (!this.stopped) this.retry = setTimeout(() => this.connect(), retryMs);
    });
    socket.once("secureConnect", () => {
      socket.off("error", failed);
      socket.setTimeout(0);
      this.attempt = null;
      this.adopt(socket);
    });
  }

  private adopt(socket: tls.TLSSocket): void {
    // A newer connection of the same certified partner replaces the old one: its end may have vanished silently.
    this.socket?.destroy();
    this.socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 1000);
    let reason = "the partner closed it";
    const reader = new MessageReader({ line: maxControlLine, parts: maxControlParts, fds: 0, fdsAhead: 0 });
    socket.on("data", (chunk) => {
      const messages: [ControlMessage, readonly Uint8Array[]][] = [];
      try {
        reader.push(chunk, [], ({ body, parts }) => messages.push([controlMessage.parse(body), parts]));
      } catch (error) {
        reader.abandon();
        socket.destroy(new Error(`the partner's message is not understood (${sentenceOf(error)})`));
      }
      for (const [message, parts] of messages) {
        if (message.type === "ping") this.send({ type: "pong" });
        else if (message.type === "pong") this.heardPong();
        else this.emit("message", message, parts);
      }
    });
    socket.on("error", (error) => {
      reason = sentenceOf(error);
    });
    socket.on("close", () => {
      if (this.socket !== socket) return;
      this.socket = null;
      this.heardPong();
      this.emit("down", reason);
    });
    this.emit("up");
  }
}
