// The status page's figures as inline SVG: the pair as a picture, a takeover's steps, and plots over time.

import type { Role } from "../role/role.js";
import { type TakeoverReport, takeoverSteps } from "../takeover/takeover.js";
import { clockTime, milliseconds } from "./format.js";
import type { PastTakeover } from "./history.js";
import { type Html, html } from "./html.js";
import { type Observation, speaks } from "./observation.js";

export const roleTone: Record<Role, "good" | "caution" | "bad"> = {
  active: "good",
  standby: "good",
  solo: "caution",
  joining: "caution",
  fenced: "bad",
};

const meaning: Record<Role, string> = {
  active: "speaks, protected",
  standby: "records, could take over",
  solo: "speaks alone",
  joining: "prepares to stand by",
  fenced: "silent",
};

function rounded(value: number): string {
  return String(Math.round(value * 10) / 10);
}

// ── the pair ────────────────────────────────────────────────────────────────────────────────────────────────────

interface Side {
  name: string;
  x: number;
  role: Role | null;
  epoch: number | null;
  own: boolean;
  speaking: boolean;
}

/** Peer, LAN, both routers and what connects them, as this router sees it. */
export function pairFigure(look: Observation): Html {
  const { partner, paths } = look;
  const partnerSpeaks = partner !== null && (partner.role === "active" || partner.role === "solo");
  const sideOf = (name: "a" | "b", x: number): Side =>
    name === look.router
      ? { name, x, role: look.role, epoch: look.epoch, own: true, speaking: speaks(look) }
      : { name, x, role: partner?.role ?? null, epoch: partner?.epoch ?? null, own: false, speaking: partnerSpeaks };
  const sides = [sideOf("a", 40), sideOf("b", 440)];
  const [mirror, uplink] = paths;
  const reflecting = sides.some(({ role }) => role === "active") && mirror?.up === true;
  const describe = ({ name, role, speaking }: Side) =>
    `router ${name} is ${role ?? "not heard"}${speaking ? " and speaks to the peers" : ""}`;
  const beat = (path: typeof mirror, name: string) => {
    const text = path?.up ? `${name} heartbeat ${milliseconds(Number(path.rttNs) / 1e6)}` : `${name} heartbeat silent`;
    return { text, tone: path?.up ? "small" : "bad" };
  };
  const [mirrorBeat, uplinkBeat] = [beat(mirror, "mirror"), beat(uplink, "uplink")];
  return html`<svg viewBox="0 0 720 300" role="img" aria-labelledby="pair-title" aria-describedby="pair-text">
<title id="pair-title">The pair</title>
<desc id="pair-text">${sides.map(describe).join("; ")}. ${mirrorBeat.text}; ${uplinkBeat.text}.</desc>
<rect class="box" x="300" y="6" width="120" height="40" rx="20"/>
<text class="middle strong" x="360" y="31">peers</text>
<path class="wire${sides.some(({ speaking }) => speaking) ? " speaking" : ""}" d="M360 46V84"/>
<path class="wire" d="M120 84H600"/><text class="small" x="612" y="88">uplink LAN</text>
${sides.map(({ x, speaking, role }) => {
  const middle = x + 120;
  const from = speaking ? html`<path class="wire speaking" d="M360 84H${middle}V150"/>` : null;
  const label = speaking ? "has the voice" : role === null ? "" : "no voice";
  return html`<path class="wire" d="M${middle} 84V150"/>${from}
<text class="small${x < 300 ? " end" : ""}" x="${x < 300 ? middle - 10 : middle + 10}" y="122">${label}</text>`;
})}
<path class="wire beat${uplink?.up ? "" : " down"}" d="M190 150C190 112 530 112 530 150"/>
<text class="middle ${uplinkBeat.tone}" x="360" y="112">${uplinkBeat.text}</text>
${sides.map(
  ({
    name,
    x,
    role,
    epoch,
    own,
  }) => html`<rect class="box${own ? " own" : ""}" x="${x}" y="150" width="240" height="100" rx="6"/>
<text class="strong" x="${x + 16}" y="176">router ${name}</text>
<text class="small end" x="${x + 224}" y="176">${own ? "this router" : ""}</text>
<text class="strong ${role ? roleTone[role] : "bad"}" x="${x + 16}" y="206">${role ?? "not heard"}</text>
<text class="small" x="${x + 16}" y="226">${role ? meaning[role] : "no heartbeat on any path"}</text>
<text class="small end" x="${x + 224}" y="206">${epoch === null ? "" : `epoch ${epoch}`}</text>`,
)}
<path class="wire${mirror?.up ? (reflecting ? " speaking" : "") : " down"}" d="M280 200H440"/>
${reflecting ? html`<path class="arrow" d="M292 200l12 -7v14zM428 200l-12 -7v14z"/>` : null}
<text class="middle small" x="360" y="186">mirror link</text>
<text class="middle ${mirrorBeat.tone}" x="360" y="224">${mirrorBeat.text}</text>
<text class="middle small" x="360" y="284">${
    reflecting
      ? "Every segment goes past the standby, both ways, before its receiver has it."
      : "No segment is reflected: sessions are not protected now."
  }</text>
</svg>`;
}

