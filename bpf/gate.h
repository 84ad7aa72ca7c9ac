/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The gate: what this router may do for the service right now (architecture, section 3). */
#ifndef TANDEM_GATE_H
#define TANDEM_GATE_H

/* Sizes, not types: clang leaves the BTF of a type that is only met behind an inner map incomplete. */
struct td_gate_inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct td_gate));
};

/* Empty at load: no gate is a closed gate. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct td_gate_inner);
} gate SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct td_voice);
} voice SEC(".maps");

/* NULL: no gate yet, which means FENCED. */
static __always_inline struct td_gate *td_gate_now(void)
{
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&gate, &zero);

	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

/* Is the voice held at `now` (boot clock, ns)? */
static __always_inline bool td_voice_held(__u64 now)
{
	__u32 zero = 0;
	struct td_voice *held = bpf_map_lookup_elem(&voice, &zero);

	return held && now <= *(volatile __u64 *)&held->until_ns;
}

/* May the service speak? The mode to act on, TD_MODE_FENCED with `why` (a td_reason) when not. */
static __always_inline __u32 td_gate_mode(const struct td_gate *state, __u64 now, __u32 fenced, __u32 *why)
{
	*why = fenced;
	if (!state || (state->mode != TD_MODE_REFLECT && state->mode != TD_MODE_SOLO))
		return TD_MODE_FENCED;
	*why = TD_DROP_NO_VOICE;
	if (!td_voice_held(now))
		return TD_MODE_FENCED;
	return state->mode;
}

#endif
