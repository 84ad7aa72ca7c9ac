/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The uplink: where segments of a service are taken off their direct way and sent past the standby.
 *
 *   peer ─► xdp_uplink ─► mirror link          (REFLECT; SOLO: on to tc_uplink_in and TCP)
 *   TCP ─► tc_uplink_out ─► mirror link        (REFLECT; SOLO: on to the peer)
 *   tc_mirror_in ─► tc_uplink_in ─► TCP        (what the standby has recorded, marked)
 *
 * Where the driver has no native XDP, tc_uplink_in_reflect stands in for xdp_uplink and tc_uplink_in.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "counters.h"
#include "parse.h"
#include "service.h"
#include "claim.h"
#include "gate.h"
#include "clock.h"
#include "geneve.h"
#include "options.h"
#include "crash.h"
#include "virtual_mac.h"

#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define SOCK_STREAM 1

/* How much of a paged skb is made accessible when the headers turn out not to be, bytes. */
#define TD_PULL 512

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TD_MAX_UPLINKS);
	__type(key, __u32);
	__type(value, struct td_uplink);
} uplinks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} mirror_dev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct td_flow_key);
	__type(value, struct td_closed);
} closed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct td_flow_key);
	__type(value, struct td_ahead);
} ahead SEC(".maps");

char _license[] SEC("license") = "GPL";

/* `yielded`: the partner takes over, and keeps it. */
static __always_inline int reflect_in(struct xdp_md *ctx, const struct td_packet *packet, __u32 epoch, bool yielded)
{
	__u32 length = ctx->data_end - ctx->data;
	__u32 ifindex = ctx->ingress_ifindex;
	struct td_link *mirror = td_link_ready();
	struct td_envelope envelope = {};
	struct td_uplink *uplink;
	void *data;

	if (!mirror)
		return td_verdict(TD_DROP_LINK_UNRESOLVED, length, XDP_DROP);
	if (length > mirror->record_max)
		return td_verdict(TD_DROP_TOO_LONG, length, XDP_DROP);
	uplink = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (!uplink)
		return td_verdict(TD_DROP_UPLINK_UNKNOWN, length, XDP_DROP);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct td_outer)))
		return td_verdict(TD_DROP_ENCAPSULATE, length, XDP_DROP);
	data = (void *)(long)ctx->data;
	if (data + sizeof(struct td_outer) > (void *)(long)ctx->data_end)
		return td_verdict(TD_DROP_ENCAPSULATE, length, XDP_DROP);

	envelope.epoch = epoch;
	envelope.flags = yielded ? TD_WIRE_YIELDED : 0;
	envelope.service = packet->service;
	envelope.source_port = td_symmetric_port(packet);
	envelope.uplink = uplink->index;
	td_outer_write(data, mirror, &envelope, length);
	if (bpf_redirect_map(&mirror_dev, 0, XDP_DROP) != XDP_REDIRECT)
		return td_verdict(TD_DROP_LINK_UNRESOLVED, length, XDP_DROP);
	return td_verdict(yielded ? TD_PASS_YIELDED : TD_PASS_REFLECT_IN, length, XDP_REDIRECT);
}

SEC("xdp")
int xdp_uplink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 length = end - data;
	struct td_packet packet = {};
	struct td_gate *state;
	__u32 mode, why;
	__u64 now;
	int class;

	class = td_classify(data, end, length, false, &packet);
	if (td_unlikely(td_may_claim(class, &packet)))
		td_note_claim(data, end, &packet);
	if (class == TD_CLASS_TRANSIT)
		return td_verdict(TD_PASS_TRANSIT, length, XDP_PASS);
	if (class == TD_CLASS_FRAGMENT)
		return td_verdict(TD_DROP_FRAGMENT, length, XDP_DROP);
	if (class == TD_CLASS_MALFORMED)
		return td_verdict(TD_DROP_MALFORMED, length, XDP_DROP);

	/* Towards the standby nothing is said to the peer, so there the cheap clock will do. */
	state = td_gate_now();
	if (td_unlikely(class == TD_CLASS_SEGMENT && state && state->mode == TD_MODE_YIELD))
		return reflect_in(ctx, &packet, state->epoch, true);
	now = class == TD_CLASS_SEGMENT && state && state->mode == TD_MODE_REFLECT ? td_boot_ns_coarse()
										   : bpf_ktime_get_boot_ns();
	mode = td_gate_mode(state, now, class == TD_CLASS_NEIGHBOUR ? TD_DROP_FENCED_NEIGHBOUR : TD_DROP_FENCED_IN,
			    &why);
	if (!state || mode == TD_MODE_FENCED)
		return td_verdict(why, length, XDP_DROP);
	if (class != TD_CLASS_SEGMENT)
		return td_verdict(TD_PASS_OTHER, length, XDP_PASS);
	if (mode == TD_MODE_SOLO)
		return td_verdict(TD_PASS_SOLO_IN, length, XDP_PASS);
	return reflect_in(ctx, &packet, state->epoch, false);
}

