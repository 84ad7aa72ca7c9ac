/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The snapshot: the state of every connected socket of a service, one struct td_socket each, without disturbing it; and
 * which descriptors of which processes they are, one struct td_owner each.
 *
 * The iterator walks the sockets of the network namespace that the reader is in, and holds each one's lock while this
 * runs (bpf_iter_tcp_seq_show, net/ipv4/tcp_ipv4.c): segments that come meanwhile wait in its backlog, the application's
 * calls wait for the lock, and so all numbers of one socket are of one instant.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "parse.h"
#include "service.h"
#include "socket.h"

/* include/net/sock.h, include/net/tcp.h */
#define SOCK_SNDBUF_LOCK 1
#define SOCK_RCVBUF_LOCK 2
#define TCP_NAGLE_OFF 1

#define FLAG(condition, flag) ((condition) ? (flag) : 0)

/* Fields that a kernel may lack, by its age or its configuration. */
struct tcp_sock___optional {
	bool is_mptcp;
	struct tcp_md5sig_info *md5sig_info;
	__u8 tcp_usec_ts : 1;
} __attribute__((preserve_access_index));

char _license[] SEC("license") = "GPL";

static __always_inline __u32 optional_flags(struct tcp_sock *tcp)
{
	struct tcp_sock___optional *optional = (void *)tcp;
	__u32 flags = 0;

	if (bpf_core_field_exists(optional->is_mptcp))
		flags |= FLAG(BPF_CORE_READ(optional, is_mptcp), TD_SOCKET_MPTCP);
	if (bpf_core_field_exists(optional->md5sig_info))
		flags |= FLAG(BPF_CORE_READ(optional, md5sig_info, head.first), TD_SOCKET_MD5);
	return flags;
}

/* tcp_time_stamp_ts and tcp_clock_ts, include/net/tcp.h: milliseconds, or microseconds since Linux 6.7 by route. */
static __always_inline __u32 timestamp_now(struct tcp_sock *tcp)
{
	struct tcp_sock___optional *optional = (void *)tcp;
	__u64 tick_ns = 1000000;

	if (bpf_core_field_exists(optional->tcp_usec_ts) && BPF_CORE_READ_BITFIELD_PROBED(optional, tcp_usec_ts))
		tick_ns = 1000;
	return (__u32)(bpf_ktime_get_ns() / tick_ns) + tcp->tsoffset;
}

/* sk_socket is a part of the inode's allocation (SOCK_INODE, include/net/sock.h). */
static __always_inline __u64 inode_of(struct sock *sk)
{
	struct socket *socket = sk->sk_socket;

	if (!socket)
		return 0;
	return BPF_CORE_READ(container_of(socket, struct socket_alloc, socket), vfs_inode.i_ino);
}

/* Which of the two FINs are counted in the sequence numbers: include/net/tcp_states.h. */
static __always_inline __u32 fin_flags(struct tcp_sock *tcp, __u8 state)
{
	bool received = state == BPF_TCP_CLOSE_WAIT || state == BPF_TCP_CLOSING || state == BPF_TCP_LAST_ACK;
	bool queued = state == BPF_TCP_FIN_WAIT1 || state == BPF_TCP_FIN_WAIT2 || state == BPF_TCP_CLOSING ||
		      state == BPF_TCP_LAST_ACK;

	return FLAG(received, TD_SOCKET_FIN_RECEIVED) |
	       FLAG(queued && tcp->snd_nxt == tcp->write_seq, TD_SOCKET_FIN_SENT) |
	       FLAG(queued && tcp->snd_una == tcp->write_seq, TD_SOCKET_FIN_ACKED);
}

static __always_inline void read_numbers(struct tcp_sock *tcp, struct td_socket *socket)
{
	struct tcp_options_received *options = &tcp->rx_opt;

	socket->bytes_received = tcp->bytes_received;
	socket->bytes_acked = tcp->bytes_acked;
	socket->rcv_nxt = tcp->rcv_nxt;
	socket->copied_seq = tcp->copied_seq;
	socket->snd_una = tcp->snd_una;
	socket->snd_nxt = tcp->snd_nxt;
	socket->write_seq = tcp->write_seq;
	socket->rcv_wup = tcp->rcv_wup;
	socket->rcv_wnd = tcp->rcv_wnd;
	socket->snd_wnd = tcp->snd_wnd;
	socket->snd_wl1 = tcp->snd_wl1;
	socket->max_window = tcp->max_window;
	socket->ts_recent = options->ts_recent;
	socket->tsval = timestamp_now(tcp);
	socket->mss = options->mss_clamp;
	socket->user_mss = options->user_mss;
	socket->snd_wscale = BPF_CORE_READ_BITFIELD(options, snd_wscale);
	socket->rcv_wscale = BPF_CORE_READ_BITFIELD(options, rcv_wscale);
	socket->flags |= FLAG(BPF_CORE_READ_BITFIELD(options, sack_ok), TD_SOCKET_SACK) |
			 FLAG(BPF_CORE_READ_BITFIELD(options, tstamp_ok), TD_SOCKET_TIMESTAMPS) |
			 FLAG(BPF_CORE_READ_BITFIELD(options, wscale_ok), TD_SOCKET_WSCALE) |
			 FLAG(tcp->out_of_order_queue.rb_node, TD_SOCKET_OUT_OF_ORDER) |
			 FLAG(tcp->urg_data, TD_SOCKET_URGENT);
}

