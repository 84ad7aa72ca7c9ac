// What the kernel says of a socket: its name, TCP_INFO and its queues. A file of its own, because the kernel's
// <linux/tcp.h>, which knows more of TCP_INFO than glibc does, cannot be included together with libuv's headers.
#include "arguments.h"
#include "errors.h"
#include "families.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <ctime>
#include <vector>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

namespace tandem {
namespace {

Napi::Value tcp_info(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	uint8_t raw[512] = {};
	socklen_t length = sizeof(raw);
	check(env, getsockopt(as_fd(info[0]), IPPROTO_TCP, TCP_INFO, raw, &length), "getsockopt", "TCP_INFO");
	struct tcp_info known;
	memcpy(&known, raw, sizeof(known));
	// tcpi_rcv_wnd (Linux 6.2) follows tcpi_snd_wnd (5.4); Debian 12's headers do not have it yet.
	constexpr size_t receive_window = offsetof(struct tcp_info, tcpi_snd_wnd) + sizeof(known.tcpi_snd_wnd);
	uint32_t rcv_wnd;
	memcpy(&rcv_wnd, raw + receive_window, sizeof(rcv_wnd));
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("state", static_cast<uint32_t>(known.tcpi_state));
	answer.Set("lastAckRecvMs", known.tcpi_last_ack_recv);
	answer.Set("unacked", known.tcpi_unacked);
	answer.Set("bytesReceived", Napi::BigInt::New(env, static_cast<uint64_t>(known.tcpi_bytes_received)));
	answer.Set("bytesAcked", Napi::BigInt::New(env, static_cast<uint64_t>(known.tcpi_bytes_acked)));
	answer.Set("segsIn", known.tcpi_segs_in);
	answer.Set("segsOut", known.tcpi_segs_out);
	answer.Set("rttUs", known.tcpi_rtt);
	answer.Set("retransmits", static_cast<uint32_t>(known.tcpi_retransmits));
	answer.Set("sndMss", known.tcpi_snd_mss);
	answer.Set("sndWnd", known.tcpi_snd_wnd);
	answer.Set("rcvWnd", rcv_wnd);
	answer.Set("raw", copy_bytes(env, raw, length));
	return answer;
}

Napi::Value tcp_timestamp(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	uint32_t value = 0;
	socklen_t length = sizeof(value);
	check(env, getsockopt(as_fd(info[0]), IPPROTO_TCP, TCP_TIMESTAMP, &value, &length), "getsockopt",
	      "TCP_TIMESTAMP");
	return Napi::Number::New(env, value);
}

Napi::Value out_queue(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]), unacked = 0, unsent = 0;
	check(env, ioctl(fd, SIOCOUTQ, &unacked), "ioctl", "SIOCOUTQ");
	check(env, ioctl(fd, SIOCOUTQNSD, &unsent), "ioctl", "SIOCOUTQNSD");
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("unacked", unacked);
	answer.Set("unsent", unsent);
	return answer;
}

int socket_option(Napi::Env env, int fd, int option, const char *name)
{
	int value = 0;
	socklen_t length = sizeof(value);
	check(env, getsockopt(fd, SOL_SOCKET, option, &value, &length), "getsockopt", name);
	return value;
}

/// An address as td_flow_key has it: 16 bytes, and an IPv4 address of an IPv6 socket as IPv4. Returns 4, 6, or 0 for
/// another family.
uint32_t name_end(const struct sockaddr_storage &address, uint8_t ip[16], uint16_t *port)
{
	memset(ip, 0, 16);
	if (address.ss_family == AF_INET) {
		const auto *v4 = reinterpret_cast<const struct sockaddr_in *>(&address);
		memcpy(ip, &v4->sin_addr, 4);
		*port = ntohs(v4->sin_port);
		return 4;
	}
	*port = 0;
	if (address.ss_family != AF_INET6)
		return 0;
	const auto *v6 = reinterpret_cast<const struct sockaddr_in6 *>(&address);
	*port = ntohs(v6->sin6_port);
	bool mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
	memcpy(ip, mapped ? v6->sin6_addr.s6_addr + 12 : v6->sin6_addr.s6_addr, mapped ? 4 : 16);
	return mapped ? 4 : 6;
}

