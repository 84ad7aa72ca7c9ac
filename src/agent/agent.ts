// The agent of one router: carries out what the role machine decides, and joins the parts that know nothing of each
// other: data plane, pulse, control channel, recorder, applications.

import { mkdirSync } from "node:fs";
import { constants, setPriority } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { native, type Pulse, type PulseEvent } from "../../addon/native.js";
import * as abi from "../abi.gen.js";
import type { Unframed } from "../app/framing.js";
import type { AppServer } from "../app/server.js";
import { agreementOf, disagreements } from "../config/agreement.js";
import { applyDelta, type ConfigChange, configDelta } from "../config/delta.js";
import { readMd5Keys } from "../config/md5-keys.js";
import type { Config } from "../config/schema.js";
import { surroundings } from "../doctor/doctor.js";
import { sentenceOf, TandemError } from "../errors.js";
import { formatMac } from "../net/addresses.js";
import { Announcer } from "../net/announce.js";
import { BorrowedSockets } from "../net/borrowed-sockets.js";
import { requireCapabilities } from "../net/capabilities.js";
import { type Claim, ClaimWatch } from "../net/claims.js";
import { DataPlane } from "../net/dataplane.js";
import { anyReachable, neighboursOf } from "../net/neighbours.js";
import { Snapshots } from "../net/snapshots.js";
import { SocketOwners } from "../net/socket-owners.js";
import { abandonSockets } from "../net/stale-sockets.js";
import { drillResultCommand, historyCommand, reloadCommand, statusCommand } from "../observe/commands.js";
import { Journal } from "../observe/journal.js";
import { Monitor } from "../observe/monitor.js";
import type { Observation } from "../observe/observation.js";
import { OperatorServer } from "../observe/operator.js";
import type { AgentStatus } from "../observe/status.js";
import { ControlChannel } from "../pair/control.js";
import { type PairKeys, readPairKeys } from "../pair/keys.js";
import { type ControlMessage, controlVersion, type Hello } from "../pair/messages.js";
import { RecorderClient } from "../recorder/client.js";
import type { LostSession, RecorderStatus, SessionLeak, SessionSummary } from "../recorder/messages.js";
import type { Answer, Arbiter } from "../role/arbiters/arbiter.js";
import { openArbiter } from "../role/arbiters/open.js";
import {
  initialRole,
  type Mode,
  mayAbdicate,
  type Role,
  type RoleEffect,
  type RoleEvent,
  type RoleSettings,
  type Stored,
  stepRole,
  type TakeoverCause,
  takeoverCauses,
} from "../role/role.js";
import { RoleStore } from "../role/store.js";
import { readKey } from "../session/flow-key.js";
import type { Md5Key } from "../session/md5-keys.js";
import { PeerQuestions } from "../takeover/peer-questions.js";
import { type TakeoverReport, takeOver, takeoverSteps } from "../takeover/takeover.js";
import { productVersion } from "../version.js";
import { ActiveSessions } from "./active-sessions.js";
import { openApplications } from "./applications.js";
import { registerArbiterCommand } from "./arbiter-command.js";
import { Deafness } from "./deafness.js";
import { HeldSessions } from "./held-sessions.js";
import { type HookFacts, Hooks } from "./hooks.js";
import { registerSessionCommands } from "./operator-commands.js";
import { PartnerQuestions } from "./partner-questions.js";
import { takePrecedence } from "./precedence.js";
import { openPulse } from "./pulse.js";
import { registerRoleCommands } from "./role-commands.js";
import { RoleTimers } from "./role-timers.js";
import { StandbySessions } from "./standby-sessions.js";
import { Switchover } from "./switchover.js";
import { UnaskedHandover } from "./unasked-handover.js";
import { Witness } from "./witness.js";

const roleNumbers: Record<Role, number> = {
  fenced: abi.TD_ROLE_FENCED,
  joining: abi.TD_ROLE_JOINING,
  standby: abi.TD_ROLE_STANDBY,
  active: abi.TD_ROLE_ACTIVE,
  solo: abi.TD_ROLE_SOLO,
};
const roleNames = new Map(Object.entries(roleNumbers).map(([name, number]) => [number, name as Role]));

const petMs = 100;
/** Entries of the journal in which the status page looks for takeovers. */
const journalShown = 500;
const unaskedMs = 100;
const witnessMs = 20;
const neighbourMs = 500;
const neighbourFirstMs = 50;
const claimsMs = 250;
/** A neighbour that is asked and there answers at once; the active waits for this. */
const reachMs = 1000;
/** Without a flapping link: so long the voice stays where it went because the other router heard nobody. */
const uplinkHoldDownNs = 60_000_000_000n;
/** Until what was on its way to the active's TCP when reflection, or an adoption, began has long arrived. */
const joinGraceMs = 100;

export class Agent {
  /** Rejects when the agent cannot go on. */
  readonly failed: Promise<never>;

  private readonly settings: RoleSettings;
  private readonly keys: PairKeys;
  private readonly md5Keys: Md5Key[];
  private readonly journal: Journal;
  private readonly store: RoleStore;
  private state = initialRole;
  private gate: Mode = "fenced";
  private queue: RoleEvent[] = [];
  private working = false;
  private stopping = false;
  private fail: (error: unknown) => void = () => {};

