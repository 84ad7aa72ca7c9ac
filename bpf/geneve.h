/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The outer headers of a reflected frame (Geneve, RFC 8926, over IPv4 and UDP) and the mirror link they travel on. */
#ifndef TANDEM_GENEVE_H
#define TANDEM_GENEVE_H

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct td_link);
} link SEC(".maps");

struct td_geneve {
	__u8 version_length; /* version in the top 2 bits, option length in words below */
	__u8 flags;
	__be16 protocol;
	__be32 network;
} __attribute__((packed));

struct td_outer {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct udphdr udp;
	struct td_geneve geneve;
	struct td_wire_option option;
} __attribute__((packed));

_Static_assert(sizeof(struct td_outer) == TD_OVERHEAD_HEADERS, "the overhead is what the documentation says");

#define TD_GENEVE_LENGTH (sizeof(struct td_wire_option) / 4)
#define TD_OPTION_WORDS ((sizeof(struct td_wire_option) - 4) / 4)
#define TD_IP_DF 0x4000

/* What the writer of the outer headers cannot know by itself. Host order. */
struct td_envelope {
	__u32 epoch;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 rcv_nxt;
	__u16 service;
	__u16 source_port;
	__u8 flags; /* enum td_wire_flag */
	__u8 uplink;
};

/* Direct word access to members of the packed headers: packed would make each of them a row of byte accesses. The
 * CPU may be trusted with it in packets; on the stack the caller places the headers at 2 modulo 4. */
#define TD_AT(base, type, member_of, member) (*(type *)((void *)(base) + __builtin_offsetof(member_of, member)))
#define TD_OUTER(base, type, member) TD_AT(base, type, struct td_outer, member)

/* The mirror link, or NULL while the partner's link-layer address is not known. */
static __always_inline struct td_link *td_link_ready(void)
{
	__u32 zero = 0;
	struct td_link *mirror = bpf_map_lookup_elem(&link, &zero);

	if (!mirror || !(*(__u16 *)mirror->partner_mac | *(__u32 *)(mirror->partner_mac + 2)))
		return NULL;
	return mirror;
}

/* The same for both directions of a session, so that both travel by one queue: 49152..65535. */
static __always_inline __u16 td_symmetric_port(const struct td_packet *packet)
{
	__u32 hash = packet->source[0] ^ packet->destination[0];

	if (packet->family == 6)
		hash ^= packet->source[1] ^ packet->destination[1] ^ packet->source[2] ^ packet->destination[2] ^
			packet->source[3] ^ packet->destination[3];
	hash ^= (__u32)(packet->source_port ^ packet->destination_port) << 8;
	hash *= 0x9e3779b1;
	hash ^= hash >> 15;
	hash *= 0x85ebca77;
	return 49152 + (hash >> 18);
}

static __always_inline __u16 td_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Ones' complement sum of `words` 32-bit words. */
static __always_inline __u64 td_sum(const void *from, int words)
{
	const __u32 *word = from;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += word[i];
	return sum;
}

/* Writes the 86 bytes of outer headers at `at`. `length`: of the inner frame, from its Ethernet header on. */
static __always_inline void td_outer_write(void *at, const struct td_link *mirror, const struct td_envelope *envelope,
					   __u32 length)
{
	__u32 total = TD_OVERHEAD_HEADERS - TD_ETH_HLEN + length;
	__u64 sum;

	TD_OUTER(at, __u16, ethernet.h_dest) = *(__u16 *)mirror->partner_mac;
	*(__u32 *)(at + 2) = *(__u32 *)(mirror->partner_mac + 2);
	*(__u32 *)(at + 6) = *(__u32 *)mirror->local_mac;
	*(__u16 *)(at + 10) = *(__u16 *)(mirror->local_mac + 4);
	*(__u16 *)(at + 12) = bpf_htons(TD_ETH_P_IP);

	*(__u32 *)(at + 14) = bpf_htonl(0x45000000 | (total & 0xffff));
	*(__u32 *)(at + 18) = bpf_htonl(TD_IP_DF);
	*(__u32 *)(at + 22) = bpf_htonl(64 << 24 | IPPROTO_UDP << 16);
	TD_OUTER(at, __u32, ip.saddr) = mirror->local_ip;
	TD_OUTER(at, __u32, ip.daddr) = mirror->partner_ip;
	sum = (__u64)bpf_htonl(0x45000000 | (total & 0xffff)) + bpf_htonl(TD_IP_DF) +
	      bpf_htonl(64 << 24 | IPPROTO_UDP << 16) + mirror->local_ip + mirror->partner_ip;
	TD_OUTER(at, __u16, ip.check) = ~td_fold(sum);

	*(__u32 *)(at + 34) = bpf_htonl((__u32)envelope->source_port << 16 | TD_GENEVE_PORT);
	*(__u32 *)(at + 38) = bpf_htonl((total - sizeof(struct iphdr)) << 16);

	*(__u32 *)(at + 42) = bpf_htonl(TD_GENEVE_LENGTH << 24 | TD_GENEVE_PROTO_ETHERNET);
	*(__u32 *)(at + 46) = 0;

	*(__u32 *)(at + 50) = bpf_htonl((__u32)TD_GENEVE_CLASS << 16 | TD_GENEVE_TYPE << 8 | TD_OPTION_WORDS);
	*(__u32 *)(at + 54) = bpf_htonl(TD_ABI_VERSION << 24 | envelope->flags << 16 | envelope->uplink << 8);
	*(__u32 *)(at + 58) = bpf_htonl((__u32)envelope->service << 16);
	TD_OUTER(at, __u32, option.epoch) = bpf_htonl(envelope->epoch);
	*(__u32 *)(at + 66) = (__u32)mirror->cookie;
	*(__u32 *)(at + 70) = mirror->cookie >> 32;
	TD_OUTER(at, __u32, option.copied_seq) = bpf_htonl(envelope->copied_seq);
	TD_OUTER(at, __u32, option.write_seq) = bpf_htonl(envelope->write_seq);
	TD_OUTER(at, __u32, option.rcv_nxt) = bpf_htonl(envelope->rcv_nxt);
	TD_OUTER(at, __u16, option.checksum) = ~td_fold(td_sum(at + 50, sizeof(struct td_wire_option) / 4));
}

