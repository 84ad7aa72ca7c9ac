/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Who else says that a service address is his: noted on the way in, whatever becomes of the frame. */
#ifndef TANDEM_CLAIM_H
#define TANDEM_CLAIM_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct td_address);
	__type(value, struct td_claim);
} claims SEC(".maps");

/* After td_classify said TRANSIT or NEIGHBOUR. Probes (RFC 5227, section 1.1) and solicitations claim nothing. */
static __always_inline void td_note_claim(void *data, void *end, const struct td_packet *packet)
{
	struct ethhdr *ethernet = data;
	struct td_address key = {};
	struct td_claim *claim;

	if ((void *)(ethernet + 1) > end)
		return;
	if (packet->ethertype == bpf_htons(TD_ETH_P_ARP)) {
		__builtin_memcpy(key.ip, packet->source, 16);
	} else {
		struct td_icmp6 *icmp = data + packet->l3 + sizeof(struct ipv6hdr);

		if ((void *)(icmp + 1) > end || icmp->type != TD_ND_ADVERTISEMENT)
			return;
		__builtin_memcpy(key.ip, icmp->target, 16);
	}
	key.family = packet->family;
	claim = bpf_map_lookup_elem(&claims, &key);
	if (!claim)
		return;
	__builtin_memcpy(claim->mac, ethernet->h_source, sizeof(claim->mac));
	claim->heard_ns = bpf_ktime_get_boot_ns();
}

/* Such a frame is worth looking at. Most are not: one comparison. */
static __always_inline bool td_may_claim(int class, const struct td_packet *packet)
{
	return class == TD_CLASS_NEIGHBOUR ||
	       (class == TD_CLASS_TRANSIT && packet->ethertype == bpf_htons(TD_ETH_P_ARP));
}

#endif
