/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Lab only: loses, duplicates, reorders and corrupts frames that leave by a device (TC egress, clsact).
 *
 * Reordering needs something that holds a frame back, which BPF cannot. HTB can: chosen frames get skb->priority of
 * a class with a low rate and so are overtaken by what comes after them. The lab sets that up (src/lab/impair.ts).
 * XDP-redirected frames pass no qdisc: attach where the link's frames are skbs (a bridge port in the middle).
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "parse.h"
#include "impair.h"

#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
/* The copy's own mark: it is not impaired again. */
#define TD_MARK_COPY 0x7a11d0c0

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct td_impairment);
} impairments SEC(".maps");

char _license[] SEC("license") = "GPL";

/* xorshift64* (Vigna). Two CPUs at once may draw alike; the sequence of one CPU repeats with its seed. */
static __always_inline __u32 draw(struct td_impairment *impairment)
{
	__u64 state = impairment->seed;

	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	impairment->seed = state;
	return (state * 2685821657736338717ull) >> 32;
}

static __always_inline bool happens(struct td_impairment *impairment, __u32 ppm)
{
	return ppm && draw(impairment) % 1000000 < ppm;
}

static __always_inline bool is_tcp(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct td_packet packet = {};
	struct udphdr *udp;

	if (td_parse_addresses(data, end, &packet) != TD_PARSED_IP)
		return false;
	switch (td_parse_segment(data, end, skb->len, &packet)) {
	case TD_PARSED_SEGMENT:
	case TD_PARSED_FRAGMENT:
		return true;
	}
	udp = data + TD_ETH_HLEN + sizeof(struct iphdr);
	return packet.family == 4 && (void *)(udp + 1) <= end && udp->dest == bpf_htons(TD_GENEVE_PORT);
}

SEC("tc")
int tc_impair(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct td_impairment *impairment = bpf_map_lookup_elem(&impairments, &ifindex);
	__u32 offset, length = skb->len;
	__u8 byte;

	if (!impairment || skb->mark == TD_MARK_COPY)
		return TC_ACT_OK;
	if (impairment->match & TD_IMPAIR_PAYLOAD && length <= 200)
		return TC_ACT_OK;
	if (impairment->match & TD_IMPAIR_TCP && !is_tcp(skb))
		return TC_ACT_OK;
	__sync_fetch_and_add(&impairment->seen, 1);
	if (happens(impairment, impairment->loss_ppm)) {
		__sync_fetch_and_add(&impairment->lost, 1);
		return TC_ACT_SHOT;
	}
	if (happens(impairment, impairment->corrupt_ppm) && length > TD_ETH_HLEN) {
		/* Anywhere behind the Ethernet header; no checksum is mended. */
		offset = TD_ETH_HLEN + draw(impairment) % (length - TD_ETH_HLEN);
		if (!bpf_skb_load_bytes(skb, offset, &byte, 1)) {
			/* GRO at the port it came in by has verified it; the receiver is to look for itself. */
			bpf_csum_level(skb, BPF_CSUM_LEVEL_RESET);
			byte ^= 1 << (draw(impairment) & 7);
			if (!bpf_skb_store_bytes(skb, offset, &byte, 1, 0))
				__sync_fetch_and_add(&impairment->corrupted, 1);
		}
	}
	if (happens(impairment, impairment->duplicate_ppm)) {
		__u32 mark = skb->mark;

		skb->mark = TD_MARK_COPY;
		if (!bpf_clone_redirect(skb, ifindex, 0))
			__sync_fetch_and_add(&impairment->duplicated, 1);
		skb->mark = mark;
	}
	if (happens(impairment, impairment->reorder_ppm)) {
		skb->priority = impairment->slow_priority;
		__sync_fetch_and_add(&impairment->reordered, 1);
	}
	return TC_ACT_OK;
}
