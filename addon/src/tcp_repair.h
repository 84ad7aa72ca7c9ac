// One TCP connection made in repair mode, where nothing is sent and the state is set instead of negotiated.
#pragma once

#include "ip_address.h"
#include "socket_options.h"

#include <cstddef>
#include <cstdint>
#include <optional>

namespace tandem {

/// What the restored socket is to know. Sequence numbers modulo 2^32, windows in bytes (already scaled).
struct SessionState {
	IpAddress local;
	IpAddress peer;
	uint16_t local_port = 0; // host order
	uint16_t peer_port = 0;
	uint32_t snd_una = 0;
	const uint8_t *unacked = nullptr; // from snd_una on, sent already
	size_t unacked_length = 0;
	uint32_t rcv_seq = 0; // of the first byte of `received`
	const uint8_t *received = nullptr;
	size_t received_length = 0;
	uint16_t mss = 0; // announced by the peer
	uint8_t snd_wscale = 0; // both 0 without scaling
	uint8_t rcv_wscale = 0;
	bool sack = false;
	std::optional<uint32_t> timestamp;
	struct Window {
		uint32_t snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup;
	};
	std::optional<Window> window;
	std::optional<SocketOptions> options;
	const uint8_t *md5_key = nullptr; // RFC 2385; null: unsigned
	size_t md5_length = 0; // at most 80
};

struct RestoreOutcome {
	int fd = -1; // in repair mode; -1: failed
	int error = 0; // errno
	const char *step = ""; // the call that failed
};

RestoreOutcome restore_session(const SessionState &state);

/// Leaves repair mode, with a window probe or silently. Returns 0 or an errno.
int leave_repair(int fd, bool probe);

/// Closes a restored socket; its peer hears nothing of it.
void close_unheard(int fd);

} // namespace tandem
