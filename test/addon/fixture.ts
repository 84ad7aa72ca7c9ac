// What the addon's tests share: network namespaces with unique names, BPF objects compiled from a few lines of C.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";

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
