// bpf.cc and ring.cc on the real kernel: load, constants, maps, map-in-map, test runs, attachments, refusals, batches.

import assert from "node:assert/strict";
import { existsSync, unlinkSync } from "node:fs";
import test from "node:test";
import { Worker } from "node:worker_threads";
import { type NativeError, native } from "../../addon/native.js";
import { compileBpf, needsRoot, run, u32, u64 } from "./fixture.js";

const source = `
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 1); __type(key, __u32);
         __array(values, struct inner); } gate SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); } counters SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } records SEC(".maps");
struct td_shape { __u64 first; __u16 second; __u16 third; };
enum td_choice { TD_FIRST = 3, TD_SECOND = 7 };
struct td_shape shape;
enum td_choice choice = TD_SECOND;
const volatile __u32 answer = 1;
const volatile __u64 other = 2;

SEC("xdp") int give(struct xdp_md *context) {
  __u32 zero = 0;
  void *inner = bpf_map_lookup_elem(&gate, &zero);
  if (!inner) return XDP_ABORTED;
  __u64 *value = bpf_map_lookup_elem(inner, &zero);
  if (!value) return XDP_ABORTED;
  __u64 *counter = bpf_map_lookup_elem(&counters, &zero);
  if (counter) *counter += *value;
  return answer;
}
SEC("xdp") int record(struct xdp_md *context) {
  void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
  if (data + 64 > end) return XDP_ABORTED;
  char *sample = bpf_ringbuf_reserve(&records, 61, 0);
  if (!sample) return XDP_DROP;
  __builtin_memcpy(sample, data, 61);
  if (*(char *)data == 'x') bpf_ringbuf_discard(sample, BPF_RB_NO_WAKEUP);
  else bpf_ringbuf_submit(sample, BPF_RB_NO_WAKEUP);
  return XDP_PASS;
}
SEC("tc") int pass(struct __sk_buff *skb) { return TC_ACT_OK; }
SEC("tp_btf/inet_sock_set_state") int watch(void *context) { return 0; }
`;

const object = needsRoot ? "" : compileBpf("good", source);

test("constants, map-in-map, per-CPU counters and a test run work together", { skip: needsRoot }, () => {
  const loaded = native.bpfLoad(object, { rodata: { answer: u32(2) }, maxEntries: { table: 100 }, skip: ["pass"] });
  try {
    assert.deepEqual(Object.keys(loaded.programs).sort(), ["give", "record", "watch"]);
    assert.equal(loaded.programs.give?.section, "xdp");
    assert.equal(loaded.maps.table?.maxEntries, 100);
    const { gate, counters } = loaded.maps;
    const give = loaded.programs.give;
    assert.ok(gate && counters && give);
    const frame = new Uint8Array(64);
    assert.equal(native.bpfTestRun(give.fd, { data: frame }).retval, 0, "no inner map yet: XDP_ABORTED");
    const inner = native.bpfMapCreate({ type: 2, name: "inner", keySize: 4, valueSize: 8, maxEntries: 1 });
    native.bpfMapUpdate(inner, u32(0), u64(5n));
    native.bpfMapUpdate(gate.fd, u32(0), u32(inner));
    native.closeFd(inner);
    const result = native.bpfTestRun(give.fd, { data: frame, repeat: 3 });
    assert.equal(result.retval, 2);
    assert.equal(result.data.length, 64);
    const perCpu = native.bpfMapLookup(counters.fd, u32(0), 8 * native.bpfPossibleCpus());
    assert.ok(perCpu);
    const values = new BigUint64Array(perCpu.buffer);
    assert.equal(
      values.reduce((sum, value) => sum + value, 0n),
      15n,
    );
  } finally {
    loaded.close();
    loaded.close();
  }
});

test("map entries: update, lookup, keys, delete; wrong sizes are refused, not overrun", { skip: needsRoot }, () => {
  const fd = native.bpfMapCreate({ type: 1, name: "entries", keySize: 4, valueSize: 8, maxEntries: 4 });
  try {
    assert.equal(native.bpfMapLookup(fd, u32(1), 8), null);
    native.bpfMapUpdate(fd, u32(1), u64(11n));
    native.bpfMapUpdate(fd, u32(2), u64(22n), 1);
    assert.throws(() => native.bpfMapUpdate(fd, u32(2), u64(23n), 1), { code: "EEXIST" });
    assert.deepEqual(native.bpfMapLookup(fd, u32(2), 8), u64(22n));
    assert.deepEqual(
      native
        .bpfMapKeys(fd, 4)
        .map((key) => key[0])
        .sort(),
      [1, 2],
    );
    assert.equal(native.bpfMapDelete(fd, u32(1)), true);
    assert.equal(native.bpfMapDelete(fd, u32(1)), false);
    assert.throws(() => native.bpfMapLookup(fd, u32(2), 4), { code: "EINVAL" });
    assert.throws(() => native.bpfMapUpdate(fd, u32(2), u32(2)), { code: "EINVAL" });
    assert.throws(() => native.bpfMapLookup(fd, u64(2n), 8), { code: "EINVAL" });
  } finally {
    native.closeFd(fd);
  }
});

