/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The only structures shared by BPF, C++ and TypeScript: fixed width, explicit padding, one version.
 *
 * BPF and C++ include this file; TypeScript gets its offsets and enumerations from the BTF of the compiled
 * objects (scripts/abi.mjs writes src/abi.gen.ts), so the three cannot drift apart.
 *
 * Units: *_ns are nanoseconds of CLOCK_BOOTTIME. Addresses are 16 bytes in network order, an IPv4 address in the
 * first 4 with the rest zero. Ports and everything on the wire (`td_wire_*`, __be types) are in network order,
 * everything else in host order. TCP sequence numbers are modulo 2^32.
 */
#ifndef TANDEM_ABI_H
#define TANDEM_ABI_H

#ifndef __bpf__
#include <linux/types.h>
#endif

#define TD_ABI_VERSION 1

#define TD_GENEVE_PORT 6081
#define TD_GENEVE_PROTO_ETHERNET 0x6558
#define TD_GENEVE_CLASS 0xff5a /* RFC 8926, section 6.2: 0xFF00..0xFFFF is for experiments */
#define TD_GENEVE_TYPE 0x01
#define TD_MAX_UPLINKS 8
#define TD_MAX_VLANS 2
#define TD_FRAME_MAX 3328 /* the longest inner frame the mirror carries, bytes from its Ethernet header on */

/* skb->mark values; they live only inside this host. */
#define TD_MARK_REFLECTED 0x7a11d001 /* came back from the standby */
#define TD_MARK_INJECT 0x7a11d002 /* the injector: an egress frame that is to be received instead */
#define TD_MARK_OWN 0x7a11d003 /* a segment the agent itself composed (a reset of a lost session, a nudge) */

/* What the data plane does for the service (architecture, section 3). */
enum td_mode {
	TD_MODE_FENCED = 0, /* nothing of the service passes, in or out, no ARP/ND */
	TD_MODE_REFLECT = 1, /* every segment past the standby */
	TD_MODE_SOLO = 2, /* directly; sessions are not protected */
	TD_MODE_YIELD = 3, /* as FENCED, but segments that come in are forwarded to the partner, who takes over */
};

/* Map "gate": an array of maps with one inner map, each inner map an array with one td_gate. Replacing the inner
 * map returns only after no CPU acts on the old one. */
struct td_gate {
	__u32 mode; /* enum td_mode */
	__u32 epoch; /* frames carry it; frames of an older one are refused */
	__u64 quarantine_until_ns; /* until then resets without a "meant" verdict do not leave */
};

/* Map "voice": mmapable array with one entry, written by the pulse thread. After until_ns everything behaves as
 * FENCED, with no help from user space. */
struct td_voice {
	__u64 until_ns;
};

/* Map "link": array with one entry, the mirror link as this router sees it. */
struct td_link {
	__u64 cookie; /* shared by the pair */
	__u32 local_ip; /* __be32 */
	__u32 partner_ip; /* __be32 */
	__u8 local_mac[6];
	__u8 partner_mac[6]; /* next hop towards the partner; all zero: not resolved, nothing can be sent */
	__u32 ifindex;
	__u32 record_max; /* longest inner frame, bytes, that may be recorded */
	__u32 reserved;
};

/* Map "addresses": service addresses, so that transit traffic costs one lookup. Key td_address, value __u32 flags. */
struct td_address {
	__u8 ip[16];
	__u32 family; /* 4 or 6 */
};

/* Map "claims": hash with one entry for each service address, key td_address: who else was last heard on an uplink to
 * say that the address is his (ARP sender, target of a neighbour advertisement). */
struct td_claim {
	__u64 heard_ns; /* 0: nobody */
	__u8 mac[6]; /* who sent the frame */
	__u8 reserved[2];
};

enum td_service_kind {
	TD_SERVICE_PASSIVE = 0, /* port is the local one */
	TD_SERVICE_ACTIVE = 1, /* active open: port is the remote one */
};

