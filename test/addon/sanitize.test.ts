// The addon's parsers and the pulse's state machine, compiled with AddressSanitizer and UndefinedBehaviorSanitizer and
// run over known answers, noise and mutations (addon/test/sanitize.cc). The seed is printed; TANDEM_SEED repeats one.

import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { run, temporaryDirectory } from "./fixture.js";

/** The directory that holds addon/ and bpf/. */
function root(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "addon", "binding.gyp"))) directory = path.dirname(directory);
  return directory;
}

test("parsers and state machine under ASan and UBSan", (t) => {
  const sources = ["siphash", "pulse_wire", "pulse_state", "netlink_parse", "record_checksum", "verifier_log"];
  const binary = path.join(temporaryDirectory(), "sanitize");
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
    path.join(addon, "test", "sanitize.cc"),
    ...sources.map((name) => path.join(addon, "src", `${name}.cc`)),
    "-o",
    binary,
  );
  const seed = process.env.TANDEM_SEED ?? String(Math.floor(Math.random() * 2 ** 32));
  t.diagnostic(`seed ${seed}`);
  for (const line of run(binary, seed).trim().split("\n")) t.diagnostic(line);
});
