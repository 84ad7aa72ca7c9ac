/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The virtual MAC, the same on both routers: what the service says leaves with it, so that its neighbours keep their entry
 * whoever has the voice, and only switches learn where it lives now. Set at load; without it none of this is left. */
#ifndef TANDEM_VIRTUAL_MAC_H
#define TANDEM_VIRTUAL_MAC_H

/* skb->pkt_type (linux/if_packet.h). */
#define PACKET_HOST 0
#define PACKET_OTHERHOST 3

/* As in an Ethernet header; all zero: none. */
const volatile __u8 virtual_mac[6] = {};

static __always_inline bool td_has_virtual_mac(void)
{
	return virtual_mac[0] | virtual_mac[1] | virtual_mac[2] | virtual_mac[3] | virtual_mac[4] | virtual_mac[5];
}

static __always_inline void td_virtual_mac(__u8 *mac)
{
#pragma unroll
	for (int i = 0; i < 6; i++)
		mac[i] = virtual_mac[i];
}

/* The link-layer address that a solicitation or advertisement carries as its first option (RFC 4861, section 4.6.1);
 * another option, or none, stays as it is. */
static __always_inline bool td_rewrite_link_option(struct __sk_buff *skb, __u32 icmp, const __u8 *mac)
{
	__u32 at = icmp + sizeof(struct td_icmp6) + 2;
	__u32 check = icmp + __builtin_offsetof(struct td_icmp6, checksum);
	__u32 old_high, new_high;
	__u16 old_low, new_low;
	__u8 option[8];
	__u8 type;

	if (bpf_skb_load_bytes(skb, icmp, &type, 1))
		return false;
	if (type != TD_ND_SOLICITATION && type != TD_ND_ADVERTISEMENT)
		return true;
	if (bpf_skb_load_bytes(skb, at - 2, option, sizeof(option)) ||
	    option[0] != (type == TD_ND_SOLICITATION ? 1 : 2) || option[1] != 1)
		return true;
	__builtin_memcpy(&old_high, option + 2, 4);
	__builtin_memcpy(&old_low, option + 6, 2);
	__builtin_memcpy(&new_high, mac, 4);
	__builtin_memcpy(&new_low, mac + 4, 2);
	return !bpf_l4_csum_replace(skb, check, old_high, new_high, 4) &&
	       !bpf_l4_csum_replace(skb, check, old_low, new_low, 2) && !bpf_skb_store_bytes(skb, at, mac, 6, 0);
}

/* Outward: a frame that is the service's own word gets the virtual MAC, also where it says its MAC in ARP or neighbour
 * discovery. False: it could not be changed, and must not leave. */
static __always_inline bool td_speak_virtual(struct __sk_buff *skb, const struct td_packet *packet, bool neighbour)
{
	__u32 icmp = packet->l3 + sizeof(struct ipv6hdr);
	__u8 mac[6], next = 0;

	if (!td_has_virtual_mac())
		return true;
	td_virtual_mac(mac);
	/* This router's own question about a service address: its answer is for this router. */
	if (neighbour && packet->family == 4 && !td_is_service_address(packet->source, 4))
		return true;
	if (bpf_skb_store_bytes(skb, 6, mac, 6, 0))
		return false;
	if (packet->ethertype == bpf_htons(TD_ETH_P_ARP))
		return !bpf_skb_store_bytes(skb, packet->l3 + __builtin_offsetof(struct td_arp, rest), mac, 6, 0);
	if (packet->family != 6)
		return true;
	if (bpf_skb_load_bytes(skb, packet->l3 + __builtin_offsetof(struct ipv6hdr, nexthdr), &next, 1))
		return false;
	return next != TD_IP_ICMP6 || td_rewrite_link_option(skb, icmp, mac);
}

/* Inward, when this router has the voice: what was sent to the virtual MAC is for this host. */
static __always_inline void td_accept_virtual(struct __sk_buff *skb)
{
	__u8 mac[6], destination[6];
	__u32 why;

	if (!td_has_virtual_mac() || skb->pkt_type != PACKET_OTHERHOST)
		return;
	td_virtual_mac(mac);
	if (bpf_skb_load_bytes(skb, 0, destination, sizeof(destination)))
		return;
	for (int i = 0; i < 6; i++)
		if (destination[i] != mac[i])
			return;
	if (td_gate_mode(td_gate_now(), bpf_ktime_get_boot_ns(), 0, &why) != TD_MODE_FENCED)
		bpf_skb_change_type(skb, PACKET_HOST);
}

#endif
