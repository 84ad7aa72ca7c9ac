// The role machine: each way through the diagram, and the order of the effects that one voice rests on.
import assert from "node:assert/strict";
import test from "node:test";
import {
  initialRole,
  type Partner,
  type RoleEffect,
  type RoleEvent,
  type RoleSettings,
  type RoleState,
  stepRole,
} from "../../src/role/role.js";

const settings: RoleSettings = { router: "a", preferred: "a", arbiter: "pair", onSilence: "solo" };

/** The arbiter grants what it is asked for, unless the router has another one than the pair. */
function run(events: RoleEvent[], from: RoleState = initialRole, as: RoleSettings = settings) {
  let state = from;
  const effects: RoleEffect[] = [];
  const happen = (event: RoleEvent): void => {
    const step = stepRole(as, state, event);
    state = step.state;
    effects.push(...step.effects);
    for (const effect of step.effects)
      if (effect.type === "ask" && as.arbiter === "pair")
        happen({ type: "answered", serial: effect.serial, answer: { type: "granted", epoch: effect.epoch } });
  };
  for (const event of events) happen(event);
  return { state, effects };
}

const start = (epoch = 0, partnerEntitled = false, spoke = false): RoleEvent => ({
  type: "start",
  stored: { epoch, spoke, partnerEntitled },
  paused: null,
});
const heard = (role: Partner["role"], epoch: number, incarnation = 1n, spoke = false): RoleEvent => ({
  type: "partnerHeard",
  partner: { role, epoch, incarnation, spoke },
});
const agreed: RoleEvent = { type: "agreed", agreed: true };
const waited: RoleEvent = { type: "timer", name: "joinWait" };
const claim: RoleEvent = { type: "timer", name: "claim" };
const alone: RoleEvent = { type: "timer", name: "startAlone" };
const active = () => run([start(), alone, agreed, heard("standby", 1)]).state;
const standby = () => run([start(), heard("solo", 4), agreed, waited]).state;

function modes(effects: RoleEffect[]): string[] {
  return effects.flatMap((effect) => (effect.type === "gate" ? [effect.mode] : []));
}

test("a router starts fenced and speaks alone when nobody is heard", () => {
  const { state, effects } = run([start(7), alone]);
  assert.equal(state.role, "solo");
  assert.equal(state.epoch, 8);
  assert.deepEqual(modes(effects), ["fenced", "solo"]);
});

test("with onSilence mute, a router whose partner was entitled stays fenced", () => {
  const { state } = run([start(7, true), alone], initialRole, { ...settings, onSilence: "mute" });
  assert.equal(state.role, "fenced");
  assert.match(state.reason, /operator/);
});

test("of two fenced routers only the better one speaks", () => {
  const asB = { ...settings, router: "b" } as const;
  assert.equal(run([start(3), heard("fenced", 3)]).state.role, "fenced", "the partner must have heard this one, too");
  assert.equal(run([start(3), heard("fenced", 3), claim]).state.role, "solo");
  assert.equal(run([start(3), heard("fenced", 3), claim], initialRole, asB).state.role, "fenced");
  assert.equal(run([start(3), heard("fenced", 5), claim]).state.role, "fenced");
  assert.equal(run([start(5), heard("fenced", 3), claim], initialRole, asB).state.role, "solo");
  assert.equal(run([start(3), heard("fenced", 3, 1n, true), claim]).state.role, "fenced", "it had the voice");
});

test("every new voice has an epoch of its own, stored before the gate opens", () => {
  const { effects, state } = run([start(3), heard("fenced", 2), claim]);
  assert.equal(state.epoch, 4);
  const stored = effects.findIndex((effect) => effect.type === "store" && effect.stored.epoch === 4);
  const opened = effects.findIndex((effect) => effect.type === "gate" && effect.mode === "solo");
  assert.ok(stored >= 0 && stored < opened);
});

test("a joining router stands by only when agreed, after a lease, with a partner that speaks alone", () => {
  assert.equal(run([start(), heard("solo", 4)]).state.role, "joining");
  assert.equal(run([start(), heard("solo", 4), agreed]).state.role, "joining");
  assert.equal(run([start(), heard("solo", 4), waited]).state.role, "joining");
  assert.equal(run([start(), heard("active", 4), agreed, waited]).state.role, "joining");
  const { state, effects } = run([start(), heard("solo", 4), agreed, waited]);
  assert.equal(state.role, "standby");
  assert.equal(state.epoch, 4);
  assert.ok(!modes(effects).includes("solo") && !modes(effects).includes("reflect"));
});

