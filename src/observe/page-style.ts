// The status page's style: one palette for light and one for dark, and a layout that needs no script.

/** Text stands on `ground` and `panel`, in each of the other colours but `rule` and `wait`. */
export const palettes = {
  light: {
    ground: "#f3f5f8",
    panel: "#ffffff",
    text: "#17202c",
    muted: "#526072",
    rule: "#d5dbe3",
    wait: "#a3adb9",
    accent: "#0f56a6",
    good: "#17703d",
    caution: "#855300",
    bad: "#b3231b",
  },
  dark: {
    ground: "#0e131a",
    panel: "#161d26",
    text: "#e3e9f1",
    muted: "#97a5b6",
    rule: "#2b3644",
    wait: "#566374",
    accent: "#6cb0ff",
    good: "#58c98a",
    caution: "#e2b24f",
    bad: "#ff8b80",
  },
} as const;

const variables = (palette: Record<string, string>): string =>
  Object.entries(palette)
    .map(([name, colour]) => `--${name}: ${colour};`)
    .join(" ");

export const pageStyle = `
:root { color-scheme: light dark; ${variables(palettes.light)} }
@media (prefers-color-scheme: dark) { :root { ${variables(palettes.dark)} } }
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 14px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif;
}
header, main, footer { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 18px; }
h1 { margin: 0; font-size: 20px; font-weight: 650; letter-spacing: -0.01em; display: flex; align-items: baseline; gap: 12px; flex-wrap: wrap; }
h1 .pair { color: var(--muted); font-weight: 400; font-size: 14px; letter-spacing: 0; margin-left: auto; font-variant-numeric: tabular-nums; }
h2 { margin: 0 0 10px; font-size: 11px; font-weight: 650; letter-spacing: 0.07em; text-transform: uppercase; color: var(--muted); }
p { margin: 0; }
.reason { margin-top: 4px; color: var(--muted); }
.chip { display: inline-block; padding: 1px 10px; border-radius: 99px; border: 1px solid currentColor; font-size: 13px; font-weight: 600; letter-spacing: 0.01em; }
.good { color: var(--good); } .caution { color: var(--caution); } .bad { color: var(--bad); } .muted { color: var(--muted); }
.alert { margin-top: 12px; padding: 7px 14px; border: 1px solid currentColor; border-left-width: 4px; border-radius: 4px; background: var(--panel); }
main { display: grid; grid-template-columns: repeat(12, minmax(0, 1fr)); gap: 14px; padding-top: 16px; padding-bottom: 20px; }
section { grid-column: span 12; background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: 14px 16px; min-width: 0; }
#pair { grid-column: span 8; } #voice { grid-column: span 4; }
#takeover { grid-column: span 8; } #blackout { grid-column: span 4; }
#fill, #lag, #rate { grid-column: span 4; }
#segments { grid-column: span 7; } #drops { grid-column: span 5; }
@media (max-width: 900px) { #pair, #voice, #takeover, #blackout, #fill, #lag, #rate, #segments, #drops { grid-column: span 12; } }
dl { margin: 0; display: grid; grid-template-columns: max-content 1fr; }
dt, dd { padding: 5px 0; font-size: 13px; border-top: 1px solid var(--rule); }
dl > :nth-child(-n + 2) { border-top: 0; padding-top: 0; }
dt { color: var(--muted); } dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); gap: 6px 22px; margin-bottom: 12px; }
.tiles div { border-left: 2px solid var(--rule); padding-left: 10px; }
.tiles strong { display: block; font-size: 22px; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -0.01em; }
.tiles span { color: var(--muted); font-size: 12px; }
.scroll { overflow-x: auto; }
.picture svg { min-width: 540px; }
table { width: 100%; border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding: 0 0 6px; font-size: 12px; }
th, td { padding: 4px 14px 4px 0; text-align: left; white-space: nowrap; border-top: 1px solid var(--rule); }
thead th { border-top: 0; color: var(--muted); font-weight: 500; font-size: 12px; vertical-align: bottom; }
tbody th { font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; }
.address { font-family: ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", "Liberation Mono", monospace; font-size: 12px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--text); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg .small { fill: var(--muted); font-size: 11px; }
svg .strong { font-weight: 650; font-size: 14px; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg text.good { fill: var(--good); } svg text.caution { fill: var(--caution); } svg text.bad { fill: var(--bad); }
.box { fill: var(--ground); stroke: var(--rule); stroke-width: 1.5; }
.box.own { stroke: var(--accent); stroke-width: 2; }
.wire { stroke: var(--muted); stroke-width: 2; fill: none; }
.wire.speaking { stroke: var(--accent); stroke-width: 4; }
.wire.down { stroke: var(--bad); stroke-dasharray: 5 5; }
.wire.beat { stroke: var(--muted); stroke-width: 1.25; stroke-dasharray: 1.5 4; stroke-linecap: round; }
.wire.beat.down { stroke: var(--bad); stroke-dasharray: 5 5; }
.arrow { fill: var(--accent); }
.grid { stroke: var(--rule); stroke-width: 1; }
.bar { fill: var(--accent); } .bar.waiting { fill: var(--wait); }
.break { fill: none; stroke: var(--panel); stroke-width: 3; }
.line { fill: none; stroke: var(--accent); stroke-width: 1.5; stroke-linejoin: round; }
.line.second { stroke: var(--caution); stroke-dasharray: 5 2; }
.area { fill: var(--accent); opacity: 0.14; }
footer { color: var(--muted); font-size: 12px; padding-bottom: 28px; }
footer a { color: var(--accent); }
`;
