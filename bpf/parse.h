/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Bounded parsers for Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with extension headers, ARP, ND and TCP.
 *
 * Contract of every function here:
 * - reads only inside [data, end), the directly accessible bytes, and says TD_PARSED_SHORT when a header does not
 *   fit; `length` is the length of the whole frame in bytes (larger than end - data for a paged skb), against which
 *   the lengths claimed inside are checked;
 * - never guesses: what it does not know to walk is MALFORMED or FRAGMENT, and the callers drop that when it is for a
 *   service address (default deny);
 * - fills in struct td_packet only as far as its verdict says; offsets count from `data`, in bytes.
 */
#ifndef TANDEM_PARSE_H
#define TANDEM_PARSE_H

#define TD_ETH_P_IP 0x0800
#define TD_ETH_P_ARP 0x0806
#define TD_ETH_P_8021Q 0x8100
#define TD_ETH_P_8021AD 0x88a8
#define TD_ETH_P_IPV6 0x86dd
#define TD_ETH_HLEN 14
#define TD_VLAN_HLEN 4

/* More extension headers in front of TCP than this are MALFORMED. Linux itself sends at most three. */
#define TD_MAX_EXTENSIONS 6

/* IANA protocol numbers that the kernel has as macros, so that BTF lacks them. */
#define TD_IP_HOP_BY_HOP 0
#define TD_IP_ROUTING 43
#define TD_IP_FRAGMENT 44
#define TD_IP_AH 51
#define TD_IP_ICMP6 58
#define TD_IP_DESTINATION 60

#define TD_TCP_FIN 0x01
#define TD_TCP_SYN 0x02
#define TD_TCP_RST 0x04
#define TD_TCP_ACK 0x10

#define TD_ND_SOLICITATION 135 /* RFC 4861, section 4.3 */
#define TD_ND_ADVERTISEMENT 136

#define td_unlikely(condition) __builtin_expect(!!(condition), 0)

enum td_parsed {
	TD_PARSED_FOREIGN, /* neither IP nor ARP */
	TD_PARSED_ARP, /* source and destination are the sender's and the target protocol address */
	TD_PARSED_IP, /* family, source and destination are set; td_parse_segment goes on */
	TD_PARSED_SHORT, /* the accessible bytes end inside a header */
	TD_PARSED_OTHER, /* IP, but not TCP */
	TD_PARSED_SEGMENT, /* everything is set */
	TD_PARSED_FRAGMENT, /* of TCP, or of what may hide TCP */
	TD_PARSED_MALFORMED,
};

struct td_packet {
	__u32 source[4]; /* as in td_address.ip: an IPv4 address in the first word, the rest zero */
	__u32 destination[4];
	__u32 tags[TD_MAX_VLANS]; /* as in the frame, TPID and TCI, outermost first */
	__u32 l3; /* offsets are words, as the verifier loses the bounds of narrower ones */
	__u32 l4;
	__u32 payload;
	__u16 source_port; /* __be16 */
	__u16 destination_port; /* __be16 */
	__u16 payload_length;
	__u16 ethertype; /* __be16, below the tags */
	__u16 service; /* set by td_classify */
	__u8 vlans;
	__u8 family;
	__u8 tcp_flags;
};

struct td_vlan {
	__be16 tci;
	__be16 type;
};

struct td_arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 rest[20]; /* sender MAC 6, sender IP 4, target MAC 6, target IP 4 */
};

struct td_icmp6 {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__u32 reserved;
	__u32 target[4];
};

static __always_inline bool td_is_vlan(__be16 type)
{
	return type == bpf_htons(TD_ETH_P_8021Q) || type == bpf_htons(TD_ETH_P_8021AD);
}

/* Ethernet, tags and both addresses: all that transit traffic costs. A third tag is MALFORMED, as nothing could be
 * said about what is behind it. */
