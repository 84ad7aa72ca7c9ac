// Two routers under random crashes, freezes, partitions, loss and delay: never two voices, and a voice again when it
// may be. The role machine is the real one; the pulse is modelled after addon/src/pulse_state.h, time is simulated.
import assert from "node:assert/strict";
import test from "node:test";
import type { Answer, Wish } from "../../src/role/arbiters/arbiter.js";
import {
  initialRole,
  isTakingOver,
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
import { Authority, Cluster, RegisterArbiter } from "./model-arbiters.js";

const interval = 10; // ms, as is all time here
const lease = 50;
const drift = 1.001;
const controller = 200;
/** How long an abdication is good, from when the standby said that it was prepared. */
const prepared = controller / 2;
const startAlone = 500;
/** How long a grant from outside lets a standby take over from an active that it does not hear. */
const patience = 150;

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

/** A line on the control channel: by path 0, in order, never lost but as long on its way as TCP may need. */
interface ControlLine {
  from: 0 | 1;
  type: "prepared" | "abdicated" | "declined";
  token: number;
  at: number;
}

type Setting = "pair solo" | "pair mute" | "etcd" | "external";

const commonDelays: Record<TimerName, number> = {
  startAlone,
  partnerGone: startAlone,
  joinWait: 2 * lease,
  confirmSilence: 2 * lease,
  mirrorPatience: 10 * lease,
  claim: 2 * lease,
  claimSecond: 2 * lease + controller,
  askAgain: controller / 2,
  takeBack: controller,
};

function delayOf(setting: Setting, name: TimerName): number {
  if (setting !== "external" || !["startAlone", "partnerGone", "confirmSilence"].includes(name))
    return commonDelays[name];
  return Math.max(commonDelays[name], patience * drift + 15 * lease);
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
  private thawed = Number.NEGATIVE_INFINITY;
  private holding = false;
  private voiceTold = true;
  private nextHeartbeat = 0;
  private listenedSince = 0;
  private lastHeard = Number.NEGATIVE_INFINITY;
  private lastRan = 0;
  private silent = true;
  private newest = -1;
  private timers: { at: number; name: TimerName }[] = [];
  private told = "";
  /** Standby: the preparation it has offered. Active: the token of the one it answers. */
  private offer: { token: number; at: number } | null = null;
  private answering = 0;
  paused: string | null = null;
  takeoverDue: { at: number; epoch: number; asked: number } | null = null;
  /** The epoch under which it last spoke alone. */
  spokeAlone = 0;
  private register: RegisterArbiter | null = null;
  private partnerRole: Role = "fenced";
  private partnerWasActive = 0;
  private asked = 0;
  /** Answers of the pair's witnesses on their way. */
  private answers: { at: number; serial: number; answer: Answer }[] = [];
  /** What somebody outside said while the agent stood still. */
  private statements: boolean[] = [];

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
    this.offer = null;
    this.answers = [];
    this.partnerRole = "fenced";
    this.partnerWasActive = 0;
    this.statements = [];
    this.register = new RegisterArbiter(this.index, this.incarnation, this.world, drift, () =>
      this.event({ type: "forbidden", why: "lost" }),
    );
    this.listenedSince = this.lastRan = this.nextHeartbeat = this.now;
    this.event({ type: "start", stored: this.stored, paused: this.paused });
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
        if (effect.until === "alone") this.voiceUntil = this.aloneUntil(this.now);
        else this.voiceUntil = effect.until === "none" ? 0 : this.now + lease;
        this.voiceTold = effect.until !== "lease";
        return;
      case "hold":
        this.holding = effect.on;
        return;
      case "grant":
        if (!this.granted || (effect.on && !this.granting)) this.expirySince = this.lastAnswered = this.now;
        if ((effect.on && !this.granting) || !(effect.on || effect.watch)) this.granted = false;
        this.granted ||= effect.watch === true;
        this.granting = effect.on;
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
          at: this.now + delayOf(this.world.setting, effect.name),
        });
        return;
      case "takeover":
        this.stored = effect.stored;
        this.gate = "fenced";
        this.gateEpoch = effect.epoch;
        this.recording = false;
        this.takeoverDue = { at: this.now + this.world.random.below(40), epoch: effect.epoch, asked: this.asked };
        this.world.assertNotOutdated(this);
        return;
      case "ask":
        if (effect.purpose === "takeover") {
          this.asked = this.now;
          this.protectedEpoch = effect.continues ?? 0;
        }
        this.ask({ ...effect, silentSinceNs: effect.silent ? BigInt(this.lastActive()) : null }, effect.serial);
        return;
      case "release":
        this.register?.release();
        return;
      case "declined":
        if (this.accepted !== null) this.world.tell({ from: this.index, type: "declined", token: this.accepted });
        this.accepted = null;
        return;
      case "abdicate":
        this.world.tell({ from: this.index, type: "abdicated", token: this.answering });
        return;
      case "announce":
      case "abandon":
      case "journal":
        return;
    }
  }

  /** The epoch of which it has what it takes over. */
  protectedEpoch = 0;
  private accepted: number | null = null;

  private ask(wish: Wish, serial: number): void {
    const answered = (answer: Answer) => this.event({ type: "answered", serial, answer });
    switch (this.world.setting) {
      case "etcd":
        this.register?.ask(wish, answered);
        return;
      case "external": {
        const late = wish.silentSinceNs !== null && this.now - Number(wish.silentSinceNs) > patience;
        if (wish.purpose === "takeover" && late)
          this.answers.push({ at: 0, serial, answer: { type: "refused", why: "too late", stale: true } });
        else if (!this.world.authority.named[this.index])
          this.answers.push({ at: 0, serial, answer: { type: "refused", why: "not named", stale: false } });
        else this.answers.push({ at: 0, serial, answer: { type: "granted", epoch: wish.epoch } });
        return;
      }
      default: {
        // As with witnesses, which answer late or not at all.
        const { random } = this.world;
        const silent = wish.silentSinceNs !== null && random.below(3) === 0;
        const veto = silent && random.below(3) === 0;
        this.answers.push({
          at: silent ? this.now + random.below(60) : 0,
          serial,
          answer: veto ? { type: "refused", why: "no witness", stale: false } : { type: "granted", epoch: wish.epoch },
        });
      }
    }
  }

  /** The partner's last sign of life; of one that has been active, and is not any more, as an active. */
  private lastActive(): number {
    if (this.partnerRole !== "active" && this.partnerWasActive > 0) return this.partnerWasActive;
    return Math.max(0, this.lastHeard);
  }

  private aloneUntil(since: number): number {
    return this.world.setting === "etcd"
      ? Math.min(since + controller, this.register?.voiceUntil ?? 0)
      : since + controller;
  }

  /** Somebody outside names this router, or does not any more. */
  hearStatement(granted: boolean): void {
    if (this.agent !== null && this.frozenUntil > this.now) this.statements.push(granted);
    else this.heed(granted);
  }

  private heed(granted: boolean): void {
    if (!granted) this.event({ type: "forbidden", why: "revoked" });
    else if (this.agent?.role === "standby") {
      this.prepare();
      this.event({ type: "failover", cause: "failover" });
    }
  }

  run(inbox: Datagram[]): void {
    // Time in which the thread did not run was not listened to.
    const slept = this.now - this.lastRan;
    if (slept > 2 * interval) {
      this.listenedSince += slept;
      if (this.sleptFrom === 0) this.sleptFrom = this.now - slept;
      this.woke = this.now;
      if (slept > lease) this.thawed = this.now;
      this.expirySince += slept;
    }
    this.lastRan = this.now;
    for (const statement of this.statements.splice(0)) this.heed(statement);
    for (const datagram of inbox) this.receive(datagram);
    if (this.world.setting === "etcd") this.register?.run();
    const answers = this.answers.filter(({ at }) => at <= this.now);
    this.answers = this.answers.filter(({ at }) => at > this.now);
    for (const { serial, answer } of answers) this.event({ type: "answered", serial, answer });
    if (this.takeoverDue !== null && this.now >= this.takeoverDue.at) {
      this.gate = "solo";
      this.voiceUntil = this.aloneUntil(
        this.world.setting.startsWith("pair") ? this.lastAnswered : this.takeoverDue.asked,
      );
      this.takeoverDue = null;
      this.event({ type: "takenOver" });
    }
    if (this.granted && this.now > this.expirySince + lease * drift) {
      this.granting = this.granted = false;
      this.event({ type: "grantExpired", slept: this.now - (this.sleptFrom || this.lastAnswered) > 3 * lease });
    }
    if (this.holding && !this.voiceTold && this.now > this.voiceUntil) {
      this.voiceTold = true;
      this.event({ type: "voiceLost" });
    }
    if (this.agent?.role === "solo" && this.gate === "solo") {
      if (this.now > this.voiceUntil) this.event({ type: "voiceLost" });
      else this.voiceUntil = this.aloneUntil(this.now);
    }
    if (!this.silent && this.now - this.listenedSince > lease) {
      this.silent = true;
      this.told = "";
      this.event({ type: "partnerSilent", slept: this.now - this.voiceUntil > lease });
    }
    const due = this.timers.filter((timer) => timer.at <= this.now);
    this.timers = this.timers.filter((timer) => timer.at > this.now);
    for (const { name, at } of due) {
      // As the agent does: what ends in speaking alone needs time that was listened through, and silence until now.
      const alone = !["joinWait", "mirrorPatience", "takeBack"].includes(name);
      const untold = this.agent?.partner === null && this.lastHeard + lease > this.now;
      const asleep = this.now - at > lease || this.now - this.thawed < delayOf(this.world.setting, name);
      if (alone && (asleep || untold)) this.carryOut({ type: "timer", name });
      else this.event({ type: "timer", name });
    }
    if (this.agent?.voiceLost && this.voiceUntil > this.now) this.event({ type: "voiceBack" });
    if (this.now >= this.nextHeartbeat) {
      this.nextHeartbeat = this.now + interval;
      for (const path of [0, 1] as const) this.send("heartbeat", path, this.now, false);
    }
  }

  /** An operator, or whatever else wants the other router to speak: asked at the standby. */
  prepare(): void {
    if (this.agent?.role !== "standby" || isTakingOver(this.agent)) return;
    this.offer = { token: this.world.random.below(2 ** 31) + 1, at: this.now };
    this.world.tell({ from: this.index, type: "prepared", token: this.offer.token });
  }

  hear({ type, token }: ControlLine): void {
    switch (type) {
      case "prepared":
        this.answering = token;
        this.event({ type: "abdicate", cause: "switchover" });
        return;
      case "abdicated": {
        const fresh = this.offer?.token === token && this.now - this.offer.at <= prepared;
        const since = this.offer?.at ?? 0;
        this.offer = null;
        if (fresh && this.agent?.role === "standby" && !isTakingOver(this.agent)) {
          this.lastAnswered = since;
          this.accepted = token;
          this.world.abdications++;
          this.event({ type: "abdicated", cause: "switchover" });
        } else this.world.tell({ from: this.index, type: "declined", token });
        return;
      }
      case "declined":
        if (token === this.answering) this.event({ type: "declined" });
        return;
    }
  }

  private receive(datagram: Datagram): void {
    this.lastHeard = this.now;
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
    if (role === "active") this.partnerWasActive = 0;
    else if (this.partnerRole === "active") this.partnerWasActive = this.now;
    this.partnerRole = role;
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
    if (this.gate === "solo") {
      this.spokeAlone = this.gateEpoch;
      return true;
    }
    // Reflection needs the partner: it refuses whatever is not of its own epoch, and records only while fenced.
    return (
      this.gate === "reflect" && partner.gate === "fenced" && partner.recording && partner.gateEpoch === this.gateEpoch
    );
  }
}