enum td_outer_kind {
	TD_OUTER_NONE, /* not addressed to this router's end of the tunnel */
	TD_OUTER_MALFORMED,
	TD_OUTER_VALID, /* well-formed; version, cookie and epoch are still to be judged */
};

/* What arrived on the mirror device. VALID: the whole td_outer and an inner Ethernet header are accessible, lengths
 * and checksums agree. */
static __always_inline int td_outer_check(void *data, void *end, const struct td_link *mirror)
{
	struct td_outer *outer = data;
	__u32 length = end - data;
	__u32 header;
	struct udphdr *udp;

	if (data + TD_ETH_HLEN + sizeof(struct iphdr) > end)
		return TD_OUTER_NONE;
	if (TD_OUTER(outer, __u16, ethernet.h_proto) != bpf_htons(TD_ETH_P_IP) || outer->ip.protocol != IPPROTO_UDP ||
	    TD_OUTER(outer, __u32, ip.daddr) != mirror->local_ip)
		return TD_OUTER_NONE;
	header = (*(__u8 *)(data + TD_ETH_HLEN) & 0xf) * 4;
	udp = data + TD_ETH_HLEN + header;
	if ((void *)(udp + 1) > end || udp->dest != bpf_htons(TD_GENEVE_PORT))
		return TD_OUTER_NONE;

	if (data + sizeof(struct td_outer) + TD_ETH_HLEN > end)
		return TD_OUTER_MALFORMED;
	if (*(__u8 *)(data + TD_ETH_HLEN) != 0x45 || TD_OUTER(outer, __u16, ip.frag_off) & bpf_htons(0x3fff) ||
	    TD_OUTER(outer, __u16, ip.tot_len) != bpf_htons(length - TD_ETH_HLEN) ||
	    TD_OUTER(outer, __u16, udp.len) != bpf_htons(length - TD_ETH_HLEN - sizeof(struct iphdr)) ||
	    td_fold(td_sum(data + TD_ETH_HLEN, 5)) != 0xffff)
		return TD_OUTER_MALFORMED;
	if (*(__u32 *)(data + 42) != bpf_htonl(TD_GENEVE_LENGTH << 24 | TD_GENEVE_PROTO_ETHERNET) ||
	    *(__u32 *)(data + 50) != bpf_htonl((__u32)TD_GENEVE_CLASS << 16 | TD_GENEVE_TYPE << 8 | TD_OPTION_WORDS) ||
	    td_fold(td_sum(data + 50, sizeof(struct td_wire_option) / 4)) != 0xffff)
		return TD_OUTER_MALFORMED;
	return TD_OUTER_VALID;
}

/* At the standby, in place: the frame goes back where it came from, marked as recorded. Swapping the addresses leaves
 * the IP checksum right (RFC 1624); the UDP ports stay, so that both directions hash alike. */
static __always_inline void td_outer_reflect(void *at)
{
	__u16 mac_low = *(__u16 *)at;
	__u32 mac_high = *(__u32 *)(at + 2);
	__u32 ip = TD_OUTER(at, __u32, ip.saddr);

	*(__u32 *)at = *(__u32 *)(at + 6);
	*(__u16 *)(at + 4) = *(__u16 *)(at + 10);
	*(__u16 *)(at + 6) = mac_low;
	*(__u32 *)(at + 8) = mac_high;
	TD_OUTER(at, __u32, ip.saddr) = TD_OUTER(at, __u32, ip.daddr);
	TD_OUTER(at, __u32, ip.daddr) = ip;
	TD_OUTER(at, __u8, option.flags) |= TD_WIRE_REFLECTED;
	TD_OUTER(at, __u16, option.checksum) = ~td_fold((__u64)(__u16)~TD_OUTER(at, __u16, option.checksum) +
							bpf_htons(TD_WIRE_REFLECTED));
}

#endif
