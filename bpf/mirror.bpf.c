/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The mirror link, both roles.
 *
 *   standby: frame ─► xdp_mirror: write a record, then send it back
 *   active:  inward  ─► xdp_mirror: decapsulate, leave a note in the metadata ─► tc_mirror_in ─► the uplink's ingress
 *            outward ─► xdp_mirror: decapsulate ─► the uplink's transmit queue
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "counters.h"
#include "parse.h"
#include "service.h"
#include "gate.h"
#include "clock.h"
#include "geneve.h"
#include "options.h"

#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define TD_NOTE_MAGIC 0x7a11d0e5

/* XDP metadata from xdp_mirror to tc_mirror_in: nobody outside this host can write it. */
struct td_note {
	__u32 magic;
	__u32 uplink;
};

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, TD_MAX_UPLINKS);
	__type(key, __u32);
	__type(value, __u32);
} uplink_dev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TD_MAX_UPLINKS);
	__type(key, __u32);
	__type(value, __u32);
} uplink_ifindex SEC(".maps");

/* 1: standing by, record and send back. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} recorder SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct td_flow_key);
	__type(value, __u32);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} records SEC(".maps");

__u32 flows_seen;

char _license[] SEC("license") = "GPL";

/* The flow's id, from 1 on. Two CPUs that meet a new flow at once agree on the one that got into the map. */
static __always_inline __u32 flow_of(const struct td_flow_key *key)
{
	__u32 *known = bpf_map_lookup_elem(&flows, key);
	__u32 id;

	if (known)
		return *known;
	id = __sync_fetch_and_add(&flows_seen, 1) + 1;
	if (bpf_map_update_elem(&flows, key, &id, BPF_NOEXIST)) {
		known = bpf_map_lookup_elem(&flows, key);
		if (known)
			return *known;
	}
	return id;
}

/* The timestamps option (RFC 7323, section 3.2), wherever it stands among the others. */
static __always_inline void read_timestamps(struct xdp_md *ctx, void *data, void *end, const struct td_packet *packet,
					    struct td_record *record)
{
	__u8 *options = data + packet->l4 + sizeof(struct tcphdr);
	__u64 length = packet->payload - packet->l4 - sizeof(struct tcphdr);
	struct td_walk walk = {.kind = TD_OPTION_TIMESTAMPS, .size = 10};

	/* As Linux and most others align it on all but SYNs: NOP, NOP, timestamps. */
	if ((void *)(options + 12) <= end && length >= 12 && *(__u32 *)options == bpf_htonl(0x0101080a)) {
		record->tsval = bpf_ntohl(*(__u32 *)(options + 4));
		record->tsecr = bpf_ntohl(*(__u32 *)(options + 8));
		record->flags |= TD_RECORD_TS;
		return;
	}
	barrier_var(length);
	if (length - 1 >= sizeof(walk.options) ||
	    bpf_xdp_load_bytes(ctx, sizeof(struct td_outer) + packet->l4 + sizeof(struct tcphdr), walk.options, length))
		return;
	walk.length = length;
	bpf_loop(sizeof(walk.options), td_walk_option, &walk, 0);
	if (walk.found) {
		record->tsval = td_option_word(&walk, walk.offset + 2);
		record->tsecr = td_option_word(&walk, walk.offset + 6);
		record->flags |= TD_RECORD_TS;
	}
}

/* Ring memory is reserved in constant sizes only, so records come in classes. The copy's length is bounded by hand and
 * behind a barrier: clang 19 otherwise proves the bound itself and leaves nothing for the verifier to see. */
