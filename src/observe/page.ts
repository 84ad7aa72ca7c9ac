// The status page: what the agent knows of itself and its pair, as HTML that is complete without a script.

import * as abi from "../abi.gen.js";
import type { SessionSummary } from "../recorder/messages.js";
import { bytes, clockTime, dateTime, grouped, milliseconds, percent } from "./format.js";
import { type History, keptSamples } from "./history.js";
import { type Html, html } from "./html.js";
import { classifyReason } from "./metrics.js";
import { type Observation, recordedSessions, speaks } from "./observation.js";
import { blackoutFigure, pairFigure, plotFigure, roleTone, timelineFigure } from "./page-figures.js";

const spanMs = keptSamples * 1000;

export function renderPage(look: Observation, history: History): Html {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tandem: router ${look.router}</title>
<link rel="stylesheet" href="/page.css">
<link rel="icon" href="data:,">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<script src="/page.js" defer></script>
</head>
<body>
${renderMain(look, history)}
<footer>Machine-readable: <a href="/metrics">metrics</a>, <a href="/healthz">health</a>. On the router: <code>tandem status</code>, <code>tandem history</code>.</footer>
</body>
</html>
`;
}

/** The parts that change, each with an id by which the script replaces it. */
export function renderMain(look: Observation, history: History): Html {
  return html`<header>
<div id="state" data-live>
<h1>Tandem <span>router ${look.router}</span> <span class="chip ${roleTone[look.role]}">${look.role}</span>
<span class="pair">epoch ${look.epoch} · ${clockTime(look.timeMs)} UTC</span></h1>
<p class="reason">${look.reason}</p>
${alerts(look).map(({ tone, sentence }) => html`<p class="alert ${tone}" role="alert">${sentence}</p>`)}
</div>
<p id="stale" class="alert bad" role="alert" hidden></p>
</header>
<main>
${section("pair", "The pair", html`<div class="scroll picture" tabindex="0" role="region" aria-label="The pair, scrollable">${pairFigure(look)}</div>`)}
${section("voice", "Voice and record", voiceFacts(look))}
${section("sessions", "Sessions", html`${tiles(look, history)}${sessionsTable(look)}`)}
${takeoverSections(history)}
${plots(look, history)}
${section("segments", "Protected segments", segmentsTable(look))}
${section("drops", "Dropped frames", dropsTable(look))}
</main>`;
}

function section(id: string, title: string, content: Html): Html {
  return html`<section id="${id}" data-live aria-labelledby="${id}-heading"><h2 id="${id}-heading">${title}</h2>
${content}
</section>`;
}

/** What an operator has to know at once. */
function alerts({
  recorder,
  role,
  agreed,
  partner,
  paused,
}: Observation): { tone: "bad" | "caution"; sentence: string }[] {
  const found: ReturnType<typeof alerts> = [];
  const { auditBreaches } = recorder.counters;
  if (auditBreaches > 0)
    found.push({
      tone: "bad",
      sentence: `Audit: in ${auditBreaches} sessions a byte passed that the standby had not recorded.`,
    });
  if (role === "solo")
    found.push({ tone: "caution", sentence: "This router speaks alone: no session would survive its death." });
  if (paused !== null) found.push({ tone: "caution", sentence: `Automatic takeover is paused: ${paused}.` });
  if (partner && !agreed)
    found.push({ tone: "caution", sentence: "The routers do not agree: compare both configurations and versions." });
  return found;
}

function voiceFacts(look: Observation): Html {
  const { recorder, partner, agreed, leaseSeconds, leaseLeftSeconds } = look;
  const facts: [string, string | Html][] = [
    [
      "This router's voice",
      speaks(look) ? html`<span class="good">held</span>` : html`<span class="muted">not held</span>`,
    ],
    ["Gate", look.gate],
    ["Lease left", leaseLeftSeconds === null ? "no lease" : milliseconds(Math.max(0, leaseLeftSeconds * 1e3))],
    ["Lease", milliseconds(leaseSeconds * 1e3)],
    ["Partner", partner ? `${partner.role}, epoch ${partner.epoch}` : html`<span class="bad">not heard</span>`],
    ["Configurations", agreed ? "agree" : html`<span class="caution">not compared, or different</span>`],
    ["Recorded streams", `${bytes(recorder.memory.used)} of ${bytes(recorder.memory.limit)}`],
    ["Records taken", grouped(recorder.counters.records)],
    ["Audit breaches", tone(recorder.counters.auditBreaches === 0, "none", grouped(recorder.counters.auditBreaches))],
  ];
  return html`<dl>${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

function tone(good: boolean, calm: string, alarm: string): Html {
  return good ? html`${calm}` : html`<strong class="bad">${alarm}</strong>`;
}

function tiles(look: Observation, history: History): Html {
  const { recorder } = look;
  const { counts } = recordedSessions(look);
  const { ready, notReady } =
    look.role === "active" ? look.atStandby : { ready: counts.ready, notReady: counts["not-ready"] };
  const last = history.samples.at(-1);
  const shown: [string, string, string][] = [
    [grouped(ready), "ready", ready > 0 ? "good" : ""],
    [grouped(notReady), "not ready", notReady > 0 ? "caution" : ""],
    [grouped(counts["half-open"]), "half-open", ""],
    [`${bytes(last?.bytesIn ?? 0)}/s`, "recorded in", ""],
    [`${bytes(last?.bytesOut ?? 0)}/s`, "recorded out", ""],
    [milliseconds(recorder.lagNs / 1e6), "recorder's lag", ""],
    [percent(recorder.ring.backlog / recorder.ring.size), "of the ring waits", ""],
    [milliseconds(recorder.resumePoint.oldestNs / 1e6), "oldest resume point", ""],
  ];
  return html`<div class="tiles">${shown.map(
    ([value, name, colour]) => html`<div><strong class="${colour}">${value}</strong><span>${name}</span></div>`,
  )}</div>`;
}

function sessionsTable(look: Observation): Html {
  const { role, services } = look;
  const { sessions, counts, notReady } = recordedSessions(look);
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  if (sessions.length === 0)
    return html`<p class="muted">${
      role === "active"
        ? `The standby holds ${grouped(look.atStandby.ready)} sessions ready and ${grouped(look.atStandby.notReady)} not ready. It records them: its page lists them.`
        : role === "solo"
          ? "Nobody records the sessions while this router speaks alone."
          : "No session is recorded."
    }</p>`;
  const reasons = Object.entries(notReady).map(([reason, count]) => `${grouped(count)} ${reason}`);
  const caption =
    `${sessions.length < all ? `${sessions.length} of ${grouped(all)} sessions, those that are not ready first` : `${grouped(all)} sessions`}` +
    `${reasons.length > 0 ? `; not ready: ${reasons.join(", ")}` : ""}. Offsets and memory in bytes.`;
  const row = (session: SessionSummary) => html`<tr>
<th scope="row" class="number">${session.id}</th><td>${services[session.service] ?? session.service}</td>
<td class="address">${endpoint(session.peerIp, session.peerPort)}</td>
<td class="address">${endpoint(session.localIp, session.localPort)}</td>
<td>${session.state}</td>
<td class="${session.ready ? "good" : "caution"}">${session.ready ? "ready" : session.reasons.join(", ")}</td>
<td class="number">${grouped(session.inputEnd)}</td><td class="number">${session.resumePoint === null ? "–" : grouped(session.resumePoint)}</td>
<td class="number">${grouped(session.outputEnd)}</td><td class="number">${grouped(session.peerAck)}</td>
<td class="number">${grouped(session.memory)}</td></tr>`;
  const heading = (name: string, number = false) =>
    html`<th scope="col" class="${number ? "number" : ""}">${name}</th>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Sessions, scrollable"><table>
<caption>${caption}</caption>
<thead><tr>${heading("Id", true)}${heading("Service")}${heading("Peer")}${heading("Local")}${heading("State")}${heading("Takeover")}${heading("Input", true)}${heading("Resume point", true)}${heading("Output", true)}${heading("Acknowledged", true)}${heading("Memory", true)}</tr></thead>
<tbody>${sessions.map(row)}</tbody>
</table></div>`;
}

function endpoint(ip: string, port: number): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function takeoverSections({ takeovers }: History): Html {
  const last = takeovers.at(-1);
  if (!last) {
    const none = html`<p class="muted">This router has not taken over.</p>`;
    return html`${section("takeover", "Last takeover", none)}${section("blackout", "Blackout", none)}`;
  }
  const { report, timeMs } = last;
  const { cause, sessions, prepared, halfOpen, lost, nudged, stepsMs } = report;
  const facts =
    `${dateTime(timeMs)} UTC, epoch ${report.epoch}. ${cause}. ${sessions} sessions restored, ` +
    `${prepared} of them in advance, ${halfOpen} half-open, ` +
    `${lost.count} lost; ${nudged} packets sent again. ${milliseconds(report.totalMs)} in all, ` +
    `${milliseconds(report.totalMs - stepsMs.detect)} of it work.`;
  return html`${section("takeover", "Last takeover", html`<p>${facts}</p><div class="scroll picture" tabindex="0" role="region" aria-label="Steps, scrollable">${timelineFigure(report)}</div>`)}
${section(
  "blackout",
  "Blackout by takeover",
  html`${blackoutFigure(takeovers)}<p class="muted">From the last heartbeat answered, or the hand-over, to the last step; a peer may notice more, by its own retransmission timer. Grey: until the old active was known to be silent.</p>`,
)}`;
}

function plots({ timeMs }: Observation, { samples }: History): Html {
  const series = (name: string, value: (sample: (typeof samples)[number]) => number) => ({
    name,
    points: samples.map((sample) => ({ timeMs: sample.timeMs, value: value(sample) })),
  });
  const common = { nowMs: timeMs, spanMs };
  return html`${section(
    "lag",
    "Recorder's lag",
    plotFigure(
      {
        ...common,
        id: "plot-lag",
        title: "Recorder's lag",
        atLeast: 1,
        unit: (value) => `${Number(value.toPrecision(2))} ms`,
      },
      [series("lag", ({ lagSeconds }) => lagSeconds * 1e3)],
    ),
  )}
${section(
  "fill",
  "Ring fill",
  plotFigure({ ...common, id: "plot-fill", title: "Ring fill", atLeast: 0.01, unit: percent }, [
    series("fill", ({ ringFill }) => ringFill),
  ]),
)}
${section(
  "rate",
  "Recorded: in solid, out dashed",
  plotFigure(
    { ...common, id: "plot-rate", title: "Recorded payload", atLeast: 1000, unit: (value) => `${bytes(value)}/s` },
    [series("in", ({ bytesIn }) => bytesIn), series("out", ({ bytesOut }) => bytesOut)],
  ),
)}`;
}

const stageMeaning: Record<string, string> = {
  reflected: "sent to the standby",
  recorded: "recorded for the active, sent back",
  delivered: "back from the standby, to the receiver",
  solo: "passed directly, unprotected",
};

function segmentsTable({ counters }: Observation): Html {
  const cells = new Map<string, { packets: bigint; bytes: bigint }>();
  for (const counter of counters) {
    const found = classifyReason(abi.td_reason_names[counter.reason] ?? "");
    if (found?.kind === "segment") cells.set(`${found.labels.stage} ${found.labels.direction}`, counter);
  }
  const pair = (stage: string, direction: string) => {
    const found = cells.get(`${stage} ${direction}`);
    return html`<td class="number">${grouped(Number(found?.packets ?? 0n))}</td><td class="number">${bytes(Number(found?.bytes ?? 0n))}</td>`;
  };
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Protected segments, scrollable"><table>
<caption>Frames since the data plane was put up; a large send counts as one.</caption>
<thead><tr><th scope="col">Stage</th><th scope="col" class="number">In, frames</th><th scope="col" class="number">bytes</th><th scope="col" class="number">Out, frames</th><th scope="col" class="number">bytes</th></tr></thead>
<tbody>${Object.entries(stageMeaning).map(
    ([stage, text]) =>
      html`<tr><th scope="row">${stage} <span class="muted">${text}</span></th>${pair(stage, "in")}${pair(stage, "out")}</tr>`,
  )}</tbody></table></div>`;
}

function dropsTable({ counters }: Observation): Html {
  const drops = counters.flatMap((counter) => {
    const found = classifyReason(abi.td_reason_names[counter.reason] ?? "");
    return found?.kind === "drop" ? [{ ...counter, reason: found.labels.reason }] : [];
  });
  if (drops.length === 0) return html`<p class="muted">None.</p>`;
  return html`<table><caption>Frames since the data plane was put up.</caption>
<thead><tr><th scope="col">Reason</th><th scope="col" class="number">Frames</th><th scope="col" class="number">Bytes</th></tr></thead>
<tbody>${drops.map(
    (drop) =>
      html`<tr><th scope="row">${drop.reason}</th><td class="number">${grouped(Number(drop.packets))}</td><td class="number">${bytes(Number(drop.bytes))}</td></tr>`,
  )}</tbody></table>`;
}
