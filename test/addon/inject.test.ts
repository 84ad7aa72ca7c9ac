// inject.cc with an egress program that does what the data plane's does: a marked frame comes back in by the same device
// and reaches a local socket; without the mark it leaves.

import assert from "node:assert/strict";
import dgram from "node:dgram";
import test from "node:test";
import { native } from "../../addon/native.js";
import { compileBpf, inOwnNamespace, run, until } from "./fixture.js";

const MARK = 0x7a11d002;

/** Ethernet, IPv4, UDP with a right IP checksum and none for UDP. */
function datagram(to: Uint8Array, payload: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(42 + payload.length);
  frame.set(to, 0);
  frame.set([2, 0, 0, 0, 0, 9], 6);
  frame.writeUInt16BE(0x0800, 12);
  frame[14] = 0x45;
  frame.writeUInt16BE(28 + payload.length, 16);
  frame[22] = 64;
  frame[23] = 17;
  frame.set([192, 0, 2, 2], 26);
  frame.set([192, 0, 2, 1], 30);
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += frame.readUInt16BE(at);
  sum = (sum & 0xffff) + (sum >>> 16);
  frame.writeUInt16BE(~(sum + (sum >>> 16)) & 0xffff, 24);
  frame.writeUInt16BE(4000, 34);
  frame.writeUInt16BE(4001, 36);
  frame.writeUInt16BE(8 + payload.length, 38);
  frame.set(payload, 42);
  return frame;
}

inOwnNamespace(import.meta.url, "inject, in a namespace of its own", () => {
  test("marked frames are received, in order and in any number; others leave", async (t) => {
    run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far");
    run("ip", "address", "add", "192.0.2.1/24", "dev", "near");
    run("ip", "link", "set", "near", "up");
    run("ip", "link", "set", "far", "up");
    const near = native.links().find((link) => link.name === "near");
    assert.ok(near);
    const object = native.bpfLoad(
      compileBpf(
        "turn",
        `SEC("tc") int turn(struct __sk_buff *skb) {
  if (skb->mark == ${MARK}) return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
  return TC_ACT_OK;
}`,
      ),
      {},
    );
    t.after(() => object.close());
    native.bpfTcAttach(near.ifindex, "egress", object.programs.turn?.fd ?? -1, 1, 1);
    const socket = dgram.createSocket("udp4");
    t.after(() => socket.close());
    await new Promise<void>((resolve) => socket.bind(4001, "192.0.2.1", resolve));
    const got: number[] = [];
    socket.on("message", (message) => got.push(message.readUInt32BE(0)));
    const frames = Array.from({ length: 150 }, (_, index) => {
      const payload = Buffer.alloc(100);
      payload.writeUInt32BE(index);
      return datagram(near.mac, payload);
    });
    assert.equal(native.injectFrames(near.ifindex, frames, MARK), 150);
    await until("all", () => got.length === 150);
    assert.deepEqual(
      got,
      frames.map((_, index) => index),
    );

    assert.equal(native.injectFrames(near.ifindex, frames.slice(0, 3), 7), 3);
    assert.equal(native.injectFrames(near.ifindex, frames.slice(0, 1), MARK), 1);
    await until("the marked one", () => got.length === 151);
    assert.equal(native.injectFrames(near.ifindex, [], MARK), 0);
    assert.throws(() => native.injectFrames(near.ifindex, [new Uint8Array(13)], MARK), { code: "EINVAL" });
    assert.equal(native.injectFrames(9999, frames.slice(0, 1), MARK), 0, "there is no such device");
    run("ip", "link", "set", "near", "down");
    assert.equal(native.injectFrames(near.ifindex, frames.slice(0, 1), MARK), 0, "it is down");
  });
});
