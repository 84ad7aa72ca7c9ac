// Who owns a lab: a small file for each in /run/tandem-lab, so that what a killed run left behind can be told from
// what another run is using right now, and be removed by the next one.

import { linkSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { z } from "zod";

const directory = "/run/tandem-lab";
const owner = z.object({ pid: z.int().positive(), startTime: z.string() });

/** Field 22 of /proc/PID/stat: together with the id it names one process, also when ids are used again. */
function startTime(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? null;
  } catch {
    return null;
  }
}

/** Throws when a lab with this id exists already. */
export function claim(id: string): void {
  mkdirSync(directory, { recursive: true });
  // Written aside and linked into place: nobody can find it half written and take it for abandoned.
  const aside = path.join(directory, `.${id}.${process.pid}`);
  writeFileSync(aside, JSON.stringify({ pid: process.pid, startTime: startTime(process.pid) }));
  try {
    linkSync(aside, path.join(directory, `${id}.json`));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new Error(`a lab with the id "${id}" exists already; use another id, or end the process that runs it`);
  } finally {
    rmSync(aside, { force: true });
  }
}

export function release(id: string): void {
  rmSync(path.join(directory, `${id}.json`), { force: true });
}

/** Ids of labs whose owner has ended without removing them. */
export function abandoned(): string[] {
  let files: string[];
  try {
    files = readdirSync(directory);
  } catch {
    return [];
  }
  return files
    .filter((file) => file.endsWith(".json"))
    .filter((file) => {
      try {
        const { pid, startTime: then } = owner.parse(JSON.parse(readFileSync(path.join(directory, file), "utf8")));
        return startTime(pid) !== then;
      } catch {
        return true; // not written by us: there is no owner to ask
      }
    })
    .map((file) => file.slice(0, -".json".length));
}