class World {
  now = 0;
  abdications = 0;
  readonly random: Random;
  readonly routers: [Router, Router];
  readonly cluster = new Cluster(this);
  readonly authority: Authority;
  readonly reaches: [boolean, boolean] = [true, true];
  private flying: Datagram[] = [];
  private control: ControlLine[] = [];
  readonly cut: [boolean, boolean] = [false, false];
  loss = 0;
  readonly history: string[] = [];

  constructor(
    seed: number,
    readonly setting: Setting,
    readonly lossOnLastPath: boolean,
  ) {
    this.random = new Random(seed);
    const onSilence = setting === "pair mute" ? "mute" : "solo";
    const arbiter = setting === "etcd" || setting === "external" ? setting : "pair";
    const settings = (router: "a" | "b"): RoleSettings => ({ router, preferred: "a", arbiter, onSilence });
    this.routers = [new Router(0, settings("a"), this), new Router(1, settings("b"), this)];
    this.authority = new Authority(
      (index, granted) => {
        this.note(`${index === 0 ? "a" : "b"} is ${granted ? "named" : "not named any more"}`);
        this.routers[index].hearStatement(granted);
      },
      (index) => {
        const { agent, frozenUntil } = this.routers[index];
        return agent !== null && !agent.takingOver && frozenUntil <= this.now;
      },
      controller,
    );
  }