  private dataPlane!: DataPlane;
  private pulse!: Pulse;
  private readonly control: ControlChannel;
  private recorder!: RecorderClient;
  private applications!: AppServer;
  private readonly active: ActiveSessions;
  private readonly standby: StandbySessions;
  private witness!: Witness;
  private snapshots!: Snapshots;
  private owners!: SocketOwners;
  private readonly operator = new OperatorServer();
  private readonly questions: PartnerQuestions;
  private readonly monitor: Monitor;
  private readonly announcers: Announcer[] = [];
  private claims!: ClaimWatch;
  private readonly hooks: Hooks;
  private readonly peerQuestions = new PeerQuestions();
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly roleTimers: RoleTimers;
  private lastTakeover: TakeoverReport | null = null;
  private tookOverNs = 0n;
  private lastAnsweredNs = 0n;
  /** In what the partner's hello differed from ours. */
  private differences: string[] = [];
  private readonly switchover: Switchover;
  private arbiter!: Arbiter;
  /** Boot clock: when it was last asked for a takeover. */
  private askedNs = 0n;
  private partnerRole: Role = "fenced";
  /** Boot clock: when a partner that was active was first heard to be something else; 0: it is active, or never was. */
  private partnerWasActiveNs = 0n;
  private readonly unasked: UnaskedHandover;
  private readonly deafness: Deafness;
  private readonly held: HeldSessions;
  /** Boot clock: until then resets that nobody meant do not leave, whatever the gate's mode becomes. */
  private quarantineUntilNs = 0n;

  /** Reads keys and stored state. Throws TandemError. */
  constructor(
    private readonly config: Config,
    private readonly log: Logger,
    /** Reads the configuration file again. Throws TandemError. */
    private readonly reread: () => Config,
  ) {
    this.failed = new Promise((_, reject) => {
      this.fail = reject;
    });
    this.failed.catch(() => {});
    this.settings = {
      router: config.router,
      preferred: config.pair.preferred,
      arbiter: config.pair.arbiter.kind,
      onSilence: config.pair.onSilence,
    };
    requireCapabilities();
    this.keys = readPairKeys(config.pair.keys, config.router);
    this.md5Keys = readMd5Keys(config);
    this.store = new RoleStore(config.paths.state);
    this.journal = new Journal(config.paths.state, config.router, log);
    const { routers, controlPort } = config.pair;
    // There before anybody can ask for it: applications are heard as soon as the agent starts.
    this.control = new ControlChannel({
      router: config.router,
      localIp: routers[config.router].mirror.address,
      partnerIp: routers[config.router === "a" ? "b" : "a"].mirror.address,
      port: controlPort,
      keys: this.keys,
    });
    const addresses = config.services.flatMap((service) => service.addresses);
    this.hooks = new Hooks(config.hooks, { router: config.router, addresses: [...new Set(addresses)].join(" ") }, log);
    const sessions = {
      applications: () => this.applications,
      // Applications that were here before this agent are heard before it has a control channel.
      send: (message: Unframed<ControlMessage>, parts?: readonly Uint8Array[]) =>
        this.control?.send(message, parts) ?? false,
      log,
    };
    this.standby = new StandbySessions({
      ...sessions,
      config,
      leaked: (leaks) => this.leaked(leaks),
    });
    this.active = new ActiveSessions({
      ...sessions,
      native,
      services: config.services,
      takeSnapshots: () => this.snapshots.take(),
      findOwners: () => this.owners.find(),
      borrowed: new BorrowedSockets(native, (note) => this.dataPlane.noteBorrowed(note)),
      silence: (key) => this.dataPlane.silence(key),
      onCrash: (sockets) => this.unasked.crashed(sockets),
    });
    this.switchover = this.createSwitchover();
    this.roleTimers = new RoleTimers(config, {
      seenEveryMs: petMs,
      isCutOff: (now) => this.isCutOff(now),
      due: (name) => this.dispatch({ type: "timer", name }),
    });
    this.unasked = new UnaskedHandover({
      config,
      role: () => this.state,
      hasCarrier: () => this.hasCarrier(),
      deafTo: () => this.deafness.deafTo,
      quarantine: () => {
        this.quarantine();
        this.dataPlane.openGate(this.gate, this.state.epoch, this.quarantineUntilNs);
      },
      request: (wish) => this.switchover.request(wish),
      hold: (service, keys) =>
        void this.held.crashed(
          service,
          keys.map((key) => Buffer.from(key).toString("hex")),
        ),
      drop: (service) => this.held.drop(service),
      journal: (sentence) => this.journal.write(this.state.epoch, sentence),
      now: () => performance.now(),
    });
    this.deafness = new Deafness({
      suspicious: () => this.suspectsUplinks(),
      neighbours: () => neighboursOf(this.dataPlane, this.partnerMacs()),
      anyReachable: (neighbours, limitMs) => anyReachable(this.dataPlane, neighbours, limitMs),
      now: () => performance.now(),
      failed: (error) => log.warn(`The neighbours on the uplinks could not be asked: ${sentenceOf(error)}`),
    });
    this.held = new HeldSessions({
      services: config.services,
      uplinks: () => this.dataPlane.uplinks.map(({ link }) => link.ifindex),
      takeSnapshots: () => this.snapshots.take(),
      send: sessions.send,
      silence: (key) => this.dataPlane.silence(key),
      giveBack: (session, state) => this.standby.giveBack(session, state),
      settled: (service) => this.unasked.settled(service),
      journal: (sentence) => this.journal.write(this.state.epoch, sentence),
      log,
      graceMs: joinGraceMs,
    });
    registerRoleCommands(this.operator, this.switchover, {
      status: () => this.status(),
      role: () => this.state,
      pause: (reason) => {
        this.pause(reason);
        return this.control.send({ type: "pause", reason });
      },
    });
    this.operator.register(statusCommand, () => this.status());
    this.operator.register(historyCommand, async ({ limit }) => ({ entries: this.journal.read(limit) }));
    this.operator.register(drillResultCommand, async (result) => {
      const { name, passed, blackoutMs } = result;
      const outcome = `${passed ? "passed" : "failed"}, longest takeover ${blackoutMs.toFixed(0)} ms`;
      this.journal.write(this.state.epoch, `The drill ${name} was done on this pair: ${outcome}.`);
      this.monitor.drill(result);
      return null;
    });
    this.operator.register(reloadCommand, async ({ dryRun }) => this.reload(dryRun));
    registerArbiterCommand(this.operator, {
      arbiter: () => this.arbiter,
      status: () => this.status(),
      carriedOut: () => this.carriedOut(),
    });
    const known = registerSessionCommands(this.operator, {
      config,
      role: () => this.state.role,
      recorder: () => this.recorder,
      status: () => this.status(),
      partner: () => this.questions,
      resync: async () => {
        this.journal.write(this.state.epoch, "An operator let the standby forget all sessions and join them anew.");
        await this.record(true);
      },
    });
    this.questions = new PartnerQuestions((message, parts) => this.control.send(message, parts), known);
    this.monitor = new Monitor({
      listen: config.http === "off" ? null : config.http,
      version: productVersion,
      log,
      journal: this.journal.read(journalShown),
      observe: (sessions) => this.observe(sessions),
    });
  }