/* Map "services": key td_service_key, value td_service. */
struct td_service_key {
	__u8 ip[16]; /* the local (service) address */
	__u16 port; /* __be16 */
	__u8 family; /* 4 or 6 */
	__u8 kind; /* enum td_service_kind */
};
struct td_service {
	__u16 id;
	__u16 flags; /* enum td_service_flag */
	__u32 reserved;
	__u64 crashed_ns; /* when a dying task last closed a socket of it; 0 since somebody listens again. The witness's */
};
/* After a crash resets without a "meant" verdict do not leave for so long: of sessions that had just begun, and of those
 * that nobody listens for. A SYN is sent again after one second and after three. */
#define TD_CRASH_QUARANTINE_NS 5000000000ULL
enum td_service_flag {
	TD_SERVICE_CRASH_MEANT = 1, /* what the kernel sends for a dying application is heard */
	TD_SERVICE_EXIT_ZERO_MEANT = 2, /* likewise if it exits with code 0, without having closed */
	TD_SERVICE_DELIVERED = 4, /* its sessions resume where their applications have read to */
};

/* Map "uplinks": hash, key __u32 ifindex, value td_uplink. */
struct td_uplink {
	__u32 index; /* 0..TD_MAX_UPLINKS-1, the same on both routers; also the key in the devmap "uplink_dev" */
	__u8 mac[6];
	__u16 reserved;
};

/* One direction-independent name of a session: local is the service's side. */
struct td_flow_key {
	__u8 local_ip[16];
	__u8 peer_ip[16];
	__u16 local_port; /* __be16 */
	__u16 peer_port; /* __be16 */
	__u8 family; /* 4 or 6 */
	__u8 reserved[3];
};

/* The Geneve option of every reflected frame, network order, 36 bytes with its 4-byte option header. */
struct td_wire_option {
	__u16 geneve_class; /* __be16 TD_GENEVE_CLASS */
	__u8 geneve_type; /* TD_GENEVE_TYPE */
	__u8 geneve_length; /* in 4-byte words, without these first 4 bytes: 8 */
	__u8 version; /* TD_ABI_VERSION */
	__u8 flags; /* enum td_wire_flag */
	__u8 uplink; /* index of the uplink the frame came by or leaves by */
	__u8 reserved;
	__u16 service; /* __be16 */
	__u16 checksum; /* Internet checksum (RFC 1071) of this option: the outer UDP has none, and a stamp is believed */
	__u32 epoch; /* __be32 */
	__u64 cookie; /* opaque */
	__u32 copied_seq; /* __be32, what the application has read up to; valid with TD_WIRE_STAMP */
	__u32 write_seq; /* __be32, what the application has written up to; likewise */
	__u32 rcv_nxt; /* __be32, what the active's TCP has received up to; likewise */
} __attribute__((packed));

enum td_wire_flag {
	TD_WIRE_OUT = 1, /* from the service to the peer; otherwise inward */
	TD_WIRE_REFLECTED = 2, /* the standby has recorded it */
	TD_WIRE_STAMP = 4, /* copied_seq, write_seq and rcv_nxt are valid */
	TD_WIRE_YIELDED = 8, /* inward, from a router in YIELD: not to be sent back */
};

/* Outer headers of a reflected frame: Ethernet 14, IPv4 20, UDP 8, Geneve 8, option 36. */
#define TD_OVERHEAD_IP (20 + 8 + 8 + 36 + 14) /* what the mirror's MTU must exceed the uplink's by, untagged: 86 */
#define TD_OVERHEAD_HEADERS (14 + 20 + 8 + 8 + 36) /* what stands before the inner Ethernet header: 86 */

/* A record of the ring "records": this header, then the inner frame from its Ethernet header on. */
struct td_record {
	__u64 time_ns; /* up to one timer tick behind */
	__u32 flow; /* monotonic id of the flow on this recorder; 0: no session (not TCP) */
	__u32 seq;
	__u32 ack;
	__u32 tsval; /* valid with TD_RECORD_TS */
	__u32 tsecr;
	__u32 copied_seq; /* valid with TD_RECORD_STAMP */
	__u32 write_seq;
	__u32 rcv_nxt;
	__u16 window; /* as on the wire, unscaled */
	__u16 frame_length; /* bytes of the frame that follow this header */
	__u16 l3_offset; /* in the frame */
	__u16 l4_offset;
	__u16 payload_offset;
	__u16 payload_length; /* TCP payload by the IP header; Ethernet padding is not payload */
	__u16 service;
	__u8 tcp_flags; /* byte 13 of the TCP header */
	__u8 flags; /* enum td_record_flag */
	__u32 epoch;
	__u8 uplink;
	__u8 reserved[3];
	struct td_flow_key key;
};