static __always_inline int td_parse_addresses(void *data, void *end, struct td_packet *packet)
{
	struct ethhdr *ethernet = data;
	__u32 offset = TD_ETH_HLEN;
	__be16 type;

	if ((void *)(ethernet + 1) > end)
		return TD_PARSED_SHORT;
	type = ethernet->h_proto;
	packet->vlans = 0;
	if (td_unlikely(td_is_vlan(type))) {
		struct td_vlan *tag = data + TD_ETH_HLEN;

		if ((void *)(tag + 1) > end)
			return TD_PARSED_SHORT;
		packet->tags[0] = *(__u32 *)(data + TD_ETH_HLEN - 2);
		packet->vlans = 1;
		type = tag->type;
		offset += TD_VLAN_HLEN;
		if (td_is_vlan(type)) {
			tag++;
			if ((void *)(tag + 1) > end)
				return TD_PARSED_SHORT;
			packet->tags[1] = *(__u32 *)(data + TD_ETH_HLEN + 2);
			packet->vlans = 2;
			type = tag->type;
			offset += TD_VLAN_HLEN;
			if (td_is_vlan(type))
				return TD_PARSED_MALFORMED;
		}
	}
	packet->ethertype = type;
	packet->l3 = offset;

	if (type == bpf_htons(TD_ETH_P_IP)) {
		struct iphdr *ip = data + offset;

		if ((void *)(ip + 1) > end)
			return TD_PARSED_SHORT;
		packet->family = 4;
		packet->source[0] = ip->saddr;
		packet->source[1] = packet->source[2] = packet->source[3] = 0;
		packet->destination[0] = ip->daddr;
		packet->destination[1] = packet->destination[2] = packet->destination[3] = 0;
		return TD_PARSED_IP;
	}
	if (type == bpf_htons(TD_ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + offset;

		if ((void *)(ip + 1) > end)
			return TD_PARSED_SHORT;
		packet->family = 6;
		__builtin_memcpy(packet->source, &ip->saddr, 16);
		__builtin_memcpy(packet->destination, &ip->daddr, 16);
		return TD_PARSED_IP;
	}
	if (type == bpf_htons(TD_ETH_P_ARP)) {
		struct td_arp *arp = data + offset;

		if ((void *)(arp + 1) > end)
			return TD_PARSED_SHORT;
		if (arp->hardware_length != 6 || arp->protocol_length != 4 || arp->protocol != bpf_htons(TD_ETH_P_IP))
			return TD_PARSED_FOREIGN;
		packet->family = 4;
		__builtin_memcpy(packet->source, arp->rest + 6, 4);
		packet->source[1] = packet->source[2] = packet->source[3] = 0;
		__builtin_memcpy(packet->destination, arp->rest + 16, 4);
		packet->destination[1] = packet->destination[2] = packet->destination[3] = 0;
		return TD_PARSED_ARP;
	}
	return TD_PARSED_FOREIGN;
}

/* IPv6 only, after TD_PARSED_IP: is this a neighbour solicitation or advertisement? Then its target goes to `target`.
 * ND behind extension headers is not looked for on the way in (the answer is caught on the way out). */
static __always_inline bool td_parse_neighbour(void *data, void *end, const struct td_packet *packet, __u32 *target)
{
	struct ipv6hdr *ip = data + packet->l3;
	struct td_icmp6 *icmp = (void *)(ip + 1);

	if ((void *)(icmp + 1) > end || ip->nexthdr != TD_IP_ICMP6 || ip->hop_limit != 255)
		return false;
	if (icmp->type != TD_ND_SOLICITATION && icmp->type != TD_ND_ADVERTISEMENT)
		return false;
	__builtin_memcpy(target, icmp->target, 16);
	return true;
}

static __always_inline int td_parse_tcp(void *data, void *end, __u32 l4, __u32 l3_end, struct td_packet *packet)
{
	struct tcphdr *tcp = data + l4;
	__u32 ports, word, header;

	if ((void *)(tcp + 1) > end)
		return TD_PARSED_SHORT;
	/* Read here and not, as clang 19 would, behind the branches, where the verifier has lost the bound. */
	ports = *(__u32 *)tcp;
	barrier_var(ports);
	word = bpf_ntohl(*((__u32 *)tcp + 3));
	barrier_var(word);
	header = (word >> 28) * 4;
	if (header < sizeof(*tcp) || l4 + header > l3_end)
		return TD_PARSED_MALFORMED;
	packet->source_port = ports;
	packet->destination_port = ports >> 16;
	packet->tcp_flags = word >> 16;
	packet->l4 = l4;
	packet->payload = l4 + header;
	packet->payload_length = l3_end - l4 - header;
	return TD_PARSED_SEGMENT;
}

/* After TD_PARSED_IP: walks to TCP. IPv6 extension headers: RFC 8200, section 4. */
static __always_inline int td_parse_segment(void *data, void *end, __u32 length, struct td_packet *packet)
{
	__u32 l3 = packet->l3;
	__u32 offset, l3_end;
	__u8 next;

	if (packet->family == 4) {
		struct iphdr *ip = data + l3;

		if ((void *)(ip + 1) > end)
			return TD_PARSED_SHORT;
		if (ip->protocol != IPPROTO_TCP)
			return TD_PARSED_OTHER;
		offset = ip->ihl * 4;
		l3_end = bpf_ntohs(ip->tot_len);
		if (ip->version != 4 || offset < sizeof(*ip) || l3_end < offset || l3 + l3_end > length)
			return TD_PARSED_MALFORMED;
		if (ip->frag_off & bpf_htons(0x3fff))
			return TD_PARSED_FRAGMENT;
		return td_parse_tcp(data, end, l3 + offset, l3 + l3_end, packet);
	}

	struct ipv6hdr *ip = data + l3;

	if ((void *)(ip + 1) > end)
		return TD_PARSED_SHORT;
	l3_end = l3 + sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6)
		return TD_PARSED_MALFORMED;
	next = ip->nexthdr;
	offset = l3 + sizeof(*ip);
	for (int i = 0; i <= TD_MAX_EXTENSIONS; i++) {
		__u8 *header = data + offset;

		if (next == IPPROTO_TCP) {
			if (l3_end > length)
				return TD_PARSED_MALFORMED;
			return td_parse_tcp(data, end, offset, l3_end, packet);
		}
		if (next != TD_IP_HOP_BY_HOP && next != TD_IP_ROUTING && next != TD_IP_DESTINATION &&
		    next != TD_IP_FRAGMENT && next != TD_IP_AH)
			return TD_PARSED_OTHER;
		if ((void *)(header + 8) > end)
			return TD_PARSED_SHORT;
		if (next == TD_IP_FRAGMENT) {
			next = header[0];
			/* An extension header in there may be followed by TCP, and later fragments do not say. */
			if (next == IPPROTO_TCP || next == TD_IP_HOP_BY_HOP || next == TD_IP_ROUTING ||
			    next == TD_IP_DESTINATION || next == TD_IP_FRAGMENT || next == TD_IP_AH)
				return TD_PARSED_FRAGMENT;
			return TD_PARSED_OTHER;
		}
		if (next == TD_IP_AH)
			offset += (header[1] + 2) * 4; /* RFC 4302, section 2.2 */
		else
			offset += (header[1] + 1) * 8;
		next = header[0];
	}
	return TD_PARSED_MALFORMED;
}

#endif
