// Socket options that matter to a routing protocol: a program sets them on the active, and the one that goes on finds them
// on its socket. Of sessions from their SYN on, and of joined ones. With GTSM (RFC 5082) at both ends the session goes on.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { devices } from "../../src/lab/lab.js";
import { DeliveredScene, Program, type Resumed, skip, v4, v6 } from "./delivered-scene.js";

const port = 7100;
/** Bytes that the peers send, from before the takeover until some seconds after it. */
const sent = 2_000_000;
const families = [
  [4, v4],
  [6, v6],
] as const;

/** Python: the peer sends with a TTL of 255 and accepts nothing less, as routing protocols use GTSM. */
const gtsm = {
  4: "lambda s: (s.setsockopt(0, socket.IP_TTL, 255), s.setsockopt(0, 21, 255))",
  6: "lambda s: (s.setsockopt(41, socket.IPV6_UNICAST_HOPS, 255), s.setsockopt(41, 73, 255))",
} as const;

/** Python: sets everything on `s`. */
function setAll(family: 4 | 6): string {
  const ip =
    family === 4
      ? "s.setsockopt(0, socket.IP_TTL, 255), s.setsockopt(0, 21, 254), s.setsockopt(0, socket.IP_TOS, 0xc0)"
      : "s.setsockopt(41, socket.IPV6_UNICAST_HOPS, 255), s.setsockopt(41, 73, 254), s.setsockopt(41, 67, 0xc0)";
  return `(${ip},
    s.setsockopt(6, socket.TCP_NODELAY, 1),
    s.setsockopt(1, socket.SO_KEEPALIVE, 1),
    s.setsockopt(6, socket.TCP_KEEPIDLE, 77),
    s.setsockopt(6, socket.TCP_KEEPINTVL, 11),
    s.setsockopt(6, socket.TCP_KEEPCNT, 7),
    s.setsockopt(6, socket.TCP_USER_TIMEOUT, 123456),
    s.setsockopt(6, socket.TCP_CONGESTION, b"reno"),
    s.setsockopt(6, socket.TCP_MAXSEG, 900),
    s.setsockopt(1, socket.SO_BINDTODEVICE, b"${devices.uplink}"),
    s.setsockopt(1, socket.SO_PRIORITY, 6),
    s.setsockopt(1, socket.SO_MARK, 4711))`.replaceAll(/\s+/g, " ");
}
const all = {
  ttl: 255,
  minTtl: 254,
  tos: 0xc0,
  noDelay: 1,
  keepAlive: 1,
  keepIdle: 77,
  keepInterval: 11,
  keepCount: 7,
  userTimeout: 123456,
  congestion: "reno",
  device: devices.uplink,
  priority: 6,
  mark: 4711,
};