enum td_record_flag {
	TD_RECORD_OUT = 1,
	TD_RECORD_STAMP = 2,
	TD_RECORD_TS = 4,
	TD_RECORD_CHECKSUM_OK = 8, /* set by the batch reader, in C++, after it verified the TCP checksum */
};

/* Map "crash" (hash, LRU): verdicts on sockets of a service, key td_flow_key. Filled by the witness, looked up at
 * egress; they outlive the socket. */
enum td_verdict {
	TD_VERDICT_FIN_MEANT = 1,
	TD_VERDICT_FIN_CRASH = 2,
	TD_VERDICT_RST_MEANT = 4,
	TD_VERDICT_RST_CRASH = 8,
};
struct td_verdict_entry {
	__u64 time_ns;
	__u32 verdicts; /* enum td_verdict, or-ed */
	__u32 exit_code; /* of the task that ended, as the kernel keeps it */
};

/* Map "closed" (LRU hash): after a takeover, sessions that had ended a moment before. Key td_flow_key. A reset that
 * our stack would answer them with leaves as the acknowledgement the old active would have sent. */
struct td_closed {
	__u32 ack; /* what to acknowledge: the sequence number after the peer's FIN */
	__u32 seq; /* our next sequence number: after our FIN */
};

/* Map "ahead" (LRU hash): after a takeover, sessions of which the old active had sent output beyond a gap: what fills
 * the gap was lost before the standby had it. Key td_flow_key. The peer will acknowledge all of it at once when the gap
 * is filled, before our stack has sent as much; if it holds it at all, which its acknowledgements tell. */
struct td_ahead {
	__u32 end; /* the sequence number after all that output */
	__u32 answers; /* acknowledgements of the peer since the takeover */
	__u32 held; /* one of them had a block (RFC 2018) beyond the gap */
};

/* What the witness tells the agent, through the ring "events". */
enum td_event_kind {
	TD_EVENT_CLOSED = 1, /* the socket reached CLOSE */
	TD_EVENT_CRASHED = 2, /* a crash verdict was taken */
};
struct td_event {
	__u64 time_ns;
	__u32 kind; /* enum td_event_kind */
	__u32 verdicts; /* enum td_verdict */
	__u32 copied_seq;
	__u32 exit_code;
	struct td_flow_key key;
};

/* Map "borrowed": array with one entry, the socket of another process of which the agent holds a descriptor now. */
struct td_borrowed {
	__u64 cookie; /* SO_COOKIE; 0: none */
	__u32 pid; /* of the agent, as its own PID namespace has it */
	__u32 reserved;
};

/* Map "readings" (hash): sockets of services of flag DELIVERED whose applications have read since user space last emptied
 * it. Key td_flow_key, value __u32: copied_seq. */

/* What the program "snapshot" (iter/tcp) writes of each connected socket of a service, under the socket's lock: the
 * numbers belong together. Names are the kernel's (struct tcp_sock, net/ipv4/tcp.c). Windows are bytes, already scaled;
 * ticks are jiffies. */