test("a map is shared between objects, and one of another shape is refused", { skip: needsRoot }, () => {
  const first = native.bpfLoad(object, {});
  try {
    const { table, counters } = first.maps;
    assert.ok(table && counters);
    const second = native.bpfLoad(object, { reuse: { table: table.fd } });
    native.bpfMapUpdate(table.fd, u32(9), u64(99n));
    assert.deepEqual(native.bpfMapLookup(second.maps.table?.fd ?? -1, u32(9), 8), u64(99n));
    second.close();
    assert.throws(() => native.bpfLoad(object, { reuse: { table: counters.fd } }), { code: "EINVAL" });
  } finally {
    first.close();
  }
});

test("a refusal of the verifier is summarised by its last telling lines", { skip: needsRoot }, () => {
  const bad = compileBpf(
    "bad",
    `SEC("xdp") int outside(struct xdp_md *context) {
  char *data = (char *)(long)context->data;
  return data[20];
}`,
  );
  assert.throws(
    () => native.bpfLoad(bad, {}),
    (error: NativeError) => {
      assert.equal(error.code, "BPF_LOAD");
      assert.match(error.summary ?? "", /outside/);
      assert.match(error.summary ?? "", /invalid access to packet/);
      assert.match(error.summary ?? "", /return data\[20\]/);
      assert.ok((error.summary ?? "").split("\n").length <= 8);
      assert.ok((error.log ?? "").length > (error.summary ?? "").length);
      return true;
    },
  );
  assert.throws(() => native.bpfLoad("/nonexistent.o", {}), { code: "BPF_OPEN" });
  assert.throws(() => native.bpfLoad(object, { rodata: { nothing: u32(1) } }), { code: "ENOENT" });
  assert.throws(() => native.bpfLoad(object, { rodata: { other: u32(1) } }), { code: "EINVAL" });
});

test("layouts come from the object's BTF", { skip: needsRoot }, () => {
  const { structs, enums } = native.bpfBtf(object);
  assert.deepEqual(structs.td_shape, {
    size: 16,
    members: [
      { name: "first", offset: 0, size: 8 },
      { name: "second", offset: 8, size: 2 },
      { name: "third", offset: 10, size: 2 },
    ],
  });
  assert.deepEqual(enums.td_choice, { TD_FIRST: 3, TD_SECOND: 7 });
});

test("XDP, TC and tracing programs attach, are seen, and leave", { skip: needsRoot }, () => {
  const device = `tda${process.pid}`.slice(0, 14);
  run("ip", "link", "add", device, "type", "veth", "peer", "name", `${device}p`);
  const loaded = native.bpfLoad(object, {});
  try {
    const { give, record, pass, watch } = loaded.programs;
    assert.ok(give && record && pass && watch);
    const ifindex = native.links().find((link) => link.name === device)?.ifindex ?? 0;
    assert.deepEqual(native.bpfXdpQuery(ifindex), { programId: 0, mode: "none" });
    const link = native.bpfXdpAttach(ifindex, give.fd, "native");
    assert.deepEqual(native.bpfXdpQuery(ifindex), { programId: native.bpfProgramIdByFd(give.fd), mode: "native" });
    assert.throws(() => native.bpfXdpAttach(ifindex, record.fd, "native"), { code: "EBUSY" });
    native.bpfLinkUpdate(link, record.fd);
    assert.equal(native.bpfXdpQuery(ifindex).programId, native.bpfProgramIdByFd(record.fd));
    native.bpfLinkDetach(link);
    assert.equal(native.bpfXdpQuery(ifindex).mode, "none");
    native.closeFd(link);

    assert.equal(native.bpfTcDetach(ifindex, "egress", 1, 1), false);
    native.bpfTcAttach(ifindex, "egress", pass.fd, 1, 1);
    native.bpfTcAttach(ifindex, "egress", pass.fd, 1, 1);
    native.bpfTcAttach(ifindex, "ingress", pass.fd, 1, 1);
    assert.match(run("tc", "filter", "show", "dev", device, "egress"), /direct-action/);
    assert.equal(native.bpfTcDetach(ifindex, "egress", 1, 1), true);
    assert.equal(native.bpfTcDetach(ifindex, "egress", 1, 1), false);

    native.closeFd(native.bpfTracingAttach(watch.fd));
  } finally {
    loaded.close();
    run("ip", "link", "delete", device);
  }
});

