// The objects load when built by the oldest and by the newest compiler we know of: what one of them drops as proven,
// the verifier of the kernel may miss.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { native } from "../../addon/native.js";
import { needsRoot, projectRoot, Rig } from "./rig.js";

for (const compiler of ["clang-14", "clang-19"]) {
  const missing = spawnSync(compiler, ["--version"]).error !== undefined;
  test(`all objects built by ${compiler} load`, { skip: missing ? `${compiler} is not installed` : needsRoot }, (t) => {
    const objects = mkdtempSync(path.join(tmpdir(), "tandem-bpf-"));
    t.after(() => rmSync(objects, { recursive: true, force: true }));
    const make = ["-s", "-f", "bpf/build.mk", "bpf", `CLANG=${compiler}`, `BPF_OUT=${objects}`];
    execFileSync("make", make, { cwd: projectRoot, stdio: "pipe" });
    new Rig({ objects }).close();
    for (const name of ["snapshot", "impair"]) native.bpfLoad(path.join(objects, `${name}.bpf.o`), {}).close();
  });
}