struct td_socket {
	struct td_flow_key key;
	__u64 time_ns;
	__u64 cookie; /* SO_COOKIE */
	__u64 inode; /* of the descriptor, as in /proc/PID/fd; 0: no process holds it */
	__u64 bytes_received; /* by this kernel socket; a FIN received counts one */
	__u64 bytes_acked; /* likewise of our output; a SYN (active open) or FIN acknowledged counts one each */
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq; /* a FIN that is queued counts one */
	__u32 rcv_wup;
	__u32 rcv_wnd;
	__u32 snd_wnd;
	__u32 snd_wl1;
	__u32 max_window;
	__u32 ts_recent;
	__u32 tsval; /* what it would send now */
	__u32 flags; /* enum td_socket_flag */
	__u32 keep_idle; /* ticks; 0: the system's */
	__u32 keep_interval; /* likewise */
	__u32 user_timeout; /* ms; 0: the system's */
	__u32 linger; /* ticks; valid with TD_SOCKET_LINGER */
	__u32 bound_device; /* ifindex, 0: none */
	__u32 send_buffer; /* as the kernel keeps it: twice what the application gave; 0: tuned by the kernel */
	__u32 receive_buffer; /* likewise */
	__u32 priority;
	__u32 mark;
	__u16 mss; /* the peer's, no larger than user_mss */
	__u16 user_mss; /* TCP_MAXSEG, 0: not set */
	__s16 ttl; /* or hop limit; -1: the route's */
	__u8 min_ttl; /* or hop count */
	__u8 tos; /* or traffic class */
	__u8 state; /* BPF_TCP_* of linux/bpf.h */
	__u8 snd_wscale;
	__u8 rcv_wscale;
	__u8 keep_count; /* 0: the system's */
	__u8 congestion[16]; /* ends with a zero byte */
	__u32 reserved;
};
enum td_socket_flag {
	TD_SOCKET_SACK = 1,
	TD_SOCKET_TIMESTAMPS = 2,
	TD_SOCKET_WSCALE = 4,
	TD_SOCKET_OUT_OF_ORDER = 8, /* segments wait beyond a gap */
	TD_SOCKET_URGENT = 16, /* urgent data is in the receive queue */
	TD_SOCKET_FIN_RECEIVED = 32, /* rcv_nxt is after it */
	TD_SOCKET_FIN_SENT = 64, /* snd_nxt is after it */
	TD_SOCKET_FIN_ACKED = 128, /* snd_una is after it */
	TD_SOCKET_MPTCP = 256,
	TD_SOCKET_MD5 = 512,
	TD_SOCKET_NODELAY = 1024,
	TD_SOCKET_KEEPALIVE = 2048,
	TD_SOCKET_LINGER = 4096,
};

/* What the program "owners" (iter/task_file) writes of each descriptor that is a connected socket of a service's
 * address and port, in whichever network namespace. */
struct td_owner {
	__u64 inode; /* as in td_socket */
	__u32 pid; /* in the reader's PID namespace */
	__u32 fd;
};

/* Counters: per-CPU array "counters", index enum td_reason, value td_counter. Numbers are never reused. */
struct td_counter {
	__u64 packets;
	__u64 bytes;
};
enum td_reason {
	TD_PASS_TRANSIT = 0, /* not for a service address */
	TD_PASS_OTHER = 1, /* for a service address, but no TCP of a service; voice held */
	TD_PASS_SOLO_IN = 2,
	TD_PASS_SOLO_OUT = 3,
	TD_PASS_REFLECT_IN = 4, /* sent to the standby */
	TD_PASS_REFLECT_OUT = 5,
	TD_PASS_RECORDED_IN = 6, /* at the standby: recorded and sent back */
	TD_PASS_RECORDED_OUT = 7,
	TD_PASS_DELIVERED_IN = 8, /* back from the standby, into our TCP */
	TD_PASS_DELIVERED_OUT = 9, /* back from the standby, to the peer */
	TD_PASS_INJECTED = 10,
	TD_PASS_CLOSED_ACK = 11, /* a reset turned into the acknowledgement of a closed session */
	TD_PASS_ACK_AHEAD = 12, /* an acknowledgement lowered to what our stack has sent so far */
	TD_PASS_YIELDED = 13, /* sent to the partner, who takes over */
	TD_PASS_INHERITED = 14, /* from the router we take over from: kept, or into our TCP */
	TD_DROP_FENCED_IN = 32,
	TD_DROP_FENCED_OUT = 33,
	TD_DROP_FENCED_NEIGHBOUR = 34, /* ARP or ND about a service address while fenced */
	TD_DROP_NO_VOICE = 35, /* the voice has run out */
	TD_DROP_MALFORMED = 36, /* towards a service address, and not parseable */
	TD_DROP_FRAGMENT = 37,
	TD_DROP_TOO_LONG = 38, /* does not fit into the mirror link */
	TD_DROP_LINK_UNRESOLVED = 39, /* the partner's link-layer address is not known */
	TD_DROP_RING_FULL = 40,
	TD_DROP_NOT_OURS = 41, /* on the mirror device: not a frame of this protocol, but for a service address */
	TD_DROP_GENEVE_MALFORMED = 42,
	TD_DROP_VERSION = 43,
	TD_DROP_COOKIE = 44,
	TD_DROP_EPOCH_OLD = 45,
	TD_DROP_EPOCH_NEW = 46, /* of an epoch we do not know yet */
	TD_DROP_DIRECTION = 47, /* a frame that this role must not get */
	TD_DROP_UNREFLECTED = 48, /* at the side door: a protected segment that did not pass the standby */
	TD_DROP_CRASHED = 49, /* from a socket whose application crashed */
	TD_DROP_RST_QUARANTINE = 50, /* a reset nobody meant, shortly after a takeover or crash */
	TD_DROP_UPLINK_UNKNOWN = 51,
	TD_DROP_ENCAPSULATE = 52, /* the kernel refused to make room for headers, or to change them */
	TD_DROP_SOCKET_GONE = 53, /* from a socket that has ended while the segment waited to leave */
	TD_REASON_MAX = 64,
};

