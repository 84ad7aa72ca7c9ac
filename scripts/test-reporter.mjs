// A node:test reporter for scripts/test.mjs: one JSON line for each result, on descriptor 3.
// Only leaf tests are counted; a suite counts when it fails by itself (a hook, say), not because of what is in it.

import { writeSync } from "node:fs";
import { inspect } from "node:util";

export default async function* reporter(source) {
  let deepestSince = -1; // nesting of the last result: a result one level up is its parent
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    const isLeaf = deepestSince <= data.nesting && data.details.type !== "suite";
    deepestSince = data.nesting === 0 ? -1 : data.nesting;
    const error = data.details.error;
    const failed = type === "test:fail" && data.todo === undefined;
    if (!isLeaf && !(failed && error?.failureType !== "subtestsFailed")) continue;
    const result = {
      name: data.name,
      outcome: failed ? "failed" : data.skip !== undefined ? "skipped" : "passed",
      ms: data.details.duration_ms,
    };
    if (failed) result.error = inspect(error?.cause ?? error, { depth: 6 });
    if (typeof data.skip === "string") result.reason = data.skip;
    writeSync(3, `${JSON.stringify(result)}\n`);
  }
  yield "";
}