/* Classifies an skb; headers in pages are made accessible first, where they are not. */
static __always_inline int classify_skb(struct __sk_buff *skb, bool out, struct td_packet *packet)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	__u32 length = skb->len;
	int class = td_classify(data, end, length, out, packet);

	if (td_unlikely(class == TD_CLASS_MALFORMED && end - data < length)) {
		if (bpf_skb_pull_data(skb, length < TD_PULL ? length : TD_PULL))
			return class;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		class = td_classify(data, end, length, out, packet);
	}
	return class;
}

/* Encapsulates at TC and redirects to the mirror link; TSO and GRO buffers stay whole, the device or the stack cuts
 * them below us. bpf_skb_adjust_room knows no tags (net/core/filter.c, bpf_skb_net_grow: protocol must be IP), so
 * tags are taken off first and written back as part of the inner Ethernet header. */
static __always_inline int reflect_skb(struct __sk_buff *skb, const struct td_packet *packet,
				       struct td_envelope *envelope, __u32 passed)
{
	struct td_link *mirror = td_link_ready();
	__u32 length = skb->len;
	__u32 ifindex = skb->ifindex;
	__u32 longest = length;
	__u64 encapsulation;
	struct td_uplink *uplink;
	/* At +2 the outer headers, at +88 the inner Ethernet header: words are aligned, as the stack needs. */
	__u8 headers[2 + sizeof(struct td_outer) + TD_ETH_HLEN + TD_MAX_VLANS * TD_VLAN_HLEN + 2]
		__attribute__((aligned(8)));
	void *inner = headers + 2 + sizeof(struct td_outer);
	__u32 tags = packet->vlans;
	long failed;

	if (!mirror)
		return td_verdict(TD_DROP_LINK_UNRESOLVED, length, TC_ACT_SHOT);
	if (skb->gso_size)
		longest = packet->payload + skb->gso_size;
	if (bpf_skb_load_bytes(skb, 0, inner, 12))
		return td_verdict(TD_DROP_ENCAPSULATE, length, TC_ACT_SHOT);

	if (td_unlikely(skb->vlan_present)) {
		if (tags >= TD_MAX_VLANS)
			return td_verdict(TD_DROP_MALFORMED, length, TC_ACT_SHOT);
		*(__u16 *)(inner + 12) = skb->vlan_proto;
		*(__u16 *)(inner + 14) = bpf_htons(skb->vlan_tci);
		if (tags)
			*(__u32 *)(inner + 16) = packet->tags[0];
		tags++;
		longest += TD_VLAN_HLEN;
		length += TD_VLAN_HLEN;
	} else if (td_unlikely(tags)) {
		*(__u32 *)(inner + 12) = packet->tags[0];
		if (tags > 1)
			*(__u32 *)(inner + 16) = packet->tags[1];
	}
	if (longest > mirror->record_max)
		return td_verdict(TD_DROP_TOO_LONG, length, TC_ACT_SHOT);
	uplink = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (!uplink)
		return td_verdict(TD_DROP_UPLINK_UNKNOWN, length, TC_ACT_SHOT);

	if (tags && bpf_skb_vlan_pop(skb))
		return td_verdict(TD_DROP_ENCAPSULATE, length, TC_ACT_SHOT);
	if (tags > 1 && bpf_skb_vlan_pop(skb))
		return td_verdict(TD_DROP_ENCAPSULATE, length, TC_ACT_SHOT);
	encapsulation = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
			(__u64)(TD_ETH_HLEN + tags * TD_VLAN_HLEN) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
	if (bpf_skb_adjust_room(skb, sizeof(struct td_outer) + tags * TD_VLAN_HLEN, BPF_ADJ_ROOM_MAC, encapsulation))
		return td_verdict(TD_DROP_ENCAPSULATE, length, TC_ACT_SHOT);

