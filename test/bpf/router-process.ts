// One router of path.test.ts, in its network namespace: loads and attaches the programs, drains the ring when it
// stands by, answers commands. Argument: RouterSetting as JSON. Standard input: one command a line; each is answered
// by one line of JSON. Everything it attached goes with its namespace.

import { createInterface } from "node:readline";
import { native } from "../../addon/native.js";
import * as abi from "../../src/abi.gen.js";
import { addressPlan } from "../../src/lab/lab.js";
import { flowKey, forever, type Mode, Rig } from "./rig.js";

export interface RouterSetting {
  role: "active" | "standby";
  uplink: string;
  mirror: string;
  services: { address: string; port: number; kind: "passive" | "active" }[];
  localIp: string;
  partnerIp: string;
  localMac: string;
  partnerMac: string;
  ringBytes: number;
  /** The driver of the uplink is taken to have no native XDP. */
  uplinkAtTc: boolean;
  /** Have the kernel measure the programs. */
  statistics: boolean;
}

export interface EventSeen {
  kind: number;
  verdicts: number;
  copiedSeq: number;
  exitCode: number;
  peerPort: number;
}

const setting = JSON.parse(process.argv[2] ?? "") as RouterSetting;
const ifindexOf = (name: string): number => {
  const found = native.links().find((link) => link.name === name);
  if (!found) throw new Error(`no device ${name}`);
  return found.ifindex;
};
const uplink = ifindexOf(setting.uplink);
const mirror = ifindexOf(setting.mirror);

const rig = new Rig({ ringBytes: setting.ringBytes });
rig.link({ ...setting, cookie: 0x77n, ifindex: mirror, recordMax: 1600 });
rig.uplinkDevice(uplink, 0);
setting.services.forEach(({ address, kind, port }, id) => {
  rig.service(address, kind, port, id);
});
rig.voice(setting.role === "active" ? forever : 0n);
rig.gate(setting.role === "active" ? "reflect" : "fenced");
rig.recording(setting.role === "standby");

for (const name of ["witness_state", "witness_read"]) native.bpfTracingAttach(rig.program(name));
native.bpfTcAttach(uplink, "ingress", rig.program(setting.uplinkAtTc ? "tc_uplink_in_reflect" : "tc_uplink_in"), 1, 1);
native.bpfTcAttach(uplink, "egress", rig.program("tc_uplink_out"), 1, 1);
native.bpfTcAttach(mirror, "ingress", rig.program("tc_mirror_in"), 1, 1);
native.bpfXdpAttach(mirror, rig.program("xdp_mirror"), "native");
if (!setting.uplinkAtTc) native.bpfXdpAttach(uplink, rig.program("xdp_uplink"), "native");

const seen = { records: 0, correct: 0, stamped: 0, outward: 0, payloadIn: 0, payloadOut: 0, tagged: 0 };
if (setting.role === "standby") {
  const ring = native.ringOpen(rig.map("records"), { checksums: true });
  const batch = Buffer.alloc(setting.ringBytes);
  const at = abi.offsets.td_record;
  setInterval(() => {
    const { bytes, records } = ring.drain(batch);
    seen.records += records;
    for (let start = 0; start < bytes; ) {
      const length = batch.readUInt32LE(start);
      const record = start + 8;
      const flags = batch[record + at.flags]!;
      const payload = batch.readUInt16LE(record + at.payload_length);
      if (flags & abi.TD_RECORD_CHECKSUM_OK) seen.correct++;
      if (flags & abi.TD_RECORD_STAMP) seen.stamped++;
      if (batch.readUInt16LE(record + at.l3_offset) > 14) seen.tagged++;
      if (flags & abi.TD_RECORD_OUT) {
        seen.outward++;
        seen.payloadOut += payload;
      } else seen.payloadIn += payload;
      start = record + ((length + 7) & ~7);
    }
  }, 1);
}
// Taking the time costs as much as a program: only where it is asked for.
const statistics = setting.statistics ? native.bpfStatisticsEnable() : -1;

const { address: serviceAddress, port: servicePort } = setting.services[0]!;
const peerAddress = addressPlan.peer.v4;
const events = native.ringOpen(rig.map("events"), { checksums: false });
/** What the witness has told since the last call. */
function drainEvents(): EventSeen[] {
  const batch = Buffer.alloc(1 << 20);
  const at = abi.offsets.td_event;
  const { bytes } = events.drain(batch);
  const found: EventSeen[] = [];
  for (let start = 0; start < bytes; start += 8 + ((batch.readUInt32LE(start) + 7) & ~7)) {
    const event = batch.subarray(start + 8);
    found.push({
      kind: event.readUInt32LE(at.kind),
      verdicts: event.readUInt32LE(at.verdicts),
      copiedSeq: event.readUInt32LE(at.copied_seq),
      exitCode: event.readUInt32LE(at.exit_code),
      peerPort: event.readUInt16BE(at.key + abi.offsets.td_flow_key.peer_port),
    });
  }
  return found;
}

const programs = ["xdp_uplink", "tc_uplink_in", "tc_uplink_in_reflect", "tc_uplink_out", "xdp_mirror", "tc_mirror_in"];
const commands: Record<string, (argument: string) => unknown> = {
  counters: () => rig.counters(),
  seen: () => seen,
  verdict: (peerPort) => rig.verdictOf(flowKey(serviceAddress, servicePort, peerAddress, Number(peerPort))),
  events: () => drainEvents(),
  gate: (mode) => rig.gate(mode as Mode),
  voice: (ns) => rig.voice(BigInt(ns)),
  statistics: () =>
    Object.fromEntries(
      programs.map((name) => {
        const { runCount, runTimeNs } = native.bpfProgramStatistics(rig.program(name));
        return [name, { runs: Number(runCount), ns: runCount > 0n ? Number(runTimeNs / runCount) : 0 }];
      }),
    ),
};
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [name = "", argument = ""] = line.split(" ");
    console.log(JSON.stringify(commands[name]?.(argument) ?? null));
  })
  .on("close", () => {
    if (statistics >= 0) native.closeFd(statistics);
    process.exit(0);
  });
console.log(JSON.stringify("ready"));
