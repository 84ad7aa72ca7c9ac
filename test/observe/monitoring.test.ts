// A lab with a failover in it, watched as an operator would: by a real Prometheus with the rules of deploy/, through
// every query of the dashboards, and with a real browser on the status page. Screenshots stay in build/artifacts.

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { parse, stringify } from "yaml";
import { z } from "zod";
import { addressPlan, Lab, type RouterName } from "../../src/lab/lab.js";
import { labPorts, RouterPair } from "../../src/lab/router-pair.js";
import { type Sessions, socatSessions } from "../../src/lab/traffic.js";
import { Browser, chromium, programNamed } from "./browser.js";
import { artifactDirectory, dashboards, deployDirectory, ruleGroups } from "./deployed.js";

const skip = process.getuid?.() === 0 ? false : "needs root";
const prometheus = programNamed("prometheus");
const noPrometheus = prometheus ? false : "needs Prometheus (Debian package prometheus)";
const noBrowser = chromium ? false : "needs Chromium (Debian package chromium)";

const httpPort = 9470;
const sessionsEach = 4;
const hosts = Object.values(addressPlan.service);
const address = (router: RouterName) => `${addressPlan.uplink[router].v4}:${httpPort}`;

describe("a failover, watched", { skip }, () => {
  let lab: Lab;
  let pair: RouterPair;
  let browser: Browser | null = null;
  const running: Sessions[] = [];
  const beganAt = Date.now() / 1e3;

  before(async () => {
    lab = Lab.create();
    // Reached from the peer's namespace: each router's loopback is its own.
    pair = new RouterPair(lab, { heartbeat: { deadMs: 300 }, overrides: { http: { address: "0.0.0.0" } } });
    for (const router of ["a", "b"] as const) pair.startAgent(router);
    await pair.untilRole("a", "active");
    await pair.untilRole("b", "standby");
    for (const router of ["a", "b"] as const) await pair.startServer(router, true);
    if (prometheus) startPrometheus(prometheus);
    if (chromium) browser = await Browser.start(lab, "peer");
    await openSessions("b");
    if (prometheus) await untilScraped("b");
    mkdirSync(artifactDirectory, { recursive: true });
  });
  after(() => {
    for (const sessions of running) sessions.abandon();
    lab?.destroy();
  });

  function startPrometheus(program: string): void {
    const example = z
      .looseObject({
        global: z.looseObject({}),
        scrape_configs: z.tuple([z.looseObject({ static_configs: z.tuple([z.looseObject({})]) })]),
      })
      .parse(parse(readFileSync(path.join(deployDirectory, "prometheus", "prometheus.yml"), "utf8")));
    example.global = { scrape_interval: "1s", evaluation_interval: "1s" };
    Object.assign(example.scrape_configs[0].static_configs[0], { targets: [address("a"), address("b")] });
    const directory = path.join(lab.directory, "prometheus");
    mkdirSync(directory);
    copyFileSync(
      path.join(deployDirectory, "prometheus", "tandem.rules.yml"),
      path.join(directory, "tandem.rules.yml"),
    );
    writeFileSync(path.join(directory, "prometheus.yml"), stringify(example));
    lab.spawn("peer", [
      program,
      `--config.file=${path.join(directory, "prometheus.yml")}`,
      `--storage.tsdb.path=${path.join(directory, "data")}`,
      ...["--web.listen-address=127.0.0.1:9090", "--log.level=error"],
    ]);
  }

  async function openSessions(standby: RouterName): Promise<void> {
    const ready = async () => (await pair.status(standby)).sessions.ready;
    const before = await ready();
    for (const host of hosts)
      running.push(socatSessions(lab, host, labPorts.echo, { count: sessionsEach, intervalMs: 20 }));
    await pair.until("the sessions are ready", async () => (await ready()) >= before + sessionsEach * hosts.length);
  }

  /** Until Prometheus knows that the sessions are ready, or a takeover would come too early for it. */
  async function untilScraped(standby: RouterName): Promise<void> {
    const ready = `tandem_sessions{state="ready",instance="${address(standby)}"} >= ${sessionsEach * hosts.length}`;
    await pair.until("Prometheus has seen the sessions ready", () => series(ready).length > 0);
  }

  function curl(...argv: string[]): string {
    return lab.run("peer", ["curl", "--silent", "--show-error", "--noproxy", "*", ...argv]);
  }

  /** Series of a query over all the time that was watched. */
  function series(query: string): { metric: Record<string, string>; values: number[] }[] {
    const answer = z
      .object({
        status: z.literal("success", { error: `not understood: ${query}` }),
        data: z.object({
          result: z.array(
            z.object({ metric: z.record(z.string(), z.string()), values: z.array(z.tuple([z.number(), z.string()])) }),
          ),
        }),
      })
      .parse(
        JSON.parse(
          curl(
            ...["http://127.0.0.1:9090/api/v1/query_range", "--data-urlencode", `query=${query}`],
            ...["-d", `start=${beganAt}`, "-d", `end=${Date.now() / 1e3}`, "-d", "step=1"],
          ),
        ),
      );
    return answer.data.result.map(({ metric, values }) => ({
      metric,
      values: values.map(([, value]) => Number(value)),
    }));
  }

  async function shown(name: string, page: Browser): Promise<void> {
    writeFileSync(path.join(artifactDirectory, `status-page-${name}.png`), await page.screenshot());
  }

  async function inPage(page: Browser, what: string, expression: string): Promise<void> {
    await pair.until(`in the page: ${what}`, async () => (await page.evaluate(expression)) === true);
  }

  test("health says each router's role", () => {
    for (const [router, role] of [
      ["a", "active"],
      ["b", "standby"],
    ] as const) {
      const health: unknown = JSON.parse(curl("--fail", `http://${address(router)}/healthz`));
      assert.deepEqual({ ...(health as object), reason: "" }, { healthy: true, role, protected: true, reason: "" });
    }
  });

  test("only the configured address is listened at", () => {
    const sockets = lab.run("b", ["ss", "-Htln", "sport", "=", `:${httpPort}`]);
    assert.match(sockets.trim(), /^LISTEN\s+\d+\s+\d+\s+0\.0\.0\.0:9470\s+\S+$/);
  });

  test("the standby's page shows the pair and its sessions, and each part has a name", {
    skip: noBrowser,
  }, async () => {
    const page = browser as Browser;
    await page.open(`http://${address("b")}/`, { width: 1280, scheme: "light", scripts: true });
    await delay(3000); // for the plots to have a line
    assert.equal(await page.evaluate("document.querySelectorAll('#sessions tbody tr').length"), 2 * sessionsEach);
    assert.equal(await page.evaluate("document.querySelectorAll('#sessions tbody td.good').length"), 2 * sessionsEach);
    await inPage(page, "lines in the plots", "document.querySelectorAll('#lag path.line').length === 1");
    const nodes = await page.accessibility();
    const named = (role: string) => nodes.filter((node) => node.role === role).map(({ name }) => name);
    assert.deepEqual(
      nodes.filter(({ role, name }) => ["image", "img", "region", "heading", "table"].includes(role) && name === ""),
      [],
    );
    assert.ok(named("image").includes("The pair"), JSON.stringify(nodes.filter(({ name }) => name === "The pair")));
    assert.ok(named("columnheader").includes("Resume point"));
    assert.ok(named("heading").length >= 8);
    await shown("standby-light", page);
  });

  test("the page follows a failover by itself, and shows what it took", { skip: noBrowser }, async () => {
    const page = browser as Browser;
    await page.evaluate("window.notLoadedAgain = true");
    lab.kill("a");
    await inPage(page, "router b is solo", "document.querySelector('.chip').textContent === 'solo'");
    await inPage(page, "a timeline", "document.querySelector('#timeline-title') !== null");
    assert.equal(await page.evaluate("window.notLoadedAgain"), true);
    const text = String(await page.evaluate("document.querySelector('#takeover').textContent"));
    assert.match(
      text,
      new RegExp(`${2 * sessionsEach} sessions restored, \\d of them in advance, 0 half-open, 0 lost`),
    );
    for (const step of ["fence", "drain", "restore", "announce", "release", "nudge"]) assert.ok(text.includes(step));
    assert.equal(await page.evaluate("document.querySelectorAll('#blackout rect').length"), 2);
    await shown("solo-light", page);
  });

  test("the pair is whole again, and other sessions are ready at the new standby", async () => {
    if (!browser) lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(3000); // several scrapes with one router alone
    lab.repower("a");
    pair.startAgent("a");
    await pair.until("the agent of a answers", async () => (await pair.status("a")) !== null);
    await pair.startServer("a", true);
    await pair.untilRole("b", "active");
    await pair.untilRole("a", "standby");
    await openSessions("a");
  });

  test("the page is complete without scripts, in the dark, and on a narrow screen", { skip: noBrowser }, async () => {
    const page = browser as Browser;
    await page.open(`http://${address("b")}/`, { width: 1280, scheme: "dark", scripts: true });
    assert.equal(await page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(14, 19, 26)");
    await shown("active-dark", page);
    await page.open(`http://${address("a")}/`, { width: 420, scheme: "light", scripts: false });
    assert.ok((await page.evaluate("document.documentElement.scrollWidth")) === 420, "nothing sticks out");
    await shown("standby-narrow-noscript", page);
    const html = curl(`http://${address("a")}/`);
    assert.match(html, /<noscript><meta http-equiv="refresh"/);
    for (const part of ["pair", "sessions", "takeover", "blackout", "lag", "fill", "segments", "drops"])
      assert.ok(html.includes(`id="${part}"`), part);
    assert.deepEqual(page.problems, [], "no error of a script, and nothing the policy forbids");
  });

  test("every query of rules and dashboards finds data", { skip: noPrometheus }, async () => {
    await untilScraped("a");
    await delay(3000); // for rates, two scrapes and more
    const queries: [where: string, query: string][] = [];
    for (const { rules } of ruleGroups())
      for (const { record, alert, expr } of rules) {
        if (record !== undefined) queries.push([record, expr], [`${record}, recorded`, record]);
        // An alert's whole expression finds data when there is trouble; each of its parts always has to.
        else
          for (const [selector] of expr.matchAll(/\b(?:[a-z]+:)?(?:tandem_\w+|up)(?::\w+)?(?:\{[^}]*\})?/g))
            queries.push([alert ?? "", selector]);
      }
    for (const { dashboard, file } of dashboards()) {
      const where = (title: string) => `${file}: ${title}`;
      for (const { name, expr } of dashboard.annotations.list) queries.push([where(name), expr]);
      for (const { title, targets } of dashboard.panels)
        for (const { expr } of targets ?? []) queries.push([where(title), expr]);
      for (const { name, query } of dashboard.templating.list)
        queries.push([where(name), /^label_values\((.*), \w+\)$/.exec(query)?.[1] ?? ""]);
    }
    const filled = (query: string) =>
      query
        .replaceAll("$pair", "edge")
        .replaceAll("$instance", ".*")
        .replaceAll("$__rate_interval", "10s")
        .replaceAll("$__range", "5m");
    const empty = queries.filter(([, query]) => series(filled(query)).every(({ values }) => values.length === 0));
    assert.deepEqual(empty, []);
    assert.ok(queries.length > 80, `${queries.length} queries`);
  });

  test("Prometheus saw what happened: who spoke, what was ready, the takeover; and no reason to page", {
    skip: noPrometheus,
  }, () => {
    const voices = series("pair:tandem_voice:sum").flatMap(({ values }) => values);
    // Until a scrape of the dead router fails, what it said last counts: for less than an alert waits.
    assert.equal(voices.at(-1), 1);
    const ready = series('tandem_sessions{state="ready"}');
    for (const router of ["a", "b"] as const) {
      const seen = ready.filter(({ metric }) => metric.instance === address(router)).flatMap(({ values }) => values);
      assert.ok(seen.includes(2 * sessionsEach), `ready at ${router}: ${[...new Set(seen)].join(" ")}`);
    }
    const takeovers = series('tandem_takeovers_total{cause="lease"}').filter(({ values }) => values.at(-1) === 1);
    assert.deepEqual(
      takeovers.map(({ metric }) => metric.instance),
      [address("b")],
    );
    const firing = series('ALERTS{alertstate="firing"}').map(({ metric }) => metric);
    assert.ok(
      firing.some(({ alertname }) => alertname === "TandemTakeover"),
      JSON.stringify(firing),
    );
    assert.deepEqual(
      firing.filter(({ severity }) => severity === "page"),
      [],
    );
    assert.equal(
      series('up{job="tandem"}').some(({ values }) => values.includes(0)),
      true,
      "the dead router's agent was missed",
    );
  });
});
