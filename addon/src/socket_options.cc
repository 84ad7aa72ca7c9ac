// The options of a socket that the wire does not show. Only what differs from a fresh socket is set: a restore is many
// system calls already. They are set before connect, which in repair mode, too, chooses the congestion control, looks the
// route up (device, mark, TOS), starts the keepalive timer and derives the window's clamp from the receive buffer.
#include "socket_options.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#ifndef IPV6_MINHOPCOUNT
#define IPV6_MINHOPCOUNT 73
#endif

namespace tandem {
namespace {

/// Sets options one after another; the first failure stays and makes the rest do nothing.
class Setting {
public:
	explicit Setting(int fd) : fd_(fd) {}

	void set(int level, int option, const void *value, socklen_t length, const char *name)
	{
		if (!failed && setsockopt(fd_, level, option, value, length) < 0)
			failed = name;
	}

	void set(int level, int option, int value, const char *name)
	{
		set(level, option, &value, sizeof(value), name);
	}

	void set_given(int level, int option, const std::optional<int> &value, const char *name)
	{
		if (value)
			set(level, option, *value, name);
	}

	void set_nonzero(int level, int option, int value, const char *name)
	{
		if (value)
			set(level, option, value, name);
	}

	const char *failed = nullptr;

private:
	int fd_;
};

} // namespace

const char *set_buffer_sizes(int fd, const SocketOptions &options)
{
	Setting setting(fd);
	setting.set_given(SOL_SOCKET, SO_SNDBUFFORCE, options.send_buffer, "SO_SNDBUFFORCE");
	setting.set_given(SOL_SOCKET, SO_RCVBUFFORCE, options.receive_buffer, "SO_RCVBUFFORCE");
	return setting.failed;
}

const char *set_options(int fd, int family, const SocketOptions &options)
{
	Setting setting(fd);
	if (!options.device.empty())
		setting.set(SOL_SOCKET, SO_BINDTODEVICE, options.device.data(),
			    static_cast<socklen_t>(options.device.size()), "SO_BINDTODEVICE");
	if (family == AF_INET) {
		setting.set_given(IPPROTO_IP, IP_TTL, options.ttl, "IP_TTL");
		setting.set_nonzero(IPPROTO_IP, IP_MINTTL, options.min_ttl, "IP_MINTTL");
		setting.set_nonzero(IPPROTO_IP, IP_TOS, options.tos, "IP_TOS");
	} else {
		setting.set_given(IPPROTO_IPV6, IPV6_UNICAST_HOPS, options.ttl, "IPV6_UNICAST_HOPS");
		setting.set_nonzero(IPPROTO_IPV6, IPV6_MINHOPCOUNT, options.min_ttl, "IPV6_MINHOPCOUNT");
		setting.set_nonzero(IPPROTO_IPV6, IPV6_TCLASS, options.tos, "IPV6_TCLASS");
	}
	// IP_TOS chooses a priority as well.
	if (options.priority || options.tos)
		setting.set(SOL_SOCKET, SO_PRIORITY, static_cast<int>(options.priority), "SO_PRIORITY");
	setting.set_nonzero(SOL_SOCKET, SO_MARK, static_cast<int>(options.mark), "SO_MARK");
	setting.set_nonzero(IPPROTO_TCP, TCP_NODELAY, options.no_delay, "TCP_NODELAY");
	setting.set_given(IPPROTO_TCP, TCP_KEEPIDLE, options.keep_idle, "TCP_KEEPIDLE");
	setting.set_given(IPPROTO_TCP, TCP_KEEPINTVL, options.keep_interval, "TCP_KEEPINTVL");
	setting.set_given(IPPROTO_TCP, TCP_KEEPCNT, options.keep_count, "TCP_KEEPCNT");
	setting.set_nonzero(SOL_SOCKET, SO_KEEPALIVE, options.keep_alive, "SO_KEEPALIVE");
	setting.set_nonzero(IPPROTO_TCP, TCP_USER_TIMEOUT, options.user_timeout, "TCP_USER_TIMEOUT");
	if (options.linger) {
		struct linger linger = {1, *options.linger};
		setting.set(SOL_SOCKET, SO_LINGER, &linger, sizeof(linger), "SO_LINGER");
	}
	// An algorithm that this router lacks is no reason to lose a session: then it is the system's.
	if (!setting.failed && !options.congestion.empty() &&
	    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, options.congestion.data(),
		       static_cast<socklen_t>(options.congestion.size())) < 0 &&
	    errno != ENOENT)
		return "TCP_CONGESTION";
	return setting.failed ? setting.failed : set_buffer_sizes(fd, options);
}

} // namespace tandem