test("the active stores that its partner is entitled before it reflects, and reflects before it says so", () => {
  const { state, effects } = run([start(), alone, agreed, heard("standby", 1)]);
  assert.equal(state.role, "active");
  const order = effects.map((effect) =>
    effect.type === "store" && effect.stored.partnerEntitled
      ? "entitled"
      : effect.type === "say"
        ? effect.role
        : effect.type === "gate"
          ? effect.mode
          : "",
  );
  assert.ok(order.indexOf("entitled") < order.indexOf("reflect"));
  assert.ok(order.indexOf("reflect") < order.indexOf("active"));
});

test("a standby of another epoch is not protected with", () => {
  assert.equal(run([start(), alone, agreed, heard("standby", 0)]).state.role, "solo");
});

test("the standby takes over when its last grant has run out, once", () => {
  const first = run([{ type: "grantExpired", slept: false }], standby());
  assert.deepEqual(first.effects[2], {
    type: "takeover",
    epoch: 6,
    stored: { epoch: 6, spoke: true, partnerEntitled: false },
    cause: "lease",
  });
  assert.equal(first.state.takingOver, true);
  const again = run([{ type: "grantExpired", slept: false }, heard("solo", 9)], first.state);
  assert.deepEqual(again.effects, []);
  const done = run([{ type: "takenOver" }], first.state);
  assert.equal(done.state.role, "solo");
  assert.equal(done.state.epoch, 6);
});

test("a standby that stood still for so long that the active may be alone drops its records, unless that is mute", () => {
  const expired: RoleEvent = { type: "grantExpired", slept: true };
  assert.equal(run([expired], standby()).state.role, "fenced");
  assert.equal(run([expired], standby(), { ...settings, onSilence: "mute" }).state.takingOver, true);
});

test("a partner that dies before it was protected is followed, not taken over from", () => {
  for (const state of [standby(), run([start(), heard("solo", 4)]).state]) {
    const gone = run(
      [
        { type: "partnerSilent", slept: false },
        { type: "timer", name: "partnerGone" },
      ],
      state,
    );
    assert.equal(gone.state.role, "solo");
    assert.equal(gone.state.epoch, 5);
    assert.ok(!gone.effects.some((effect) => effect.type === "takeover"));
    const back = run(
      [{ type: "partnerSilent", slept: false }, heard("solo", 4), { type: "timer", name: "partnerGone" }],
      state,
    );
    assert.equal(back.state.role, state.role, "it was heard again");
    const mute = run(
      [
        { type: "partnerSilent", slept: false },
        { type: "timer", name: "partnerGone" },
      ],
      state,
      {
        ...settings,
        onSilence: "mute",
      },
    );
    assert.equal(mute.state.role, state.role);
  }
  const entitled = run([heard("active", 4), { type: "partnerSilent", slept: false }], standby());
  assert.deepEqual(entitled.effects, [], "its grants run, and run out");
});

test("an active whose voice is lost speaks again only when the silence is confirmed on both paths", () => {
  const lost = run([{ type: "voiceLost" }], active()).state;
  assert.equal(lost.role, "active");
  assert.equal(
    run([{ type: "timer", name: "confirmSilence" }], lost).state.role,
    "active",
    "the partner is still heard",
  );
  const silent = run(
    [
      { type: "partnerSilent", slept: false },
      { type: "timer", name: "confirmSilence" },
    ],
    lost,
  ).state;
  assert.equal(silent.role, "solo");
  assert.equal(silent.epoch, 2);
  const mute = run(
    [
      { type: "partnerSilent", slept: false },
      { type: "timer", name: "confirmSilence" },
    ],
    lost,
    {
      ...settings,
      onSilence: "mute",
    },
  );
  assert.equal(mute.state.role, "active");
  assert.deepEqual(modes(mute.effects), []);
});

test("silence alone, while grants still run, changes nothing", () => {
  assert.equal(
    run(
      [
        { type: "partnerSilent", slept: false },
        { type: "timer", name: "confirmSilence" },
      ],
      active(),
    ).state.role,
    "active",
  );
});

test("a standby that restarted has surrendered: the active goes on alone under a new epoch", () => {
  for (const event of [heard("joining", 1, 2n), heard("fenced", 1, 2n), heard("standby", 1, 2n)]) {
    const { state } = run([event], active());
    assert.equal(state.role, "solo");
    assert.equal(state.epoch, 2);
  }
});

test("an old active that hears a newer epoch closes its gate before anything else it does outward", () => {
  const { state, effects } = run([heard("solo", 2)], active());
  assert.equal(state.role, "joining");
  assert.equal(state.epoch, 2);
  assert.deepEqual(modes(effects), ["fenced"]);
});