#define WRITE_RECORD(room)                                                                                             \
	do {                                                                                                           \
		struct {                                                                                               \
			struct td_record header;                                                                       \
			__u8 frame[room];                                                                              \
		} *slot = bpf_ringbuf_reserve(&records, sizeof(*slot), 0);                                             \
		if (!slot)                                                                                             \
			return TD_DROP_RING_FULL;                                                                      \
		slot->header = *header;                                                                                \
		barrier_var(length);                                                                                   \
		if (length - 1 >= (room) || bpf_xdp_load_bytes(ctx, sizeof(struct td_outer), slot->frame, length)) {   \
			bpf_ringbuf_discard(slot, BPF_RB_NO_WAKEUP);                                                   \
			return TD_DROP_MALFORMED;                                                                      \
		}                                                                                                      \
		bpf_ringbuf_submit(slot, BPF_RB_NO_WAKEUP);                                                            \
		return 0;                                                                                              \
	} while (0)

/* 0, or the td_reason it could not be recorded for. `length` of the inner frame, bytes. */
static __always_inline __u32 write_record(struct xdp_md *ctx, const struct td_record *header, __u64 length)
{
	if (length <= 128)
		WRITE_RECORD(128);
	if (length <= 256)
		WRITE_RECORD(256);
	if (length <= 512)
		WRITE_RECORD(512);
	if (length <= 1024)
		WRITE_RECORD(1024);
	if (length <= 1536)
		WRITE_RECORD(1536);
	if (length <= TD_FRAME_MAX)
		WRITE_RECORD(TD_FRAME_MAX);
	return TD_DROP_TOO_LONG;
}

/* At the standby: a frame that carries our option, our cookie and the present epoch. `inherited`: not to be sent back. */
static __always_inline int record(struct xdp_md *ctx, __u32 epoch, bool inherited)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 length = end - data;
	__u32 inner_length = length - sizeof(struct td_outer);
	void *inner = data + sizeof(struct td_outer);
	struct td_record header = {};
	struct td_packet packet = {};
	struct tcphdr *tcp;
	__u32 why;
	bool out;

	if (inner + TD_ETH_HLEN > end)
		return td_verdict(TD_DROP_MALFORMED, length, XDP_DROP);
	out = TD_OUTER(data, __u8, option.flags) & TD_WIRE_OUT;
	if (td_parse_addresses(inner, end, &packet) != TD_PARSED_IP ||
	    td_parse_segment(inner, end, inner_length, &packet) != TD_PARSED_SEGMENT)
		return td_verdict(TD_DROP_MALFORMED, length, XDP_DROP);
	tcp = inner + packet.l4;
	if ((void *)(tcp + 1) > end)
		return td_verdict(TD_DROP_MALFORMED, length, XDP_DROP);

	header.time_ns = td_boot_ns_coarse();
	header.seq = bpf_ntohl(tcp->seq);
	header.ack = bpf_ntohl(tcp->ack_seq);
	header.window = bpf_ntohs(tcp->window);
	header.frame_length = inner_length;
	header.l3_offset = packet.l3;
	header.l4_offset = packet.l4;
	header.payload_offset = packet.payload;
	header.payload_length = packet.payload_length;
	header.service = bpf_ntohs(TD_OUTER(data, __u16, option.service));
	header.tcp_flags = packet.tcp_flags;
	header.epoch = epoch;
	header.uplink = TD_OUTER(data, __u8, option.uplink);
	if (out)
		header.flags |= TD_RECORD_OUT;
	if (TD_OUTER(data, __u8, option.flags) & TD_WIRE_STAMP) {
		header.flags |= TD_RECORD_STAMP;
		header.copied_seq = bpf_ntohl(TD_OUTER(data, __u32, option.copied_seq));
		header.write_seq = bpf_ntohl(TD_OUTER(data, __u32, option.write_seq));
		header.rcv_nxt = bpf_ntohl(TD_OUTER(data, __u32, option.rcv_nxt));
	}
	if (packet.payload > packet.l4 + sizeof(*tcp))
		read_timestamps(ctx, inner, end, &packet, &header);
	td_flow_key_of(&packet, out, &header.key);
	header.flow = flow_of(&header.key);

	why = write_record(ctx, &header, inner_length);
	if (why)
		return td_verdict(why, length, XDP_DROP);
	if (inherited)
		return td_verdict(TD_PASS_INHERITED, length, XDP_DROP);
	td_outer_reflect(data);
	return td_verdict(out ? TD_PASS_RECORDED_OUT : TD_PASS_RECORDED_IN, length, XDP_TX);
}