	envelope->uplink = uplink->index;
	envelope->service = packet->service;
	envelope->source_port = td_symmetric_port(packet);
	td_outer_write(headers + 2, mirror, envelope, length);
	if (tags == 0) {
		*(__u16 *)(inner + 12) = packet->ethertype;
		failed = bpf_skb_store_bytes(skb, 0, headers + 2, sizeof(struct td_outer) + 14, 0);
	} else if (tags == 1) {
		*(__u16 *)(inner + 16) = packet->ethertype;
		failed = bpf_skb_store_bytes(skb, 0, headers + 2, sizeof(struct td_outer) + 18, 0);
	} else {
		*(__u16 *)(inner + 20) = packet->ethertype;
		failed = bpf_skb_store_bytes(skb, 0, headers + 2, sizeof(struct td_outer) + 22, 0);
	}
	if (failed)
		return td_verdict(TD_DROP_ENCAPSULATE, length, TC_ACT_SHOT);
	td_count(passed, length);
	return bpf_redirect(mirror->ifindex, 0);
}

/* The full TCP socket that a packet carries, or NULL; no control socket of the stack, by its type. */
static __always_inline struct bpf_sock *tcp_socket_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->type == SOCK_STREAM && sk->protocol == IPPROTO_TCP ? sk : NULL;
}

/* That socket if it sent this packet, or NULL. Resets and answers in TIME_WAIT may carry another one, so the tuple has to
 * be the packet's. */
static __always_inline struct bpf_sock *sender_of(struct bpf_sock *sk, const struct td_packet *packet)
{
	if (!sk || sk->state == BPF_TCP_LISTEN)
		return NULL;
	if (sk->src_port != bpf_ntohs(packet->source_port) || sk->dst_port != packet->destination_port)
		return NULL;
	if (packet->family == 4)
		return sk->src_ip4 == packet->source[0] && sk->dst_ip4 == packet->destination[0] ? sk : NULL;
	if (sk->src_ip6[0] != packet->source[0] || sk->src_ip6[1] != packet->source[1] ||
	    sk->src_ip6[2] != packet->source[2] || sk->src_ip6[3] != packet->source[3] ||
	    sk->dst_ip6[0] != packet->destination[0] || sk->dst_ip6[1] != packet->destination[1] ||
	    sk->dst_ip6[2] != packet->destination[2] || sk->dst_ip6[3] != packet->destination[3])
		return NULL;
	return sk;
}

/* A segment waits for its next hop's link-layer address, which a fenced router does not ask for; its socket is ended
 * meanwhile, and the gate opens. What it says is of an earlier epoch. (Of an ended socket the ports are gone: tcp_done in
 * net/ipv4/tcp.c.) A reset is what ended sockets may send. */
static __always_inline bool outlived_its_socket(const struct bpf_sock *sk, const struct td_packet *packet)
{
	return sk && sk->state == BPF_TCP_CLOSE && !(packet->tcp_flags & TD_TCP_RST);
}

/* As far as a packet can come: a peer with GTSM (RFC 5082) accepts nothing less, and a stack without the socket does not
 * know what its application had set. */
