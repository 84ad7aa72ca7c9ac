/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Two readings of the boot clock: an exact one, which may cost more than the rest of a program (60 ns on a virtual
 * machine whose TSC reads are slow), and one that is exact once a tick. */
#ifndef TANDEM_CLOCK_H
#define TANDEM_CLOCK_H

struct td_tick {
	__u64 jiffies;
	__u64 boot_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct td_tick);
} ticks SEC(".maps");

/* Up to a tick behind (4 ms at HZ 250), and for the rest of a tick right after the host was frozen and thawed by as
 * much as it slept: never for what decides whether we may speak. */
static __always_inline __u64 td_boot_ns_coarse(void)
{
	__u32 zero = 0;
	struct td_tick *tick = bpf_map_lookup_elem(&ticks, &zero);
	__u64 jiffies = bpf_jiffies64();

	if (!tick)
		return bpf_ktime_get_boot_ns();
	if (tick->jiffies != jiffies) {
		tick->boot_ns = bpf_ktime_get_boot_ns();
		tick->jiffies = jiffies;
	}
	return tick->boot_ns;
}

#endif