test("two that speak alone after a partition: exactly one of them yields", () => {
  const soloAt = (epoch: number): RoleState => ({ ...initialRole, role: "solo", epoch });
  for (const [own, other] of [
    [3, 3],
    [4, 3],
    [3, 4],
  ] as const) {
    const a = run([heard("solo", other)], soloAt(own)).state.role;
    const b = run([heard("solo", own)], soloAt(other), { ...settings, router: "b" }).state.role;
    assert.deepEqual([a, b].sort(), ["joining", "solo"]);
  }
});

test("a standby whose partner goes on under a newer epoch drops what it recorded and joins again", () => {
  const { state, effects } = run([heard("solo", 6)], standby());
  assert.equal(state.role, "joining");
  assert.ok(effects.some((effect) => effect.type === "record" && !effect.on));
  assert.ok(effects.some((effect) => effect.type === "grant" && !effect.on));
});

const mirror = (up: boolean): RoleEvent => ({ type: "mirror", up });
const patience: RoleEvent = { type: "timer", name: "mirrorPatience" };
const protectingStandby = () => run([heard("active", 4)], standby()).state;

test("a standby that the mirror link no longer reaches surrenders, so that the active can speak", () => {
  const { state, effects } = run([mirror(false), patience], protectingStandby());
  assert.equal(state.role, "joining");
  assert.ok(effects.some((effect) => effect.type === "grant" && !effect.on));
  assert.ok(effects.some((effect) => effect.type === "record" && !effect.on));
  const said = run([heard("joining", 4)], { ...active(), epoch: 4 });
  assert.equal(said.state.role, "solo", "which the active takes for a surrender");
  assert.equal(run([heard("solo", 5), waited, agreed], state).state.role, "joining", "and it stays so until the heal");
  assert.equal(run([heard("solo", 5), waited, agreed, mirror(true)], state).state.role, "standby");
});

test("a mirror link that is back in time, or silent together with the uplink, is no reason to surrender", () => {
  assert.equal(run([mirror(false), mirror(true), patience], protectingStandby()).state.role, "standby");
  const dead = run([mirror(false), { type: "partnerSilent", slept: false }, patience], protectingStandby()).state;
  assert.equal(dead.role, "standby", "the active may be dead: its lease decides");
  assert.equal(run([{ type: "grantExpired", slept: false }], dead).state.takingOver, true);
});

test("a router alone does not protect with a partner whom the mirror link does not reach", () => {
  const alonePartner = run([start(), alone, agreed, mirror(false)]).state;
  assert.equal(run([heard("standby", 1)], alonePartner).state.role, "solo");
});

test("an active cut off from everybody that went on alone yields to the one that took over", () => {
  const lonely = run(
    [{ type: "voiceLost" }, { type: "partnerSilent", slept: false }, { type: "timer", name: "confirmSilence" }],
    {
      ...active(),
      epoch: 4,
    },
  ).state;
  assert.equal(lonely.role, "solo");
  const successor = run([{ type: "grantExpired", slept: false }, { type: "takenOver" }], protectingStandby()).state;
  assert.equal(run([heard("solo", successor.epoch)], lonely).state.role, "joining");
  const b: RoleSettings = { ...settings, router: "b" };
  assert.equal(run([heard("solo", lonely.epoch)], successor, b).state.role, "solo");
});

test("a router alone whose controller stood still closes its gate and listens before it speaks again", () => {
  const solo = run([start(), alone]).state;
  const { state, effects } = run([{ type: "voiceLost" }], solo);
  assert.equal(state.role, "fenced");
  assert.deepEqual(modes(effects), ["fenced"]);
  assert.equal(run([heard("solo", 9)], state).state.role, "joining", "the partner has taken the voice");
  assert.equal(run([heard("joining", 1), claim], state).state.role, "solo", "the partner waits for this router");
  assert.equal(run([alone], state).state.role, "solo", "nobody is there");
});

test("a standby follows a partner that gave up the voice before it was protected, and only then", () => {
  const spoke = run([heard("fenced", 4, 2n, true)], standby()).state;
  assert.equal(spoke.role, "fenced", "whoever had the voice of this epoch is the better to go on");
  assert.equal(run([heard("solo", 5)], spoke).state.role, "joining");
  assert.equal(run([heard("fenced", 4), claim], standby()).state.role, "solo", "a partner without a past has no claim");
  assert.equal(run([heard("fenced", 4, 2n, true)], protectingStandby()).state.role, "standby", "the lease decides");
});

