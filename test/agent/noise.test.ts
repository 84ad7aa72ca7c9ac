// Noise on everything that listens: mirror link, control port, pulse ports, applications' socket. Agents stay alive,
// counters count, nothing of it is believed, and sessions go on.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { addressPlan, devices, type RouterName } from "../../src/lab/lab.js";
import { labPorts } from "../../src/lab/router-pair.js";
import { ACK, encapsulated, frame, outward, PSH, sealOption } from "../bpf/frames.js";
import { assertNoResets, Duo, skip } from "./duo.js";

const noise = fileURLToPath(new URL("./noise-process.js", import.meta.url));

/** No session has it. */
const strangersPort = 44444;

function flip(bytes: Buffer, at: number, bits: number): void {
  bytes[at] = (bytes[at] ?? 0) ^ bits;
}

describe("noise", { skip }, () => {
  let duo: Duo;
  let cookie: bigint;
  before(async () => {
    duo = await Duo.start();
    const secret = readFileSync(path.join(duo.lab.directory, "keys", "secret"), "utf8").trim();
    cookie = Buffer.from(secret, "hex").readBigUInt64LE(0);
  });
  after(() => duo?.lab.destroy());

  const other = (router: RouterName): RouterName => (router === "a" ? "b" : "a");

  function mirrorMac(router: RouterName): Buffer {
    const text = duo.lab.run(router, ["ip", "-brief", "link", "show", devices.mirror]);
    return Buffer.from((/([0-9a-f]{2}:){5}[0-9a-f]{2}/.exec(text)?.[0] ?? "").replaceAll(":", ""), "hex");
  }

  /** Puts frames on the mirror link as if the partner of `to` had sent them. */
  async function send(to: RouterName, frames: Buffer[]): Promise<void> {
    const [local, partner] = [mirrorMac(to), mirrorMac(other(to))];
    const sender = duo.lab.spawn(other(to), [process.execPath, noise, devices.mirror], {
      stdio: ["pipe", "inherit", "inherit"],
    });
    const lines = frames.map((bytes) => Buffer.concat([local, partner, bytes.subarray(12)]).toString("hex"));
    sender.child.stdin?.end(`${lines.join("\n")}\n`);
    assert.equal((await sender.exited).code, 0);
  }

  /** Runs noise beside sessions: nothing about roles, epochs, readiness and the sessions' bytes may change. */
  async function survives(make: () => Promise<void>): Promise<void> {
    const { pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    const before = await Promise.all([pair.status("a"), pair.status("b")]);
    await make();
    await delay(300);
    const now = await Promise.all([pair.status("a"), pair.status("b")]);
    for (const [index, status] of now.entries()) {
      const { role, epoch, agreed, sessions: counted } = before[index] ?? assert.fail();
      assert.deepEqual({ role: status.role, epoch: status.epoch, agreed: status.agreed }, { role, epoch, agreed });
      assert.ok(status.sessions.ready >= counted.ready, JSON.stringify(status.sessions));
      assert.equal(status.recorder.auditBreaches, 0);
    }
    await sessions.assertExact();
    const summary = await capture.stop();
    // A mutation may leave a frame whole (the outer UDP source port is anybody's): its segment belongs to no session, and
    // the service's stack says so.
    assertNoResets({ ...summary, flagged: summary.flagged.filter(({ toPort }) => toPort !== strangersPort) });
  }

  /** A frame of the pair for `to`, right in everything that is not named. */
  function genuine(to: RouterName, epoch: number, options: Parameters<typeof encapsulated>[1], inner?: Buffer): Buffer {
    const segment = {
      sourcePort: strangersPort,
      destinationPort: labPorts.echo,
      flags: ACK | PSH,
      payload: randomBytes(40),
    };
    return encapsulated(inner ?? frame(segment), {
      cookie,
      epoch,
      service: 1,
      sourceIp: addressPlan.mirror[other(to)],
      destinationIp: addressPlan.mirror[to],
      ...options,
    });
  }

  function randomFrames(to: RouterName, epoch: number): Buffer[] {
    const frames: Buffer[] = [];
    for (let round = 0; round < 300; round++) {
      const base = genuine(to, epoch, { out: round % 2 === 0, cookie: round % 3 === 0 ? 1n : cookie });
      // Outer headers and our option mutated: its own checksum, or the kernel, refuses what is left.
      for (let changes = 1 + (round % 5); changes > 0; changes--)
        flip(base, 12 + ((randomBytes(1)[0] ?? 0) % 74), 1 + (round & 0x7f));
      frames.push(base);
      frames.push(base.subarray(0, 15 + ((round * 7) % (base.length - 15))));
      frames.push(Buffer.concat([Buffer.alloc(12), Buffer.from("0800", "hex"), randomBytes(20 + (round % 200))]));
    }
    return frames;
  }

  for (const to of ["b", "a"] as const)
    test(`on the mirror link, towards router ${to}`, async () => {
      const { epoch } = await duo.pair.status("a");
      const plainSegment = frame({ destinationPort: labPorts.echo, flags: ACK, payload: randomBytes(10) });
      const badOption = genuine(to, epoch, {});
      flip(badOption, 80, 0xff);
      const badGeneve = genuine(to, epoch, {});
      badGeneve[42] = 3;
      const kinds: [string, Buffer][] = [
        ["TD_DROP_COOKIE", genuine(to, epoch, { cookie: cookie ^ 1n })],
        ["TD_DROP_EPOCH_OLD", genuine(to, epoch - 1, {})],
        ["TD_DROP_EPOCH_NEW", genuine(to, epoch + 1, {})],
        ["TD_DROP_VERSION", genuine(to, epoch, { version: 9 })],
        ["TD_DROP_DIRECTION", genuine(to, epoch, { reflected: to === "b" })],
        ["TD_DROP_GENEVE_MALFORMED", badGeneve],
        ["TD_DROP_GENEVE_MALFORMED", badOption],
        ["TD_DROP_NOT_OURS", plainSegment],
      ];
      await survives(async () => {
        const { packets: before } = await duo.pair.status(to);
        await send(
          to,
          kinds.flatMap(([, bytes]) => Array<Buffer>(20).fill(bytes)),
        );
        await send(to, randomFrames(to, epoch));
        const { packets } = await duo.pair.status(to);
        for (const [reason] of kinds)
          assert.ok(
            (packets[reason] ?? 0) >= (before[reason] ?? 0) + 20,
            `${reason}: ${before[reason]} → ${packets[reason]}`,
          );
      });
    });

  test("on the mirror link, whole but for the inner checksum", async () => {
    const { epoch } = await duo.pair.status("a");
    await survives(async () => {
      const { recorder: before } = await duo.pair.status("b");
      const frames = [true, false].flatMap((out) =>
        Array.from({ length: 30 }, () => {
          const segment = { flags: ACK | PSH, payload: randomBytes(64) };
          const inner = out
            ? outward({ ...segment, sourcePort: labPorts.echo })
            : frame({ ...segment, destinationPort: labPorts.echo });
          flip(inner, inner.length - 1, 0x55);
          const whole = genuine("b", epoch, { out }, inner);
          sealOption(whole);
          return whole;
        }),
      );
      await send("b", frames);
      await duo.pair.until("they are counted", async () => {
        const { recorder } = await duo.pair.status("b");
        return recorder.badChecksums >= before.badChecksums + 60;
      });
    });
  });

  test("on the control port, the pulse ports and the applications' socket", async () => {
    const { lab, pair } = duo;
    const script =
      "import os,socket,sys\n" +
      "host,port,kind=sys.argv[1],int(sys.argv[2] or 0),sys.argv[3]\n" +
      "for i in range(60):\n" +
      "  try:\n" +
      "    if kind=='unix': s=socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(host)\n" +
      "    else: s=socket.create_connection((host,port),2) if kind=='tcp' else socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n" +
      "    if kind=='udp': s.connect((host,port))\n" +
      "    for data in (os.urandom(1+i*20), b'{}\\n'*i, b'\\x16\\x03\\x01'+os.urandom(200), b'{\"type\":\"hello\",\"version\":1e99}\\n'):\n" +
      "      s.send(data)\n" +
      "  except OSError: pass\n" +
      "held=[]\n" +
      "for i in range(12 if kind=='tcp' else 0):\n" +
      "  try: held.append(socket.create_connection((host,port),2))\n" +
      "  except OSError: pass\n";
    await survives(async () => {
      const shots: [RouterName | "peer", string, string, string][] = [
        ["b", addressPlan.mirror.a, "7402", "tcp"],
        ["peer", addressPlan.uplink.a.v4, "7401", "udp"],
        ["peer", addressPlan.uplink.b.v4, "7401", "udp"],
        ["b", addressPlan.mirror.a, "7401", "udp"],
        ["a", path.join(pair.runDirectory("a"), "app.sock"), "", "unix"],
        ["b", path.join(pair.runDirectory("b"), "app.sock"), "", "unix"],
        ["b", path.join(pair.runDirectory("b"), "agent.sock"), "", "unix"],
      ];
      for (const [node, host, port, kind] of shots) {
        const shooter = lab.spawn(node, ["python3", "-c", script, host, port, kind]);
        assert.equal((await shooter.exited).code, 0, shooter.stderr());
      }
    });
  });

  test("after all that the standby takes over", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    await delay(300);
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(300);
    await sessions.assertExact();
  });
});
