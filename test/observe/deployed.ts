// What deploy/ has for Prometheus and Grafana, read as far as tests judge it.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { z } from "zod";

function root(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "deploy", "prometheus"))) directory = path.dirname(directory);
  return directory;
}

export const deployDirectory = path.join(root(), "deploy");
export const artifactDirectory = path.join(root(), "build", "artifacts");

const rulesFile = z.object({
  groups: z.array(
    z.object({
      rules: z.array(
        z.object({
          alert: z.string().optional(),
          record: z.string().optional(),
          expr: z.string(),
          labels: z.object({ severity: z.string() }).optional(),
        }),
      ),
    }),
  ),
});

export function ruleGroups() {
  return rulesFile.parse(parse(readFileSync(path.join(deployDirectory, "prometheus", "tandem.rules.yml"), "utf8")))
    .groups;
}

const dashboardFile = z.object({
  uid: z.string(),
  annotations: z.object({ list: z.array(z.object({ name: z.string(), expr: z.string() })) }),
  templating: z.object({ list: z.array(z.object({ name: z.string(), query: z.string() })) }),
  panels: z.array(
    z.object({
      id: z.number(),
      title: z.string(),
      gridPos: z.object({ x: z.number(), y: z.number(), w: z.number(), h: z.number() }),
      datasource: z.object({ uid: z.string() }).optional(),
      targets: z.array(z.object({ expr: z.string() })).optional(),
    }),
  ),
});

export function dashboards() {
  const folder = path.join(deployDirectory, "grafana", "dashboards");
  return readdirSync(folder).map((file) => ({
    file,
    dashboard: dashboardFile.parse(JSON.parse(readFileSync(path.join(folder, file), "utf8"))),
  }));
}
