// A program with a descriptor as its standard input and output: what it gets, and what is left of it.

import assert from "node:assert/strict";
import net from "node:net";
import { setPriority } from "node:os";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { native } from "../../addon/native.js";

const root = process.getuid?.() === 0;

/** Runs a shell script that way; its output, and its process number. */
async function runScript(script: string, environment: string[], input = ""): Promise<{ output: string; pid: number }> {
  const [ours, theirs] = native.socketPair();
  const pid = native.spawnWith(["sh", "-c", script], environment, theirs);
  native.closeFd(theirs);
  const socket = new net.Socket({ fd: ours });
  let output = "";
  socket.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  // It has to wait for its input.
  if (input !== "") await delay(200);
  // It may have closed its end by now.
  socket.on("error", () => {});
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.end(input);
  await closed;
  return { output, pid };
}

test("it speaks on the descriptor, has the environment it is given, and no more", async () => {
  const { output } = await runScript('echo "$A $B [$HOME]"; cat', ["A=1", "B=two words"], "input");
  assert.equal(output, "1 two words []\ninput");
});

test("it leads a session of its own, without signals ignored, blocked, or the priority of who started it", async (t) => {
  if (root) setPriority(-20);
  t.after(() => root && setPriority(0));
  const { output, pid } = await runScript("cut -d' ' -f5,6,19 /proc/$$/stat; grep -E 'Sig(Blk|Ign)' /proc/$$/status", [
    "PATH=/usr/bin:/bin",
  ]);
  const [ids, ...masks] = output.trim().split("\n");
  assert.equal(ids, `${pid} ${pid} 0`);
  // Signals 32 and 33 are glibc's own: it ignores them in every program that it starts so.
  const own = 0x1_8000_0000n;
  for (const line of masks) assert.equal(BigInt(`0x${line.split("\t")[1]}`) & ~own, 0n, line);
});

test("one that has ended is known to have, once it is looked for", async () => {
  const { pid } = await runScript("exec sleep 0.2 <&- >&-", ["PATH=/usr/bin:/bin"]);
  assert.equal(native.reap(pid), false);
  while (!native.reap(pid)) await delay(20);
  assert.throws(() => process.kill(pid, 0), /ESRCH/);
});

test("a program that is not there is named", () => {
  const [ours, theirs] = native.socketPair();
  assert.throws(() => native.spawnWith(["/no/such/program"], [], theirs), {
    code: "ENOENT",
    message: /\/no\/such\/program/,
  });
  assert.throws(() => native.spawnWith([], [], theirs), TypeError);
  native.closeFd(ours);
  native.closeFd(theirs);
});