  /** Throws TandemError; then nothing is left behind. */
  async start(): Promise<void> {
    const undo: (() => unknown)[] = [];
    try {
      const stored = this.store.read();
      // Now: later it would hold up heartbeats. A start that is refused says why by itself.
      const findings = surroundings(this.config);
      this.raisePriority();
      mkdirSync(this.config.paths.run, { recursive: true, mode: 0o755 });
      // First: of two agents on one configuration the second stops here, before it touches the first one's data plane.
      const socketPath = path.join(this.config.paths.run, "app.sock");
      this.applications = openApplications(this.config, socketPath, this.active, this.standby, this.held);
      undo.push(() => this.applications.close());
      this.dataPlane = new DataPlane(this.config, this.keys.cookie);
      undo.push(() => this.dataPlane.remove());
      this.witness = new Witness(this.dataPlane.mapFd("events"), this.dataPlane.mapFd("readings"));
      undo.push(() => this.witness.close());
      this.snapshots = new Snapshots(this.dataPlane.iterator("snapshot"));
      undo.push(() => this.snapshots.close());
      this.owners = new SocketOwners(this.dataPlane.iterator("owners"));
      undo.push(() => this.owners.close());
      this.recorder = await RecorderClient.start(
        {
          ringFd: this.dataPlane.mapFd("records"),
          services: this.config.services.map((service, id) => [id, service.mode]),
          md5Keys: this.md5Keys,
          limits: { sessionBytes: this.config.recorder.sessionBytes, totalBytes: this.config.recorder.totalBytes },
        },
        (notice) => {
          this.monitor.notice(notice);
          this.standby.notice(notice);
        },
        (error) => this.fail(error),
      );
      undo.push(() => this.recorder.stop());
      this.standby.use(this.recorder);
      await this.startControl();
      undo.push(() => this.control.stop());
      const addresses = [...new Set(this.config.services.flatMap((service) => service.addresses))];
      for (const { link } of this.dataPlane.uplinks)
        this.announcers.push(new Announcer(link.name, link.mac, addresses));
      undo.push(() => {
        for (const announcer of this.announcers) announcer.silence();
      });
      this.claims = this.watchClaims();
      this.pulse = openPulse(this.config, this.keys.pulseKey, this.dataPlane.mapFd("voice"), (event) =>
        this.onPulse(event),
      );
      undo.push(() => this.pulse.stop());
      this.arbiter = openArbiter(this.config, {
        lost: (why) => this.dispatch({ type: "forbidden", why }),
        allows: () => this.allowed(),
      });
      undo.push(() => this.arbiter.close());
      await this.operator.listen(path.join(this.config.paths.run, "agent.sock"));
      undo.push(() => this.operator.close());
      await this.monitor.start();
      undo.push(() => this.monitor.close());
      this.every(petMs, () => {
        this.pulse.pet();
        native.sdNotify("WATCHDOG=1");
        this.roleTimers.seen(native.bootTimeNs());
        // A standby that was late grants again: the data plane speaks by itself, the role has to hear of it.
        if (this.state.voiceLost && this.pulse.snapshot().voiceUntilNs > native.bootTimeNs())
          this.dispatch({ type: "voiceBack" });
        this.renewVoice();
      });
      this.every(witnessMs, () => this.reportEnded());
      if (this.config.services.some(({ mode }) => mode === "delivered"))
        this.every(this.config.resumeReportMs, () => this.active.reportRead(this.witness.takeRead()));
      this.every(unaskedMs, () => {
        this.deafness.poll();
        this.unasked.poll();
      });
      this.every(claimsMs, () => this.claims.poll());
      this.watchNeighbour();
      this.dispatch({ type: "start", stored, paused: this.store.readPause() });
      native.sdNotify("READY=1");
      for (const { level, check, what, fix } of findings)
        if (level === "problem" || level === "warning") this.log.warn({ check, fix }, what);
    } catch (error) {
      this.clearTimers();
      for (const step of undo.reverse()) await step();
      throw error;
    }
  }

