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
 *                           - in repair mode: a session restored in advance, which lives elsewhere
 *   → SYN_SENT, ESTABLISHED a new session: verdicts on an earlier one of the same tuple are void
 *   LISTEN → CLOSE          by a dying task: its service has crashed, though it may have no session; → LISTEN: it is back
 *
 * Tracing is system-wide, so sockets of other network namespaces are sorted out first.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "parse.h"
#include "service.h"
#include "socket.h"
#include "crash.h"

#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000

/* Cookie of the network namespace whose sockets are ours. */
const volatile __u64 netns_cookie = 0;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct td_flow_key);
	__type(value, __u32);
} readings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct td_borrowed);
} borrowed SEC(".maps");

char _license[] SEC("license") = "GPL";

static __always_inline void tell(__u32 kind, const struct td_flow_key *key, const struct td_verdict_entry *entry,
				 __u32 copied_seq)
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
	bpf_ringbuf_submit(event, 0);
}

/* Our FIN is acknowledged, or TIME_WAIT takes over: include/net/tcp_states.h, net/ipv4/tcp_input.c. */
static __always_inline bool regular_end(struct tcp_sock *tcp, int from)
{
	if (from == BPF_TCP_FIN_WAIT2)
		return tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & (1UL << SOCK_DONE);
	return (from == BPF_TCP_LAST_ACK || from == BPF_TCP_CLOSING) && tcp->snd_una == tcp->write_seq;
}

/* The agent, which held a descriptor of the socket for a moment, was left with the last one: the application's is gone
 * already. Who merely closed it the agent has found out, and taken the note away (src/net/borrowed-sockets.ts). */
static __always_inline bool orphaned(struct sock *sk, struct task_struct *task)
{
	struct pid *pid = task->group_leader->thread_pid;
	struct td_borrowed *note;
	struct upid number = {};
	__u32 zero = 0;

	note = bpf_map_lookup_elem(&borrowed, &zero);
	if (!note || !note->cookie || note->cookie != (__u64)sk->__sk_common.skc_cookie.counter)
		return false;
	bpf_probe_read_kernel(&number, sizeof(number),
			      (void *)pid + bpf_core_field_offset(pid->numbers) +
				      BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid));
	return (__u32)number.nr == note->pid;
}

/* The task that closes a socket of this service dies, and that is no meant close. */
static __always_inline bool crashes(const struct td_service *service, const struct task_struct *task)
{
	if (!(task->flags & (PF_EXITING | PF_KTHREAD)) || service->flags & TD_SERVICE_CRASH_MEANT)
		return false;
	return !(service->flags & TD_SERVICE_EXIT_ZERO_MEANT) || task->flags & PF_KTHREAD || task->exit_code;
}

static __always_inline void judge_listener(struct sock *sk, int to)
{
	struct td_service *service;
	struct td_flow_key key;
	struct tcp_sock *tcp;

	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return;
	service = td_service_socket(tcp, &key);
	if (!service)
		return;
	if (to == BPF_TCP_LISTEN)
		service->crashed_ns = 0;
	else if (crashes(service, bpf_get_current_task_btf()))
		service->crashed_ns = bpf_ktime_get_boot_ns();
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(witness_state, struct sock *sk, int from, int to)
{
	struct td_verdict_entry fresh = {};
	struct td_verdict_entry *known;
	struct td_service *service;
	struct td_flow_key key;
	struct task_struct *task;
	struct tcp_sock *tcp;
	bool crashed;

	(void)ctx;
	if (sk->__sk_common.skc_net.net->net_cookie != netns_cookie)
		return 0;
	if (from == BPF_TCP_LISTEN || to == BPF_TCP_LISTEN) {
		judge_listener(sk, to);
		return 0;
	}
	/* Of two CPUs that complete one handshake at once the loser destroys its child, while the session lives on in the
	 * winner's (inet_ehash_nolisten, net/ipv4/inet_hashtables.c). No application has had such a socket. */
	if (from == BPF_TCP_SYN_RECV && to == BPF_TCP_CLOSE)
		return 0;
	/* A close after a shutdown sets the state once more (tcp_close_state, net/ipv4/tcp.c). Both directions had ended by
	 * then, ours as it was meant: nothing is left that an exit could cut off. */
	if (from == BPF_TCP_LAST_ACK && to == BPF_TCP_LAST_ACK)
		return 0;
	if (to != BPF_TCP_FIN_WAIT1 && to != BPF_TCP_LAST_ACK && to != BPF_TCP_CLOSE && to != BPF_TCP_ESTABLISHED &&
	    to != BPF_TCP_SYN_SENT)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	if (to == BPF_TCP_CLOSE && BPF_CORE_READ_BITFIELD(tcp, repair))
		return 0;
	service = td_service_socket(tcp, &key);
	if (!service)
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
		tell(TD_EVENT_CLOSED, &key, &fresh, tcp->copied_seq);
		return 0;
	}

	task = bpf_get_current_task_btf();
	if (task->flags & (PF_EXITING | PF_KTHREAD)) {
		fresh.exit_code = task->exit_code;
		crashed = crashes(service, task);
	} else {
		crashed = !(service->flags & TD_SERVICE_CRASH_MEANT) && orphaned(sk, task);
	}
	if (crashed)
		service->crashed_ns = fresh.time_ns;
	if (to == BPF_TCP_CLOSE)
		fresh.verdicts |= crashed ? TD_VERDICT_RST_CRASH : TD_VERDICT_RST_MEANT;
	else
		fresh.verdicts |= crashed ? TD_VERDICT_FIN_CRASH : TD_VERDICT_FIN_MEANT;
	bpf_map_update_elem(&crash, &key, &fresh, BPF_ANY);
	if (crashed)
		tell(TD_EVENT_CRASHED, &key, &fresh, tcp->copied_seq);
	if (to == BPF_TCP_CLOSE)
		tell(TD_EVENT_CLOSED, &key, &fresh, tcp->copied_seq);
	return 0;
}

/* Runs after each read; the sequence number stands where the application has got to. The element is replaced as a whole,
 * under its bucket's lock: what user space takes away and what is noted at the same time cannot be lost between them. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(witness_read, struct sock *sk)
{
	struct td_service *service;
	struct td_flow_key key;
	struct tcp_sock *tcp;
	__u32 copied_seq;

	(void)ctx;
	if (sk->__sk_common.skc_net.net->net_cookie != netns_cookie)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	service = td_service_socket(tcp, &key);
	if (!service || !(service->flags & TD_SERVICE_DELIVERED))
		return 0;
	copied_seq = tcp->copied_seq;
	bpf_map_update_elem(&readings, &key, &copied_seq, BPF_ANY);
	return 0;
}
