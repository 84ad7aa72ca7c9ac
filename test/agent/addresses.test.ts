// Service addresses that somebody else answers for: found before this router begins to speak for them, and at a
// takeover. And a fenced router answers for none of them, while it may ask.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { addressPlan, devices, Lab, type RouterName } from "../../src/lab/lab.js";
import { RouterPair } from "../../src/lab/router-pair.js";
import { parseIp } from "../../src/net/addresses.js";
import { arpProbe, gratuitousArp, neighbourProbe, unsolicitedAdvertisement } from "../../src/net/announce.js";
import { assertOneVoice, Duo, skip } from "./duo.js";

const { v4, v6 } = addressPlan.service;
const mac = Uint8Array.of(2, 0, 0, 0, 0, 9);

test("probes claim nothing, announcements do; both with the checksum that a receiver wants", () => {
  const probe = arpProbe(mac, parseIp(v4).bytes);
  assert.equal(
    probe.toString("hex"),
    `ffffffffffff0200000000090806000108000604000102000000000900000000${"00".repeat(6)}0a4d0001`,
  );
  assert.equal(gratuitousArp(mac, parseIp(v4).bytes).readUInt32BE(28), 0x0a4d0001);
  const solicited = neighbourProbe(mac, parseIp(v6).bytes);
  assert.equal(solicited.subarray(0, 6).toString("hex"), "3333ff000001");
  assert.ok(solicited.subarray(22, 38).every((byte) => byte === 0));
  for (const frame of [solicited, unsolicitedAdvertisement(mac, parseIp(v6).bytes)]) {
    assert.equal(frame.length, 54 + frame.readUInt16BE(18));
    let sum = frame.readUInt16BE(18) + 58;
    for (let at = 22; at < frame.length; at += 2) sum += frame.readUInt16BE(at);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    assert.equal(sum, 0xffff);
  }
});

