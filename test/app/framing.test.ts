// Framing and messages: whatever bytes come, they become checked messages or one refusal, never a crash or a leak.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { refusals } from "../../src/app/errors.js";
import { encodeFrame, MessageReader, type RawMessage } from "../../src/app/framing.js";
import {
  encodeMessage,
  MAX_LINE,
  parseAgentMessage,
  parseApplicationMessage,
  TO_AGENT,
} from "../../src/app/messages.js";
import { TandemError } from "../../src/errors.js";

/** Cuts `bytes` at the given places, modulo what is left. */
function cut(bytes: Buffer, sizes: number[]): Buffer[] {
  const pieces: Buffer[] = [];
  let start = 0;
  for (const size of sizes) {
    const end = Math.min(bytes.length, start + size);
    if (end > start) pieces.push(bytes.subarray(start, end));
    start = end;
  }
  if (start < bytes.length) pieces.push(bytes.subarray(start));
  return pieces;
}

const code = (expected: string) => (error: unknown) => error instanceof TandemError && error.code === expected;

test("messages survive any segmentation, with the parts and descriptors they name", () => {
  const type = fc.constantFrom("fin", "takeover", "x".repeat(64));
  const message = fc.record(
    {
      type,
      fds: fc.integer({ min: 0, max: 3 }),
      text: fc.string({ unit: "binary", maxLength: 40 }),
      parts: fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 3 }),
    },
    { noNullPrototype: true },
  );
  const property = fc.property(
    fc.array(message, { maxLength: 20 }),
    fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 60 }),
    (messages, sizes) => {
      const reader = new MessageReader(TO_AGENT);
      const seen: RawMessage[] = [];
      let nextFd = 100;
      // Descriptors travel with the first byte of their message.
      const descriptorsAt = new Map<number, number[]>();
      const frames = messages.map(({ parts, ...message }) => encodeFrame(message, parts, MAX_LINE));
      let position = 0;
      for (const [index, frame] of frames.entries()) {
        descriptorsAt.set(
          position,
          Array.from({ length: messages[index]!.fds }, () => nextFd++),
        );
        position += frame.length;
      }
      let offset = 0;
      for (const piece of cut(Buffer.concat(frames), sizes)) {
        const fds: number[] = [];
        for (let byte = offset; byte < offset + piece.length; byte++) fds.push(...(descriptorsAt.get(byte) ?? []));
        const volatile = Buffer.from(piece);
        reader.push(volatile, fds, (raw) => seen.push(raw));
        volatile.fill(0xff); // the caller may use its buffer again
        offset += piece.length;
      }
      assert.deepEqual(
        seen.map((raw) => ({ ...(raw.body as object), parts: raw.parts })),
        messages.map((entry) => ({ ...entry, parts: entry.parts.map((part) => Buffer.from(part)) })),
      );
      assert.deepEqual(
        seen.flatMap((raw) => raw.fds),
        Array.from({ length: nextFd - 100 }, (_, index) => 100 + index),
      );
      assert.deepEqual(reader.abandon(), []);
    },
  );
  fc.assert(property);
});

test("arbitrary bytes give messages or a refusal, and every descriptor is accounted for", () => {
  const piece = fc.record({
    bytes: fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.json().map((json) => Buffer.from(`${json}\n`)),
      fc
        .constantFrom(
          '{"type":"log","parts":[30]}\n',
          '{"type":"x","fds":1,"parts":[9]}\n',
          '{"type":"hello","version":1}\n',
          '{"type":"register"',
          "\n",
          "{}\n",
          "[]\n",
          "null\n",
        )
        .map((text) => Buffer.from(text)),
    ),
    fds: fc.array(fc.integer({ min: 3, max: 1000 }), { maxLength: 3 }),
  });
  const property = fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
    const reader = new MessageReader(TO_AGENT);
    const given: number[] = [];
    const taken: number[] = [];
    try {
      for (const { bytes, fds } of pieces) {
        given.push(...fds);
        reader.push(bytes, fds, (raw) => {
          taken.push(...raw.fds);
          parseApplicationMessage(raw);
          parseAgentMessage(raw);
        });
      }
    } catch (error) {
      assert.ok(error instanceof TandemError, String(error));
    }
    taken.push(...reader.abandon());
    assert.deepEqual(taken, given);
  });
  fc.assert(property, { numRuns: 500 });
});

test("a line of 65536 bytes is the longest", () => {
  const line = (length: number): Buffer => {
    const head = '{"type":"x","p":"';
    return Buffer.from(`${head}${"a".repeat(length - head.length - 2)}"}\n`);
  };
  let seen = 0;
  new MessageReader(TO_AGENT).push(line(MAX_LINE), [], () => seen++);
  assert.equal(seen, 1);
  assert.throws(() => new MessageReader(TO_AGENT).push(line(MAX_LINE + 1), [], () => {}), code("line-too-long"));
  // Refused before the newline comes, so nothing grows.
  const reader = new MessageReader(TO_AGENT);
  assert.throws(() => {
    for (let round = 0; round < 100; round++) reader.push(Buffer.alloc(1000, 0x61), [], () => {});
  }, code("line-too-long"));
  const sessions = Array.from({ length: 1000 }, (): [number, number, number] => [
    2 ** 53 - 1,
    2 ** 53 - 1,
    2 ** 53 - 1,
  ]);
  assert.ok(encodeMessage({ type: "progress", sessions }).length <= MAX_LINE);
});

