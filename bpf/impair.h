/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the lab's impairment program does on one device. Rates are parts per million of the frames that match. */
#ifndef TANDEM_IMPAIR_H
#define TANDEM_IMPAIR_H

enum td_impair_match {
	TD_IMPAIR_TCP = 1, /* only TCP, also inside our Geneve */
	TD_IMPAIR_PAYLOAD = 2, /* only frames of more than 200 bytes */
};

/* Map "impairments": hash, key __u32 ifindex. */
struct td_impairment {
	__u32 loss_ppm;
	__u32 duplicate_ppm;
	__u32 reorder_ppm; /* of these the device's qdisc must have a slow class, see impair.bpf.c */
	__u32 corrupt_ppm;
	__u32 match; /* enum td_impair_match, and-ed */
	__u32 slow_priority; /* handle of the slow class, such as 0x10002 for 1:2 */
	__u64 seed; /* the generator's state; 0 is not random */
	/* What was done, frames. */
	__u64 seen;
	__u64 lost;
	__u64 duplicated;
	__u64 reordered;
	__u64 corrupted;
};

_Static_assert(sizeof(struct td_impairment) == 72, "td_impairment must be 72 bytes");

#endif
