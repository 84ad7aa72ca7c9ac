// Stands between an application and its agent on their Unix socket, and lets somebody decide about each message, whole
// with its parts and descriptors, before it goes on. So a test stops a system at one exact step without a hook inside.

import { native, type UnixChannel } from "../../addon/native.js";
import { encodeFrame, type FrameLimits, MessageReader, type RawMessage } from "../../src/app/framing.js";
import {
  type AgentMessage,
  type ApplicationMessage,
  MAX_LINE,
  parseAgentMessage,
  parseApplicationMessage,
  TO_AGENT,
  TO_APPLICATION,
} from "../../src/app/messages.js";

export type Said = ({ from: "application"; message: ApplicationMessage } | { from: "agent"; message: AgentMessage }) & {
  parts: readonly Uint8Array[];
  /** The peer's port of the session that it is about; null: about none, or about one nobody named before. */
  peerPort: number | null;
};

export interface ApplicationProxyOptions {
  /** Where the application connects to, and where its agent listens. */
  path: string;
  agentPath: string;
  /** Before a message goes on, which it does when `passOn` is called: now, never, or later if it carries no descriptor. */
  onMessage: (said: Said, passOn: () => void) => void;
}

export class ApplicationProxy {
  readonly #options: ApplicationProxyOptions;
  readonly #listener: { close(): void };
  readonly #channels = new Set<UnixChannel>();

  constructor(options: ApplicationProxyOptions) {
    this.#options = options;
    this.#listener = native.unixListen(options.path, 0o600, (fd) => this.#accept(fd));
  }

  close(): void {
    this.#listener.close();
    for (const channel of this.#channels) channel.destroy();
  }

  /** An application whose agent is not there finds nobody. */
  #accept(fd: number): void {
    let agentFd: number;
    try {
      agentFd = native.unixConnect(this.#options.agentPath);
    } catch {
      native.closeFd(fd);
      return;
    }
    /** Peer's port by the agent's id of the session, and by the request that asks for its protection. */
    const ports = new Map<number, number>();
    const asked = new Map<number, number>();
    const application: UnixChannel = this.#open(
      fd,
      TO_AGENT,
      () => agent,
      (raw) => {
        const message = parseApplicationMessage(raw);
        if (message === null) return null;
        let peerPort: number | null = null;
        if (message.type === "protect") {
          peerPort = native.socketFacts(raw.fds[0] as number).peerPort;
          asked.set(message.request ?? 0, peerPort);
        } else if ("id" in message) peerPort = ports.get(message.id) ?? null;
        return { from: "application", message, parts: raw.parts, peerPort };
      },
    );
    const agent: UnixChannel = this.#open(
      agentFd,
      TO_APPLICATION,
      () => application,
      (raw) => {
        const message = parseAgentMessage(raw);
        if (message === null) return null;
        if (message.type === "protected") ports.set(message.id, asked.get(message.request ?? 0) ?? 0);
        if (message.type === "session") ports.set(message.id, message.peer.port);
        const id = "id" in message ? message.id : undefined;
        return { from: "agent", message, parts: raw.parts, peerPort: ports.get(id ?? 0) ?? null };
      },
    );
  }

  #open(
    fd: number,
    limits: FrameLimits,
    other: () => UnixChannel,
    read: (raw: RawMessage) => Said | null,
  ): UnixChannel {
    const reader = new MessageReader(limits);
    const channel = native.unixChannel(fd, {
      onData: (data, fds) =>
        reader.push(data, fds, (raw) => {
          const said = read(raw);
          const passOn = () => other().send(encodeFrame(raw.body as { type: string }, raw.parts, MAX_LINE), raw.fds);
          if (said === null) passOn();
          else this.#options.onMessage(said, passOn);
          for (const each of raw.fds.splice(0)) native.closeFd(each);
        }),
      onClose: () => {
        this.#channels.delete(channel);
        other().end();
      },
    });
    this.#channels.add(channel);
    return channel;
  }
}
