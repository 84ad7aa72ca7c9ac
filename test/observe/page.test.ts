// The status page as text: nothing that others can choose is ever markup, and it says what there is to say.

import assert from "node:assert/strict";
import { test } from "node:test";
import { History, keptSamples, keptTakeovers } from "../../src/observe/history.js";
import { html } from "../../src/observe/html.js";
import { renderMain, renderPage } from "../../src/observe/page.js";
import { axisFor } from "../../src/observe/page-figures.js";
import { palettes } from "../../src/observe/page-style.js";
import { look, report, session } from "./looks.js";

test("what is inserted is escaped, in text and in attributes", () => {
  const evil = `<script>alert("x")</script>&'`;
  assert.equal(
    html`<p title="${evil}">${evil}</p>${[html`<b>${"<i>"}</b>`, "&"]}${null}${3}`.text,
    `<p title="&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;">&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;</p><b>&lt;i&gt;</b>&amp;3`,
  );
});

test("markup in any string of an observation stays text", () => {
  const evil = `"><img src=x onerror=alert(1)>`;
  const seen = look({ reason: evil, services: [evil] });
  seen.recorder.sessions = [session(1, { peerIp: evil, localIp: evil, ready: false, reasons: [evil] })];
  seen.recorder.notReady = { [evil]: 1 };
  const history = new History();
  history.takeover({ ...report, cause: evil }, seen.timeMs);
  const { text } = renderPage(seen, history);
  assert.ok(!text.includes("<img"));
  assert.equal(text.split("&lt;img").length - 1, 7, "and each of them is there");
});

test("no script, style or handler is inline, and nothing is loaded from elsewhere", () => {
  const history = new History();
  history.takeover(report, Date.now());
  history.sample(look());
  const { text } = renderPage(look(), history);
  assert.ok(!/\son\w+=|\sstyle=|<style|javascript:|https?:|url\(/i.test(text), "all of it is in files of its own");
  for (const [, attributes] of text.matchAll(/<script([^>]*)>/g)) assert.match(attributes ?? "", /src="\/page\.js"/);
});

test("each state of the pair is said in words, too", () => {
  const history = new History();
  const said = (over: Parameters<typeof look>[0]) => renderMain(look(over), history).text;
  assert.match(said({}), /router a is active and speaks to the peers; router b is standby/);
  assert.match(said({ partner: null }), /router a is not heard/);
  assert.match(said({ role: "solo", gate: "solo" }), /This router speaks alone/);
  assert.match(said({ paused: "a <cable> is moved" }), /Automatic takeover is paused: a &lt;cable&gt; is moved\./);
  assert.match(said({ agreed: false }), /The routers do not agree/);
  assert.match(
    said({ role: "active", gate: "reflect", leaseLeftSeconds: 0.03, atStandby: { ready: 7, notReady: 2 } }),
    /The standby holds 7 sessions ready and 2 not ready/,
  );
  const breached = look();
  breached.recorder.counters.auditBreaches = 3;
  assert.match(renderMain(breached, history).text, /Audit: in 3 sessions/);
});

test("a list that is not whole says so", () => {
  const seen = look();
  seen.recorder.counts = { sessions: 10_000, halfOpen: 0, closed: 0, ready: 9_999 };
  assert.match(renderMain(seen, new History()).text, /2 of 10\u2009000 sessions, those that are not ready first/);
});

test("the history forgets what is old, and breaks its lines where it has no samples", () => {
  const history = new History();
  const seen = look();
  for (let second = 0; second < keptSamples + 50; second++) {
    seen.timeMs += second === keptSamples ? 10_000 : 1000;
    seen.recorder.counters.bytesIn += 500;
    history.sample(seen);
  }
  for (let count = 0; count < keptTakeovers + 3; count++) history.takeover(report, seen.timeMs);
  assert.equal(history.samples.length, keptSamples);
  assert.equal(history.takeovers.length, keptTakeovers);
  assert.equal(history.samples.at(-1)?.bytesIn, 500);
  const lag = /<section id="lag".*?<\/section>/s.exec(renderMain(seen, history).text)?.[0] ?? "";
  assert.equal(lag.split('class="line"').length - 1, 2);
});

test("a recorder that began anew gives no negative rate", () => {
  const history = new History();
  const seen = look();
  history.sample(seen);
  seen.timeMs += 1000;
  seen.recorder.counters.bytesIn = 0;
  history.sample(seen);
  assert.equal(history.samples.at(-1)?.bytesIn, 0);
});

test("axes have three to six round ticks and hold their values", () => {
  for (const most of [0.003, 0.9, 1, 4.7, 50, 55, 99, 100.5, 301, 12_345, 8e7]) {
    const { end, ticks } = axisFor(most);
    assert.ok(end >= most && end <= 3 * most, `${most}: ${end}`);
    assert.ok(ticks.length >= 3 && ticks.length <= 6, `${most}: ${ticks.join(" ")}`);
    assert.equal(ticks[0], 0);
  }
});

test("text has a contrast of at least 4.5 to 1, light and dark (WCAG 2.1, 1.4.3)", () => {
  const luminance = (colour: string) => {
    const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
      const share = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  for (const [name, { ground, panel, rule: _rule, wait: _wait, ...inks }] of Object.entries(palettes))
    for (const [ink, colour] of Object.entries(inks))
      for (const paper of [ground, panel]) {
        const [low, high] = [luminance(colour), luminance(paper)].sort((one, other) => one - other) as [number, number];
        const contrast = (high + 0.05) / (low + 0.05);
        assert.ok(contrast >= 4.5, `${name}: ${ink} on ${paper}: ${contrast.toFixed(2)}`);
      }
});
