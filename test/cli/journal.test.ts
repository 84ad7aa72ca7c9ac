// The journal's last entries: in order, bounded, over restarts, whatever a power failure left behind.
import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { Journal } from "../../src/observe/journal.js";

test("the last decisions, the oldest first", (context) => {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-journal-"));
  context.after(() => rmSync(directory, { recursive: true }));
  const open = () => new Journal(directory, "a", pino({ level: "silent" }));
  assert.deepEqual(open().read(10), []);
  const first = open();
  for (let epoch = 1; epoch <= 5; epoch++)
    first.write(epoch, `Decision ${epoch}.`, epoch === 5 ? { totalMs: 3 } : undefined);
  appendFileSync(path.join(directory, "journal.jsonl"), '{"time":"2026-11-\n');
  const again = open();
  again.write(6, "Decision 6.");
  assert.deepEqual(
    again.read(3).map(({ epoch, sentence, facts }) => [epoch, sentence, facts]),
    [
      [4, "Decision 4.", undefined],
      [5, "Decision 5.", { totalMs: 3 }],
      [6, "Decision 6.", undefined],
    ],
  );
  assert.equal(again.read(100).length, 6);
});

test("it begins anew before it grows too long, and the former one is read on", (context) => {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-journal-"));
  context.after(() => rmSync(directory, { recursive: true }));
  const limitBytes = 2000;
  const open = () => new Journal(directory, "a", pino({ level: "silent" }), limitBytes);
  for (let epoch = 1; epoch <= 100; epoch++) open().write(epoch, `Decision ${epoch}.`);
  const files = readdirSync(directory).sort();
  assert.deepEqual(files, ["journal.1.jsonl", "journal.jsonl"]);
  for (const file of files) assert.ok(statSync(path.join(directory, file)).size <= limitBytes);
  const epochs = open()
    .read(1000)
    .map(({ epoch }) => epoch);
  assert.ok(epochs.length > 15, `${epochs.length} are left`);
  assert.deepEqual(
    epochs,
    Array.from({ length: epochs.length }, (_, index) => 101 - epochs.length + index),
  );
  assert.deepEqual(
    open()
      .read(3)
      .map(({ epoch }) => epoch),
    [98, 99, 100],
  );
});
