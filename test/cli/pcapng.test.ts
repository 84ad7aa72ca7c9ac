// Capture files: tshark reads what was written, directions, times and comments included, and merged segments are valid.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { pcapngHeader, pcapngPacket } from "../../src/observe/pcapng.js";
import { mendMerged } from "../../src/recorder/merged-frame.js";

const skip = spawnSync("tshark", ["--version"]).error ? "tshark is not installed" : false;

/** Ethernet, IP, TCP with `payload`; lengths and checksums of a first segment with 4 bytes. */
function frame(family: 4 | 6, payload: string): { bytes: Buffer; l3: number; l4: number } {
  const ethernet = Buffer.from(`020000000001020000000002${family === 4 ? "0800" : "86dd"}`, "hex");
  const ip = Buffer.from(
    family === 4
      ? "4500002c000140004006ffffc0000201c0000202"
      : `6000000000180640${"20010db8000000000000000000000001"}${"20010db8000000000000000000000002"}`,
    "hex",
  );
  const tcp = Buffer.from("30391f9000000001000000025018040012340000", "hex");
  const l4 = ethernet.length + ip.length;
  return { bytes: Buffer.concat([ethernet, ip, tcp, Buffer.from(payload)]), l3: ethernet.length, l4 };
}

test("tshark reads it as it was written", { skip }, (context) => {
  const packets = ([4, 6] as const).flatMap((family) =>
    ["even", "odd number"].map((payload, index) => {
      const { bytes, l3, l4 } = frame(family, payload);
      mendMerged(bytes, l3, l4);
      return pcapngPacket({
        timeNs: 1_700_000_000_123_456_789n + BigInt(index),
        direction: index === 0 ? "in" : "out",
        frame: bytes,
        comment: index === 0 ? undefined : "2 segments",
      });
    }),
  );
  const directory = mkdtempSync(path.join(tmpdir(), "tandem-pcapng-"));
  context.after(() => rmSync(directory, { recursive: true }));
  const file = path.join(directory, "session.pcapng");
  writeFileSync(file, Buffer.concat([pcapngHeader("tandem mirror"), ...packets]));
  const fields = [
    "frame.time_epoch",
    "frame.packet_flags_direction",
    "frame.comment",
    "tcp.len",
    "tcp.checksum.status",
    "ip.checksum.status",
  ];
  const options = [
    "-o",
    "tcp.check_checksum:TRUE",
    "-o",
    "ip.check_checksum:TRUE",
    "-T",
    "fields",
    "-E",
    "separator=|",
  ];
  const { stdout, stderr } = spawnSync(
    "tshark",
    ["-r", file, ...options, ...fields.flatMap((field) => ["-e", field])],
    {
      input: Buffer.concat([pcapngHeader("tandem mirror"), ...packets]),
      encoding: "utf8",
    },
  );
  const rows = stdout
    .trim()
    .split("\n")
    .map((line) => line.split("|"));
  assert.equal(rows.length, 4, stderr);
  for (const [index, [time = "", direction, comment, length, tcp, ip]] of rows.entries()) {
    const first = index % 2 === 0;
    assert.match(time, first ? /123456789/ : /123456790/);
    assert.equal(Number(direction), first ? 1 : 2);
    assert.equal(comment, first ? "" : "2 segments");
    assert.equal(Number(length), first ? 4 : 10);
    assert.equal(tcp, "1", "the TCP checksum is right");
    assert.equal(ip, index < 2 ? "1" : "", "the IP checksum is right");
  }
});
