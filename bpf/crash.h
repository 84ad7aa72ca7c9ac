/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Verdicts on how sockets of a service ended: the witness writes them, egress looks them up. */
#ifndef TANDEM_CRASH_H
#define TANDEM_CRASH_H

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct td_flow_key);
	__type(value, struct td_verdict_entry);
} crash SEC(".maps");

#define TD_VERDICTS_CRASH (TD_VERDICT_FIN_CRASH | TD_VERDICT_RST_CRASH)

#endif
