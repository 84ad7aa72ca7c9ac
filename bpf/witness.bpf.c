/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The witness: sees how sockets of a service end, and how far the application has read.
 *
 * Crash or meant close. The kernel closes the sockets of a dying task, and the peer could not tell that FIN or RST
 * from a meant one. Who closes is known at the change of state: the task itself, exiting or not (io_uring closes from
 * a kernel worker). The packet may leave much later, from softirq, so the verdict is kept for egress to look up.
 *
 *   → FIN_WAIT1, LAST_ACK   a FIN was decided, by close or shutdown in the task's context
 *   → CLOSE                 an RST was decided, when the owner aborts; but not
 *                           - once the owner is gone (SOCK_DEAD): it was judged when it went
 *                           - with sk_err: the network, a timer or the administrator ended it
 *                           - at the regular end, our FIN acknowledged: nothing more is decided there, and it runs in
 *                             softirq, where `current` is anybody
 *   → SYN_SENT, ESTABLISHED a new session: verdicts on an earlier one of the same tuple are void
 *
 * Tracing is system-wide, so sockets of other network namespaces are sorted out first.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "parse.h"
#include "service.h"
#include "crash.h"

#define AF_INET 2
#define AF_INET6 10
#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000

/* Cookie of the network namespace whose sockets are ours. */
const volatile __u64 netns_cookie = 0;
/* Least time between two COPIED events of one socket, ns. */
const volatile __u64 copied_interval_ns = 1000000;
/* Does a task that exits with code 0 without close() mean its FIN? */
const volatile __u8 exit_zero_meant = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct td_reading {
	__u64 reported_ns;
	__u32 copied_seq;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct td_reading);
} readings SEC(".maps");

char _license[] SEC("license") = "GPL";

/* The session's name if the socket is of a service of ours. skc_num is already 0 at the change to CLOSE, so the local
 * port is taken from inet_sport. An IPv4 session of an AF_INET6 socket is named as IPv4. */
static __always_inline bool service_socket(struct tcp_sock *tcp, struct td_flow_key *key)
{
	struct sock *sk = &tcp->inet_conn.icsk_inet.sk;
	__u16 family = sk->__sk_common.skc_family;

	__builtin_memset(key, 0, sizeof(*key));
	if (family == AF_INET6) {
		__u32 *local = (__u32 *)key->local_ip;
		__u32 *peer = (__u32 *)key->peer_ip;

#pragma unroll
		for (int i = 0; i < 4; i++) {
			local[i] = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[i];
			peer[i] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[i];
		}
		key->family = 6;
		if (!local[0] && !local[1] && local[2] == bpf_htonl(0xffff))
			family = AF_INET;
	}
	if (family == AF_INET) {
		__builtin_memset(key, 0, 32);
		*(__u32 *)key->local_ip = sk->__sk_common.skc_rcv_saddr;
		*(__u32 *)key->peer_ip = sk->__sk_common.skc_daddr;
		key->family = 4;
	}
	if (!key->family)
		return false;
	key->local_port = tcp->inet_conn.icsk_inet.inet_sport;
	key->peer_port = sk->__sk_common.skc_dport;
	return td_service_of((const __u32 *)key->local_ip, key->family, key->local_port, key->peer_port) != NULL;
}

static __always_inline void tell(__u32 kind, const struct td_flow_key *key, const struct td_verdict_entry *entry,
				 __u32 copied_seq, __u64 flags)
{
	struct td_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return;
	event->time_ns = entry->time_ns;
	event->kind = kind;
	event->verdicts = entry->verdicts;
	event->copied_seq = copied_seq;
	event->exit_code = entry->exit_code;
	event->key = *key;
	bpf_ringbuf_submit(event, flags);
}

