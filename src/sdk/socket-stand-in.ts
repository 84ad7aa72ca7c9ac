// A net.Socket that is there before its connection is. Making one is a third of what taking a session over costs, and at a
// takeover a thousand peers wait for it: so each session of the standby has one in advance, around a TCP socket that is
// not connected. The connection takes that one's place under the same descriptor.

import net from "node:net";
import { native } from "../../addon/native.js";

/** A net.Socket that does not begin to read by itself: lib/net.js of every Node.js so far, though not in its types. */
type Options = net.SocketConstructorOpts & { manualStart: boolean };

export class SocketStandIn {
  readonly #fd: number;
  readonly #socket: net.Socket;

  private constructor(fd: number) {
    this.#fd = fd;
    const options: Options = { fd, allowHalfOpen: true, readable: true, writable: true, manualStart: true };
    this.#socket = new net.Socket(options);
  }

  /** Null: no descriptor is left for one. */
  static make(): SocketStandIn | null {
    try {
      return new SocketStandIn(native.tcpSocket());
    } catch {
      return null;
    }
  }

  /** The stream of this connection; the descriptor becomes the stream's. Once. */
  become(fd: number): net.Socket {
    native.replaceFd(this.#fd, fd);
    this.#socket.read(0);
    return this.#socket;
  }

  /** There will be no connection. */
  drop(): void {
    this.#socket.destroy();
  }
}