static __always_inline bool raise_hop_limit(struct __sk_buff *skb, const struct td_packet *packet)
{
	__u32 at = packet->l3 + (packet->family == 4 ? __builtin_offsetof(struct iphdr, ttl)
						     : __builtin_offsetof(struct ipv6hdr, hop_limit));
	__u16 old, new; /* TTL and protocol; of IPv6, which has no checksum, only the first byte is of interest */

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return false;
	new = old | bpf_htons(0xff00);
	if (packet->family == 4 &&
	    bpf_l3_csum_replace(skb, packet->l3 + __builtin_offsetof(struct iphdr, check), old, new, sizeof(new)))
		return false;
	return !bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

/* Turns the reset in `skb` into the acknowledgement that the old active's socket would have sent. Checksum replacement
 * per field also suits packets whose checksum the device is still to complete. */
static __always_inline bool acknowledge_instead(struct __sk_buff *skb, const struct td_packet *packet,
						const struct td_closed *session)
{
	__u32 old[3];
	__u32 new[3] = {
		bpf_htonl(session->seq),
		bpf_htonl(session->ack),
		bpf_htonl(5u << 28 | TD_TCP_ACK << 16 | 0xffff),
	};
	__u32 l4 = packet->l4;

	/* With options there could be a signature (RFC 2385) over what would be changed. */
	if (packet->payload != l4 + sizeof(struct tcphdr))
		return false;
	if (bpf_skb_load_bytes(skb, l4 + 4, old, sizeof(old)))
		return false;
#pragma unroll
	for (int i = 0; i < 3; i++) {
		if (bpf_l4_csum_replace(skb, l4 + __builtin_offsetof(struct tcphdr, check), old[i], new[i], 4))
			return false;
	}
	return !bpf_skb_store_bytes(skb, l4 + 4, new, sizeof(new), 0) && raise_hop_limit(skb, packet);
}

/* The service's application has just died: its kernel knows nothing of what the peer means. */
static __always_inline bool after_crash(const struct td_packet *packet, __u64 now)
{
	struct td_service *service;

	service = td_service_of(packet->source, packet->family, packet->source_port, packet->destination_port);
	return service && service->crashed_ns && now - service->crashed_ns < TD_CRASH_QUARANTINE_NS;
}

/* Keeps a crash silent: 0 when the segment may leave, else the td_reason it is dropped for.
 *
 * `alive`: a socket in ESTABLISHED or CLOSE_WAIT sent it; a verdict is taken on leaving these, so there is none to
 * look for, and whatever is in the map is about an earlier session of the same tuple. The same is known of a SYN. */
static __always_inline __u32 silence(struct __sk_buff *skb, const struct td_packet *packet, const struct td_gate *state,
				     __u64 now, bool alive)
{
	bool quarantine = packet->tcp_flags & TD_TCP_RST &&
			  (now < state->quarantine_until_ns || after_crash(packet, now));
	struct td_verdict_entry *entry;
	struct td_closed *session;
	struct td_flow_key key;

	if (alive && !quarantine)
		return 0;
	td_flow_key_of(packet, true, &key);
	if (packet->tcp_flags & TD_TCP_SYN) {
		bpf_map_delete_elem(&crash, &key);
		return 0;
	}
	entry = bpf_map_lookup_elem(&crash, &key);
	if (entry && !alive && entry->verdicts & TD_VERDICTS_CRASH)
		return TD_DROP_CRASHED;
	if (!quarantine || (entry && entry->verdicts & TD_VERDICT_RST_MEANT))
		return 0;
	session = bpf_map_lookup_elem(&closed, &key);
	if (!session || !acknowledge_instead(skb, packet, session))
		return TD_DROP_RST_QUARANTINE;
	td_count(TD_PASS_CLOSED_ACK, skb->len);
	return 0;
}

SEC("tc")
int tc_uplink_out(struct __sk_buff *skb)
{
	__u32 length = skb->len;
	struct td_envelope envelope = {};
	struct td_packet packet = {};
	struct td_gate *state;
	struct bpf_sock *sk;
	struct tcp_sock *tcp;
	__u32 mode, why;
	bool alive = false;
	__u64 now;
	int class;

	if (skb->mark == TD_MARK_INJECT) {
		td_count(TD_PASS_INJECTED, length);
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	}
	class = classify_skb(skb, true, &packet);
	if (class == TD_CLASS_TRANSIT)
		return TC_ACT_OK;
	if (class == TD_CLASS_FRAGMENT)
		return td_verdict(TD_DROP_FRAGMENT, length, TC_ACT_SHOT);
	if (class == TD_CLASS_MALFORMED)
		return td_verdict(TD_DROP_MALFORMED, length, TC_ACT_SHOT);

	/* Who has no address of his own asks and claims nothing: a fenced router may find out who answers. */
	if (class == TD_CLASS_NEIGHBOUR && !(packet.source[0] | packet.source[1] | packet.source[2] | packet.source[3]))
		return td_verdict(TD_PASS_OTHER, length, TC_ACT_OK);

	now = bpf_ktime_get_boot_ns();
	state = td_gate_now();
	mode = td_gate_mode(state, now, class == TD_CLASS_NEIGHBOUR ? TD_DROP_FENCED_NEIGHBOUR : TD_DROP_FENCED_OUT,
			    &why);
	if (!state || mode == TD_MODE_FENCED)
		return td_verdict(why, length, TC_ACT_SHOT);
	if (!td_speak_virtual(skb, &packet, class == TD_CLASS_NEIGHBOUR))
		return td_verdict(TD_DROP_ENCAPSULATE, length, TC_ACT_SHOT);
	if (class != TD_CLASS_SEGMENT)
		return td_verdict(TD_PASS_OTHER, length, TC_ACT_OK);

	sk = tcp_socket_of(skb);
	if (outlived_its_socket(sk, &packet))
		return td_verdict(TD_DROP_SOCKET_GONE, length, TC_ACT_SHOT);

	/* The stamp. A socket that is still connecting has read and received nothing that could be meant. */
	sk = sender_of(sk, &packet);
	if (sk && sk->state != BPF_TCP_SYN_SENT) {
		alive = sk->state == BPF_TCP_ESTABLISHED || sk->state == BPF_TCP_CLOSE_WAIT;
		tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp) {
			envelope.flags = TD_WIRE_STAMP;
			envelope.copied_seq = tcp->copied_seq;
			envelope.write_seq = tcp->write_seq;
			envelope.rcv_nxt = tcp->rcv_nxt;
		}
	}
	if (skb->mark != TD_MARK_OWN) {
		why = silence(skb, &packet, state, now, alive);
		if (why)
			return td_verdict(why, length, TC_ACT_SHOT);
	}
	if (mode == TD_MODE_SOLO)
		return td_verdict(TD_PASS_SOLO_OUT, length, TC_ACT_OK);
	envelope.epoch = state->epoch;
	envelope.flags |= TD_WIRE_OUT;
	return reflect_skb(skb, &packet, &envelope, TD_PASS_REFLECT_OUT);
}

