// What the kernel says of a TCP socket: TCP_INFO and its queues. A file of its own, because the kernel's <linux/tcp.h>,
// which knows more of TCP_INFO than glibc does, cannot be included together with libuv's headers.
#include "arguments.h"
#include "errors.h"
#include "families.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstddef>

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

} // namespace

void register_tcp_state(Napi::Env, Napi::Object exports)
{
	add_function(exports, "tcpInfo", tcp_info);
	add_function(exports, "tcpTimestamp", tcp_timestamp);
	add_function(exports, "outQueue", out_queue);
}

} // namespace tandem