  /** Takes over what changed in the configuration file, or with `dryRun` only says what that is. Throws TandemError. */
  reload(dryRun: boolean): { applied: boolean; delta: ConfigChange[] } {
    const wanted = this.reread();
    if (dryRun) return { applied: false, delta: configDelta(this.config, wanted) };
    const delta = applyDelta(this.config, wanted);
    if (delta.length > 0)
      this.journal.write(
        this.state.epoch,
        `The configuration was reloaded: ${delta.map(({ path: key, to }) => `${key} is ${JSON.stringify(to)}`).join(", ")}.`,
      );
    return { applied: true, delta };
  }

  /** Lets go of everything but the data plane, which falls silent by itself when its voice runs out. */
  async stop(): Promise<void> {
    if (this.stopping) return;
    await this.leaveInOrder();
    this.stopping = true;
    native.sdNotify("STOPPING=1");
    if (this.state.role === "standby" || this.state.role === "joining") await this.surrender();
    this.clearTimers();
    this.peerQuestions.stop();
    this.pulse.stop();
    this.arbiter.close();
    this.active.end("agent-stopped");
    this.held.drop();
    this.control.stop();
    this.operator.close();
    this.monitor.close();
    for (const announcer of this.announcers) announcer.silence();
    this.applications.close();
    await this.recorder.stop();
    this.witness.close();
    this.snapshots.close();
    this.owners.close();
    this.dataPlane.close();
    await this.hooks.stop();
    this.journal.write(this.state.epoch, "The agent was stopped; the data plane stays as it is.");
  }

  /** A takeover is a moment of work that everybody waits for; this thread does next to nothing otherwise. */
  private raisePriority(): void {
    try {
      setPriority(0, constants.priority.PRIORITY_HIGHEST);
    } catch {
      this.log.info("The agent may not raise its priority (CAP_SYS_NICE): a busy machine makes takeovers slower.");
    }
  }

  private createSwitchover(): Switchover {
    const { config } = this;
    const { controllerMs, deadMs } = config.pair.heartbeat;
    return new Switchover({
      role: () => this.state,
      dispatch: (event) => {
        if (event.type !== "abdicate") this.dispatch(event);
        else void this.hooks.before("abdicate", this.hookFacts(event.cause)).then(() => this.dispatch(event));
      },
      send: (message) => this.control.send(message),
      recorderStatus: () => this.recorder.status(true),
      outputGaps: async () =>
        config.services.some(({ mode }) => mode === "delivered") ? this.recorder.outputGaps() : 0,
      restoreInAdvance: () => this.restoreInAdvance(),
      sessionName: (session) => this.sessionName(session),
      objection: () => this.arbiter.objection(),
      hasCarrier: () => this.hasCarrier(),
      reachesAny: (neighbours) => anyReachable(this.dataPlane, neighbours, reachMs),
      takeOverSince: (ns) => {
        this.lastAnsweredNs = ns;
      },
      validMs: controllerMs / 2,
      patienceMs: 2 * (controllerMs + deadMs),
    });
  }

  /** An active that is stopped, or restarted, hands its sessions over first; when that cannot be without loss, the
   * standby takes over after the lease as if this router had died. */
  private async leaveInOrder(): Promise<void> {
    if (!mayAbdicate(this.state)) return;
    try {
      await this.switchover.request({ cause: "restart", force: false });
      const deadline = performance.now() + this.config.pair.heartbeat.controllerMs;
      while (this.state.role === "active" && performance.now() < deadline) await delay(5);
    } catch (error) {
      this.log.warn(`Stopping without a hand-over: ${sentenceOf(error)}`);
    }
  }

  private pause(reason: string | null): void {
    this.store.writePause(reason);
    this.dispatch({ type: "pause", reason });
  }

  /** A standby that leaves in order says so: the active goes on alone at once, instead of after a lease of silence. */
  private async surrender(): Promise<void> {
    this.pulse.grant(false);
    this.dataPlane.setRecording(false);
    this.pulse.say({ role: roleNumbers.fenced, epoch: this.state.epoch, flags: 0 });
    await delay(5 * this.config.pair.heartbeat.intervalMs);
  }

  private dispatch(event: RoleEvent): void {
    this.queue.push(event);
    if (this.working || this.stopping) return;
    this.working = true;
    void this.work().finally(() => {
      this.working = false;
    });
  }

  private async carriedOut(): Promise<void> {
    while (this.working || this.state.takingOver) await delay(1);
  }

