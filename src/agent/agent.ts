// The agent of one router: carries out what the role machine decides, and joins the parts that know nothing of each
// other: data plane, pulse, control channel, recorder, applications.

import { createHash, randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { constants, setPriority } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { native, type Pulse, type PulseEvent } from "../../addon/native.js";
import * as abi from "../abi.gen.js";
import type { Config } from "../config/schema.js";
import { sentenceOf, TandemError } from "../errors.js";
import { Announcer } from "../net/announce.js";
import { requireCapabilities } from "../net/capabilities.js";
import { DataPlane } from "../net/dataplane.js";
import { abandonSockets } from "../net/stale-sockets.js";
import { Journal } from "../observe/journal.js";
import { type AgentStatus, type StatusServer, serveStatus } from "../observe/status.js";
import { ControlChannel } from "../pair/control.js";
import { type PairKeys, readPairKeys } from "../pair/keys.js";
import { type ControlMessage, controlVersion, type Hello } from "../pair/messages.js";
import { RecorderClient } from "../recorder/client.js";
import {
  initialRole,
  type Mode,
  type Role,
  type RoleEffect,
  type RoleEvent,
  type RoleSettings,
  type Stored,
  stepRole,
  type TimerName,
} from "../role/role.js";
import { RoleStore } from "../role/store.js";
import { readKey } from "../session/flow-key.js";
import { PendingHandshakes } from "../takeover/handshakes.js";
import { handOver, type TakeoverReport, takeOver } from "../takeover/takeover.js";
import { Applications } from "./applications.js";
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
const witnessMs = 20;
const neighbourMs = 500;
const neighbourFirstMs = 50;
/** A stall that TCP rides out is better than protection given up: sessions cannot be joined again in mid-stream. */
const mirrorPatienceLeases = 10;

export class Agent {
  /** Rejects when the agent cannot go on. */
  readonly failed: Promise<never>;

  private readonly settings: RoleSettings;
  private readonly keys: PairKeys;
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
  private control!: ControlChannel;
  private recorder!: RecorderClient;
  private applications!: Applications;
  private witness!: Witness;
  private statusServer: StatusServer | null = null;
  private readonly announcers: Announcer[] = [];
  private readonly handshakes = new PendingHandshakes((session) => {
    const offered = this.applications.offerTaken({ id: session.id, service: session.service, ...readKey(session.key) });
    if (offered) handOver(this.applications.server, session);
    else native.closeFd(session.fd);
  });
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly roleTimers = new Map<TimerName, NodeJS.Timeout>();
  private lastTakeover: TakeoverReport | null = null;
  private lastAnsweredNs = 0n;

  /** Reads keys and stored state. Throws TandemError. */
  constructor(
    private readonly config: Config,
    private readonly log: Logger,
  ) {
    this.failed = new Promise((_, reject) => {
      this.fail = reject;
    });
    this.failed.catch(() => {});
    this.settings = {
      router: config.router,
      preferred: config.pair.preferred,
      onSilence: config.pair.onSilence,
    };
    requireCapabilities();
    this.keys = readPairKeys(config.pair.keys, config.router);
    this.store = new RoleStore(config.paths.state);
    this.journal = new Journal(config.paths.state, config.router, log);
  }

  /** Throws TandemError; then nothing is left behind. */
  async start(): Promise<void> {
    const undo: (() => unknown)[] = [];
    try {
      const stored = this.store.read();
      this.raisePriority();
      mkdirSync(this.config.paths.run, { recursive: true, mode: 0o755 });
      // First: of two agents on one configuration the second stops here, before it touches the first one's data plane.
      this.applications = new Applications(this.config, path.join(this.config.paths.run, "app.sock"));
      undo.push(() => this.applications.close());
      this.dataPlane = new DataPlane(this.config, this.keys.cookie);
      undo.push(() => this.dataPlane.remove());
      this.witness = new Witness(this.dataPlane.mapFd("events"));
      undo.push(() => this.witness.close());
      this.recorder = await RecorderClient.start(
        {
          ringFd: this.dataPlane.mapFd("records"),
          services: this.config.services.map((service, id) => [id, service.mode]),
          limits: { sessionBytes: this.config.recorder.sessionBytes, totalBytes: this.config.recorder.totalBytes },
        },
        (notice) => this.applications.notice(notice),
        (error) => this.fail(error),
      );
      undo.push(() => this.recorder.stop());
      this.applications.use(this.recorder);
      await this.startControl();
      undo.push(() => this.control.stop());
      const addresses = [...new Set(this.config.services.flatMap((service) => service.addresses))];
      for (const { link } of this.dataPlane.uplinks)
        this.announcers.push(new Announcer(link.name, link.mac, addresses));
      undo.push(() => {
        for (const announcer of this.announcers) announcer.close();
      });
      this.startPulse();
      undo.push(() => this.pulse.stop());
      this.statusServer = await serveStatus(path.join(this.config.paths.run, "agent.sock"), () => this.status());
      this.every(petMs, () => {
        this.pulse.pet();
        // A standby that was late grants again: the data plane speaks by itself, the role has to hear of it.
        if (this.state.voiceLost && this.pulse.snapshot().voiceUntilNs > native.bootTimeNs())
          this.dispatch({ type: "voiceBack" });
        this.renewVoice();
      });
      this.every(witnessMs, () => this.reportEnded());
      this.watchNeighbour();
      this.dispatch({ type: "start", stored });
      native.sdNotify("READY=1");
    } catch (error) {
      this.clearTimers();
      for (const step of undo.reverse()) await step();
      throw error;
    }
  }

  /** Lets go of everything but the data plane, which falls silent by itself when its voice runs out. */
  async stop(): Promise<void> {
    if (this.stopping) return;
    this.stopping = true;
    native.sdNotify("STOPPING=1");
    if (this.state.role === "standby" || this.state.role === "joining") await this.surrender();
    this.clearTimers();
    this.handshakes.stop();
    this.pulse.stop();
    this.control.stop();
    this.statusServer?.close();
    for (const announcer of this.announcers) announcer.close();
    this.applications.close();
    await this.recorder.stop();
    this.witness.close();
    this.dataPlane.close();
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

  private async work(): Promise<void> {
    for (let event = this.queue.shift(); event; event = this.queue.shift()) {
      const { state, effects } = stepRole(this.settings, this.state, event);
      this.state = state;
      try {
        for (const effect of effects) await this.carryOut(effect);
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
        this.dataPlane.setGate(effect.mode, effect.epoch);
        this.gate = effect.mode;
        if (effect.mode === "fenced") for (const announcer of this.announcers) announcer.silence();
        return;
      case "voice":
        if (effect.until === "lease") this.dataPlane.setVoice(native.bootTimeNs() + this.leaseNs());
        else this.dataPlane.setVoice(effect.until === "alone" ? native.bootTimeNs() + this.controllerNs() : 0n);
        return;
      case "hold":
        this.pulse.hold(effect.on);
        return;
      case "grant":
        this.pulse.grant(effect.on);
        return;
      case "record":
        this.dataPlane.setRecording(false);
        await this.recorder.reset();
        if (effect.on) this.dataPlane.setRecording(true);
        return;
      case "say":
        this.pulse.say({
          role: roleNumbers[effect.role],
          epoch: effect.epoch,
          flags: effect.spoke ? abi.TD_PULSE_SPOKE : 0,
        });
        this.applications.setRole(effect.role);
        return;
      case "timer":
        this.roleTimer(effect.name);
        return;
      case "abandon":
        try {
          await abandonSockets(this.config);
        } catch (error) {
          this.log.warn(`Sockets of sessions that live elsewhere could not be ended: ${sentenceOf(error)}`);
        }
        return;
      case "announce":
        for (const announcer of this.announcers) announcer.announce();
        return;
      case "takeover":
        // The queue goes on: the old active's messages must be heard meanwhile.
        void this.runTakeover(effect.epoch, effect.stored).catch((error) => this.fail(error));
        return;
      case "journal":
        this.journal.write(this.state.epoch, effect.sentence);
        return;
    }
  }

  private async runTakeover(epoch: number, stored: Stored): Promise<void> {
    const report = await takeOver(
      {
        config: this.config,
        dataPlane: this.dataPlane,
        recorder: this.recorder,
        applications: this.applications.server,
        announcers: this.announcers,
        store: () => this.store.write(stored),
        awaitHandshake: (sessions) => this.handshakes.add(sessions),
      },
      "the active's lease ran out",
      epoch,
      this.lastAnsweredNs,
    );
    this.gate = "solo";
    this.lastTakeover = report;
    this.journal.write(
      epoch,
      `Took over ${report.sessions} sessions in ${report.totalMs.toFixed(1)} ms; ${report.lost.count} were not ready and are lost.`,
      { takeover: report },
    );
    this.dispatch({ type: "takenOver" });
  }

  private startPulse(): void {
    const { heartbeat, routers } = this.config.pair;
    const [own, partner] = this.config.router === "a" ? [routers.a, routers.b] : [routers.b, routers.a];
    const uplink = own.uplinks[0];
    const partnerUplink = partner.uplinks[0];
    if (!uplink || !partnerUplink) throw new Error("a router without uplinks passed the configuration check");
    const { port } = heartbeat;
    try {
      this.pulse = native.pulseStart(
        {
          paths: [
            { localIp: own.mirror.address, partnerIp: partner.mirror.address, port, device: own.mirror.device },
            { localIp: uplink.address, partnerIp: partnerUplink.address, port, device: uplink.device },
          ],
          key: this.keys.pulseKey,
          incarnation: randomBytes(8).readBigUInt64LE(),
          intervalNs: BigInt(Math.round(heartbeat.intervalMs * 1e6)),
          leaseNs: this.leaseNs(),
          petLimitNs: BigInt(Math.round(heartbeat.controllerMs * 1e6)),
          driftPpm: heartbeat.driftPpm,
          voiceMapFd: this.dataPlane.mapFd("voice"),
        },
        (event) => this.onPulse(event),
      );
    } catch (error) {
      throw new TandemError(
        "PULSE_BIND",
        `The heartbeat cannot use ${own.mirror.address} and ${uplink.address}, UDP port ${port}: ${sentenceOf(error)}.`,
        "The addresses must be on the named devices, and the port free (ss -ulpn). Set pair.heartbeat.port otherwise.",
      );
    }
  }

  private onPulse(event: PulseEvent): void {
    switch (event.type) {
      case "partner": {
        const role = roleNames.get(event.role);
        if (role === undefined) return;
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
        if (event.path === 0) this.dispatch({ type: "mirror", up: event.up });
        return;
      case "petMissed":
        this.log.warn("The controller was late; the heartbeat had to stop.");
        return;
    }
  }

  private async startControl(): Promise<void> {
    const { routers, controlPort } = this.config.pair;
    const [own, partner] = this.config.router === "a" ? [routers.a, routers.b] : [routers.b, routers.a];
    this.control = new ControlChannel({
      router: this.config.router,
      localIp: own.mirror.address,
      partnerIp: partner.mirror.address,
      port: controlPort,
      keys: this.keys,
    });
    const hello = (): Hello => ({
      type: "hello",
      version: controlVersion,
      abi: abi.TD_ABI_VERSION,
      router: this.config.router,
      agreement: agreementOf(this.config),
      recordMax: this.dataPlane.recordMax,
    });
    this.control.on("up", () => this.control.send(hello()));
    this.control.on("down", (reason) => {
      this.log.info(`The control channel is down: ${reason}.`);
      this.dispatch({ type: "agreed", agreed: false });
    });
    this.control.on("refused", (reason) => this.log.debug(`Control channel: ${reason}.`));
    this.control.on("message", (message) => this.onControl(message, hello()));
    try {
      await this.control.start();
    } catch (error) {
      throw new TandemError(
        "CONTROL_BIND",
        `The control channel cannot listen on ${own.mirror.address}, TCP port ${controlPort}: ${sentenceOf(error)}.`,
        "The address must be on the mirror device, and the port free (ss -tlpn). Set pair.controlPort otherwise.",
      );
    }
  }

  private onControl(message: ControlMessage, own: Hello): void {
    if (message.type === "ended") {
      for (const { key, verdicts, copiedSeq } of message.sockets)
        this.recorder.socketEnded(Buffer.from(key, "hex"), verdicts, copiedSeq);
      return;
    }
    const differences = (["version", "abi", "agreement", "recordMax"] as const).filter(
      (part) => message[part] !== own[part],
    );
    if (message.router === own.router) differences.push("agreement");
    if (differences.length > 0) {
      this.journal.write(
        this.state.epoch,
        `The routers do not agree (${differences.join(", ")}): compare both configurations and mirror MTUs.`,
      );
    }
    this.dispatch({ type: "agreed", agreed: differences.length === 0 });
  }

  private reportEnded(): void {
    const ended = this.witness.takeEnded();
    if (ended.length === 0 || this.state.role !== "active") return;
    for (let at = 0; at < ended.length; at += 1000)
      this.control.send({
        type: "ended",
        sockets: ended
          .slice(at, at + 1000)
          .map(({ key, ...rest }) => ({ key: Buffer.from(key).toString("hex"), ...rest })),
      });
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
      agreed: this.state.agreed,
      paths: pulse.paths.map((each, index) => ({
        name: index === 0 ? "mirror" : "uplink",
        up: each.up,
        rttMs: Number(each.rttNs) / 1e6,
      })),
      sessions: {
        total: recorder.counts.sessions - recorder.counts.closed,
        ready: recorder.counts.ready,
        notReady: recorder.notReady,
      },
      recorder: {
        records: recorder.counters.records,
        backlog: recorder.ring.backlog,
        held: recorder.memory.used,
        badChecksums: recorder.counters.badChecksum,
        auditBreaches: recorder.counters.auditBreaches,
      },
      packets,
      lastTakeover: this.lastTakeover,
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
    else this.dataPlane.setVoice(now + this.controllerNs());
  }

  private delayOf(name: TimerName): number {
    const { deadMs, controllerMs } = this.config.pair.heartbeat;
    switch (name) {
      case "startAlone":
      case "partnerGone":
        // The data plane of a router whose agent died alone speaks until its controller would have been missed.
        return Math.max(this.config.pair.startAloneMs, controllerMs + 2 * deadMs);
      case "mirrorPatience":
        return mirrorPatienceLeases * deadMs;
      default:
        return 2 * deadMs;
    }
  }

  /** Set anew, a timer starts anew. Timers that end in speaking alone count only time in which this process listened,
   * and a link to speak on. */
  private roleTimer(name: TimerName): void {
    const due = native.bootTimeNs() + BigInt(Math.round(this.delayOf(name) * 1e6));
    clearTimeout(this.roleTimers.get(name));
    const timer = setTimeout(() => {
      const now = native.bootTimeNs();
      const speaks = name === "startAlone" || name === "partnerGone" || name === "confirmSilence";
      const untold =
        this.state.partner === null &&
        this.pulse.snapshot().paths.some((each) => each.lastHeardNs + this.leaseNs() > now);
      if (speaks && (now - due > this.leaseNs() || untold || !this.hasCarrier())) this.roleTimer(name);
      else this.dispatch({ type: "timer", name });
    }, this.delayOf(name));
    this.roleTimers.set(name, timer);
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
    for (const timer of [...this.timers, ...this.roleTimers.values()]) clearTimeout(timer);
    this.timers.clear();
  }
}

/** What both configurations must have in common, as a digest. */
function agreementOf(config: Config): string {
  const { preferred, routers, heartbeat, onSilence } = config.pair;
  return createHash("sha256")
    .update(JSON.stringify([preferred, routers, heartbeat, onSilence, config.services]))
    .digest("hex");
}
