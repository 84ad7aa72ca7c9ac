// A drill plotted over time, as inline SVG: what each router was, when each step began, and how answers came back.

import { type Html, html } from "../observe/html.js";
import { axisFor } from "../observe/page-figures.js";
import type { DrillReport, SeenRole } from "./report.js";

type Timeline = DrillReport["timeline"];

const [left, right] = [86, 700];
const rounded = (value: number): string => String(Math.round(value * 10) / 10);
/** Below it a role's name does not fit into its bar. */
const nameWidth = 56;

/** Spans of time in which a router was one thing. */
export function laneOf(roles: Timeline["roles"], router: "a" | "b", endMs: number): Span[] {
  const spans: Span[] = [];
  for (const look of roles) {
    const last = spans.at(-1);
    if (last && last.role === look[router]) continue;
    if (last) last.toMs = look.atMs;
    spans.push({ role: look[router], fromMs: look.atMs, toMs: endMs });
  }
  return spans;
}
export interface Span {
  role: SeenRole;
  fromMs: number;
  toMs: number;
}

/** Answers a second, in slices of `sliceMs`; time without an answer is 0. */
export function rateOf(answers: Timeline["answers"], endMs: number, sliceMs: number): { atMs: number; rate: number }[] {
  const slices = Math.floor(endMs / sliceMs); // a part of one would say less than nothing
  const totalAt = (atMs: number): number =>
    answers.findLast((each) => each.atMs <= atMs)?.total ?? answers[0]?.total ?? 0;
  return Array.from({ length: slices }, (_, index) => {
    const fromMs = index * sliceMs;
    const toMs = Math.min(endMs, fromMs + sliceMs);
    return { atMs: toMs, rate: ((totalAt(toMs) - totalAt(fromMs)) / Math.max(1, toMs - fromMs)) * 1000 };
  });
}

export function drillFigure(timeline: Timeline): Html {
  const { steps, roles, answers } = timeline;
  const endMs = Math.max(1, roles.at(-1)?.atMs ?? 0, ...steps.map(({ atMs, tookMs }) => atMs + tookMs));
  const ticks = axisFor(endMs / 1000).ticks.filter((tick) => tick * 1000 <= endMs);
  const x = (ms: number): number => left + (ms / endMs) * (right - left);
  const plotTop = 122;
  const bottom = answers.length > 0 ? plotTop + 84 : 108;
  const marks = steps.map(({ atMs, failure }, index) => {
    const tone = failure === null ? "" : " bad";
    // Steps that begin at once stand in two rows.
    const crowded = index % 2 === 1;
    return html`<path class="mark${tone}" d="M${rounded(x(atMs))} ${crowded ? 30 : 16}V${bottom}"/>
<circle class="knob${tone}" cx="${rounded(x(atMs))}" cy="${crowded ? 26 : 10}" r="8"/>
<text class="middle on" x="${rounded(x(atMs))}" y="${crowded ? 30 : 14}">${index + 1}</text>`;
  });
  const lanes = (["a", "b"] as const).map((router, index) => {
    const y = 44 + index * 34;
    return html`<text class="end" x="${left - 12}" y="${y + 17}">router ${router}</text>
${laneOf(roles, router, endMs).map(({ role, fromMs, toMs }) => {
  const width = Math.max(1, x(toMs) - x(fromMs));
  const name =
    width < nameWidth
      ? null
      : html`<text class="middle ${role === "active" || role === "standby" || role === "solo" ? "on" : "off"}" x="${rounded(x(fromMs) + width / 2)}" y="${y + 17}">${role ?? "silent"}</text>`;
  return html`<rect class="lane ${role ?? "gone"}" x="${rounded(x(fromMs))}" y="${y}" width="${rounded(width)}" height="24" rx="2"><title>${role ?? "does not answer"}, ${(fromMs / 1000).toFixed(2)} to ${(toMs / 1000).toFixed(2)} s</title></rect>${name}`;
})}`;
  });
  return html`<svg viewBox="0 0 720 ${bottom + 22}" role="img" aria-labelledby="drill-title" aria-describedby="drill-text">
<title id="drill-title">The drill over time</title>
<desc id="drill-text">${steps.map(({ sentence, atMs }) => `${(atMs / 1000).toFixed(1)} s: ${sentence}`).join("; ")}.</desc>
${ticks.map(
  (tick) => html`<path class="grid" d="M${rounded(x(tick * 1000))} 40V${bottom}"/>
<text class="small middle" x="${rounded(x(tick * 1000))}" y="${bottom + 16}">${tick} s</text>`,
)}
${answers.length > 0 ? rateFigure(answers, endMs, x, plotTop) : null}
${marks}
${lanes}
</svg>`;
}

const plotHeight = 80;

function rateFigure(answers: Timeline["answers"], endMs: number, x: (ms: number) => number, top: number): Html {
  const points = rateOf(answers, endMs, Math.max(100, endMs / 120));
  const scale = axisFor(Math.max(1, ...points.map(({ rate }) => rate)));
  const y = (rate: number): number => top + plotHeight - (rate / scale.end) * plotHeight;
  const line = points.map(({ atMs, rate }) => `${rounded(x(atMs))} ${rounded(y(rate))}`).join("L");
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) return html``;
  return html`<text class="end" x="${left - 12}" y="${top + 30}">answers</text><text class="end" x="${left - 12}" y="${top + 46}">a second</text>
<text class="small end" x="${right}" y="${top - 4}">top: ${scale.end}</text>
<path class="area" d="M${rounded(x(first.atMs))} ${top + plotHeight}L${line}V${top + plotHeight}Z"/>
<path class="line" d="M${line}"/>`;
}
