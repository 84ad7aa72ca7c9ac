/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Kernel sockets as sessions: which are of a service of ours, and by what name. */
#ifndef TANDEM_SOCKET_H
#define TANDEM_SOCKET_H

#define AF_INET 2
#define AF_INET6 10

/* The service, and the session's name, if the socket is of one of ours; else NULL. skc_num is already 0 at the change to CLOSE, so the local
 * port is taken from inet_sport. An IPv4 session of an AF_INET6 socket is named as IPv4. */
static __always_inline struct td_service *td_service_socket(struct tcp_sock *tcp, struct td_flow_key *key)
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
		return NULL;
	key->local_port = tcp->inet_conn.icsk_inet.inet_sport;
	key->peer_port = sk->__sk_common.skc_dport;
	return td_service_of((const __u32 *)key->local_ip, key->family, key->local_port, key->peer_port);
}

#endif