/* Inward: what has been decapsulated, with a note for tc_mirror_in. */
static __always_inline int hand_inward(struct xdp_md *ctx, __u32 length, __u32 uplink, __u32 passed)
{
	struct td_note *note;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*note)))
		return td_verdict(TD_DROP_ENCAPSULATE, length, XDP_DROP);
	note = (void *)(long)ctx->data_meta;
	if ((void *)(note + 1) > (void *)(long)ctx->data)
		return td_verdict(TD_DROP_ENCAPSULATE, length, XDP_DROP);
	note->magic = TD_NOTE_MAGIC;
	note->uplink = uplink;
	return td_verdict(passed, length, XDP_PASS);
}

/* At the active: the standby has it. This is the last check of the gate. Outward it decides whether we speak, on the
 * exact clock; inward our TCP may hear a moment longer, what it answers comes by here again. */
static __always_inline int deliver(struct xdp_md *ctx, const struct td_gate *state, bool out, __u32 uplink)
{
	__u32 length = ctx->data_end - ctx->data;

	if (state->mode != TD_MODE_REFLECT)
		return td_verdict(TD_DROP_DIRECTION, length, XDP_DROP);
	if (!td_voice_held(out ? bpf_ktime_get_boot_ns() : td_boot_ns_coarse()))
		return td_verdict(TD_DROP_NO_VOICE, length, XDP_DROP);
	if (bpf_xdp_adjust_head(ctx, sizeof(struct td_outer)))
		return td_verdict(TD_DROP_GENEVE_MALFORMED, length, XDP_DROP);
	if (out) {
		if (bpf_redirect_map(&uplink_dev, uplink, XDP_DROP) != XDP_REDIRECT)
			return td_verdict(TD_DROP_UPLINK_UNKNOWN, length, XDP_DROP);
		return td_verdict(TD_PASS_DELIVERED_OUT, length, XDP_REDIRECT);
	}
	return hand_inward(ctx, length, uplink, TD_PASS_DELIVERED_IN);
}

/* At the router that takes over: what still came in at the other one, whose output is fenced by now. Until our gate is
 * open it is kept for the injector; then our TCP gets it, as from a neighbour that has not learnt our address yet. */
static __always_inline int inherit(struct xdp_md *ctx, const struct td_gate *state, bool recording)
{
	void *data = (void *)(long)ctx->data;
	__u32 length = ctx->data_end - ctx->data;
	__u32 uplink;

	if (data + sizeof(struct td_outer) > (void *)(long)ctx->data_end)
		return td_verdict(TD_DROP_GENEVE_MALFORMED, length, XDP_DROP);
	uplink = TD_OUTER(data, __u8, option.uplink);
	if (state->mode == TD_MODE_FENCED && recording)
		return record(ctx, bpf_ntohl(TD_OUTER(data, __u32, option.epoch)), true);
	if (state->mode != TD_MODE_SOLO || !td_voice_held(td_boot_ns_coarse()))
		return td_verdict(TD_DROP_DIRECTION, length, XDP_DROP);
	if (bpf_xdp_adjust_head(ctx, sizeof(struct td_outer)))
		return td_verdict(TD_DROP_GENEVE_MALFORMED, length, XDP_DROP);
	return hand_inward(ctx, length, uplink, TD_PASS_INHERITED);
}