Napi::Value socket_facts(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	int protocol = socket_option(env, fd, SO_PROTOCOL, "SO_PROTOCOL");
	struct sockaddr_storage local = {}, peer = {};
	socklen_t length = sizeof(local);
	check(env, getsockname(fd, reinterpret_cast<struct sockaddr *>(&local), &length), "getsockname");
	length = sizeof(peer);
	bool connected = getpeername(fd, reinterpret_cast<struct sockaddr *>(&peer), &length) == 0;
	if (!connected && errno != ENOTCONN)
		fail(env, errno, "getpeername");
	uint64_t cookie = 0;
	length = sizeof(cookie);
	check(env, getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length), "getsockopt", "SO_COOKIE");
	struct stat status = {};
	check(env, fstat(fd, &status), "fstat");

	uint8_t local_ip[16], peer_ip[16];
	uint16_t local_port, peer_port;
	uint32_t family = name_end(local, local_ip, &local_port);
	name_end(peer, peer_ip, &peer_port);
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("tcp", family != 0 && protocol == IPPROTO_TCP);
	answer.Set("mptcp", family != 0 && protocol == IPPROTO_MPTCP);
	answer.Set("family", family);
	answer.Set("localIp", copy_bytes(env, local_ip, sizeof(local_ip)));
	answer.Set("localPort", local_port);
	answer.Set("peerIp", copy_bytes(env, peer_ip, sizeof(peer_ip)));
	answer.Set("peerPort", peer_port);
	answer.Set("cookie", Napi::BigInt::New(env, cookie));
	answer.Set("inode", static_cast<double>(status.st_ino));
	answer.Set("connected", connected);
	return answer;
}

Napi::Value peek_input(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	size_t most = as_u32(info[1], "max");
	// With an offset of the application's (Linux 6.9) we would be given what lies there, and would move it.
	int offset = -1;
	socklen_t length = sizeof(offset);
	if (getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &length) == 0 && offset >= 0)
		fail(env, EBUSY, "recv", "the application peeks with SO_PEEK_OFF");
	int queued = 0;
	check(env, ioctl(fd, SIOCINQ, &queued), "ioctl", "SIOCINQ");
	std::vector<uint8_t> bytes(std::min(most, static_cast<size_t>(queued)));
	ssize_t got = 0;
	if (!bytes.empty()) {
		do
			got = recv(fd, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
		while (got < 0 && errno == EINTR);
	}
	if (got < 0 && errno == EAGAIN) // read meanwhile
		got = 0;
	check(env, static_cast<int>(got), "recv", "MSG_PEEK");
	return copy_bytes(env, bytes.data(), static_cast<size_t>(got));
}

Napi::Value clock_tick(const Napi::CallbackInfo &info)
{
	// The coarse clocks advance with the tick, and say so (kernel/time/posix-timers.c, KTIME_LOW_RES).
	struct timespec resolution = {};
	check(info.Env(), clock_getres(CLOCK_MONOTONIC_COARSE, &resolution), "clock_getres");
	return Napi::Number::New(info.Env(), static_cast<double>(resolution.tv_nsec));
}

} // namespace

void register_tcp_state(Napi::Env, Napi::Object exports)
{
	add_function(exports, "tcpInfo", tcp_info);
	add_function(exports, "tcpTimestamp", tcp_timestamp);
	add_function(exports, "outQueue", out_queue);
	add_function(exports, "socketFacts", socket_facts);
	add_function(exports, "peekInput", peek_input);
	add_function(exports, "clockTickNs", clock_tick);
}

} // namespace tandem