test("each malformed message has its code", () => {
  const push = (text: string | Buffer, fds: number[] = []) =>
    new MessageReader(TO_AGENT).push(Buffer.from(text), fds, parseApplicationMessage);
  assert.throws(() => push("nonsense\n"), code("bad-json"));
  assert.throws(() => push(Buffer.from([0x22, 0xff, 0x22, 0x0a])), code("bad-json"));
  assert.throws(() => push("[]\n"), code("bad-json"));
  assert.throws(() => push("{}\n"), code("bad-message"));
  assert.throws(() => push('{"type":"hello"}\n'), code("bad-message"));
  assert.throws(() => push('{"type":"hello","version":"1"}\n'), /version/);
  assert.throws(() => push('{"type":"register","service":"","mode":"live"}\n'), code("bad-message"));
  assert.throws(() => push('{"type":"x","fds":9}\n'), code("bad-message"));
  assert.throws(() => push('{"type":"x","fds":1}\n'), code("unexpected-descriptors"));
  assert.throws(() => push('{"type":"x"}\n', [7]), code("unexpected-descriptors"));
});

test("parts: bounded together, as many as the message has, and their descriptors come with the line", () => {
  const seen: RawMessage[] = [];
  const reader = new MessageReader({ line: 100, parts: 10, fds: 2, fdsAhead: 0 });
  reader.push(Buffer.from('{"type":"a","fds":1,"parts":[4,0,6]}\n0123\n'), [7], (raw) => seen.push(raw));
  assert.equal(seen.length, 0, "nothing before its last byte");
  reader.push(Buffer.from('56789{"type":"b","parts":[0]}\n{"type":"c"}\n'), [], (raw) => seen.push(raw));
  assert.deepEqual(
    seen.map(({ type, parts, fds }) => [type, parts.map(String), fds]),
    [
      ["a", ["0123", "", "\n56789"], [7]],
      ["b", [""], []],
      ["c", [], []],
    ],
  );
  assert.throws(() => reader.push(Buffer.from('{"type":"a","parts":[4,7]}\n'), [], () => {}), code("parts-too-large"));
  assert.throws(() => reader.push(Buffer.from('{"type":"a","fds":3}\n'), [], () => {}), code("bad-message"));
  // A descriptor in the middle of parts belongs to nobody; that of the unfinished message is given back.
  const unfinished = new MessageReader(TO_AGENT);
  unfinished.push(Buffer.from('{"type":"a","fds":1,"parts":[4]}\n01'), [7], () => assert.fail("unfinished"));
  assert.throws(() => unfinished.push(Buffer.from("2"), [8], () => {}), code("unexpected-descriptors"));
  assert.deepEqual(unfinished.abandon(), [7, 8]);

  const parse = (body: { type: string; parts?: number[] }) =>
    parseApplicationMessage({ type: body.type, body, parts: [], fds: [] });
  const confirm = { type: "confirm", id: 1, inputOffset: 0, outputOffset: 0, outputStart: 0 };
  assert.equal(parse({ ...confirm, parts: [0, 5] })?.type, "confirm");
  assert.throws(() => parse({ ...confirm, parts: [0] }), code("bad-message"));
  assert.throws(() => parse(confirm), code("bad-message"));
});

test("unknown fields are ignored, unknown types are told apart", () => {
  const raw = (body: { type: string }): RawMessage => ({ type: body.type, body, parts: [], fds: [] });
  assert.deepEqual(parseAgentMessage(raw({ type: "fin", id: 1, inputOffset: 2 ** 40, later: 1 } as never)), {
    type: "fin",
    id: 1,
    inputOffset: 2 ** 40,
  });
  assert.equal(parseAgentMessage(raw({ type: "invented" })), null);
  assert.equal(parseAgentMessage(raw({ type: "constructor" })), null);
  assert.throws(() => parseAgentMessage(raw({ type: "fin", id: 1, inputOffset: -1 } as never)), code("bad-message"));
  assert.throws(
    () => parseAgentMessage(raw({ type: "fin", id: 1, inputOffset: 2 ** 53 } as never)),
    code("bad-message"),
  );
});

test("docs/protocol.md lists every code with its message and remedy", () => {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "package.json"))) directory = path.dirname(directory);
  const page = readFileSync(path.join(directory, "docs/protocol.md"), "utf8");
  for (const [name, { message, remedy }] of Object.entries(refusals)) {
    const rows = page.split("\n").filter((line) => line.startsWith(`| \`${name}\` |`));
    assert.ok(
      rows.some((row) => row.includes(message) && row.includes(remedy)),
      name,
    );
  }
});
