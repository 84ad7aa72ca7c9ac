// restore.cc on real TCP: sessions between a peer and an active, the active cut off in mid-transfer with data in flight
// both ways, unread input and unacknowledged output; restored in another namespace from what its kernel knew. The peer
// is an ordinary program and must end as if nothing had been.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import test, { type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { native, type RestoreSession } from "../../addon/native.js";
import { needsRoot, run } from "./fixture.js";
import type { SessionDump } from "./sessions.js";

const here = path.dirname(fileURLToPath(import.meta.url));
const sources = here.replace(`${path.sep}build${path.sep}js${path.sep}`, path.sep);
const MAC = "02:00:00:00:01:00";

interface Actor {
  child: ChildProcess;
  line: () => Promise<string>;
  tell: (text: string) => void;
}

function actor(namespace: string, program: string, ...args: (string | number)[]): Actor {
  const child = spawn("nsenter", [`--net=/run/netns/${namespace}`, program, ...args.map(String)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    line: async () => {
      const next = await lines.next();
      assert.ok(!next.done, `${program} ${args[0]} ended early`);
      return next.value;
    },
    tell: (text) => child.stdin.write(`${text}\n`),
  };
}

/** Peer with a bridge, active and standby behind it with the same addresses and MAC; the standby's port is closed. */
function network(t: TestContext, sysctls: string[]): { peer: string; active: string; standby: string } {
  const id = `tdr${process.pid}`;
  const names = { peer: `${id}p`, active: `${id}a`, standby: `${id}s` };
  // What a killed run left behind is named after its process.
  for (const { name } of JSON.parse(run("ip", "-json", "netns", "list") || "[]") as { name: string }[]) {
    const pid = /^tdr(\d+)[pas]$/.exec(name)?.[1];
    if (pid && !existsSync(`/proc/${pid}`)) run("ip", "netns", "delete", name);
  }
  t.after(() => {
    for (const name of Object.values(names)) {
      try {
        run("ip", "netns", "delete", name);
      } catch {
        // was not made
      }
    }
  });
  for (const name of Object.values(names)) {
    run("ip", "netns", "add", name);
    run("ip", "-n", name, "link", "set", "lo", "up");
    for (const sysctl of sysctls) run("nsenter", `--net=/run/netns/${name}`, "sysctl", "-qw", sysctl);
  }
  run("ip", "-n", names.peer, "link", "add", "br0", "type", "bridge");
  run("ip", "-n", names.peer, "link", "set", "br0", "up");
  run("ip", "-n", names.peer, "address", "add", "10.9.0.2/24", "dev", "br0");
  run("ip", "-n", names.peer, "address", "add", "fd00::2/64", "dev", "br0", "nodad");
  for (const [port, name] of [
    ["va", names.active],
    ["vs", names.standby],
  ] as const) {
    run("ip", "-n", names.peer, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name);
    run("ip", "-n", names.peer, "link", "set", port, "master", "br0", "up");
    run("ip", "-n", name, "link", "set", "eth0", "address", MAC, "up");
    run("ip", "-n", name, "address", "add", "10.9.0.1/24", "dev", "eth0");
    run("ip", "-n", name, "address", "add", "fd00::1/64", "dev", "eth0", "nodad");
  }
  run("bridge", "-n", names.peer, "link", "set", "dev", "vs", "state", "0");
  for (const name of [names.active, names.standby]) {
    run("ip", "-n", name, "neigh", "replace", "10.9.0.2", "lladdr", bridgeMac(names.peer), "dev", "eth0");
    run("ip", "-n", name, "neigh", "replace", "fd00::2", "lladdr", bridgeMac(names.peer), "dev", "eth0");
  }
  run("ip", "-n", names.peer, "neigh", "replace", "10.9.0.1", "lladdr", MAC, "dev", "br0");
  run("ip", "-n", names.peer, "neigh", "replace", "fd00::1", "lladdr", MAC, "dev", "br0");
  return names;
}

function bridgeMac(namespace: string): string {
  const [link] = JSON.parse(run("ip", "-json", "-n", namespace, "link", "show", "br0")) as { address: string }[];
  return link?.address ?? "";
}

interface Scenario {
  family: 4 | 6;
  sessions: number;
  bytes: number;
  activeReads: number;
  activeWrites: number;
  sysctls?: string[];
  /** TCP MD5 key. */
  md5?: string;
  check?: (dumps: SessionDump[]) => void;
}

async function scenario(t: TestContext, options: Scenario): Promise<void> {
  const names = network(t, options.sysctls ?? []);
  const [address, peerAddress] = options.family === 4 ? ["10.9.0.1", "10.9.0.2"] : ["fd00::1", "fd00::2"];
  const md5 = options.md5 ?? "";
  const actors: Actor[] = [];
  t.after(() => {
    for (const { child } of actors) child.kill("SIGKILL");
  });
  const start = (namespace: string, program: string, ...args: (string | number)[]): Actor => {
    const made = actor(namespace, program, ...args);
    actors.push(made);
    return made;
  };
  const { family, sessions, bytes } = options;
  const active = start(
    names.active,
    "python3",
    path.join(sources, "active.py"),
    family,
    address,
    5001,
    sessions,
    options.activeReads,
    options.activeWrites,
    peerAddress,
    md5,
  );
  assert.equal(await active.line(), "listening");
  const peer = start(
    names.peer,
    "python3",
    path.join(sources, "peer.py"),
    family,
    address,
    5001,
    sessions,
    bytes,
    bytes,
    md5,
  );
  assert.equal(await peer.line(), "connected");
  assert.equal(await active.line(), "going");
  run("bridge", "-n", names.peer, "link", "set", "dev", "va", "state", "0");
  // What is past the bridge already must be in its socket: the dump reads queue and sequence numbers one by one.
  await delay(500);
  active.tell("dump");
  const state = await active.line();
  const dumps = JSON.parse(state) as SessionDump[];
  assert.equal(dumps.length, sessions);
  options.check?.(dumps);

  const standby = start(names.standby, process.execPath, path.join(here, "standby.js"), bytes, bytes);
  standby.tell(state);
  const restored = JSON.parse(await standby.line()) as { microsecondsEach: number; failures: object[] };
  assert.deepEqual(restored.failures, []);
  run("bridge", "-n", names.peer, "link", "set", "dev", "vs", "state", "3");
  standby.tell("go");
  const end = JSON.parse(await standby.line()) as { complete: number; wrong: number; releaseMicroseconds: number };
  t.diagnostic(
    `restore ${restored.microsecondsEach.toFixed(1)} µs, release ${end.releaseMicroseconds.toFixed(1)} µs a session`,
  );
  assert.deepEqual(JSON.parse(await peer.line()), { done: sessions, wrong: 0, resets: 0, open: 0 });
  assert.equal(end.complete, sessions);
  assert.equal(end.wrong, 0);
}

const megabytes = 1 << 20;
const length = (base64: string): number => Buffer.from(base64, "base64").length;
const midTransfer = { bytes: 6 * megabytes, activeReads: megabytes + 12_345, activeWrites: 3 * megabytes };

for (const family of [4, 6] as const) {
  test(`IPv${family}: cut in mid-transfer with unread input and unacknowledged output, all TCP options`, {
    skip: needsRoot,
  }, async (t) => {
    await scenario(t, {
      family,
      sessions: 5,
      ...midTransfer,
      check: (dumps) => {
        for (const dump of dumps) {
          assert.ok(length(dump.received) > 0, "unread input");
          assert.ok(dump.timestamp !== null && dump.sackPermitted && dump.sndWscale !== null);
        }
        assert.ok(dumps.some((dump) => length(dump.unacked) > 0) || dumps.every((dump) => dump.writeOffset > 0));
      },
    });
  });

  test(`IPv${family}: signed with a TCP MD5 key`, { skip: needsRoot }, async (t) => {
    await scenario(t, { family, sessions: 3, ...midTransfer, md5: "a key of the pair" });
  });

  test(`IPv${family}: neither timestamps nor SACK nor window scales`, { skip: needsRoot }, async (t) => {
    await scenario(t, {
      family,
      sessions: 3,
      ...midTransfer,
      sysctls: ["net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_sack=0", "net.ipv4.tcp_window_scaling=0"],
      check: (dumps) => {
        for (const dump of dumps) assert.ok(dump.timestamp === null && !dump.sackPermitted && dump.sndWscale === null);
      },
    });
  });
}

test("a thousand sessions in one call", { skip: needsRoot }, async (t) => {
  await scenario(t, { family: 4, sessions: 1000, bytes: 6000, activeReads: 1000, activeWrites: 2000 });
});

test("a session that cannot be restored is told with its step, and the others go on", { skip: needsRoot }, () => {
  const session = (change: Partial<RestoreSession>): RestoreSession => ({
    family: 4,
    localIp: Uint8Array.of(127, 0, 0, 1, ...new Array<number>(12).fill(0)),
    peerIp: Uint8Array.of(127, 0, 0, 1, ...new Array<number>(12).fill(0)),
    localPort: 45001,
    peerPort: 45002,
    sndUna: 0xfffffff0,
    unacked: new Uint8Array(100),
    rcvSeq: 0xffffff00,
    received: new Uint8Array(1000),
    mss: 1460,
    sndWscale: 7,
    rcvWscale: 7,
    sackPermitted: true,
    timestamp: 0xffffffff,
    window: null,
    options: null,
    md5: null,
    ...change,
  });
  const absent = Uint8Array.of(192, 0, 2, 77, ...new Array<number>(12).fill(0));
  const window = { sndWl1: 0, sndWnd: 10, maxWindow: 5, rcvWnd: 1000, rcvWup: 0xffffff00 };
  const results = native.restore([
    session({}),
    session({ localIp: absent }),
    session({ localPort: 45003, window }),
    session({ localPort: 45004, received: new Uint8Array(3_000_000), unacked: new Uint8Array(3_000_000) }),
  ]);
  const fds = results.flatMap((result) => ("fd" in result ? [result.fd] : []));
  try {
    assert.deepEqual(
      results.map((result) => ("fd" in result ? "restored" : `${result.code} ${result.step}`)),
      ["restored", "EADDRNOTAVAIL bind", "EINVAL TCP_REPAIR_WINDOW", "restored"],
    );
    const [small = -1, large = -1] = fds;
    assert.deepEqual(native.outQueue(small), { unacked: 100, unsent: 0 });
    assert.deepEqual(native.outQueue(large), { unacked: 3_000_000, unsent: 0 });
    assert.equal(native.tcpInfo(small).state, 1);
    assert.equal(native.tcpInfo(small).sndMss, 1448);
    assert.ok(native.tcpTimestamp(small) < 100_000, "went on from 2^32 - 1, past the wrap");
    assert.deepEqual(native.restoreRelease([99999], false), ["EBADF"]);
  } finally {
    for (const fd of fds) native.closeFd(fd);
  }
  assert.throws(() => native.restore([session({ mss: 0 })]), { code: "EINVAL" });
  assert.throws(() => native.restore([session({ rcvWscale: null })]), { code: "EINVAL" });
  assert.throws(() => native.restore([session({ sndWscale: 15 })]), { code: "EINVAL" });
});