describe("duplicate addresses", { skip }, () => {
  let lab: Lab | undefined;
  afterEach(() => lab?.destroy());

  const occupy = (at: Lab, address: string) =>
    at.run("host", [
      "ip",
      "addr",
      "add",
      address.includes(":") ? `${address}/128` : `${address}/32`,
      "dev",
      devices.host,
      ...(address.includes(":") ? ["nodad"] : []),
    ]);
  const vacate = (at: Lab, address: string) =>
    at.run("host", [
      "ip",
      "addr",
      "del",
      address.includes(":") ? `${address}/128` : `${address}/32`,
      "dev",
      devices.host,
    ]);
  const hostMac = (at: Lab): string => {
    const [, found = ""] = /link\/ether (\S+)/.exec(at.run("host", ["ip", "link", "show", devices.host])) ?? [];
    assert.notEqual(found, "");
    return found;
  };

  for (const address of [v4, v6])
    test(`a router does not begin to speak while somebody else has ${address}, and begins when he is gone`, async () => {
      lab = Lab.create({ host: true });
      occupy(lab, address);
      const pair = new RouterPair(lab, { heartbeat: { deadMs: 300 } });
      const capture = await lab.capture("peer", devices.peer, {
        filter: `(arp and arp[14:4] = 0x0a4d0001) or (icmp6 and ip6[40] = 136 and ip6[56:4] = 0 and ip6[60:4] = 1)`,
      });
      pair.startAgent("a");
      await pair.until("it says who has the address", async () => {
        const { role, reason } = await pair.status("a");
        return role === "fenced" && reason.includes(`${address} is answered for by ${hostMac(lab as Lab)}`);
      });
      await delay(1000);
      assert.equal((await pair.status("a")).role, "fenced");
      const { senders } = await capture.stop();
      assert.deepEqual(
        senders.filter((sender) => sender.mac !== hostMac(lab as Lab)),
        [],
      );
      vacate(lab, address);
      await pair.untilRole("a", "solo");
      assert.deepEqual((await pair.status("a")).duplicates, []);
    });

  test("with onDuplicateAddress: warn it begins all the same, and says so", async () => {
    lab = Lab.create({ host: true });
    occupy(lab, v4);
    const pair = new RouterPair(lab, { heartbeat: { deadMs: 300 }, overrides: { onDuplicateAddress: "warn" } });
    pair.startAgent("a");
    await pair.untilRole("a", "solo");
    await pair.until("status names him", async () => {
      const [found] = (await pair.status("a")).duplicates;
      return found?.address === v4 && found.mac === hostMac(lab as Lab);
    });
  });

  test("a pair starts and changes roles without suspecting itself; a takeover beside a stranger is made and said", async () => {
    const duo = await Duo.start({ host: true });
    ({ lab } = duo);
    const { pair } = duo;
    const macs = { a: duo.mac("a"), b: duo.mac("b") };
    const capture = await duo.captureVoice();
    const sessions = await duo.openSessions("b");
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(500);
    assert.deepEqual((await pair.status("b")).duplicates, []);
    await sessions.assertExact();
    assertOneVoice(await capture.stop(), macs.a, macs.b);
    await duo.repair("a");
    await duo.untilProtected("b", "a");
    // The peer has b in its cache, so the stranger hurts nobody until he is asked for.
    lab.run("peer", ["ip", "neigh", "replace", v4, "lladdr", macs.b, "dev", devices.peer, "nud", "permanent"]);
    occupy(lab, v4);
    lab.freeze("b");
    await pair.untilRole("a", "solo");
    await pair.until(
      "the stranger is named",
      async () => (await pair.status("a")).duplicates[0]?.mac === hostMac(lab as Lab),
    );
    const journal = `${lab.directory}/a/state/journal.jsonl`;
    await pair.until("the journal, too", () =>
      /10\.77\.0\.1 is answered for by .*find it/.test(readFileSync(journal, "utf8")),
    );
  });

  test("a fenced router answers no ARP and no neighbour solicitation for a service address; the one with the voice does", async () => {
    const duo = await Duo.start();
    ({ lab } = duo);
    const answering = (router: RouterName): Promise<string[]> => answerers(duo, router);
    assert.deepEqual(await answering("a"), [duo.mac("a")]);
    lab.freeze("a");
    await duo.pair.untilRole("b", "solo");
    assert.deepEqual(await answering("b"), [duo.mac("b")]);
  });

  /** Asks as a stranger would, for both addresses, and gives the link-layer addresses of all that answer. */
  async function answerers(duo: Duo, expected: RouterName): Promise<string[]> {
    const capture = await duo.captureVoice();
    const script =
      "import socket,sys\n" +
      "s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind((sys.argv[1],0))\n" +
      "for frame in sys.argv[2:]: s.send(bytes.fromhex(frame))\n";
    const frames = [arpProbe(mac, parseIp(v4).bytes), neighbourProbe(mac, parseIp(v6).bytes)];
    duo.lab.run("peer", [
      "python3",
      "-c",
      script,
      devices.peer,
      ...frames.flatMap((frame) => Array<string>(3).fill(frame.toString("hex"))),
    ]);
    await delay(300);
    const { senders } = await capture.stop();
    assert.ok(
      senders.some((sender) => sender.mac === duo.mac(expected)),
      JSON.stringify(senders),
    );
    return [...new Set(senders.map((sender) => sender.mac))];
  }
});

describe("a virtual MAC", { skip }, () => {
  const virtualMac = "02:00:5e:10:00:01";
  let duo: Duo | undefined;
  afterEach(() => duo?.lab.destroy());

  const stays = async (xdp: "native" | "generic") => {
    duo = await Duo.start({ mirror: "switch" }, { overrides: { virtualMac, xdp } });
    const { lab, pair } = duo;
    const entries = () =>
      [v4, v6].map((address) => /lladdr (\S+)/.exec(lab.run("peer", ["ip", "neigh", "show", address]))?.[1]);
    const voice = await duo.captureVoice();
    const sessions = await duo.openSessions("b");
    await delay(200);
    assert.deepEqual(entries(), [virtualMac, virtualMac]);
    lab.kill("a");
    await pair.untilRole("b", "solo");
    assert.deepEqual(entries(), [virtualMac, virtualMac]);
    await delay(300);
    await sessions.assertExact();
    const later = duo.openUnprotected(); // begins with SYNs to the virtual MAC
    await delay(500);
    await later.assertExact();
    for (const address of [v4, v6]) lab.run("peer", ["ping", "-c", "1", "-W", "2", address]);
    const { senders } = await voice.stop();
    assert.deepEqual(
      senders.map(({ mac: sender }) => sender),
      [virtualMac],
    );
  };
  for (const xdp of ["native", "generic"] as const)
    test(`${xdp} XDP: the peer's neighbour entries stay through a takeover, and nothing else is said for the service`, () =>
      stays(xdp));
});
