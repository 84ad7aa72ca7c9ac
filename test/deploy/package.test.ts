// The Debian package on a bare Debian of its own: it installs, checks a configuration, runs as a standby and as the
// active of a lab's router pair with no more than the unit's capabilities, and leaves nothing when it is removed.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { Lab, type RouterName } from "../../src/lab/lab.js";
import { RouterPair } from "../../src/lab/router-pair.js";

const source = fileURLToPath(new URL("../../../../", import.meta.url));
const unit = path.join(source, "deploy/systemd/tandem.service");
const has = (program: string): boolean => spawnSync("which", [program]).status === 0;
const skip =
  process.getuid?.() !== 0
    ? "needs root"
    : has("mmdebstrap") && has("dpkg-deb")
      ? false
      : "needs mmdebstrap and dpkg-deb";

/** A value of the unit file. */
function unitValue(key: string): string {
  const value = new RegExp(`^${key}=(.*)$`, "m").exec(readFileSync(unit, "utf8"))?.[1];
  assert.ok(value !== undefined, `${key} in ${unit}`);
  return value;
}

test("the unit is one that systemd understands", { skip }, () => {
  // It complains about programs and manual pages that are not installed here, and about nothing else.
  const { stdout, stderr } = spawnSync("systemd-analyze", ["verify", unit], { encoding: "utf8" });
  const complaints = `${stdout}${stderr}`
    .split("\n")
    .filter((line) => line.includes("tandem.service") && !/is not executable|man tandem/.test(line));
  assert.deepEqual(complaints, []);
  assert.equal(unitValue("Type"), "notify");
});

test("the Debian package installs, runs and is removed on a bare Debian", { skip, timeout: 600_000 }, async () => {
  const directory = mkdtempSync("/var/tmp/tandem-package-");
  const root = path.join(directory, "root");
  const chroot = (...argv: string[]) =>
    execFileSync("chroot", [root, ...argv], {
      encoding: "utf8",
      stdio: "pipe",
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", DEBIAN_FRONTEND: "noninteractive" },
    });
  const lab = Lab.create();
  const mounts: string[] = [];
  try {
    const built = execFileSync(path.join(source, "deploy/debian/build.sh"), { encoding: "utf8" }).trim();
    execFileSync("mmdebstrap", ["--variant=apt", "--quiet", "bookworm", root], { stdio: "pipe" });
    copyFileSync(path.join(source, built), path.join(root, "tmp/tandem.deb"));
    copyFileSync("/etc/resolv.conf", path.join(root, "etc/resolv.conf"));
    chroot("apt-get", "-qq", "update");
    chroot("apt-get", "-qq", "-y", "--no-install-recommends", "install", "/tmp/tandem.deb");
    assert.match(chroot("tandem", "--version"), /^\d+\.\d+\.\d+/);
    for (const file of ["/usr/bin/tandem", "/lib/systemd/system/tandem.service", "/etc/tandem/tandem.yaml.example"])
      assert.ok(existsSync(path.join(root, file)), file);
    chroot("tandem", "config", "check", "--config", "/etc/tandem/tandem.yaml.example");

    // What a booted system would have; the lab's files are seen at their own place.
    for (const each of ["/proc", "/sys", "/dev", lab.directory]) {
      const target = path.join(root, each);
      mkdirSync(target, { recursive: true });
      execFileSync("mount", ["--rbind", "--make-rslave", each, target]);
      mounts.push(target);
    }
    const pair = new RouterPair(lab, { heartbeat: { deadMs: 300, controllerMs: 5000 } });
    const capabilities = unitValue("CapabilityBoundingSet")
      .split(" ")
      .map((name) => `+${name.replace("CAP_", "").toLowerCase()}`)
      .join(",");
    const start = (router: RouterName) => {
      pair.agents[router] = lab.spawn(router, [
        ...["chroot", root, "setpriv", `--bounding-set=-all,${capabilities}`, "--no-new-privs"],
        ...["tandem", "agent", "--config", pair.configFile(router)],
      ]);
    };
    start("a");
    start("b");
    await pair.untilRole("a", "active", 30_000);
    await pair.untilRole("b", "standby", 30_000);
    lab.kill("a");
    await pair.untilRole("b", "solo", 30_000);
    assert.match(lab.run("b", ["chroot", root, "tandem", "status", "--config", pair.configFile("b")]), /solo/);

    lab.kill("b");
    chroot("apt-get", "-qq", "-y", "purge", "tandem");
    for (const file of ["/usr/bin/tandem", "/usr/lib/tandem", "/etc/tandem", "/var/lib/tandem"])
      assert.ok(!existsSync(path.join(root, file)), `${file} is gone`);
  } finally {
    lab.destroy();
    for (const target of mounts.reverse()) spawnSync("umount", ["--recursive", "--lazy", target]);
    // Never through a mount that could not be undone.
    const left = readFileSync("/proc/mounts", "utf8").includes(root);
    if (!left) rmSync(directory, { recursive: true, force: true });
  }
});
