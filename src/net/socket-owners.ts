// Whose sockets they are: which descriptor of which process holds a socket of a service, found in one walk over the
// descriptors of all processes (bpf/snapshot.bpf.c). Reading /proc instead would stop the agent for seconds on a busy host.

import { native } from "../../addon/native.js";
import * as abi from "../abi.gen.js";

const O = abi.offsets.td_owner;
/** Four million descriptors. */
const maxBytes = 1 << 26;

export interface SocketOwner {
  pid: number;
  fd: number;
}

export class SocketOwners {
  private readonly link: number;

  /** `program`: DataPlane.iterator("owners"). Throws NativeError. */
  constructor(program: number) {
    this.link = native.bpfIteratorAttach(program);
  }

  /** By inode of the socket, one owner each; a socket that is still in its listener's queue has none. A moment later the
   * descriptor may be closed, or another file: compare socketFacts(pidfdGetfd(pid, fd)).inode. Throws NativeError. */
  find(): Map<number, SocketOwner> {
    const bytes = native.bpfIterate(this.link, maxBytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const owners = new Map<number, SocketOwner>();
    for (let at = 0; at < bytes.length; at += abi.sizes.td_owner)
      owners.set(Number(view.getBigUint64(at + O.inode, true)), {
        pid: view.getUint32(at + O.pid, true),
        fd: view.getUint32(at + O.fd, true),
      });
    return owners;
  }

  close(): void {
    native.closeFd(this.link);
  }
}