describe("socket options after a takeover", { skip }, () => {
  let scene: DeliveredScene;
  let server: Program;
  const ports: Record<string, number> = {};
  /** Of the untouched socket, as the active's kernel had them. */
  const defaults: Record<string, number | string> = {};
  const names = ["SYN", "join"].flatMap((when) => families.map(([family]) => `${when} ${family}`));

  before(async () => {
    scene = DeliveredScene.create((lab) => [DeliveredScene.service(lab, "plain", port)]);
    const { lab, peer, pair } = scene;
    async function open(name: string, host: string, prepare = "None"): Promise<void> {
      ports[name] = await peer.number(`connect("${name}", "${host}", ${port}, ${prepare})`);
      await pair.until("it is accepted", async () => (await server.ask(`"${ports[name]}" in conns`)) === true);
      await peer.ask(`conns["${name}"].drain()`);
      await server.ask(`conns["${ports[name]}"].echo()`);
    }
    async function openAll(when: string): Promise<void> {
      for (const [family, host] of families) {
        const name = `${when} ${family}`;
        await open(name, host, gtsm[family]);
        await server.ask(`(lambda s: ${setAll(family)})(conns["${ports[name]}"].s)`);
        await open(`untouched ${name}`, host);
        await open(`buffers ${name}`, host);
        const buffers = "s.setsockopt(1, socket.SO_SNDBUF, 100000), s.setsockopt(1, socket.SO_RCVBUF, 150000)";
        await server.ask(`(lambda s: (${buffers}))(conns["${ports[`buffers ${name}`]}"].s)`);
        for (const each of [name, `untouched ${name}`, `buffers ${name}`])
          await peer.ask(`conns["${each}"].send(10000)`);
      }
    }
    server = new Program(lab, "a");
    scene.addAddresses("a");
    // What a listener of such a protocol sets, its handshakes have, too.
    const hops = {
      4: "lambda s: s.setsockopt(0, socket.IP_TTL, 255)",
      6: "lambda s: s.setsockopt(41, socket.IPV6_UNICAST_HOPS, 255)",
    };
    for (const [family, host] of families) await server.ask(`listen("${host}", ${port}, ${hops[family]})`);
    scene.startAgent("a");
    await pair.untilRole("a", "solo", 30_000);
    await openAll("join");
    scene.startAgent("b");
    await scene.untilProtected();
    await openAll("SYN");
    await scene.untilReady(12);
    defaults.congestion = String(await server.ask(`open("/proc/sys/net/ipv4/tcp_congestion_control").read().strip()`));
    await delay(2000); // options are told once a second
    // Ended a moment before, but for the service's last acknowledgement: the router that answers the peer's repeated FIN has
    // no socket with a TTL of its own.
    const table = "table inet lost {\n chain in {\n type filter hook input priority 0\n }\n }\n";
    lab.run("peer", ["nft", "-f", "-"], table);
    for (const [family, host] of families) {
      const name = `ended ${family}`;
      await open(name, host, gtsm[family]);
      await peer.ask(`conns["${name}"].send(10000)`);
      await pair.until("it is given back", async () => (await peer.status(name)).received === 10_000);
      await server.ask(`conns["${ports[name]}"].s.shutdown(1)`);
      await pair.until("the service has ended", async () => (await peer.status(name)).eof);
      await delay(100); // a delayed acknowledgement
      const lost = ["tcp", "dport", String(ports[name]), "tcp flags & (syn | ack | rst | fin) == ack", "drop"];
      lab.run("peer", ["nft", "add", "rule", "inet", "lost", "in", ...lost]);
      await peer.ask(`conns["${name}"].s.close()`);
    }
    // So that there is something to nudge and to inject; but no flood, of which the mirror link would lose some.
    for (const name of names) await peer.ask(`conns["${name}"].send(${sent}, 5000, 0.004)`);
    await delay(200);
    for (const [family] of families) assert.match(ended(family), /^LAST-ACK/);
    await scene.failOver();
    lab.run("peer", ["nft", "flush", "table", "inet", "lost"]);
  });
  after(() => scene?.destroy());

  const ended = (family: 4 | 6): string =>
    scene.lab.run("peer", ["ss", "-Htan", `sport = :${ports[`ended ${family}`]}`]);

  const optionsOf = async (name: string): Promise<Resumed["options"]> =>
    (await scene.resumed(ports[name] ?? 0)).options;

  for (const name of names) {
    test(`${name}: everything that was set is set`, async () => {
      const { maxSegment, bufferLocks, ...options } = await optionsOf(name);
      for (const [option, value] of Object.entries(all)) assert.equal(options[option], value, option);
      assert.ok(Number(maxSegment) <= 900, `segments of ${maxSegment} bytes`);
      assert.equal(bufferLocks, 0, "buffers are still tuned by the kernel");
    });

    test(`${name}: what was not set is as the kernel has it`, async () => {
      const { ttl, minTtl, tos, noDelay, keepAlive, userTimeout, congestion, device, bufferLocks, mark } =
        await optionsOf(`untouched ${name}`);
      assert.deepEqual(
        { minTtl, tos, noDelay, keepAlive, userTimeout, congestion, device, bufferLocks, mark },
        {
          minTtl: 0,
          tos: 0,
          noDelay: 0,
          keepAlive: 0,
          userTimeout: 0,
          congestion: defaults.congestion,
          device: "",
          bufferLocks: 0,
          mark: 0,
        },
      );
      assert.equal(ttl, 255, "the listener's");
    });

    test(`${name}: buffer sizes that were set by hand stay`, async () => {
      const { sendBuffer, receiveBuffer, bufferLocks } = await optionsOf(`buffers ${name}`);
      assert.deepEqual(
        { sendBuffer, receiveBuffer, bufferLocks },
        {
          sendBuffer: 200_000,
          receiveBuffer: 300_000,
          bufferLocks: 3,
        },
      );
    });

    test(`${name}: a peer that accepts no TTL below 255 goes on`, async () => {
      const { environment } = await scene.resumed(ports[name] ?? 0);
      const [input, output] = [Number(environment.TANDEM_INPUT_OFFSET), Number(environment.TANDEM_OUTPUT_OFFSET)];
      const right = `is_text("${name}", (0, ${output}), (${input}, ${sent}))`;
      await scene.pair.until("all came back", async () => (await scene.peer.ask(right)) === true);
      assert.equal((await scene.peer.status(name)).error, null);
    });
  }

  for (const [family] of families)
    test(`a session that had ended before, IPv${family}: the peer's FIN is acknowledged`, () =>
      scene.pair.until("the peer's socket is gone", () => ended(family) === ""));

  test("no segment was dropped for its TTL, at either end", () => {
    for (const node of ["peer", "b"] as const)
      for (const line of scene.lab.run(node, ["nstat", "-asz", "TcpExtTCPMinTTLDrop"]).split("\n"))
        if (line.startsWith("TcpExt")) assert.match(line, /TcpExtTCPMinTTLDrop +0 /, node);
  });
});