/* One datagram of the pulse, network order, the same in both directions and on both paths. */
enum td_pulse_kind {
	TD_PULSE_HEARTBEAT = 1,
	TD_PULSE_ANSWER = 2,
};
enum td_pulse_flag {
	TD_PULSE_GRANT = 1, /* answer: the sender grants voice for lease_ns from when the heartbeat was sent */
	TD_PULSE_SPOKE = 2, /* the sender has, or had in an earlier life, the voice of its epoch */
};
struct td_wire_pulse {
	__u32 magic; /* TD_PULSE_MAGIC */
	__u8 version; /* TD_ABI_VERSION */
	__u8 kind; /* enum td_pulse_kind */
	__u8 path; /* 0 mirror, 1 uplink */
	__u8 role; /* enum td_role */
	__u32 flags; /* enum td_pulse_flag */
	__u32 epoch;
	__u64 incarnation; /* chosen at random at agent start */
	__u64 sequence; /* of the heartbeat; an answer repeats it */
	__u64 sent_ns; /* sender's clock at the heartbeat; an answer repeats it, only the sender reads it */
	__u64 lease_ns;
	__u64 echo_incarnation; /* answer: of the heartbeat that it answers */
	__u64 mac; /* SipHash-2-4 under the pair's key over all that stands before */
} __attribute__((packed));
#define TD_PULSE_MAGIC 0x54444d50 /* "TDMP" */

enum td_role {
	TD_ROLE_FENCED = 0,
	TD_ROLE_JOINING = 1,
	TD_ROLE_STANDBY = 2,
	TD_ROLE_ACTIVE = 3, /* reflecting */
	TD_ROLE_SOLO = 4,
};

#define TD_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " must be " #bytes " bytes")
#ifdef __cplusplus
#undef TD_ASSERT_SIZE
#define TD_ASSERT_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), #type " must be " #bytes " bytes")
#endif
TD_ASSERT_SIZE(struct td_gate, 16);
TD_ASSERT_SIZE(struct td_voice, 8);
TD_ASSERT_SIZE(struct td_link, 40);
TD_ASSERT_SIZE(struct td_address, 20);
TD_ASSERT_SIZE(struct td_claim, 16);
TD_ASSERT_SIZE(struct td_service_key, 20);
TD_ASSERT_SIZE(struct td_service, 16);
TD_ASSERT_SIZE(struct td_uplink, 12);
TD_ASSERT_SIZE(struct td_flow_key, 40);
TD_ASSERT_SIZE(struct td_wire_option, 36);
TD_ASSERT_SIZE(struct td_record, 104);
TD_ASSERT_SIZE(struct td_verdict_entry, 16);
TD_ASSERT_SIZE(struct td_ahead, 12);
TD_ASSERT_SIZE(struct td_closed, 8);
TD_ASSERT_SIZE(struct td_event, 64);
TD_ASSERT_SIZE(struct td_borrowed, 16);
TD_ASSERT_SIZE(struct td_socket, 200);
TD_ASSERT_SIZE(struct td_owner, 16);
TD_ASSERT_SIZE(struct td_counter, 16);
TD_ASSERT_SIZE(struct td_wire_pulse, 64);

#endif