  private async work(): Promise<void> {
    for (let event = this.queue.shift(); event; event = this.queue.shift()) {
      const former = this.state.role;
      const { state, effects } = stepRole(this.settings, this.state, event);
      this.state = state;
      try {
        // Their sessions live elsewhere now.
        if (state.role !== "active" && state.role !== "solo") this.held.drop();
        for (const effect of effects) await this.carryOut(effect);
        if (event.type === "abdicate" && state.abdicated) this.hooks.after("abdicate", this.hookFacts(event.cause));
        if (state.role !== former) this.hooks.after("role", { ...this.hookFacts(), former, reason: state.reason });
      } catch (error) {
        // A router that cannot do what it decided must not speak.
        this.pulse.hold(false);
        this.pulse.grant(false);
        this.dataPlane.setVoice(0n);
        this.fail(error);
        return;
      }
    }
  }

  private async carryOut(effect: RoleEffect): Promise<void> {
    switch (effect.type) {
      case "store":
        this.store.write(effect.stored);
        return;
      case "gate":
        this.dataPlane.setGate(effect.mode, effect.epoch, this.quarantineUntilNs);
        if (this.gate === "yield" && effect.mode === "reflect") this.hooks.after("takeBack", this.hookFacts());
        this.gate = effect.mode;
        if (effect.mode === "reflect") this.active.begin(joinGraceMs);
        else this.active.end(effect.mode);
        if (effect.mode === "fenced" || effect.mode === "yield") {
          for (const announcer of this.announcers) announcer.silence();
          this.claims.end();
        } else this.claims.begin();
        return;
      case "voice":
        if (effect.until === "lease") this.dataPlane.setVoice(native.bootTimeNs() + this.leaseNs());
        else this.dataPlane.setVoice(effect.until === "alone" ? this.aloneUntilNs(native.bootTimeNs()) : 0n);
        return;
      case "hold":
        this.pulse.hold(effect.on);
        return;
      case "grant":
        this.pulse.grant(effect.on, effect.watch ?? false);
        return;
      case "record":
        await this.record(effect.on);
        return;
      case "say":
        this.pulse.say({
          role: roleNumbers[effect.role],
          epoch: effect.epoch,
          flags: effect.spoke ? abi.TD_PULSE_SPOKE : 0,
        });
        this.applications.setRole(effect.role);
        takePrecedence(effect.role === "standby");
        return;
      case "timer":
        this.roleTimers.set(effect.name);
        return;
      case "abandon":
        // Their resets may wait for a neighbour to be resolved, and the gate may be open by then.
        this.quarantine();
        try {
          abandonSockets(this.config);
        } catch (error) {
          this.log.warn(`Sockets of sessions that live elsewhere could not be ended: ${sentenceOf(error)}`);
        }
        return;
      case "announce":
        for (const announcer of this.announcers) announcer.announce();
        return;
      case "takeover":
        // The queue goes on: the old active's messages must be heard meanwhile.
        void this.runTakeover(effect.epoch, effect.stored, effect.cause).catch((error) => this.fail(error));
        return;
      case "abdicate":
        this.switchover.abdicate(effect.epoch);
        return;
      case "ask":
        this.ask(effect);
        return;
      case "release":
        this.arbiter.release();
        return;
      case "declined":
        this.switchover.decline(effect.why);
        return;
      case "journal":
        this.journal.write(this.state.epoch, effect.sentence);
        return;
    }
  }

  /** Its answer is an event like any other; nothing waits for it. */
  private ask({ serial, purpose, epoch, continues, silent }: Extract<RoleEffect, { type: "ask" }>): void {
    if (purpose === "takeover") this.askedNs = native.bootTimeNs();
    const silentSinceNs = silent ? this.lastActiveNs() : null;
    const begins = purpose === "alone" && continues === null;
    void (begins ? this.addressesFree() : Promise.resolve(null))
      .then((refusal) => refusal ?? this.arbiter.ask({ purpose, epoch, continues, silentSinceNs }))
      .then((answer) => this.dispatch({ type: "answered", serial, answer }));
  }

  /** Nobody may answer for the addresses when this router begins to speak for them, not even a partner that is not
   * heard: it has the voice then. The refusal, or null. */
  private async addressesFree(): Promise<Answer | null> {
    const [claim] = await this.claims.ask();
    if (!claim) return null;
    const why = this.whoAnswers(claim);
    if (this.config.onDuplicateAddress === "refuse") return { type: "occupied", why };
    this.journal.write(this.state.epoch, `${why}; this router speaks all the same (onDuplicateAddress: warn).`);
    return null;
  }

  private whoAnswers({ address, mac }: Claim): string {
    const isPartner = this.partnerMacs().includes(mac) || mac === this.config.virtualMac;
    return `${address} is answered for by ${mac}${isPartner ? " (the partner's uplink)" : ""}`;
  }

  /** Of the partner's uplinks, as far as they are known. */
  private partnerMacs(): string[] {
    const { a, b } = this.config.pair.routers;
    const partner = this.config.router === "a" ? b : a;
    return this.dataPlane.uplinks.flatMap(({ index, link }) => {
      const known = native.neighbour(link.ifindex, partner.uplinks[index]?.address ?? "");
      return known === null ? [] : [formatMac(known.mac)];
    });
  }

