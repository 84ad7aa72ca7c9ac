// The options of a socket that the wire does not show, as src/session/socket-options.ts describes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace tandem {

struct SocketOptions {
	std::optional<int> ttl; // absent: the route's
	int min_ttl = 0;
	int tos = 0;
	bool no_delay = false;
	bool keep_alive = false;
	std::optional<int> keep_idle; // seconds
	std::optional<int> keep_interval;
	std::optional<int> keep_count;
	int user_timeout = 0; // ms
	std::string congestion; // empty: the system's
	std::optional<uint32_t> max_segment;
	std::string device; // empty: none
	std::optional<int> send_buffer; // bytes as the application gave them; absent: tuned by the kernel
	std::optional<int> receive_buffer;
	uint32_t priority = 0;
	uint32_t mark = 0;
	std::optional<int> linger; // seconds
};

/// Sets all but max_segment, which has its own place in the restore, on a socket that is neither bound nor connected.
/// Returns the option that failed, with errno; null: none.
const char *set_options(int fd, int family, const SocketOptions &options);

/// Sets the buffer sizes again, after the queues needed larger ones. As above.
const char *set_buffer_sizes(int fd, const SocketOptions &options);

} // namespace tandem
