// Two routers under random crashes, freezes, partitions, loss and delay: never two voices, and a voice again when it
// may be. The role machine is the real one; the pulse is modelled after addon/src/pulse_state.h, time is simulated.
import assert from "node:assert/strict";
import test from "node:test";
import {
  initialRole,
  type Mode,
  type Role,
  type RoleEffect,
  type RoleEvent,
  type RoleSettings,
  type RoleState,
  type Stored,
  stepRole,
  type TimerName,
} from "../../src/role/role.js";

const interval = 10; // ms, as is all time here
const lease = 50;
const drift = 1.001;
const controller = 200;
const startAlone = 500;

interface Datagram {
  kind: "heartbeat" | "answer";
  from: 0 | 1;
  path: 0 | 1;
  role: Role;
  epoch: number;
  spoke: boolean;
  incarnation: bigint;
  sentAt: number;
  grant: boolean;
  at: number;
}

class Random {
  constructor(private state: number) {}
  next(): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
    return this.state / 2 ** 32;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
}

/** One router: its kernel (gate, voice: they outlive the agent), its disk, its pulse thread, its agent. */
class Router {
  gate: Mode = "fenced";
  gateEpoch = 0;
  voiceUntil = 0;
  recording = false;
  stored: Stored = { epoch: 0, spoke: false, partnerEntitled: false };
  agent: RoleState | null = null;
  frozenUntil = 0;

  private incarnation = 0n;
  private said = { role: "fenced" as Role, epoch: 0, spoke: false };
  private granting = false;
  private granted = false;
  private lastAnswered = 0;
  private expirySince = 0;
  private sleptFrom = 0;
  private woke = 0;
  private holding = false;
  private voiceTold = true;
  private nextHeartbeat = 0;
  private listenedSince = 0;
  private lastRan = 0;
  private silent = true;
  private newest = -1;
  private timers: { at: number; name: TimerName }[] = [];
  private told = "";
  takeoverDue: { at: number; epoch: number } | null = null;

  constructor(
    readonly index: 0 | 1,
    readonly settings: RoleSettings,
    readonly world: World,
  ) {}

  get now(): number {
    return this.world.now;
  }

  start(): void {
    this.incarnation = BigInt(this.world.random.below(2 ** 31)) + 1n;
    this.agent = initialRole;
    this.granting = this.granted = this.holding = false;
    this.silent = true;
    this.newest = -1;
    this.told = "";
    this.voiceTold = true;
    this.timers = [];
    this.takeoverDue = null;
    this.listenedSince = this.lastRan = this.nextHeartbeat = this.now;
    this.event({ type: "start", stored: this.stored });
    this.event({ type: "agreed", agreed: true });
  }

  /** The agent dies; what it put into the kernel stays. */
  kill(): void {
    this.agent = null;
  }

  event(event: RoleEvent): void {
    if (this.agent === null) return;
    const { state, effects } = stepRole(this.settings, this.agent, event);
    this.agent = state;
    for (const effect of effects) this.carryOut(effect);
  }

  private carryOut(effect: RoleEffect): void {
    switch (effect.type) {
      case "store":
        this.stored = effect.stored;
        return;
      case "gate":
        this.gate = effect.mode;
        this.gateEpoch = effect.epoch;
        return;
      case "voice":
        this.voiceUntil = effect.until === "none" ? 0 : this.now + (effect.until === "alone" ? controller : lease);
        this.voiceTold = effect.until !== "lease";
        return;
      case "hold":
        this.holding = effect.on;
        return;
      case "grant":
        this.granting = effect.on;
        this.granted = false;
        return;
      case "record":
        this.recording = effect.on;
        return;
      case "say":
        this.said = { role: effect.role, epoch: effect.epoch, spoke: effect.spoke };
        return;
      case "timer":
        this.timers = this.timers.filter(({ name }) => name !== effect.name);
        this.timers.push({
          name: effect.name,
          at: this.now + (effect.name === "startAlone" || effect.name === "partnerGone" ? startAlone : 2 * lease),
        });
        return;
      case "takeover":
        this.stored = effect.stored;
        this.gate = "fenced";
        this.gateEpoch = effect.epoch;
        this.recording = false;
        this.takeoverDue = { at: this.now + this.world.random.below(40), epoch: effect.epoch };
        return;
      case "announce":
      case "abandon":
      case "journal":
        return;
    }
  }

