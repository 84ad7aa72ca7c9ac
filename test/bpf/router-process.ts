// One router of path.test.ts, in its network namespace: loads and attaches the programs, drains the ring when it
// stands by, answers commands. Argument: RouterSetting as JSON. Standard input: one command a line; each is answered
// by one line of JSON. Everything it attached goes with its namespace.

import path from "node:path";
import { createInterface } from "node:readline";
import { native } from "../../addon/native.js";
import * as abi from "../../src/abi.gen.js";
import { Witness } from "../../src/agent/witness.js";
import { addressPlan } from "../../src/lab/lab.js";
import { BorrowedSockets } from "../../src/net/borrowed-sockets.js";
import { objectDirectory } from "../../src/net/dataplane.js";
import { SocketOwners } from "../../src/net/socket-owners.js";
import { readKey } from "../../src/session/flow-key.js";
import { flowKey, forever, type Mode, Rig, u32 } from "./rig.js";

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
  crashed: boolean;
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
  rig.service(address, kind, port, id, abi.TD_SERVICE_DELIVERED);
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
  const ring = native.ringOpen(rig.map("records"), { records: true });
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
const witness = new Witness(rig.map("events"), rig.map("readings"));
const owners = new SocketOwners(
  native.bpfLoad(path.join(objectDirectory(), "snapshot.bpf.o"), {
    reuse: { addresses: rig.map("addresses"), services: rig.map("services") },
  }).programs.owners?.fd ?? -1,
);
/** What the witness has told since the last call. */
function witnessed(): EventSeen[] {
  const { ended, crashed } = witness.take();
  return [
    ...ended.map(({ key }) => ({ crashed: false, peerPort: readKey(key).peerPort })),
    ...crashed.map(({ key }) => ({ crashed: true, peerPort: readKey(key).peerPort })),
  ];
}
const borrowed = new BorrowedSockets(native, (note) => native.bpfMapUpdate(rig.map("borrowed"), u32(0), note));
/** Holds the socket of the one connection for so long, as the agent does while it looks into a receive queue. */
function borrow(milliseconds: number): boolean {
  for (const owner of owners.find().values()) {
    const fd = native.pidfdGetfd(owner.pid, owner.fd);
    const { cookie } = native.socketFacts(fd);
    native.closeFd(fd);
    borrowed.with(owner, cookie, () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds));
    return true;
  }
  return false;
}

const programs = ["xdp_uplink", "tc_uplink_in", "tc_uplink_in_reflect", "tc_uplink_out", "xdp_mirror", "tc_mirror_in"];
const commands: Record<string, (argument: string) => unknown> = {
  counters: () => rig.counters(),
  seen: () => seen,
  verdict: (peerPort) => rig.verdictOf(flowKey(serviceAddress, servicePort, peerAddress, Number(peerPort))),
  events: () => witnessed(),
  read: () => witness.takeRead().map(({ key, copiedSeq }) => ({ peerPort: readKey(key).peerPort, copiedSeq })),
  borrow: (milliseconds) => borrow(Number(milliseconds)),
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
