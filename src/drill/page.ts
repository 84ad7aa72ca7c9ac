// A drill's report as one HTML file: no script, nothing loaded from elsewhere, light and dark.

import { bytes, dateTime, milliseconds } from "../observe/format.js";
import { Html, html } from "../observe/html.js";
import { timelineFigure } from "../observe/page-figures.js";
import { pageStyle } from "../observe/page-style.js";
import type { DrillReport } from "./report.js";
import { drillFigure } from "./timeline.js";

const style = `${pageStyle}
.lane { opacity: 0.85; }
.lane.active { fill: var(--accent); } .lane.standby { fill: var(--good); } .lane.solo { fill: var(--caution); }
.lane.joining { fill: var(--wait); } .lane.fenced { fill: var(--rule); } .lane.gone { fill: none; stroke: var(--bad); stroke-dasharray: 4 4; }
svg .on { fill: var(--panel); font-weight: 600; font-size: 11px; }
svg .off { fill: var(--text); font-size: 11px; }
.mark { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 3; } .mark.bad { stroke: var(--bad); }
.knob { fill: var(--text); } .knob.bad { fill: var(--bad); }
ul { margin: 8px 0 0; padding-left: 18px; }
`;

export function renderDrillPage(report: DrillReport): string {
  const { name, title, verdict, breaches, where, startedAt, durationMs } = report;
  const tone = verdict === "passed" ? "good" : "bad";
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tandem drill: ${name}</title>
<link rel="icon" href="data:,">
<style>${new Html(style)}</style>
</head>
<body>
<header>
<h1>${title} <span class="chip ${tone}">${verdict}</span>
<span class="pair">${name} · ${where === "lab" ? "in the lab" : "on the live pair"} · ${dateTime(Date.parse(startedAt))} UTC · ${(durationMs / 1000).toFixed(1)} s</span></h1>
${breaches.map((breach) => html`<p class="alert bad" role="alert">${breach}</p>`)}
</header>
<main>
${section("what came of it", tiles(report))}
${section("timeline", html`<div class="scroll">${drillFigure(report.timeline)}</div>${stepsTable(report)}`)}
${takeoverSection(report)}
${section("evidence", evidence(report))}
</main>
</body>
</html>
`.text;
}

function section(title: string, content: Html): Html {
  return html`<section><h2>${title}</h2>
${content}
</section>`;
}

function tiles(report: DrillReport): Html {
  const { blackoutMs, sessions, where } = report;
  const zero = (value: number | null): string => (value === 0 ? "good" : "bad");
  const shown: [string, string, string][] = [
    [String(sessions), "sessions", ""],
    ...(where === "lab"
      ? ([
          [`${report.sameHash}`, "same SHA-256 at both ends", report.sameHash === sessions ? "good" : "bad"],
          [
            `${report.lost} / ${report.duplicated} / ${report.changed}`,
            "lost / duplicated / changed",
            zero((report.lost ?? 0) + (report.duplicated ?? 0) + (report.changed ?? 0)),
          ],
          [
            `${report.broken} / ${report.peerResets}`,
            "broken / RST",
            zero((report.broken ?? 0) + (report.peerResets ?? 0)),
          ],
          [`${bytes(report.bytesIn ?? 0)} / ${bytes(report.bytesOut ?? 0)}`, "to / from the service", ""],
        ] satisfies [string, string, string][])
      : []),
    [milliseconds(blackoutMs.p50), "blackout, median", ""],
    [milliseconds(blackoutMs.p99), "99 of 100", ""],
    [milliseconds(blackoutMs.max), "longest", ""],
    [String(report.notReady), "lost at takeovers", zero(report.notReady)],
  ];
  return html`<div class="tiles">${shown.map(([value, label, tone]) => html`<div><strong class="${tone}">${value}</strong><span>${label}</span></div>`)}</div>`;
}

function stepsTable({ timeline }: DrillReport): Html {
  return html`<div class="scroll"><table>
<thead><tr><th class="number">#</th><th>step</th><th class="number">at</th><th class="number">took</th><th></th></tr></thead>
<tbody>${timeline.steps.map(
    ({ sentence, atMs, tookMs, failure }, index) =>
      html`<tr><td class="number">${index + 1}</td><th scope="row">${sentence}</th><td class="number">${(atMs / 1000).toFixed(2)} s</td><td class="number">${milliseconds(tookMs)}</td><td class="bad">${failure === null ? "" : "failed"}</td></tr>\n`,
  )}</tbody></table></div>`;
}

function takeoverSection({ takeovers }: DrillReport): Html | null {
  const longest = [...takeovers].sort((one, other) => other.totalMs - one.totalMs)[0];
  if (longest === undefined) return null;
  const rows = takeovers.map(
    ({ cause, epoch, sessions, lost, totalMs }) =>
      html`<tr><td class="number">${epoch}</td><th scope="row">${cause}</th><td class="number">${sessions}</td><td class="number">${lost.count}</td><td class="number">${milliseconds(totalMs)}</td></tr>\n`,
  );
  return section(
    takeovers.length === 1 ? "the takeover" : `the longest of ${takeovers.length} takeovers`,
    html`${timelineFigure(longest)}
<div class="scroll"><table><thead><tr><th class="number">epoch</th><th>cause</th><th class="number">taken over</th><th class="number">lost</th><th class="number">took</th></tr></thead><tbody>${rows}</tbody></table></div>`,
  );
}

function evidence({ evidence: files, auditBreaches }: DrillReport): Html {
  const audit = auditBreaches === 0 ? "The audit found no byte unrecorded." : `Audit breaches: ${auditBreaches}.`;
  return html`<p>${audit}</p>${files.length > 0 ? html`<ul>${files.map((file) => html`<li class="address">${file}</li>`)}</ul>` : null}`;
}
