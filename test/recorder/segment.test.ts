// Built segments against an independent reading of them; the options parser against arbitrary bytes.

import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { parseIp } from "../../src/net/addresses.js";
import { buildFrame, buildPacket, buildUnacked, TCP_ACK, TCP_FIN, TCP_PSH } from "../../src/session/segment.js";
import { encodeTcpOptions, parseTcpOptions } from "../../src/session/tcp-options.js";

/** Independent of segment.ts: arbitrary precision, one modulus at the end (RFC 1071: the ones' complement sum). */
function onesComplementSum(bytes: Uint8Array): bigint {
  let text = Buffer.from(bytes).toString("hex");
  if (text.length % 4) text += "00";
  let sum = 0n;
  for (const word of text.match(/.{4}/g) ?? []) sum += BigInt(`0x${word}`);
  return sum % 0xffffn;
}

function verify(packet: Uint8Array, family: 4 | 6): { header: DataView; payload: Uint8Array } {
  const l4 = family === 4 ? 20 : 40;
  if (family === 4) assert.equal(onesComplementSum(packet.subarray(0, 20)), 0n, "IPv4 header checksum");
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const length = packet.length - l4;
  assert.equal(family === 4 ? view.getUint16(2) : view.getUint16(4) + 40, packet.length);
  const pseudo = Buffer.alloc((family === 4 ? 8 : 32) + 4 + length);
  pseudo.set(packet.subarray(family === 4 ? 12 : 8, l4), 0);
  pseudo.writeUInt16BE(6, pseudo.length - length - 4);
  pseudo.writeUInt16BE(length, pseudo.length - length - 2);
  pseudo.set(packet.subarray(l4), pseudo.length - length);
  assert.equal(onesComplementSum(pseudo), 0n, "TCP checksum");
  const header = new DataView(packet.buffer, packet.byteOffset + l4, length);
  return { header, payload: packet.subarray(l4 + (header.getUint8(12) >> 4) * 4) };
}

test("segments have right checksums, lengths and fields, in both families", () => {
  fc.assert(
    fc.property(
      fc.constantFrom<4 | 6>(4, 6),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      fc.nat(63),
      fc.nat(65535),
      fc.uint8Array({ maxLength: 1500 }),
      fc.boolean(),
      (family, seq, ack, flags, window, payload, stamped) => {
        const timestamps = stamped ? { value: seq ^ 0x1234, echo: ack } : null;
        const fields = {
          family,
          sourceIp: parseIp(family === 4 ? "192.0.2.7" : "2001:db8::7").bytes,
          destinationIp: parseIp(family === 4 ? "198.51.100.9" : "2001:db8:1::ffff").bytes,
          sourcePort: 65000,
          destinationPort: 179,
          seq,
          ack,
          flags,
          window,
          payload,
          timestamps,
        };
        const { header, payload: found } = verify(buildPacket(fields), family);
        assert.equal(header.getUint16(0), 65000);
        assert.equal(header.getUint16(2), 179);
        assert.equal(header.getUint32(4), seq);
        assert.equal(header.getUint32(8), ack);
        assert.equal(header.getUint8(13), flags);
        assert.equal(header.getUint16(14), window);
        assert.deepEqual(Buffer.from(found), Buffer.from(payload));
        const bytes = new Uint8Array(header.buffer, header.byteOffset, (header.getUint8(12) >> 4) * 4);
        const options = parseTcpOptions(bytes, 20, bytes.length);
        assert.deepEqual(options.timestamps, stamped ? { value: (seq ^ 0x1234) >>> 0, echo: ack } : null);
        const source = new Uint8Array([2, 0, 0, 0, 0, 1]);
        const destination = new Uint8Array([2, 0, 0, 0, 0, 2]);
        const frame = buildFrame(fields, source, destination);
        assert.deepEqual(Buffer.from(frame.subarray(0, 12)), Buffer.concat([destination, source]));
        assert.equal((frame[12]! << 8) | frame[13]!, family === 4 ? 0x0800 : 0x86dd);
        verify(frame.slice(14), family);
      },
    ),
  );
});

test("the unacknowledged output is sent once, in order, with its FIN", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 5000 }),
      fc.integer({ min: 1, max: 1500 }),
      fc.boolean(),
      (bytes, size, fin) => {
        const seq = 0xffff_ff00;
        const packets = buildUnacked({
          family: 4,
          localIp: parseIp("192.0.2.7").bytes,
          peerIp: parseIp("192.0.2.8").bytes,
          localPort: 80,
          peerPort: 5000,
          seq,
          bytes,
          fin,
          ack: 17,
          window: 100,
          timestamps: { value: 5, echo: 6 },
          md5: null,
          segmentBytes: size,
        });
        let at = 0;
        packets.forEach((packet, index) => {
          const { header, payload } = verify(packet, 4);
          assert.equal(header.getUint32(4), (seq + at) >>> 0);
          assert.deepEqual(Buffer.from(payload), Buffer.from(bytes.subarray(at, at + payload.length)));
          at += payload.length;
          const last = index === packets.length - 1;
          const push = last && bytes.length > 0 ? TCP_PSH : 0;
          assert.equal(header.getUint8(13), TCP_ACK | push | (last && fin ? TCP_FIN : 0));
        });
        assert.equal(at, bytes.length);
        if (fin) assert.ok(packets.length > 0);
      },
    ),
  );
});

test("options survive encoding; arbitrary bytes never read out of bounds", () => {
  for (const sack of [true, false])
    for (const timestamps of [{ value: 0xdead_beef, echo: 3 }, null])
      for (const wscale of [0, 9, null]) {
        const bytes = encodeTcpOptions({ mss: 1460, wscale, sack, timestamps });
        assert.equal(bytes.length % 4, 0);
        const expected = { mss: 1460, wscale, sack, timestamps, mptcp: false, authenticated: false };
        assert.deepEqual(parseTcpOptions(bytes, 0, bytes.length), expected);
      }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(80), (bytes, end) => {
      const found = parseTcpOptions(bytes, 0, end);
      assert.ok(found.wscale === null || found.wscale <= 14);
      if (found.timestamps) assert.ok(Number.isInteger(found.timestamps.value + found.timestamps.echo));
      if (found.mss !== null) assert.ok(Number.isInteger(found.mss));
    }),
    { numRuns: 1000 },
  );
  assert.equal(parseTcpOptions(Uint8Array.from([30, 4, 0x01, 0]), 0, 4).mptcp, true);
  assert.equal(parseTcpOptions(Uint8Array.from([30, 4, 0x11, 0]), 0, 4).mptcp, false);
  assert.equal(parseTcpOptions(Uint8Array.from([19, 18, ...new Array(16).fill(0)]), 0, 18).authenticated, true);
});
