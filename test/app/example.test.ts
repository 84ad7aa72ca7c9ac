// The example as a user starts it: a process of its own, against a real agent socket, through a takeover.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { collect, liveTakeover, TestAgent, tcpPair } from "./agent.js";

function root(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "package.json"))) directory = path.dirname(directory);
  return directory;
}

test("examples/live-standby.mjs goes on in mid-line", async (t) => {
  // It imports the package by its name, so from where package.json says the build is.
  if (!existsSync(path.join(root(), "build/js/src/sdk/index.js")))
    return t.skip("the package is not built (make build)");
  const agent = new TestAgent();
  const registered = new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      if (agent.registered.length === 0) return;
      clearInterval(timer);
      resolve();
    }, 10);
    t.after(() => clearInterval(timer));
  });
  const arguments_ = [
    "examples/live-standby.mjs",
    "--socket",
    agent.path,
    "--service",
    "web",
    "--listen",
    "127.0.0.1:0",
  ];
  const child = spawn(process.execPath, arguments_, { cwd: root(), stdio: ["ignore", "pipe", "pipe"] });
  const output = collect(child.stdout);
  const errors = collect(child.stderr);
  try {
    const exited = once(child, "exit").then(async () => assert.fail(`exited: ${await errors}`));
    exited.catch(() => {});
    await Promise.race([registered, exited]);
    const { id, feed } = agent.open("web");
    const { peer, fd } = await tcpPair();
    feed.end("alpha\nbe");
    agent.server.progress([[id, 5, 8]]);
    assert.ok(agent.server.takeover(id, liveTakeover(8, 5), fd));
    peer.end("ta\nγ");
    assert.equal((await collect(peer)).toString(), "pha\n2: beta\n2 lines, 13 bytes\n");
  } finally {
    child.kill("SIGKILL");
    agent.close();
  }
  assert.match((await output).toString(), /registered for web\nsession 1 of 10.77.0.10: ours, input 8, output 5/);
});