  /** Nobody may take over with records that another voice has outrun. */
  assertNotOutdated(router: Router): void {
    const partner = this.routers[router.index === 0 ? 1 : 0];
    if (partner.spokeAlone > router.protectedEpoch)
      throw new Error(
        `outdated at ${this.now} ms: ${router.settings.router} continues epoch ${router.protectedEpoch}, its partner spoke alone in ${partner.spokeAlone}\n${this.history.join("\n")}`,
      );
  }

  send(datagram: Datagram): void {
    // Loss on the one path that is left cuts both for a moment.
    const loss = this.lossOnLastPath || !this.cut.includes(true) ? this.loss : 0;
    if (this.cut[datagram.path] || this.random.next() < loss) return;
    const late = this.random.below(20) === 0 ? this.random.below(60) : this.random.below(3);
    this.flying.push({ ...datagram, at: this.now + 1 + late });
  }

  tell(line: Omit<ControlLine, "at">): void {
    const late = this.random.below(5) === 0 ? this.random.below(600) : this.random.below(4);
    const before = this.control.filter(({ from }) => from === line.from).at(-1)?.at ?? 0;
    this.control.push({ ...line, at: Math.max(before, this.now + 1 + late) });
  }

  note(what: string): void {
    this.history.push(`${this.now} ms: ${what}`);
  }

