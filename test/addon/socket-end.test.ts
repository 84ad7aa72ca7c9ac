// socket_end.cc in a namespace of its own: which connections end, what their owners see, and what stays.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import test from "node:test";
import { native } from "../../addon/native.js";
import { inOwnNamespace, run } from "./fixture.js";

inOwnNamespace(import.meta.url, "sockets ended by their addresses, in a namespace of its own", () => {
  run("ip", "link", "set", "lo", "up");

  interface Pair {
    client: net.Socket;
    server: net.Socket;
    /** Code of the first error that each saw. */
    errors: { client?: string; server?: string };
  }

  async function connect(listener: net.Server, host: string): Promise<Pair> {
    const { port } = listener.address() as net.AddressInfo;
    const client = net.connect({ host, port });
    const [[server]] = (await Promise.all([once(listener, "connection"), once(client, "connect")])) as [
      [net.Socket],
      [],
    ];
    const pair: Pair = { client, server, errors: {} };
    for (const end of ["client", "server"] as const) {
      pair[end].resume();
      pair[end].on("error", (error: NodeJS.ErrnoException) => {
        pair.errors[end] ??= error.code ?? "";
      });
    }
    return pair;
  }

  async function listen(host: string): Promise<net.Server> {
    const listener = net.createServer();
    listener.listen(0, host);
    await once(listener, "listening");
    return listener;
  }

  /** Unlike once(), whatever error comes first. */
  const closed = (socket: net.Socket): Promise<unknown> => new Promise((resolve) => socket.once("close", resolve));
  const portOf = (listener: net.Server): number => (listener.address() as net.AddressInfo).port;

  for (const [what, bind, host] of [
    ["IPv4", "127.0.0.1", "127.0.0.1"],
    ["IPv6", "::1", "::1"],
    ["IPv4 at a listener of both families", "::", "127.0.0.1"],
  ] as const)
    test(`${what}: the accepted side of one port ends, another port and the listener stay`, async () => {
      const [listener, other] = [await listen(bind), await listen(bind)];
      const [pair, bystander] = [await connect(listener, host), await connect(other, host)];
      assert.equal(native.socketsEnd([{ localIp: host, localPort: portOf(listener), peerPort: 0 }]), 1);
      await Promise.all([closed(pair.client), closed(pair.server)]);
      assert.deepEqual(pair.errors, { server: "ECONNABORTED", client: "ECONNRESET" });
      assert.equal(native.socketsEnd([{ localIp: host, localPort: portOf(listener), peerPort: 0 }]), 0);
      bystander.client.write("still here");
      const [text] = (await once(bystander.server, "data")) as [Buffer];
      assert.equal(text.toString(), "still here");
      const again = await connect(listener, host);
      for (const { client, server } of [again, bystander]) for (const each of [client, server]) each.destroy();
      for (const each of [listener, other]) each.close();
    });

  test("one connection of several, by both of its ends", async () => {
    const listener = await listen("127.0.0.1");
    const pairs = [await connect(listener, "127.0.0.1"), await connect(listener, "127.0.0.1")];
    const ends = { localIp: "127.0.0.1", localPort: portOf(listener), peerIp: "127.0.0.1" };
    const [first, second] = pairs as [Pair, Pair];
    assert.equal(native.socketsEnd([{ ...ends, peerIp: "127.0.0.2", peerPort: first.client.localPort ?? 0 }]), 0);
    assert.equal(native.socketsEnd([{ ...ends, peerPort: first.client.localPort ?? 0 }]), 1);
    await closed(first.server);
    assert.equal(second.server.destroyed, false);
    for (const { client, server } of pairs) for (const each of [client, server]) each.destroy();
    listener.close();
  });

  test("by the peer's port, for connections that this side opened", async () => {
    const listener = await listen("127.0.0.1");
    const pair = await connect(listener, "127.0.0.1");
    assert.equal(native.socketsEnd([{ localIp: "127.0.0.1", localPort: 0, peerPort: portOf(listener) }]), 1);
    await closed(pair.client);
    assert.equal(pair.errors.client, "ECONNABORTED");
    pair.server.destroy();
    listener.close();
  });

  test("what is no selector is refused", () => {
    assert.throws(() => native.socketsEnd([{ localIp: "somewhere", localPort: 1, peerPort: 0 }]), { code: "EINVAL" });
    assert.throws(() => native.socketsEnd([{ localIp: "::1", localPort: 70_000, peerPort: 0 }]), { code: "EINVAL" });
    assert.throws(() => native.socketsEnd(1 as never), TypeError);
  });
});