test("whoever joins ends the sockets of sessions that live elsewhere, behind the closed gate", () => {
  const { effects } = run([heard("solo", 4)], active());
  const order = effects.map((effect) => effect.type);
  assert.ok(order.indexOf("gate") < order.indexOf("abandon"));
});

const abdicate: RoleEvent = { type: "abdicate", cause: "switchover" };
const protecting = () => run([heard("active", 4)], standby()).state;

test("the active closes its gate before it tells the standby, and stays mute until it hears what became of it", () => {
  const { state, effects } = run([abdicate], active());
  assert.deepEqual(
    effects.map(({ type }) => type),
    ["hold", "gate", "voice", "abdicate", "timer", "journal"],
  );
  assert.deepEqual(modes(effects), ["yield"]);
  assert.deepEqual([state.role, state.abdicated, state.voiceLost], ["active", true, true]);
  assert.deepEqual(modes(run([abdicate], state).effects), [], "once is enough");
  assert.equal(run([heard("solo", 3)], state).state.role, "joining");
  assert.equal(run([heard("fenced", 1)], state).state.role, "solo", "the standby is none any more");
});

test("an active does not abdicate without a voice, or to a standby that is not its own", () => {
  const { state: voiceless } = run([{ type: "voiceLost" }], active());
  assert.deepEqual(run([abdicate], voiceless).effects, []);
  assert.deepEqual(run([abdicate], standby()).effects, []);
  assert.deepEqual(run([{ type: "partnerSilent", slept: false }, abdicate], active()).state.abdicated, false);
});

test("an abdicated active whose standby declines, or is silent about it, reflects again and waits for its grants", () => {
  for (const event of [{ type: "declined" }, { type: "timer", name: "takeBack" }] as const) {
    const { state, effects } = run([abdicate, event], active());
    assert.deepEqual(modes(effects), ["yield", "reflect"]);
    assert.ok(!effects.slice(-3).some((effect) => effect.type === "voice"), "the voice comes with a grant");
    assert.ok(state.abdicated && state.voiceLost);
    assert.ok(!run([{ type: "voiceBack" }], state).state.abdicated);
  }
});

test("silence after an abdication is waited out for as long as the standby's controller may be silent", () => {
  const { state, effects } = run([abdicate, { type: "partnerSilent", slept: false }], active());
  assert.deepEqual(effects.at(-1), { type: "timer", name: "partnerGone" });
  assert.equal(run([{ type: "timer", name: "confirmSilence" }], state).state.role, "active");
  assert.equal(run([{ type: "timer", name: "partnerGone" }], state).state.role, "solo");
});

test("an abdication stands for the expiry of the lease, for a standby that protects", () => {
  const abdicated: RoleEvent = { type: "abdicated", cause: "switchover" };
  assert.deepEqual(run([abdicated], standby()).effects, []);
  const { state, effects } = run([abdicated], protecting());
  assert.ok(state.takingOver);
  assert.deepEqual(
    effects.filter(({ type }) => type === "grant" || type === "takeover"),
    [
      { type: "grant", on: false },
      {
        type: "takeover",
        epoch: 6,
        stored: { epoch: 6, spoke: true, partnerEntitled: false },
        cause: "switchover",
      },
    ],
  );
});

test("a failover withholds the grants and takes over when the last has run out, paused or not", () => {
  const { state, effects } = run(
    [
      { type: "pause", reason: "work" },
      { type: "failover", cause: "failover" },
    ],
    protecting(),
  );
  assert.ok(effects.some((effect) => effect.type === "grant" && !effect.on && effect.watch));
  assert.ok(!state.takingOver);
  assert.ok(run([{ type: "grantExpired", slept: false }], state).state.takingOver);
});

test("a paused standby does not take over; resumed, it listens for a lease and then does", () => {
  const { state, effects } = run(
    [
      { type: "pause", reason: "work" },
      { type: "grantExpired", slept: false },
    ],
    protecting(),
  );
  assert.deepEqual([state.role, state.takingOver, state.overdue], ["standby", false, true]);
  assert.match(state.reason, /paused \(work\)/);
  assert.ok(
    effects.some((effect) => effect.type === "grant" && effect.on && !effect.watch),
    "an active that comes back is granted anew",
  );
  const resumed = run([{ type: "pause", reason: null }], state);
  assert.deepEqual(resumed.effects[0], { type: "grant", on: true, watch: true });
  assert.ok(run([{ type: "grantExpired", slept: false }], resumed.state).state.takingOver);
});

