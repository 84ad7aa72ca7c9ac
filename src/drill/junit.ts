// A drill's report as JUnit XML, for a build server: a test case for each step, and one for the verdict.

import type { DrillReport } from "./report.js";

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** What XML 1.0 cannot say, not even escaped, is left out. */
function text(value: string): string {
  return value.replace(/(?![\t\n\r])\p{Cc}/gu, "").replace(/[&<>"]/g, (sign) => entities[sign] ?? "");
}

const seconds = (ms: number): string => (ms / 1000).toFixed(3);

export function renderJunit({ name, where, timeline, breaches, startedAt, durationMs }: DrillReport): string {
  const classname = `tandem.drill.${name}`;
  const testCase = (title: string, ms: number, failures: readonly string[]): string => {
    const open = `    <testcase classname="${text(classname)}" name="${text(title)}" time="${seconds(ms)}"`;
    if (failures.length === 0) return `${open}/>`;
    const message = failures.map(text).join("; ");
    return `${open}>\n      <failure message="${message}">${failures.map(text).join("\n")}</failure>\n    </testcase>`;
  };
  const cases = [
    ...timeline.steps.map(({ sentence, tookMs, failure }, index) =>
      testCase(`${index + 1}. ${sentence}`, tookMs, failure === null ? [] : [failure]),
    ),
    testCase("verdict", 0, breaches),
  ];
  const failed = timeline.steps.filter(({ failure }) => failure !== null).length + (breaches.length > 0 ? 1 : 0);
  const counts = `tests="${cases.length}" failures="${failed}" errors="0"`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${counts} time="${seconds(durationMs)}">`,
    `  <testsuite name="${text(classname)}" hostname="${where}" timestamp="${startedAt.slice(0, 19)}" ${counts} skipped="0" time="${seconds(durationMs)}">`,
    ...cases,
    "  </testsuite>",
    "</testsuites>",
    "",
  ].join("\n");
}
