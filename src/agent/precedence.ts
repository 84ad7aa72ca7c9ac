// How this process stands among all others of the machine while it records. Where the scheduler groups processes by their
// session (sched_autogroup_enabled, sched(7)), the nice values of their threads count within the group only; and a recorder
// that waits for the CPU lets its ring run full, which slows down every session of the pair.

import { writeFileSync } from "node:fs";

/** Nice value of the group: about nine times the weight of an ordinary one. */
const recordingNice = -10;

/** Not recording, it is one of many: the applications of an active come no later than its agent. */
export function takePrecedence(recording: boolean): void {
  try {
    writeFileSync("/proc/self/autogroup", String(recording ? recordingNice : 0));
  } catch {
    // Not grouped, without CAP_SYS_NICE, or too soon after the last change: it takes its turn as before.
  }
}