  run(inbox: Datagram[]): void {
    // Time in which the thread did not run was not listened to.
    const slept = this.now - this.lastRan;
    if (slept > 2 * interval) {
      this.listenedSince += slept;
      if (this.sleptFrom === 0) this.sleptFrom = this.now - slept;
      this.woke = this.now;
      this.expirySince += slept;
    }
    this.lastRan = this.now;
    for (const datagram of inbox) this.receive(datagram);
    if (this.takeoverDue !== null && this.now >= this.takeoverDue.at) {
      this.gate = "solo";
      this.voiceUntil = this.lastAnswered + controller;
      this.takeoverDue = null;
      this.event({ type: "takenOver" });
    }
    if (this.granting && this.granted && this.now > this.expirySince + lease * drift) {
      this.granting = false;
      this.event({ type: "grantExpired", slept: this.now - (this.sleptFrom || this.lastAnswered) > 3 * lease });
    }
    if (this.holding && !this.voiceTold && this.now > this.voiceUntil) {
      this.voiceTold = true;
      this.event({ type: "voiceLost" });
    }
    if (this.agent?.role === "solo" && this.gate === "solo") {
      if (this.now > this.voiceUntil) this.event({ type: "voiceLost" });
      else this.voiceUntil = this.now + controller;
    }
    if (!this.silent && this.now - this.listenedSince > lease) {
      this.silent = true;
      this.told = "";
      this.event({ type: "partnerSilent", slept: this.now - this.voiceUntil > lease });
    }
    const due = this.timers.filter((timer) => timer.at <= this.now);
    this.timers = this.timers.filter((timer) => timer.at > this.now);
    for (const { name } of due) this.event({ type: "timer", name });
    if (this.agent?.voiceLost && this.voiceUntil > this.now) this.event({ type: "voiceBack" });
    if (this.now >= this.nextHeartbeat) {
      this.nextHeartbeat = this.now + interval;
      for (const path of [0, 1] as const) this.send("heartbeat", path, this.now, false);
    }
  }

  private receive(datagram: Datagram): void {
    this.listenedSince = this.now;
    this.silent = false;
    if (datagram.kind === "answer") {
      if (datagram.sentAt > this.woke) this.sleptFrom = 0;
      if (datagram.grant && this.holding && datagram.sentAt + lease > this.voiceUntil) {
        this.voiceUntil = datagram.sentAt + lease;
        this.voiceTold = this.now > this.voiceUntil;
      }
      return;
    }
    if (datagram.sentAt < this.newest) return; // overtaken by a newer heartbeat
    this.newest = datagram.sentAt;
    const grant = this.granting && datagram.role === "active" && datagram.epoch === this.said.epoch;
    if (grant) {
      this.granted = true;
      this.expirySince = this.now;
      this.lastAnswered = this.now;
    }
    this.send("answer", datagram.path, datagram.sentAt, grant);
    const { role, epoch, incarnation, spoke } = datagram;
    const told = `${role} ${epoch} ${incarnation} ${spoke}`;
    if (told === this.told) return;
    this.told = told;
    this.event({ type: "partnerHeard", partner: { role, epoch, incarnation, spoke } });
  }

  private send(kind: Datagram["kind"], path: 0 | 1, sentAt: number, grant: boolean): void {
    this.world.send({
      kind,
      from: this.index,
      path,
      ...this.said,
      incarnation: this.incarnation,
      sentAt,
      grant,
      at: 0,
    });
  }

  /** May a segment of the service reach the peer through this router right now? */
  speaks(partner: Router): boolean {
    if (this.now > this.voiceUntil) return false;
    if (this.gate === "solo") return true;
    // Reflection needs the partner: it refuses whatever is not of its own epoch, and records only while fenced.
    return (
      this.gate === "reflect" && partner.gate === "fenced" && partner.recording && partner.gateEpoch === this.gateEpoch
    );
  }
}

class World {
  now = 0;
  readonly random: Random;
  readonly routers: [Router, Router];
  private flying: Datagram[] = [];
  readonly cut: [boolean, boolean] = [false, false];
  loss = 0;
  readonly history: string[] = [];

  constructor(seed: number, onSilence: "solo" | "mute") {
    this.random = new Random(seed);
    const settings = (router: "a" | "b"): RoleSettings => ({ router, preferred: "a", onSilence });
    this.routers = [new Router(0, settings("a"), this), new Router(1, settings("b"), this)];
  }