const byEtcd: RoleSettings = { ...settings, arbiter: "etcd" };
const refused = (serial: number, stale = false): RoleEvent => ({
  type: "answered",
  serial,
  answer: { type: "refused", why: "no", stale },
});
const unreachable: RoleEvent = { type: "answered", serial: 1, answer: { type: "unreachable", why: "no answer" } };
const expired: RoleEvent = { type: "grantExpired", slept: false };
const asked = (effects: RoleEffect[]) => effects.filter((effect) => effect.type === "ask");

test("with an arbiter beside the pair nobody speaks alone, or takes over, before it has granted that", () => {
  const begins = run([start(7), alone], initialRole, byEtcd);
  assert.deepEqual([begins.state.role, modes(begins.effects)], ["fenced", ["fenced"]]);
  assert.deepEqual(asked(begins.effects), [
    { type: "ask", serial: 1, purpose: "alone", epoch: 8, continues: null, silent: true },
  ]);
  const granted: RoleEvent = { type: "answered", serial: 1, answer: { type: "granted", epoch: 11 } };
  const speaks = run([granted], begins.state, byEtcd);
  assert.deepEqual([speaks.state.role, speaks.state.epoch], ["solo", 11]);
  assert.ok(
    speaks.effects.some(({ type }) => type === "abandon"),
    "the register knew of voices that this router had not heard of",
  );
  const takes = run([expired], protecting(), byEtcd);
  assert.ok(!takes.effects.some(({ type }) => type === "takeover"));
  assert.deepEqual(asked(takes.effects), [
    { type: "ask", serial: 1, purpose: "takeover", epoch: 6, continues: 4, silent: true },
  ]);
});

test("a standby whose arbiter is away grants and records on, and asks again after another lease of silence", () => {
  const { state, effects } = run([expired, unreachable], protecting(), byEtcd);
  assert.deepEqual([state.role, state.overdue], ["standby", true]);
  assert.match(state.reason, /lease has run out; nobody takes over: the arbiter cannot be reached \(no answer\)/);
  assert.ok(effects.some((effect) => effect.type === "grant" && effect.on));
  assert.ok(!effects.some((effect) => effect.type === "record"));
  const again = run([{ type: "timer", name: "askAgain" }], state, byEtcd);
  assert.deepEqual(again.effects, [{ type: "grant", on: true, watch: true }]);
  assert.equal(asked(run([expired], again.state, byEtcd).effects).length, 1);
});

test("an abdication that the arbiter does not confirm is declined, so that the active goes on", () => {
  const { effects } = run([{ type: "abdicated", cause: "switchover" }, unreachable], protecting(), byEtcd);
  assert.ok(effects.some(({ type }) => type === "declined"));
});

test("who is told of a later voice keeps nothing: the standby is fenced, the active ends its sockets", () => {
  assert.equal(run([expired, refused(1, true)], protecting(), byEtcd).state.role, "fenced");
  const silent: RoleEvent[] = [
    { type: "voiceLost" },
    { type: "partnerSilent", slept: false },
    { type: "timer", name: "confirmSilence" },
  ];
  const { state, effects } = run([...silent, refused(active().asked + 1, true)], active(), byEtcd);
  assert.equal(state.role, "fenced");
  assert.ok(effects.some(({ type }) => type === "abandon"));
});

test("an answer that nobody waits for any more is given back, and changes nothing", () => {
  const joined = run([start(7), alone, heard("solo", 9)], initialRole, byEtcd);
  const late: RoleEvent = { type: "answered", serial: 1, answer: { type: "granted", epoch: 8 } };
  const { state, effects } = run([late], joined.state, byEtcd);
  assert.equal(state.role, "joining");
  assert.deepEqual(effects, [{ type: "release" }]);
});

test("what the arbiter forbids ends: speaking alone, being active, asking, and a takeover as soon as it is done", () => {
  const external: RoleSettings = { ...settings, arbiter: "external" };
  const forbidden: RoleEvent = { type: "forbidden", why: "It was revoked." };
  for (const from of [active(), run([start(), alone]).state]) {
    const { state, effects } = run([forbidden], from, external);
    assert.deepEqual([state.role, modes(effects)], ["fenced", ["fenced"]]);
  }
  const asking = run([start(7), alone, forbidden], initialRole, external).state;
  const late: RoleEvent = { type: "answered", serial: 1, answer: { type: "granted", epoch: 8 } };
  assert.equal(run([late], asking, external).state.role, "fenced");
  const taking = run([expired], protecting()).state;
  assert.equal(run([forbidden, { type: "takenOver" }], taking, external).state.role, "fenced");
});