SEC("xdp")
int xdp_mirror(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 length = end - data;
	__u32 zero = 0;
	struct td_link *mirror = bpf_map_lookup_elem(&link, &zero);
	struct td_packet packet = {};
	struct td_gate *state;
	__u32 *recording;
	__u32 epoch;
	__u8 flags;
	int kind;

	if (!mirror)
		return XDP_PASS;
	kind = td_outer_check(data, end, mirror);
	if (kind == TD_OUTER_MALFORMED)
		return td_verdict(TD_DROP_GENEVE_MALFORMED, length, XDP_DROP);
	if (kind == TD_OUTER_NONE) {
		/* ARP, the pulse, the control channel. The service has no business here: its segments would be
		 * received unrecorded, its address would be answered for. */
		switch (td_classify(data, end, length, false, &packet)) {
		case TD_CLASS_TRANSIT:
			return td_verdict(TD_PASS_TRANSIT, length, XDP_PASS);
		case TD_CLASS_MALFORMED:
			return td_verdict(TD_DROP_MALFORMED, length, XDP_DROP);
		default:
			return td_verdict(TD_DROP_NOT_OURS, length, XDP_DROP);
		}
	}

	if (data + sizeof(struct td_outer) > end)
		return td_verdict(TD_DROP_GENEVE_MALFORMED, length, XDP_DROP);
	if (TD_OUTER(data, __u8, option.version) != TD_ABI_VERSION)
		return td_verdict(TD_DROP_VERSION, length, XDP_DROP);
	if (*(__u32 *)(data + 66) != (__u32)mirror->cookie || *(__u32 *)(data + 70) != mirror->cookie >> 32)
		return td_verdict(TD_DROP_COOKIE, length, XDP_DROP);
	state = td_gate_now();
	epoch = bpf_ntohl(TD_OUTER(data, __u32, option.epoch));
	if (!state || epoch > state->epoch)
		return td_verdict(TD_DROP_EPOCH_NEW, length, XDP_DROP);
	flags = TD_OUTER(data, __u8, option.flags);
	recording = bpf_map_lookup_elem(&recorder, &zero);
	/* Of an older epoch when we have moved on already. */
	if (flags == TD_WIRE_YIELDED)
		return inherit(ctx, state, recording && *recording == 1);
	if (epoch < state->epoch)
		return td_verdict(TD_DROP_EPOCH_OLD, length, XDP_DROP);
	if (flags & TD_WIRE_REFLECTED)
		return deliver(ctx, state, flags & TD_WIRE_OUT, TD_OUTER(data, __u8, option.uplink));
	if (state->mode != TD_MODE_FENCED || !recording || *recording != 1)
		return td_verdict(TD_DROP_DIRECTION, length, XDP_DROP);
	return record(ctx, epoch, false);
}

/* Hands what the standby has recorded to the uplink, as if it had arrived there; conntrack, VRFs and VLAN devices see
 * nothing unusual. */
SEC("tc")
int tc_mirror_in(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct td_note *note = (void *)(long)skb->data_meta;
	__u32 length = skb->len;
	struct td_packet packet = {};
	__u32 *ifindex;
	__u32 uplink;
	int class;

	if ((void *)(note + 1) <= data && note->magic == TD_NOTE_MAGIC) {
		uplink = note->uplink;
		ifindex = bpf_map_lookup_elem(&uplink_ifindex, &uplink);
		if (!ifindex || !*ifindex)
			return td_verdict(TD_DROP_UPLINK_UNKNOWN, length, TC_ACT_SHOT);
		skb->mark = TD_MARK_REFLECTED;
		/* "Verified" was said of the outer headers, whose UDP has no checksum; our TCP must look at its own, or
		 * it takes what the recorder refuses. */
		bpf_csum_level(skb, BPF_CSUM_LEVEL_RESET);
		return bpf_redirect(*ifindex, BPF_F_INGRESS);
	}
	class = td_classify(data, end, length, false, &packet);
	if (class == TD_CLASS_MALFORMED && end - data < length) {
		if (bpf_skb_pull_data(skb, length < 512 ? length : 512))
			return td_verdict(TD_DROP_MALFORMED, length, TC_ACT_SHOT);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		class = td_classify(data, end, length, false, &packet);
	}
	if (class == TD_CLASS_TRANSIT)
		return TC_ACT_OK;
	return td_verdict(class == TD_CLASS_MALFORMED ? TD_DROP_MALFORMED : TD_DROP_NOT_OURS, length, TC_ACT_SHOT);
}

/* A veth end hands XDP frames on only to an end that runs XDP itself; this makes the far ends of a lab do so. */
SEC("xdp")
int xdp_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}
