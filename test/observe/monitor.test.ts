// The monitor as a whole: what each path answers, and what becomes of an address it cannot have.

import assert from "node:assert/strict";
import net from "node:net";
import { describe, test } from "node:test";
import { pino } from "pino";
import type { JournalEntry } from "../../src/observe/journal.js";
import { Monitor } from "../../src/observe/monitor.js";
import type { Observation } from "../../src/observe/observation.js";
import { look, report, session } from "./looks.js";

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function monitored(
  observe: (sessions: number) => Promise<Observation>,
  judge: (
    ask: (path: string) => Promise<{ status: number; type: string; body: string }>,
    monitor: Monitor,
  ) => Promise<void>,
  journal: JournalEntry[] = [],
): Promise<void> {
  const port = await freePort();
  const listen = { address: "127.0.0.1", port };
  const monitor = new Monitor({ listen, version: "1", log: pino({ level: "silent" }), journal, observe });
  await monitor.start();
  try {
    await judge(async (path) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`);
      const type = response.headers.get("content-type") ?? "";
      return { status: response.status, type, body: await response.text() };
    }, monitor);
  } finally {
    monitor.close();
  }
}

describe("the monitor", () => {
  test("health: whoever has the voice or could take it over", async () => {
    const cases: [Partial<Observation>, number, boolean][] = [
      [{ role: "active", gate: "reflect" }, 200, true],
      [{ role: "standby" }, 200, true],
      [{ role: "standby", agreed: false }, 503, true],
      [{ role: "solo", gate: "solo" }, 200, false],
      [{ role: "joining" }, 503, false],
      [{ role: "fenced" }, 503, false],
    ];
    for (const [over, status, isProtected] of cases)
      await monitored(
        async () => look(over),
        async (ask) => {
          const health = await ask("/healthz");
          assert.equal(health.status, status, JSON.stringify(over));
          assert.deepEqual(JSON.parse(health.body), {
            healthy: status === 200,
            role: over.role,
            protected: isProtected,
            reason: "Both configurations agree.",
          });
        },
      );
  });

  test("page, live part, style, script and metrics, each of its type; sessions are asked for by the page only", async () => {
    const asked: number[] = [];
    await monitored(
      async (sessions) => {
        asked.push(sessions);
        const seen = look();
        seen.recorder.sessions = Array.from({ length: sessions }, (_, index) => session(index));
        return seen;
      },
      async (ask, monitor) => {
        monitor.takeover(report, "lease");
        const page = await ask("/");
        const live = await ask("/live");
        assert.deepEqual([page.type, live.type], ["text/html; charset=utf-8", "text/html; charset=utf-8"]);
        assert.match(page.body, /^<!doctype html>/);
        assert.match(live.body, /^<header>/);
        assert.ok(live.body.includes("Steps of the last takeover"));
        assert.equal(live.body.split('<th scope="row" class="number">').length - 1, 50);
        assert.equal((await ask("/page.css")).type, "text/css; charset=utf-8");
        assert.equal((await ask("/page.js")).type, "text/javascript; charset=utf-8");
        const metrics = await ask("/metrics");
        assert.match(metrics.type, /^text\/plain; version=0\.0\.4/);
        assert.match(metrics.body, /^tandem_takeovers_total\{cause="lease"\} 1$/m);
        assert.deepEqual([...new Set(asked)].sort(), [0, 50]);
      },
    );
  });

  test("an agent that cannot be looked at is not healthy and has no metrics", async () => {
    await monitored(
      () => Promise.reject(new Error("the recorder thread ended")),
      async (ask) => {
        for (const path of ["/", "/metrics", "/healthz"]) assert.equal((await ask(path)).status, 500, path);
      },
    );
  });

  test("takeovers of before the agent was started are shown, and are not counted again", async () => {
    const entry = { time: "2026-01-02T03:04:05.000Z", router: "b", epoch: 9, sentence: "Took over." };
    const journal = [
      entry,
      { ...entry, facts: { takeover: { ...report, of: "a later version" } } },
      { ...entry, facts: { takeover: { cause: "of an earlier version" } } },
    ];
    await monitored(
      async () => look(),
      async (ask) => {
        const { body } = await ask("/");
        assert.match(body, /03:04:05 UTC, epoch 9\. The active&#39;s lease has run out\. 12 sessions restored/);
        assert.equal(body.split('class="bar waiting"').length - 1, 2, "once as a timeline, once as a blackout");
        const metrics = (await ask("/metrics")).body;
        assert.match(metrics, /^tandem_last_takeover_timestamp_seconds 1767323045$/m);
        assert.match(metrics, /^tandem_takeovers_total\{cause="lease"\} 0$/m);
      },
      journal,
    );
  });

  test("however many ask, the agent is looked at a few times a second", async () => {
    let looks = 0;
    await monitored(
      async () => {
        looks++;
        return look();
      },
      async (ask) => {
        const began = performance.now();
        for (let round = 0; round < 10; round++)
          await Promise.all(Array.from({ length: 10 }, (_, index) => ask(["/", "/healthz"][index % 2] ?? "")));
        const allowed = 2 * (1 + (performance.now() - began) / 250) + 1 + (performance.now() - began) / 1000;
        assert.ok(looks <= allowed, `${looks} looks, ${allowed} allowed`);
      },
    );
  });

  test("an address it cannot have is refused with a remedy; and off is off", async () => {
    const taken = net.createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => taken.once("listening", resolve));
    const { port } = taken.address() as net.AddressInfo;
    const monitor = (listen: { address: string; port: number } | null) =>
      new Monitor({
        listen,
        version: "1",
        log: pino({ level: "silent" }),
        journal: [],
        observe: async () => look(),
      });
    await assert.rejects(monitor({ address: "127.0.0.1", port }).start(), {
      code: "HTTP_BIND",
      remedy: /Free the port/,
    });
    await assert.rejects(monitor({ address: "192.0.2.1", port }).start(), { code: "HTTP_BIND", remedy: /own/ });
    await new Promise((resolve) => taken.close(resolve));
    const off = monitor(null);
    await off.start();
    await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
    off.close();
  });
});
