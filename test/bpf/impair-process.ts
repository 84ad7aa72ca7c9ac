// Attaches the impairment program in the network namespace it runs in, for impair.test.ts. Arguments: device, then the
// first six words of struct td_impairment. Prints "ready"; at the end of standard input the counts of what it did.

import path from "node:path";
import { native } from "../../addon/native.js";
import { projectRoot, u32 } from "./rig.js";

const [device = "", ...words] = process.argv.slice(2);
const ifindex = native.links().find((link) => link.name === device)!.ifindex;
const object = native.bpfLoad(path.join(projectRoot, "build/bpf/impair.bpf.o"), {});
const impairments = object.maps.impairments!.fd;
const value = Buffer.alloc(72);
words.forEach((word, index) => {
  value.writeUInt32LE(Number(word), index * 4);
});
value.writeBigUInt64LE(0x9e37_79b9_7f4a_7c15n, 24);
native.bpfMapUpdate(impairments, u32(ifindex), value);
native.bpfTcAttach(ifindex, "egress", object.programs.tc_impair!.fd, 1, 1);
console.log("ready");
process.stdin.resume().on("end", () => {
  const state = Buffer.from(native.bpfMapLookup(impairments, u32(ifindex), value.length)!);
  const count = (index: number): number => Number(state.readBigUInt64LE(32 + index * 8));
  const did = { seen: count(0), lost: count(1), duplicated: count(2), reordered: count(3), corrupted: count(4) };
  console.log(JSON.stringify(did));
});
