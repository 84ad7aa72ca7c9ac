// Raw packets: sent whole and in order, whatever the garbage collector does meanwhile.
import assert from "node:assert/strict";
import test from "node:test";
import v8 from "node:v8";
import vm from "node:vm";
import { sendPackets } from "../../src/net/nudge.js";
import { buildPacket, TCP_RST } from "../../src/session/segment.js";

const skip = process.getuid?.() === 0 ? false : "needs root (raw sockets)";

v8.setFlagsFromString("--expose-gc");
const collectGarbage = vm.runInNewContext("gc") as () => void;

test("packets leave although nobody but the package holds the socket", { skip }, async () => {
  // Loopback resets of connections that do not exist: nobody minds them.
  const ip = new Uint8Array(16);
  ip.set([127, 0, 0, 1]);
  const packets = Array.from({ length: 3 }, (_, index) => ({
    family: 4 as const,
    destination: "127.0.0.1",
    bytes: buildPacket({
      family: 4,
      sourceIp: ip,
      destinationIp: ip,
      sourcePort: 1,
      destinationPort: 2,
      seq: index,
      ack: 0,
      flags: TCP_RST,
      window: 0,
      payload: new Uint8Array(0),
      timestamps: null,
    }),
  }));
  for (let round = 0; round < 30; round++) {
    const sending = sendPackets(packets);
    collectGarbage();
    assert.deepEqual(await sending, { sent: 3, failed: 0, firstError: null });
  }
});

test("a packet that cannot be sent is counted, and the others leave", { skip }, async () => {
  const unsendable = { family: 4 as const, destination: "not an address", bytes: new Uint8Array(40) };
  const result = await sendPackets([unsendable]);
  assert.equal(result.failed, 1);
  assert.match(result.firstError ?? "", /address/);
});
