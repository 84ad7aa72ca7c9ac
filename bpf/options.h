/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Looking for one option among those of a TCP header (RFC 9293, section 3.1), bounded: a step an option. */
#ifndef TANDEM_OPTIONS_H
#define TANDEM_OPTIONS_H

#define TD_OPTION_SACK 5 /* RFC 2018, section 3 */
#define TD_OPTION_TIMESTAMPS 8 /* RFC 7323, section 3.2 */
#define TD_OPTIONS_MAX 40

/* Set `options`, `length` (bytes that are options) and `kind`; `size` is the option's whole length, 0: any. After the walk
 * `found` is its length at `offset`, or 0. */
struct td_walk {
	__u8 options[TD_OPTIONS_MAX];
	__u32 offset;
	__u32 length;
	__u32 kind;
	__u32 size;
	__u32 found;
};

/* For bpf_loop; 1 ends the walk. */
static long td_walk_option(__u32 step, struct td_walk *walk)
{
	__u32 offset = walk->offset;
	__u8 kind, size;

	(void)step;
	if (offset + 2 > walk->length || offset > TD_OPTIONS_MAX - 2)
		return 1;
	kind = walk->options[offset];
	size = walk->options[offset + 1];
	if (kind == 1) {
		walk->offset = offset + 1;
		return 0;
	}
	if (kind == 0 || size < 2)
		return 1;
	if (kind == walk->kind && (size == walk->size || !walk->size) && offset + size <= walk->length) {
		walk->found = size;
		return 1;
	}
	walk->offset = offset + size;
	return 0;
}

/* Four bytes in network order at `at` of the options; 0 where they do not fit. */
static __always_inline __u32 td_option_word(const struct td_walk *walk, __u32 at)
{
	if (at > TD_OPTIONS_MAX - 4)
		return 0;
	barrier_var(at);
	return (__u32)walk->options[at] << 24 | walk->options[at + 1] << 16 | walk->options[at + 2] << 8 |
	       walk->options[at + 3];
}

#endif