// ── takeovers ───────────────────────────────────────────────────────────────────────────────────────────────────

/** The steps of one takeover one below the other, on one axis of milliseconds from when the old active was known to be silent.
 * Waiting for that would dwarf the rest: it is drawn to the axis' left, broken, as long as it may be. */
export function timelineFigure({ stepsMs, totalMs }: TakeoverReport): Html {
  const [left, zero, right, row, top] = [86, 196, 660, 23, 6];
  const scale = axisFor(totalMs - stepsMs.detect);
  const x = (value: number) => zero + (value / scale.end) * (right - zero);
  const bottom = takeoverSteps.length * row + top;
  let begin = 0;
  const bars = takeoverSteps.map((step, index) => {
    const y = index * row + top;
    const label = html`<text class="end" x="${left - 12}" y="${y + 15}">${step}</text>`;
    const ms = stepsMs[step];
    if (step === "detect")
      return html`${label}<rect class="bar waiting" x="${left}" y="${y + 4}" width="${zero - left}" height="14" rx="2"/>
<path class="break" d="M${left + 22} ${y + 1}l-6 20M${left + 30} ${y + 1}l-6 20"/>
<text class="small" x="${zero + 8}" y="${y + 15}">${milliseconds(ms)} until the old active was known to be silent</text>`;
    const [from, to] = [x(begin), x(begin + ms)];
    begin += ms;
    // Beside the bar, on the side that has room for it.
    const before = to > right - 60;
    return html`${label}<rect class="bar" x="${rounded(from)}" y="${y + 4}" width="${rounded(Math.max(2, to - from))}" height="14" rx="2"/>
<text class="small${before ? " end" : ""}" x="${rounded(before ? from - 8 : Math.max(2, to - from) + from + 8)}" y="${y + 15}">${milliseconds(ms)}</text>`;
  });
  return html`<svg viewBox="0 0 720 ${bottom + 24}" role="img" aria-labelledby="timeline-title" aria-describedby="timeline-text">
<title id="timeline-title">Steps of the last takeover</title>
<desc id="timeline-text">${takeoverSteps.map((step) => `${step} ${milliseconds(stepsMs[step])}`).join(", ")}.</desc>
${scale.ticks.map(
  (tick) => html`<path class="grid" d="M${rounded(x(tick))} ${top}V${bottom}"/>
<text class="small middle" x="${rounded(x(tick))}" y="${bottom + 16}">${tick} ms</text>`,
)}
${bars}
</svg>`;
}

