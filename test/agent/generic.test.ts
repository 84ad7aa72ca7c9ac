// Devices whose drivers have no native XDP: with `xdp: generic` the pair protects and takes over as well.

import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { assertNoResets, assertOneVoice, Duo, skip } from "./duo.js";

describe("generic XDP", { skip }, () => {
  let duo: Duo;
  before(async () => {
    // With a switch in between, as there would be: on a veth cable the far end gets the very skb that TC redirected,
    // marked as redirected, and generic XDP passes such by (net/core/dev.c, netif_receive_generic_xdp).
    duo = await Duo.start({ mirror: "switch" }, { heartbeat: { deadMs: 300 }, overrides: { xdp: "generic" } });
  });
  after(() => duo?.lab.destroy());

  test("sessions survive the death of their router", async () => {
    const { lab, pair } = duo;
    const sessions = await duo.openSessions("b");
    const capture = await duo.captureVoice();
    await delay(300);
    const [a, b] = [duo.mac("a"), duo.mac("b")];
    lab.kill("a");
    await pair.untilRole("b", "solo");
    await delay(300);
    await sessions.assertExact();
    const summary = await capture.stop();
    assertOneVoice(summary, a, b);
    assertNoResets(summary);
  });
});
