// Every drill in which the voice stays where it is, in a lab.

import { describe, test } from "node:test";
import { listScenarios } from "../../src/drill/scenario.js";
import { assertPasses, skip } from "./rehearsal.js";

describe("drills in which the voice stays", { skip }, () => {
  for (const scenario of listScenarios().filter(({ expect }) => expect.takeovers === 0))
    test(`${scenario.name}: ${scenario.title}`, () => assertPasses(scenario));
});