  step(): void {
    this.now++;
    this.cluster.step();
    if (this.setting === "external") this.authority.step(this.now);
    const arrived = this.flying.filter((datagram) => datagram.at <= this.now);
    this.flying = this.flying.filter((datagram) => datagram.at > this.now);
    // A connection that is cut for long, or whose end dies, takes what it carries with it.
    if (this.cut[0] && this.random.below(200) === 0) this.control = [];
    for (const router of this.routers) {
      if (router.agent === null) this.control = [];
      else if (router.frozenUntil <= this.now && !this.cut[0]) {
        const due = this.control.filter(({ from, at }) => from !== router.index && at <= this.now);
        this.control = this.control.filter((line) => !due.includes(line));
        for (const line of due) {
          this.note(`${router.settings.router} hears ${line.type}`);
          router.hear(line);
        }
      }
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
function schedule(seed: number, setting: Setting, bothCut: boolean): World {
  const world = new World(seed, setting, bothCut);
  const { random, routers } = world;
  const act = () => {
    const router = routers[random.below(2) as 0 | 1];
    const name = router.settings.router;
    switch (random.below(setting === "etcd" || setting === "external" ? 13 : 10)) {
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
      case 7:
        world.note(`${name} is to take over in order`);
        router.prepare();
        return;
      case 8:
        world.note(`${name} is to take over whatever the active says`);
        router.prepare();
        router.event({ type: "failover", cause: "failover" });
        return;
      case 9:
        router.paused = router.paused === null ? "work on the other router" : null;
        world.note(`${name} is ${router.paused === null ? "resumed" : "paused"}`);
        router.event({ type: "pause", reason: router.paused });
        return;
      default:
        if (setting === "etcd") {
          world.reaches[router.index] = !world.reaches[router.index];
          world.note(`${name} ${world.reaches[router.index] ? "reaches" : "does not reach"} etcd`);
        } else world.authority.want(random.below(4) === 0 ? null : router.index, world.now);
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
  world.reaches[0] = world.reaches[1] = true;
  if (setting === "external") world.authority.want(random.below(2) as 0 | 1, world.now);
  for (const router of routers) {
    router.frozenUntil = 0;
    router.paused = null;
    router.event({ type: "pause", reason: null });
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

for (const [setting, bothCut] of [
  ["pair mute", true],
  ["pair solo", false],
  ["etcd", true],
  ["external", true],
] as const) {
  test(`one voice: ${setting}, ${bothCut ? "any cuts" : "never both paths cut"}, ${count} schedules`, () => {
    let changes = 0;
    let abdications = 0;
    for (let seed = first; seed < first + count; seed++) {
      try {
        const world = schedule(seed, setting, bothCut);
        changes += world.history.length;
        abdications += world.abdications;
      } catch (error) {
        throw new Error(`TANDEM_SEED=${seed} TANDEM_SCHEDULES=1: ${(error as Error).message}`);
      }
    }
    assert.ok(changes > count * 10, "the schedules did something");
    assert.ok(abdications > count / 20, `${abdications} abdications led to a takeover`);
  });
}
