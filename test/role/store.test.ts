// What a router remembers survives a write that is cut anywhere, and is refused when nothing of it can be trusted.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { RoleStore } from "../../src/role/store.js";

function inDirectory(run: (directory: string) => void): void {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-store-"));
  try {
    run(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const entry = (epoch: number) => ({ epoch, spoke: epoch % 2 === 1, partnerEntitled: epoch % 3 === 0 });

test("a router without a past begins at epoch 0, and remembers what was written last", () =>
  inDirectory((directory) => {
    const store = new RoleStore(directory);
    assert.deepEqual(store.read(), { epoch: 0, spoke: false, partnerEntitled: false });
    for (let epoch = 1; epoch < 8; epoch++) {
      store.write(entry(epoch));
      assert.deepEqual(new RoleStore(directory).read(), entry(epoch));
    }
  }));

test("a write that is cut after any byte leaves the entry before it", () =>
  inDirectory((directory) => {
    const store = new RoleStore(directory);
    store.read();
    store.write(entry(1));
    store.write(entry(2));
    const file = path.join(directory, "role");
    const before = readFileSync(file);
    store.write(entry(3));
    const after = readFileSync(file);
    // Up to the end of its line; after it come spaces.
    const changed = [...after.keys()].filter((at) => at <= after.indexOf("\n", 512) && after[at] !== before[at]);
    assert.ok(changed.length > 0);
    for (const cut of changed) {
      writeFileSync(file, Buffer.concat([before.subarray(0, 512), after.subarray(512, cut), before.subarray(cut)]));
      assert.deepEqual(new RoleStore(directory).read(), entry(2), `cut before byte ${cut}`);
    }
  }));

test("with both entries damaged nothing is believed", () =>
  inDirectory((directory) => {
    const store = new RoleStore(directory);
    store.read();
    store.write(entry(1));
    store.write(entry(2));
    const file = path.join(directory, "role");
    const bytes = readFileSync(file);
    bytes[20] = (bytes[20] as number) ^ 1;
    bytes[532] = (bytes[532] as number) ^ 1;
    writeFileSync(file, bytes);
    assert.throws(() => new RoleStore(directory).read(), { code: "STATE_CORRUPT" });
  }));
