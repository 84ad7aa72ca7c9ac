// What the addon's tests share: network namespaces with unique names, BPF objects compiled from a few lines of C.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import test from "node:test";
import { fileURLToPath } from "node:url";

export const isRoot = process.getuid?.() === 0;
export const needsRoot = isRoot ? false : "needs root";

export function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** A directory of the test's own, removed with the process. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-addon-"));
  process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const prelude = `
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
`;

/** Compiles BPF C (includes and licence are given) and returns the object's path. */
export function compileBpf(name: string, source: string): string {
  const directory = temporaryDirectory();
  const input = path.join(directory, `${name}.bpf.c`);
  const output = path.join(directory, `${name}.o`);
  writeFileSync(input, prelude + source);
  const triplet = process.arch === "arm64" ? "aarch64-linux-gnu" : "x86_64-linux-gnu";
  run("clang-14", "-target", "bpf", "-g", "-O2", "-Wall", `-I/usr/include/${triplet}`, "-c", input, "-o", output);
  return output;
}

/** The 32 bits as a map key or value, host order. */
export function u32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

export function u64(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer);
}

/** Runs the tests of `body` in a fresh network namespace, which ends with the process: this file is started again in
 * one, and its outcome is one test here. */
export function inOwnNamespace(fileUrl: string, name: string, body: () => void): void {
  if (process.env.TANDEM_TEST_NAMESPACE === "own") {
    run("ip", "link", "set", "lo", "up");
    body();
    return;
  }
  test(name, { skip: needsRoot }, () => {
    const environment: NodeJS.ProcessEnv = { ...process.env, TANDEM_TEST_NAMESPACE: "own" };
    delete environment.NODE_TEST_CONTEXT;
    const child = spawnSync("unshare", ["--net", "--", process.execPath, fileURLToPath(fileUrl)], {
      encoding: "utf8",
      env: environment,
    });
    assert.equal(child.status, 0, child.stdout + child.stderr);
  });
}

/** Waits until `ready` gives something, at most ten seconds. */
export async function until<Value>(what: string, ready: () => Value | undefined | false | null): Promise<Value> {
  for (let tries = 0; tries < 5000; tries++) {
    const value = ready();
    if (value !== undefined && value !== false && value !== null) return value;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error(`never came: ${what}`);
}