  /** Of two routers that do not hear each other on the uplink one is cut off there, perhaps this one. One that has just
   * been given the voice for that reason leaves it at that for a while. */
  private suspectsUplinks(): boolean {
    const [mirror, uplink] = this.pulse.snapshot().paths;
    if (!mayAbdicate(this.state) || mirror?.up !== true || uplink?.up !== false || !this.hasCarrier()) return false;
    const { lastTakeover } = this;
    return lastTakeover?.cause !== takeoverCauses.uplink || native.bootTimeNs() - this.tookOverNs > uplinkHoldDownNs;
  }

  private watchClaims(): ClaimWatch {
    return new ClaimWatch({
      claims: () => this.dataPlane.claims(),
      probe: () => {
        for (const announcer of this.announcers) announcer.probe();
      },
      ownMacs: this.dataPlane.uplinks.map(({ link }) => formatMac(link.mac)),
      now: () => native.bootTimeNs(),
      found: (claim) => {
        const sentence = `${this.whoAnswers(claim)}, although this router has the voice: find it and take the address from it.`;
        this.journal.write(this.state.epoch, sentence);
        this.log.warn(sentence);
      },
    });
  }

  /** The partner's last sign of life; of one that has been active, and is not any more, as an active. */
  private lastActiveNs(): bigint {
    if (this.partnerRole !== "active" && this.partnerWasActiveNs > 0n) return this.partnerWasActiveNs;
    let latest = 0n;
    for (const { lastHeardNs } of this.pulse.snapshot().paths) if (lastHeardNs > latest) latest = lastHeardNs;
    return latest;
  }

  /** Somebody outside who names the standby wants the voice to move, whether its active lives or not. */
  private allowed(): void {
    if (this.settings.arbiter !== "external" || this.state.role !== "standby") return;
    this.switchover
      .failover(true, "arbiter")
      .catch((error) =>
        this.log.warn(`The arbiter named this router, and it does not take over: ${sentenceOf(error)}`),
      );
  }

  /** Until when this router may speak alone, counted from an instant of the boot clock. */
  private aloneUntilNs(sinceNs: bigint): bigint {
    const controllerUntilNs = sinceNs + this.controllerNs();
    const arbiterUntilNs = this.arbiter.voiceUntilNs();
    if (arbiterUntilNs !== null && arbiterUntilNs < controllerUntilNs) return arbiterUntilNs;
    return controllerUntilNs;
  }

  /** Forgets all sessions, and records anew if `on`. */
  private async record(on: boolean): Promise<void> {
    this.dataPlane.setRecording(false);
    await this.recorder.reset();
    this.standby.forgetAll();
    this.monitor.recordsAnew();
    if (on) this.dataPlane.setRecording(true);
  }

  private hookFacts(cause?: TakeoverCause): HookFacts {
    const { role, epoch } = this.state;
    return cause === undefined ? { role, epoch } : { role, epoch, cause };
  }

  private quarantine(): void {
    this.quarantineUntilNs = native.bootTimeNs() + BigInt(this.config.quarantineMs) * 1_000_000n;
  }

  private async runTakeover(epoch: number, stored: Stored, cause: TakeoverCause): Promise<void> {
    const report = await takeOver(
      {
        config: this.config,
        dataPlane: this.dataPlane,
        recorder: this.recorder,
        give: (session) => this.standby.takeOver(session),
        together: (action) => this.applications.together(action),
        announcers: this.announcers,
        fenced: () => this.claims.begin(),
        before: (step) => this.hooks.before(step, this.hookFacts(cause)),
        store: () => this.store.write(stored),
        ask: (questions) => this.peerQuestions.add(questions),
        offer: (session) => this.standby.offerTaken(session),
        lost: (session) => this.lostLater(session),
      },
      takeoverCauses[cause],
      epoch,
      {
        sinceNs: this.lastAnsweredNs,
        detectedNs: this.askedNs,
        // Without a register the old active may go on alone by then: counted from the lease, not from now.
        voiceUntilNs: this.aloneUntilNs(this.settings.arbiter === "pair" ? this.lastAnsweredNs : this.askedNs),
      },
    );
    this.gate = "solo";
    this.quarantine();
    for (const step of takeoverSteps) this.hooks.after(step, { ...this.hookFacts(cause), ms: report.stepsMs[step] });
    this.lastTakeover = report;
    this.tookOverNs = native.bootTimeNs();
    this.monitor.takeover(report, cause);
    this.journal.write(
      epoch,
      `Took over ${report.sessions} sessions in ${report.totalMs.toFixed(1)} ms; ${report.lost.count} were not ready and are lost.`,
      { takeover: report },
    );
    this.dispatch({ type: "takenOver" });
    this.switchover.tookOver(report);
  }

  /** The takeover could not say it yet. */
  private lostLater({ service, key, reasons }: LostSession): void {
    const name = this.sessionName({ service, ...readKey(key) });
    this.monitor.lost();
    this.journal.write(this.state.epoch, `The session of ${name} is lost, too (${reasons.join(", ")}).`);
  }

