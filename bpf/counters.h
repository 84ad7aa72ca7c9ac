/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Why each frame passed or was dropped: per-CPU counters, one per td_reason. */
#ifndef TANDEM_COUNTERS_H
#define TANDEM_COUNTERS_H

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TD_REASON_MAX);
	__type(key, __u32);
	__type(value, struct td_counter);
} counters SEC(".maps");

/* Counts one frame (a GSO buffer is one) of `bytes` bytes. */
static __always_inline void td_count(__u32 reason, __u32 bytes)
{
	struct td_counter *counter = bpf_map_lookup_elem(&counters, &reason);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
}

/* Counts, and gives the verdict back, so that a decision is one line. */
static __always_inline int td_verdict(__u32 reason, __u32 bytes, int verdict)
{
	td_count(reason, bytes);
	return verdict;
}

#endif