  send(datagram: Datagram): void {
    if (this.cut[datagram.path] || this.random.next() < this.loss) return;
    const late = this.random.below(20) === 0 ? this.random.below(60) : this.random.below(3);
    this.flying.push({ ...datagram, at: this.now + 1 + late });
  }

  note(what: string): void {
    this.history.push(`${this.now} ms: ${what}`);
  }

  step(): void {
    this.now++;
    const arrived = this.flying.filter((datagram) => datagram.at <= this.now);
    this.flying = this.flying.filter((datagram) => datagram.at > this.now);
    for (const router of this.routers) {
      if (router.agent === null || router.frozenUntil > this.now) {
        // What nobody reads waits in the socket of a frozen thread, and is gone with a dead one.
        if (router.agent !== null)
          for (const datagram of arrived) if (datagram.from !== router.index) this.flying.push(datagram);
        continue;
      }
      const before = `${router.agent.role} ${router.agent.epoch}`;
      router.run(arrived.filter((datagram) => datagram.from !== router.index));
      const after = `${router.agent.role} ${router.agent.epoch}`;
      if (before !== after) this.note(`${router.settings.router}: ${before} → ${after}`);
    }
    const [a, b] = this.routers;
    if (a.speaks(b) && b.speaks(a)) {
      const voices = [a, b].map(
        (each) => `${each.settings.router}: ${each.gate} ${each.gateEpoch} until ${each.voiceUntil}`,
      );
      throw new Error(`two voices at ${this.now} ms\n${[...this.history, ...voices].join("\n")}`);
    }
  }
}

/** `bothCut`: the one case in which `solo` promises no more than VRRP does. */
function schedule(seed: number, onSilence: "solo" | "mute", bothCut: boolean): World {
  const world = new World(seed, onSilence);
  const { random, routers } = world;
  const act = () => {
    const router = routers[random.below(2) as 0 | 1];
    const name = router.settings.router;
    switch (random.below(7)) {
      case 0:
        // Without another process to judge by, an agent that dies twice at once would forget who spoke: one at a time.
        if (router.agent !== null && routers.every((each) => each.agent !== null)) {
          world.note(`${name} is killed`);
          router.kill();
        }
        return;
      case 1:
      case 2:
        if (router.agent === null) {
          world.note(`${name} starts`);
          router.start();
        }
        return;
      case 3:
        world.note(`${name} freezes`);
        router.frozenUntil = world.now + random.below(400);
        return;
      case 4: {
        const path = random.below(2) as 0 | 1;
        if (!bothCut && world.cut[1 - path]) return;
        world.cut[path] = !world.cut[path];
        world.note(`path ${path} ${world.cut[path] ? "cut" : "healed"}`);
        return;
      }
      case 5:
        world.loss = random.below(2) * 0.3;
        return;
      case 6:
        return;
    }
  };
  for (const router of routers) router.start();
  while (world.now < 4000) {
    if (random.below(120) === 0) act();
    world.step();
  }
  // Everything heals: within a bounded time somebody speaks, and the pair is a pair again.
  world.cut[0] = world.cut[1] = false;
  world.loss = 0;
  for (const router of routers) {
    router.frozenUntil = 0;
    if (router.agent === null) router.start();
  }
  const limit = world.now + 4000;
  const [a, b] = routers;
  while (world.now < limit && a.speaks(b) === b.speaks(a)) world.step();
  while (world.now < limit && !(a.gate === "reflect" || b.gate === "reflect")) world.step();
  assert.ok(a.gate === "reflect" || b.gate === "reflect", `seed ${seed}: no pair again\n${world.history.join("\n")}`);
  assert.notEqual(a.speaks(b), b.speaks(a), `seed ${seed}: nobody speaks\n${world.history.join("\n")}`);
  return world;
}

const first = Number(process.env.TANDEM_SEED ?? 1);
const count = Number(process.env.TANDEM_SCHEDULES ?? 150);

for (const [onSilence, bothCut] of [
  ["mute", true],
  ["solo", false],
] as const) {
  test(`one voice: onSilence ${onSilence}, ${bothCut ? "any cuts" : "never both paths cut"}, ${count} schedules`, () => {
    let changes = 0;
    for (let seed = first; seed < first + count; seed++) {
      try {
        changes += schedule(seed, onSilence, bothCut).history.length;
      } catch (error) {
        throw new Error(`TANDEM_SEED=${seed} TANDEM_SCHEDULES=1: ${(error as Error).message}`);
      }
    }
    assert.ok(changes > count * 10, "the schedules did something");
  });
}
