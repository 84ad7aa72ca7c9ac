// Every drill with a takeover in it, in a lab; and one that has to fail, since its sessions really are lost.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { listScenarios, parseScenario } from "../../src/drill/scenario.js";
import { assertPasses, rehearse, skip } from "./rehearsal.js";

describe("drills in which the voice moves", { skip }, () => {
  for (const scenario of listScenarios().filter(({ expect }) => expect.takeovers > 0))
    test(`${scenario.name}: ${scenario.title}`, () => assertPasses(scenario));
});

test("a drill whose sessions nobody goes on with fails, and says so", { skip }, async () => {
  const scenario = parseScenario(
    `title: Both applications die
description: There is nobody left who could go on with a session.
where: [lab]
sessions: 4
steps:
  - { do: kill-application, of: standby }
  - { do: wait, ms: 300 }
  - { do: power-off, of: active }
  - { do: await-voice, of: standby }
  - { do: wait, ms: 500 }
expect: { takeovers: 1, voice: standby }
`,
    "both.yaml",
  );
  await rehearse(scenario, ({ verdict, breaches }) => {
    assert.equal(verdict, "failed");
    assert.match(breaches.join("; "), /broken is 4, not 0/);
  });
});
