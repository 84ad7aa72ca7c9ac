// The addon's parsers, the pulse's state machine and the restore, compiled with AddressSanitizer and
// UndefinedBehaviorSanitizer and run over known answers, noise and mutations (addon/test/sanitize.cc, restore.cc). The seed
// is printed; TANDEM_SEED repeats one.

import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { needsRoot, run, temporaryDirectory } from "./fixture.js";

/** The directory that holds addon/ and bpf/. */
function root(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "addon", "binding.gyp"))) directory = path.dirname(directory);
  return directory;
}

const seed = process.env.TANDEM_SEED ?? String(Math.floor(Math.random() * 2 ** 32));

/** Compiles addon/test/DRIVER.cc with these sources of the addon, runs it with the seed, and passes on what it says. */
function sanitized(t: TestContext, driver: string, sources: string[], ...more: string[]): void {
  const binary = path.join(temporaryDirectory(), driver);
  const addon = path.join(root(), "addon");
  run(
    "g++",
    "-std=c++17",
    "-D_GNU_SOURCE",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    `-I${path.join(addon, "src")}`,
    `-I${path.join(root(), "bpf")}`,
    path.join(addon, "test", `${driver}.cc`),
    ...sources.map((name) => path.join(addon, "src", `${name}.cc`)),
    "-o",
    binary,
  );
  t.diagnostic(`seed ${seed}`);
  for (const line of run(binary, seed, ...more)
    .trim()
    .split("\n"))
    t.diagnostic(line);
}

test("parsers and state machine under ASan and UBSan", (t) => {
  const pulse = ["siphash", "pulse_wire", "pulse_state"];
  sanitized(t, "sanitize", [...pulse, "netlink_parse", "record_checksum", "record_merge", "verifier_log"]);
});

test("restores with random states, options and keys under ASan and UBSan", { skip: needsRoot }, (t) => {
  sanitized(t, "restore", ["tcp_repair", "socket_options"], "2000");
});