/* Already judged by the standby's record, or put there by the injector? Then the mark has done its work. What was
 * inherited still has the other router's link-layer address. */
static __always_inline bool take_mark(struct __sk_buff *skb)
{
	if (skb->mark != TD_MARK_REFLECTED && skb->mark != TD_MARK_INJECT)
		return false;
	skb->mark = 0;
	if (td_unlikely(skb->pkt_type != PACKET_HOST))
		bpf_skb_change_type(skb, PACKET_HOST);
	return true;
}

static __always_inline bool seq_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

/* Does this acknowledgement say that the peer holds output beyond the gap? Blocks up to `ack` repeat what it has in order
 * (RFC 2883). */
static __always_inline bool holds_ahead(struct __sk_buff *skb, const struct td_packet *packet, __u32 ack, __u32 end)
{
	__u64 length = packet->payload - packet->l4 - sizeof(struct tcphdr);
	struct td_walk walk = {.kind = TD_OPTION_SACK};

	barrier_var(length);
	if (length - 1 >= sizeof(walk.options) ||
	    bpf_skb_load_bytes(skb, packet->l4 + sizeof(struct tcphdr), walk.options, length))
		return false;
	walk.length = length;
	bpf_loop(sizeof(walk.options), td_walk_option, &walk, 0);
	for (__u32 block = 0; block < 4; block++) {
		__u32 right = td_option_word(&walk, walk.offset + 6 + 8 * block);

		if (walk.found >= 10 + 8 * block && seq_before(ack, right) && !seq_before(end, right))
			return true;
	}
	return false;
}

/* A peer that has output of the old active beyond a gap acknowledges all of it once our stack has filled the gap. TCP
 * refuses what acknowledges more than it has sent (tcp_ack in net/ipv4/tcp_input.c), whole segments with it, and would
 * send the gap for ever. A lower acknowledgement is as true, so the segment gets the highest that our stack can take;
 * a socket that has caught up is let alone from then on. */
static __always_inline void lower_ack(struct __sk_buff *skb, const struct td_packet *packet)
{
	__u32 ack_at = packet->l4 + __builtin_offsetof(struct tcphdr, ack_seq);
	__u32 check_at = packet->l4 + __builtin_offsetof(struct tcphdr, check);
	struct bpf_sock_tuple tuple;
	struct bpf_tcp_sock *tcp;
	struct td_flow_key key;
	struct td_ahead *known;
	__u32 old, new, next;
	struct bpf_sock *sk;

	if ((packet->tcp_flags & (TD_TCP_ACK | TD_TCP_SYN | TD_TCP_RST)) != TD_TCP_ACK)
		return;
	td_flow_key_of(packet, false, &key);
	known = bpf_map_lookup_elem(&ahead, &key);
	if (!known || bpf_skb_load_bytes(skb, ack_at, &old, sizeof(old)))
		return;
	if (holds_ahead(skb, packet, bpf_ntohl(old), known->end))
		known->held = 1;
	__sync_fetch_and_add(&known->answers, 1);
	if (packet->family == 4) {
		tuple.ipv4.saddr = packet->source[0];
		tuple.ipv4.daddr = packet->destination[0];
		tuple.ipv4.sport = packet->source_port;
		tuple.ipv4.dport = packet->destination_port;
		sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, packet->source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, packet->destination, 16);
		tuple.ipv6.sport = packet->source_port;
		tuple.ipv6.dport = packet->destination_port;
		sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return;
	next = known->end;
	tcp = bpf_tcp_sock(sk);
	if (tcp)
		next = *(volatile __u32 *)&tcp->snd_nxt; /* no clang may turn this into arithmetic on the pointer */
	bpf_sk_release(sk);
	if (!seq_before(next, known->end)) {
		bpf_map_delete_elem(&ahead, &key);
		return;
	}
	new = bpf_htonl(next);
	if (!seq_before(next, bpf_ntohl(old)) || seq_before(known->end, bpf_ntohl(old)))
		return;
	if (bpf_l4_csum_replace(skb, check_at, old, new, 4))
		return;
	bpf_skb_store_bytes(skb, ack_at, &new, sizeof(new), 0);
	td_count(TD_PASS_ACK_AHEAD, skb->len);
}