test("a map is pinned and found again", { skip: needsRoot || (existsSync("/sys/fs/bpf") ? false : "no bpffs") }, () => {
  const fd = native.bpfMapCreate({ type: 2, name: "pinned", keySize: 4, valueSize: 8, maxEntries: 1 });
  const where = `/sys/fs/bpf/tandem-test-${process.pid}`;
  try {
    native.bpfPin(fd, where);
    native.bpfMapUpdate(fd, u32(0), u64(77n));
    const again = native.bpfGetPinned(where);
    assert.deepEqual(native.bpfMapLookup(again, u32(0), 8), u64(77n));
    native.closeFd(again);
  } finally {
    unlinkSync(where);
    native.closeFd(fd);
  }
  assert.throws(() => native.bpfGetPinned(where), { code: "ENOENT" });
});

test("run-time statistics count while enabled", { skip: needsRoot }, () => {
  const loaded = native.bpfLoad(object, {});
  const statistics = native.bpfStatisticsEnable();
  try {
    const give = loaded.programs.give;
    assert.ok(give);
    native.bpfTestRun(give.fd, { data: new Uint8Array(64), repeat: 10 });
    const { id, name, runCount } = native.bpfProgramStatistics(give.fd);
    assert.equal(name, "give");
    assert.equal(id, native.bpfProgramIdByFd(give.fd));
    assert.ok(runCount >= 10n);
  } finally {
    native.closeFd(statistics);
    loaded.close();
  }
});

/** The samples of a drained batch. */
function samples(target: Uint8Array, bytes: number): Uint8Array[] {
  const found: Uint8Array[] = [];
  const view = new DataView(target.buffer, target.byteOffset);
  for (let at = 0; at < bytes; ) {
    const length = view.getUint32(at, true);
    found.push(target.slice(at + 8, at + 8 + length));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return found;
}

test("a ring is drained in batches, in order, without the discarded, and never loses what did not fit", {
  skip: needsRoot,
}, () => {
  const loaded = native.bpfLoad(object, {});
  const fd = loaded.maps.records?.fd ?? -1;
  const program = loaded.programs.record?.fd ?? -1;
  const ring = native.ringOpen(fd, { records: false });
  try {
    assert.equal(ring.size, 4096);
    const frame = new Uint8Array(64);
    const put = (first: number): number => {
      frame.fill(0xaa);
      frame[0] = first;
      return native.bpfTestRun(program, { data: frame }).retval;
    };
    let next = 0;
    let expected = 0;
    const target = new Uint8Array(80 * 5);
    for (let round = 0; round < 100; round++) {
      for (let count = 0; count < 7; count++) assert.equal(put(next++ % 100), 2);
      put("x".charCodeAt(0));
      while (ring.backlog() > 0) {
        const batch = ring.drain(target);
        const got = samples(target, batch.bytes);
        assert.equal(got.length, batch.records);
        for (const sample of got) {
          assert.equal(sample.length, 61);
          assert.equal(sample[0], expected++ % 100);
        }
        assert.equal(batch.backlog, ring.backlog());
      }
    }
    assert.equal(expected, next);
    put(1);
    assert.throws(() => ring.drain(new Uint8Array(64)), { code: "EMSGSIZE" });
    assert.equal(ring.drain(target).records, 1);
    // Fill it: the program is refused room, and the rest is drained whole.
    let taken = 0;
    while (put(taken) === 2) taken++;
    assert.ok(taken > 40);
    let drained = 0;
    for (;;) {
      const batch = ring.drain(target);
      if (batch.records === 0) break;
      drained += batch.records;
    }
    assert.equal(drained, taken);
  } finally {
    ring.close();
    loaded.close();
  }
  assert.throws(() => ring.backlog(), { code: "EBADF" });
  const array = native.bpfMapCreate({ type: 2, name: "array", keySize: 4, valueSize: 8, maxEntries: 1 });
  assert.throws(() => native.ringOpen(array, { records: false }), { code: "EINVAL" });
  native.closeFd(array);
});

test("the addon loads in worker threads, several at once", async () => {
  const code = `
    const { parentPort, workerData } = require("node:worker_threads");
    import(workerData).then(({ native }) => parentPort.postMessage(native.bpfPossibleCpus()));`;
  const url = new URL("../../addon/native.js", import.meta.url).href;
  const workers = [1, 2, 3].map(() => new Worker(code, { eval: true, workerData: url }));
  const answers = await Promise.all(
    workers.map(
      (worker) => new Promise<unknown>((resolve, reject) => worker.once("message", resolve).once("error", reject)),
    ),
  );
  for (const answer of answers) assert.equal(answer, native.bpfPossibleCpus());
  await Promise.all(workers.map((worker) => worker.terminate()));
});