  /** The audit rang. */
  private leaked([first, ...more]: readonly SessionLeak[]): void {
    if (first === undefined) return;
    const name = this.sessionName({ service: first.service, ...readKey(first.key) });
    const others = more.length > 0 ? ` And so in ${more.length} others.` : "";
    this.journal.write(
      this.state.epoch,
      `Audit: in the session of ${name} a byte passed that the standby had not recorded: ${first.leak}.${others}`,
    );
  }

  private sessionName({ service, peerIp, peerPort }: Pick<SessionSummary, "service" | "peerIp" | "peerPort">): string {
    return `${this.config.services[service]?.name ?? service} with ${peerIp} port ${peerPort}`;
  }

  /** The active is about to abdicate. Resolves when what can be restored in advance is. */
  private async restoreInAdvance(): Promise<void> {
    try {
      await this.recorder.prepare();
    } catch {
      // The recorder has ended, which is told elsewhere.
    }
  }

  private onPulse(event: PulseEvent): void {
    switch (event.type) {
      case "partner": {
        const role = roleNames.get(event.role);
        if (role === undefined) return;
        if (role === "active") this.partnerWasActiveNs = 0n;
        else if (this.partnerRole === "active") this.partnerWasActiveNs = native.bootTimeNs();
        this.partnerRole = role;
        this.dispatch({
          type: "partnerHeard",
          partner: {
            role,
            epoch: event.epoch,
            incarnation: event.incarnation,
            spoke: (event.flags & abi.TD_PULSE_SPOKE) !== 0,
          },
        });
        return;
      }
      case "silent":
        this.log.info("The partner is silent on all paths.");
        this.dispatch({
          type: "partnerSilent",
          // Without a pause of ours the voice has run out just now: silence began with the grants.
          slept: native.bootTimeNs() - this.pulse.snapshot().voiceUntilNs > this.leaseNs(),
        });
        return;
      case "expired":
        this.lastAnsweredNs = event.lastAnsweredNs;
        this.dispatch({ type: "grantExpired", slept: event.atNs - event.lastAnsweredNs > 3n * this.leaseNs() });
        return;
      case "voiceLost":
        this.dispatch({ type: "voiceLost" });
        return;
      case "path":
        this.log.info(`The ${event.path === 0 ? "mirror" : "uplink"} path is ${event.up ? "up" : "silent"}.`);
        if (event.path !== 0) return;
        if (event.up) this.control.carriesAgain();
        this.dispatch({ type: "mirror", up: event.up });
        return;
      case "petMissed":
        this.log.warn("The controller was late; the heartbeat had to stop.");
        return;
    }
  }

  private async startControl(): Promise<void> {
    const hello = (): Hello => ({
      type: "hello",
      version: controlVersion,
      abi: abi.TD_ABI_VERSION,
      router: this.config.router,
      agreement: agreementOf(this.config),
      recordMax: this.dataPlane.recordMax,
    });
    this.control.on("up", () => {
      this.control.send(hello());
      if (this.gate === "reflect") this.active.begin(joinGraceMs);
      this.standby.partnerHere();
    });
    this.control.on("down", (reason) => {
      this.log.info(`The control channel is down: ${reason}.`);
      this.active.end("standby-absent");
      this.differences = [];
      this.dispatch({ type: "agreed", agreed: false });
    });
    this.control.on("refused", (reason) => this.log.debug(`Control channel: ${reason}.`));
    this.control.on("message", (message, parts) => this.onControl(message, parts, hello()));
    try {
      await this.control.start();
    } catch (error) {
      const { routers, controlPort } = this.config.pair;
      const { address } = routers[this.config.router].mirror;
      throw new TandemError(
        "CONTROL_BIND",
        `The control channel cannot listen on ${address}, TCP port ${controlPort}: ${sentenceOf(error)}.`,
        "The address must be on the mirror device, and the port free (ss -tlpn). Set pair.controlPort otherwise.",
      );
    }
  }

  private onControl(message: ControlMessage, parts: readonly Uint8Array[], own: Hello): void {
    if (this.state.role === "standby" && !this.state.takingOver) this.standby.hear(message, parts);
    this.active.hear(message);
    this.held.hear(message, parts);
    switch (message.type) {
      case "prepare":
      case "refused":
      case "prepared":
      case "abdicated":
      case "declined":
      case "tookOver":
        this.switchover.receive(message);
        return;
      case "pause":
        this.pause(message.reason);
        return;
      case "question":
      case "answer":
        this.questions.hear(message, parts);
        return;
    }
    if (message.type !== "hello") return;
    const differences: string[] = [
      ...(["version", "abi", "recordMax"] as const).filter((part) => message[part] !== own[part]),
      ...disagreements(own.agreement, message.agreement),
    ];
    if (message.router === own.router) differences.push("router");
    if (differences.length > 0) {
      this.journal.write(
        this.state.epoch,
        `The routers do not agree (${differences.join(", ")}): compare both configurations and mirror MTUs.`,
      );
    }
    this.differences = differences;
    this.dispatch({ type: "agreed", agreed: differences.length === 0 });
  }