static __always_inline void read_options(struct tcp_sock *tcp, struct td_socket *socket)
{
	struct inet_connection_sock *connection = &tcp->inet_conn;
	struct inet_sock *inet = &connection->icsk_inet;
	struct sock *sk = &inet->sk;
	__u64 flags = sk->__sk_common.skc_flags;
	__u32 locks = BPF_CORE_READ_BITFIELD(sk, sk_userlocks);

	if (socket->key.family == 6) {
		struct ipv6_pinfo *ipv6 = inet->pinet6;

		socket->ttl = ipv6->hop_limit;
		socket->min_ttl = ipv6->min_hopcount;
		socket->tos = ipv6->tclass;
	} else {
		socket->ttl = inet->uc_ttl;
		socket->min_ttl = inet->min_ttl;
		socket->tos = inet->tos;
	}
	socket->flags |= FLAG(BPF_CORE_READ_BITFIELD(tcp, nonagle) & TCP_NAGLE_OFF, TD_SOCKET_NODELAY) |
			 FLAG(flags & (1UL << SOCK_KEEPOPEN), TD_SOCKET_KEEPALIVE) |
			 FLAG(flags & (1UL << SOCK_LINGER), TD_SOCKET_LINGER);
	socket->keep_idle = tcp->keepalive_time;
	socket->keep_interval = tcp->keepalive_intvl;
	socket->keep_count = tcp->keepalive_probes;
	socket->user_timeout = connection->icsk_user_timeout;
	socket->linger = sk->sk_lingertime;
	socket->bound_device = sk->__sk_common.skc_bound_dev_if;
	socket->send_buffer = locks & SOCK_SNDBUF_LOCK ? sk->sk_sndbuf : 0;
	socket->receive_buffer = locks & SOCK_RCVBUF_LOCK ? sk->sk_rcvbuf : 0;
	socket->priority = sk->sk_priority;
	socket->mark = sk->sk_mark;
	BPF_CORE_READ_STR_INTO(&socket->congestion, connection, icsk_ca_ops, name);
}

SEC("iter/tcp")
int snapshot(struct bpf_iter__tcp *context)
{
	struct sock_common *common = context->sk_common;
	struct td_socket socket = {};
	struct tcp_sock *tcp;

	/* None at the end of the walk. A socket in repair is no session yet. */
	if (!common || common->skc_state == BPF_TCP_LISTEN)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp || BPF_CORE_READ_BITFIELD(tcp, repair) || !td_service_socket(tcp, &socket.key))
		return 0;
	socket.time_ns = bpf_ktime_get_boot_ns();
	socket.cookie = bpf_get_socket_cookie(tcp);
	socket.inode = inode_of(&tcp->inet_conn.icsk_inet.sk);
	socket.state = common->skc_state;
	socket.flags = optional_flags(tcp) | fin_flags(tcp, socket.state);
	read_numbers(tcp, &socket);
	read_options(tcp, &socket);
	bpf_seq_write(context->meta->seq, &socket, sizeof(socket));
	return 0;
}

/* The process's number as the reader's PID namespace has it: struct pid has one for each level, innermost last. */
static __always_inline __u32 pid_for_reader(struct task_struct *task)
{
	struct pid *reader = bpf_get_current_task_btf()->thread_pid;
	struct pid *pid = task->group_leader->thread_pid;
	struct upid number = {};

	bpf_probe_read_kernel(&number, sizeof(number),
			      (void *)pid + bpf_core_field_offset(pid->numbers) +
				      BPF_CORE_READ(reader, level) * bpf_core_type_size(struct upid));
	return number.nr;
}

SEC("iter/task_file")
int owners(struct bpf_iter__task_file *context)
{
	struct task_struct *task = context->task;
	struct file *file = context->file;
	struct td_owner owner = {};
	struct td_flow_key key;
	struct socket *socket;
	struct tcp_sock *tcp;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket || !socket->sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(socket->sk);
	if (!tcp || socket->sk->__sk_common.skc_state == BPF_TCP_LISTEN || !td_service_socket(tcp, &key))
		return 0;
	owner.inode = file->f_inode->i_ino;
	owner.pid = pid_for_reader(task);
	owner.fd = context->fd;
	bpf_seq_write(context->meta->seq, &owner, sizeof(owner));
	return 0;
}