/* Our FIN is acknowledged, or TIME_WAIT takes over: include/net/tcp_states.h, net/ipv4/tcp_input.c. */
static __always_inline bool regular_end(struct tcp_sock *tcp, int from)
{
	if (from == BPF_TCP_FIN_WAIT2)
		return tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & (1UL << SOCK_DONE);
	return (from == BPF_TCP_LAST_ACK || from == BPF_TCP_CLOSING) && tcp->snd_una == tcp->write_seq;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(witness_state, struct sock *sk, int from, int to)
{
	struct td_verdict_entry fresh = {};
	struct td_verdict_entry *known;
	struct td_flow_key key;
	struct task_struct *task;
	struct tcp_sock *tcp;
	bool crashed;

	(void)ctx;
	if (sk->__sk_common.skc_net.net->net_cookie != netns_cookie || from == BPF_TCP_LISTEN || to == BPF_TCP_LISTEN)
		return 0;
	/* Of two CPUs that complete one handshake at once the loser destroys its child, while the session lives on in the
	 * winner's (inet_ehash_nolisten, net/ipv4/inet_hashtables.c). No application has had such a socket. */
	if (from == BPF_TCP_SYN_RECV && to == BPF_TCP_CLOSE)
		return 0;
	if (to != BPF_TCP_FIN_WAIT1 && to != BPF_TCP_LAST_ACK && to != BPF_TCP_CLOSE && to != BPF_TCP_ESTABLISHED &&
	    to != BPF_TCP_SYN_SENT)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || !service_socket(tcp, &key))
		return 0;
	if (to == BPF_TCP_ESTABLISHED || to == BPF_TCP_SYN_SENT) {
		bpf_map_delete_elem(&crash, &key);
		return 0;
	}

	known = bpf_map_lookup_elem(&crash, &key);
	if (known)
		fresh = *known;
	fresh.time_ns = bpf_ktime_get_boot_ns();
	if (to == BPF_TCP_CLOSE &&
	    (sk->__sk_common.skc_flags & (1UL << SOCK_DEAD) || sk->sk_err || regular_end(tcp, from))) {
		tell(TD_EVENT_CLOSED, &key, &fresh, tcp->copied_seq, 0);
		return 0;
	}

	task = bpf_get_current_task_btf();
	crashed = task->flags & (PF_EXITING | PF_KTHREAD);
	if (crashed) {
		fresh.exit_code = task->exit_code;
		if (exit_zero_meant && !(task->flags & PF_KTHREAD) && !task->exit_code)
			crashed = false;
	}
	if (to == BPF_TCP_CLOSE)
		fresh.verdicts |= crashed ? TD_VERDICT_RST_CRASH : TD_VERDICT_RST_MEANT;
	else
		fresh.verdicts |= crashed ? TD_VERDICT_FIN_CRASH : TD_VERDICT_FIN_MEANT;
	bpf_map_update_elem(&crash, &key, &fresh, BPF_ANY);
	if (crashed)
		tell(TD_EVENT_CRASHED, &key, &fresh, tcp->copied_seq, 0);
	if (to == BPF_TCP_CLOSE)
		tell(TD_EVENT_CLOSED, &key, &fresh, tcp->copied_seq, 0);
	return 0;
}

/* Runs after each read; the sequence number stands where the application has got to. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(witness_read, struct sock *sk)
{
	struct td_verdict_entry none = {};
	struct td_reading *reading;
	struct td_flow_key key;
	struct tcp_sock *tcp;
	__u64 now;

	(void)ctx;
	if (sk->__sk_common.skc_net.net->net_cookie != netns_cookie)
		return 0;
	now = bpf_ktime_get_boot_ns();
	reading = bpf_sk_storage_get(&readings, sk, 0, 0);
	if (reading && now - reading->reported_ns < copied_interval_ns)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || (reading && reading->copied_seq == tcp->copied_seq) || !service_socket(tcp, &key))
		return 0;
	if (!reading)
		reading = bpf_sk_storage_get(&readings, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!reading)
		return 0;
	reading->reported_ns = now;
	reading->copied_seq = tcp->copied_seq;
	none.time_ns = now;
	/* One a millisecond and socket is worth no wakeup; the agent drains on its timer. */
	tell(TD_EVENT_COPIED, &key, &none, tcp->copied_seq, BPF_RB_NO_WAKEUP);
	return 0;
}