  private reportEnded(): void {
    const { ended, crashed } = this.witness.take();
    if (this.state.role !== "active") return;
    if (crashed.length > 0) this.unasked.crashed(crashed);
    const sockets = ended
      .map(({ key, ...rest }) => ({ key: Buffer.from(key).toString("hex"), ...rest }))
      .filter(({ key }) => !this.held.isCrashed(key));
    const keys = sockets.map(({ key }) => key);
    this.active.ended(keys);
    this.held.ended(keys);
    for (let at = 0; at < sockets.length; at += 1000)
      this.control.send({ type: "ended", sockets: sockets.slice(at, at + 1000) });
  }

  /** The partner's link-layer address may change with its hardware; until it is known nothing can be reflected. */
  private watchNeighbour(): void {
    const known = this.dataPlane.refreshPartner();
    this.after(known ? neighbourMs : neighbourFirstMs, () => this.watchNeighbour());
  }

  private async status(): Promise<AgentStatus> {
    const recorder = await this.recorder.status(false);
    const pulse = this.pulse.snapshot();
    const now = native.bootTimeNs();
    const packets: Record<string, number> = {};
    for (const counter of this.dataPlane.counters())
      packets[abi.td_reason_names[counter.reason] ?? String(counter.reason)] = Number(counter.packets);
    return {
      router: this.config.router,
      role: this.state.role,
      reason: this.state.reason,
      epoch: this.state.epoch,
      gate: this.gate,
      voiceMs: this.gate === "reflect" ? Number(pulse.voiceUntilNs - now) / 1e6 : null,
      partner: this.state.partner && { role: this.state.partner.role, epoch: this.state.partner.epoch },
      arbiter: this.arbiter.status(),
      agreed: this.state.agreed,
      differences: this.differences,
      paused: this.state.paused,
      paths: pulse.paths.map((each, index) => ({
        name: index === 0 ? "mirror" : "uplink",
        up: each.up,
        rttMs: Number(each.rttNs) / 1e6,
      })),
      sessions: this.state.role === "active" ? this.active.readiness() : readinessOf(recorder),
      held: this.held.count,
      recorder: {
        records: recorder.counters.records,
        backlog: recorder.ring.backlog,
        held: recorder.memory.used,
        badChecksums: recorder.counters.badChecksum,
        auditBreaches: recorder.counters.auditBreaches,
      },
      packets,
      duplicates: this.claims.strangers().map(({ address, mac, heardNs }) => ({
        address,
        mac,
        secondsAgo: Number(now - heardNs) / 1e9,
      })),
      lastTakeover: this.lastTakeover,
    };
  }

  /** What is watched; with so many sessions one by one at most. */
  private async observe(sessions: number): Promise<Observation> {
    const recorder = await this.recorder.status(sessions > 0, sessions);
    const pulse = this.pulse.snapshot();
    const { role, reason, epoch, paused, partner, agreed } = this.state;
    return {
      timeMs: Date.now(),
      router: this.config.router,
      services: this.config.services.map(({ name }) => name),
      role,
      reason,
      epoch,
      paused,
      gate: this.gate,
      leaseSeconds: this.config.pair.heartbeat.deadMs / 1e3,
      leaseLeftSeconds: this.gate === "reflect" ? Number(pulse.voiceUntilNs - native.bootTimeNs()) / 1e9 : null,
      partner: partner && { role: partner.role, epoch: partner.epoch },
      arbiter: this.arbiter.status(),
      agreed,
      paths: pulse.paths,
      duplicates: this.claims.strangers().length,
      counters: this.dataPlane.counters(),
      recorder,
      atStandby: this.active.heldByStandby(),
      held: this.held.count,
    };
  }

  private leaseNs(): bigint {
    return BigInt(Math.round(this.config.pair.heartbeat.deadMs * 1e6));
  }

  private controllerNs(): bigint {
    return BigInt(Math.round(this.config.pair.heartbeat.controllerMs * 1e6));
  }

  /** A router alone speaks only while its controller lives: a voice that has lapsed is not taken up again unheard. */
  private renewVoice(): void {
    if (this.state.role !== "solo" || this.gate !== "solo") return;
    const now = native.bootTimeNs();
    if (this.pulse.snapshot().voiceUntilNs < now) this.dispatch({ type: "voiceLost" });
    else this.dataPlane.setVoice(this.aloneUntilNs(now));
  }

  /** It does not listen, though it runs: the role machine was not told yet of a partner that is heard, or no uplink has a
   * carrier. */
  private isCutOff(now: bigint): boolean {
    const heard = this.pulse.snapshot().paths.some((each) => each.lastHeardNs + this.leaseNs() > now);
    return (this.state.partner === null && heard) || !this.hasCarrier();
  }

  /** Without it nobody hears this router, while the partner may be serving everybody. */
  private hasCarrier(): boolean {
    const uplinks = new Set(this.dataPlane.uplinks.map(({ link }) => link.ifindex));
    return native.links().some((link) => uplinks.has(link.ifindex) && link.carrier);
  }

  private every(milliseconds: number, action: () => void): void {
    this.timers.add(setInterval(action, milliseconds));
  }

  private after(milliseconds: number, action: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      action();
    }, milliseconds);
    this.timers.add(timer);
  }

  private clearTimers(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    this.roleTimers.clear();
  }
}

function readinessOf({ counts, notReady }: RecorderStatus): AgentStatus["sessions"] {
  return { total: counts.sessions - counts.closed, ready: counts.ready, notReady };
}