/* The side door behind xdp_uplink: passes are counted there, here only what should not have come this far. */
SEC("tc")
int tc_uplink_in(struct __sk_buff *skb)
{
	__u32 length = skb->len;
	struct td_packet packet = {};
	__u32 mode, why;
	int class;

	if (take_mark(skb))
		return TC_ACT_OK;
	td_accept_virtual(skb);
	class = classify_skb(skb, false, &packet);
	if (class == TD_CLASS_TRANSIT)
		return TC_ACT_OK;
	if (class == TD_CLASS_FRAGMENT)
		return td_verdict(TD_DROP_FRAGMENT, length, TC_ACT_SHOT);
	if (class == TD_CLASS_MALFORMED)
		return td_verdict(TD_DROP_MALFORMED, length, TC_ACT_SHOT);
	mode = td_gate_mode(td_gate_now(), bpf_ktime_get_boot_ns(),
			    class == TD_CLASS_NEIGHBOUR ? TD_DROP_FENCED_NEIGHBOUR : TD_DROP_FENCED_IN, &why);
	if (mode == TD_MODE_FENCED)
		return td_verdict(why, length, TC_ACT_SHOT);
	if (class == TD_CLASS_SEGMENT && mode == TD_MODE_REFLECT)
		return td_verdict(TD_DROP_UNREFLECTED, length, TC_ACT_SHOT);
	if (class == TD_CLASS_SEGMENT)
		lower_ack(skb, &packet);
	return TC_ACT_OK;
}

SEC("tc")
int tc_uplink_in_reflect(struct __sk_buff *skb)
{
	__u32 length = skb->len;
	struct td_envelope envelope = {};
	struct td_packet packet = {};
	struct td_gate *state;
	__u32 mode, why;
	int class;

	if (take_mark(skb))
		return TC_ACT_OK;
	td_accept_virtual(skb);
	class = classify_skb(skb, false, &packet);
	if (td_unlikely(td_may_claim(class, &packet)))
		td_note_claim((void *)(long)skb->data, (void *)(long)skb->data_end, &packet);
	if (class == TD_CLASS_TRANSIT)
		return td_verdict(TD_PASS_TRANSIT, length, TC_ACT_OK);
	if (class == TD_CLASS_FRAGMENT)
		return td_verdict(TD_DROP_FRAGMENT, length, TC_ACT_SHOT);
	if (class == TD_CLASS_MALFORMED)
		return td_verdict(TD_DROP_MALFORMED, length, TC_ACT_SHOT);
	state = td_gate_now();
	if (td_unlikely(class == TD_CLASS_SEGMENT && state && state->mode == TD_MODE_YIELD)) {
		envelope.epoch = state->epoch;
		envelope.flags = TD_WIRE_YIELDED;
		return reflect_skb(skb, &packet, &envelope, TD_PASS_YIELDED);
	}
	mode = td_gate_mode(state, bpf_ktime_get_boot_ns(),
			    class == TD_CLASS_NEIGHBOUR ? TD_DROP_FENCED_NEIGHBOUR : TD_DROP_FENCED_IN, &why);
	if (!state || mode == TD_MODE_FENCED)
		return td_verdict(why, length, TC_ACT_SHOT);
	if (class != TD_CLASS_SEGMENT)
		return td_verdict(TD_PASS_OTHER, length, TC_ACT_OK);
	if (mode == TD_MODE_SOLO) {
		lower_ack(skb, &packet);
		return td_verdict(TD_PASS_SOLO_IN, length, TC_ACT_OK);
	}
	envelope.epoch = state->epoch;
	return reflect_skb(skb, &packet, &envelope, TD_PASS_REFLECT_IN);
}
