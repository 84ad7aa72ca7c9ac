// Silence is concluded only from time that was listened through: the pulse's state machine on a host that was frozen
// and thawed, and with datagrams that come late or again (addon/test/silence.cc, under the sanitizers).

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

test("a frozen and thawed host, late and repeated datagrams", (t) => {
  let root = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(root, "addon", "binding.gyp"))) root = path.dirname(root);
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-silence-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const program = path.join(directory, "silence");
  execFileSync("g++", [
    ..."-std=c++17 -O1 -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all".split(" "),
    ...[`-I${root}/addon/src`, `-I${root}/bpf`, `${root}/addon/test/silence.cc`, `${root}/addon/src/pulse_state.cc`],
    ...["-o", program],
  ]);
  execFileSync(program, { stdio: ["ignore", "ignore", "pipe"] });
});