/** A bar for each takeover, in milliseconds: below the work, above it the wait for the lease to run out. */
export function blackoutFigure(takeovers: readonly PastTakeover[]): Html {
  const [left, top, height, slot] = [46, 18, 120, 46];
  const scale = axisFor(Math.max(...takeovers.map(({ report }) => report.totalMs)));
  const y = (ms: number) => top + height - (ms / scale.end) * height;
  const shown = takeovers.slice(-6);
  return html`<svg viewBox="0 0 340 168" role="img" aria-labelledby="blackout-title" aria-describedby="blackout-text">
<title id="blackout-title">Blackout of the last takeovers</title>
<desc id="blackout-text">${shown.map(({ timeMs, report }) => `${clockTime(timeMs)}: ${milliseconds(report.totalMs)}`).join("; ")}.</desc>
${scale.ticks.map(
  (tick) => html`<path class="grid" d="M${left} ${rounded(y(tick))}H334"/>
<text class="small end" x="${left - 6}" y="${rounded(y(tick) + 4)}">${tick} ms</text>`,
)}
${shown.map(({ timeMs, report }, index) => {
  const x = left + 8 + index * slot;
  const [whole, work] = [y(report.totalMs), Math.min(y(report.totalMs - report.stepsMs.detect), top + height - 1)];
  return html`<rect class="bar waiting" x="${x}" y="${rounded(whole)}" width="30" height="${rounded(work - whole)}"/>
<rect class="bar" x="${x}" y="${rounded(work)}" width="30" height="${rounded(top + height - work)}"/>
<text class="small middle" x="${x + 15}" y="${rounded(whole - 5)}">${Math.round(report.totalMs)}</text>
<text class="small middle" x="${x + 15}" y="${top + height + 15}">${clockTime(timeMs).slice(0, 5)}</text>`;
})}
</svg>`;
}

// ── over time ───────────────────────────────────────────────────────────────────────────────────────────────────

export interface Series {
  name: string;
  points: { timeMs: number; value: number }[];
}

export interface PlotOptions {
  id: string;
  title: string;
  /** Until when, and how far back. */
  nowMs: number;
  spanMs: number;
  /** The axis ends at this value at least. */
  atLeast: number;
  unit: (value: number) => string;
}

/** Lines over time; where samples are missing, the line is broken. */
export function plotFigure({ id, title, nowMs, spanMs, atLeast, unit }: PlotOptions, series: Series[]): Html {
  const [left, right, top, bottom] = [58, 372, 10, 120];
  const values = series.flatMap(({ points }) => points.map(({ value }) => value));
  const scale = axisFor(Math.max(atLeast, ...values));
  const x = (timeMs: number) => rounded(right - ((nowMs - timeMs) / spanMs) * (right - left));
  const y = (value: number) => rounded(bottom - (value / scale.end) * (bottom - top));
  const lines = series.map(({ points }, index) => {
    const runs = unbroken(points.filter(({ timeMs }) => nowMs - timeMs <= spanMs));
    return runs.map((run) => {
      const path = run.map(({ timeMs, value }) => `${x(timeMs)} ${y(value)}`).join("L");
      const [first, last] = [run[0], run.at(-1)];
      if (!first || !last) return null;
      const area = html`<path class="area" d="M${x(first.timeMs)} ${bottom}L${path}L${x(last.timeMs)} ${bottom}Z"/>`;
      return html`${index === 0 ? area : null}<path class="line${index === 0 ? "" : " second"}" d="M${path}"/>`;
    });
  });
  const summary = series.map(({ name, points }) => {
    const most = Math.max(0, ...points.map(({ value }) => value));
    return `${name}: now ${unit(points.at(-1)?.value ?? 0)}, at most ${unit(most)}`;
  });
  const minutes = spanMs / 60_000;
  return html`<svg viewBox="0 0 380 146" role="img" aria-labelledby="${id}-title" aria-describedby="${id}-text">
<title id="${id}-title">${title}</title><desc id="${id}-text">${summary.join("; ")}.</desc>
${scale.ticks.map(
  (tick) => html`<path class="grid" d="M${left} ${y(tick)}H${right}"/>
<text class="small end" x="${left - 6}" y="${Number(y(tick)) + 4}">${unit(tick)}</text>`,
)}
<text class="small" x="${left}" y="138">${minutes} min ago</text><text class="small end" x="${right}" y="138">now</text>
${lines}
</svg>`;
}

const missedMs = 2500;

function unbroken<T extends { timeMs: number }>(points: T[]): T[][] {
  const runs: T[][] = [];
  let last = Number.NEGATIVE_INFINITY;
  for (const point of points) {
    if (point.timeMs - last > missedMs) runs.push([]);
    runs.at(-1)?.push(point);
    last = point.timeMs;
  }
  return runs;
}

/** Round ticks from 0 to at least `most`: steps of 1, 2 or 5 times a power of ten, three to five of them. */
export function axisFor(most: number): { end: number; ticks: number[] } {
  const rough = Math.max(most, Number.MIN_VALUE) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const count = Math.max(1, Math.ceil(most / step - 1e-9));
  const ticks = Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(6)));
  return { end: ticks.at(-1) ?? 1, ticks };
}
