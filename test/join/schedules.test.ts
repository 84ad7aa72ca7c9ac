// Some random schedules (schedules.ts), short ones and always the same. TANDEM_SEED=<seed> runs that one instead, at full
// length: `make soak` draws others, and names the seed that failed.

import test from "node:test";
import { skip } from "./mill-scene.js";
import { drawSchedule, runSchedule } from "./schedules.js";

const given = process.env.TANDEM_SEED;
const schedules = given === undefined ? [3, 6, 12].map((seed) => drawSchedule(seed, 1)) : [drawSchedule(Number(given))];

for (const schedule of schedules)
  test(`schedule ${schedule.seed}: every byte exact, no reset, no breach`, { skip }, async (t) => {
    const told = given === undefined ? undefined : (line: string) => console.log(line);
    t.diagnostic(await runSchedule(schedule, told));
  });
