// One TCP connection made in repair mode. The order is the kernel's (net/ipv4/tcp.c): repair before bind, so that the
// port is shared with the listener and with thousands of other sessions without a search for conflicts; options and MD5
// key, which connect needs; sequence numbers while still closed; connect, which in repair mode only makes the state ESTABLISHED; then what a handshake
// would have negotiated; then the queues; the window last, because it is checked against the final rcv_nxt.
#include "tcp_repair.h"

#include <linux/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

namespace tandem {
namespace {

constexpr size_t kChunk = 32 * 1024; // one call fills one sk_buff; larger allocations fail first when memory is short

constexpr int kSmallestMss = 88; // of TCP_MAXSEG (TCP_MIN_MSS in net/tcp.h); the largest is MAX_TCP_WINDOW

// Option codes of struct tcp_repair_opt are the TCP option kinds (RFC 9293, RFC 7323, RFC 2018).
constexpr uint32_t kOptionMss = 2, kOptionWindowScale = 3, kOptionSackPermitted = 4, kOptionTimestamp = 8;

/// Runs the steps of one socket; the first failure stays and makes the rest do nothing.
class Sequence {
public:
	explicit Sequence(int fd) { outcome.fd = fd; }

	bool ok() const { return outcome.error == 0; }

	void set(int option, const void *value, socklen_t length, const char *step)
	{
		if (ok() && setsockopt(outcome.fd, IPPROTO_TCP, option, value, length) < 0)
			failed(step);
	}

	void set(int option, int value, const char *step) { set(option, &value, sizeof(value), step); }

	/// `step`: of set_options; null: it went well.
	void check(const char *step)
	{
		if (step)
			failed(step);
	}

	void failed(const char *step)
	{
		outcome.error = errno;
		outcome.step = step;
	}

	RestoreOutcome outcome;
};

/// Raises a buffer's limit to hold `bytes` of queue. A buffer set by hand is no longer tuned by the kernel; SO_BUF_LOCK
/// (Linux 5.14) gives that back.
bool make_room(int fd, int option, size_t bytes)
{
	// The kernel doubles the value and counts sk_buff overhead in it.
	int room = static_cast<int>(std::min<size_t>(bytes + bytes / 2 + 256 * 1024, 1 << 29));
	if (setsockopt(fd, SOL_SOCKET, option, &room, sizeof(room)) < 0)
		return false;
	int none = 0;
	setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &none, sizeof(none)); // where it is missing the size merely stays
	return true;
}

void fill_queue(Sequence &sequence, int queue, const uint8_t *data, size_t length, int buffer, const char *step)
{
	if (!length)
		return;
	sequence.set(TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE");
	bool roomy = false;
	for (size_t done = 0; sequence.ok() && done < length;) {
		ssize_t taken = send(sequence.outcome.fd, data + done, std::min(kChunk, length - done),
				     MSG_DONTWAIT | MSG_NOSIGNAL);
		if (taken > 0) {
			done += static_cast<size_t>(taken);
		} else if (taken < 0 && errno == EINTR) {
			continue;
		} else if (!roomy && make_room(sequence.outcome.fd, buffer, length)) {
			roomy = true;
		} else {
			sequence.failed(step);
		}
	}
}

/// The key for all segments from and to the peer. With it set before connect, the timestamps and the segment size are
/// chosen as for a signed session.
void set_md5_key(Sequence &sequence, const SessionState &state)
{
	struct tcp_md5sig signature = {};
	static_assert(sizeof(signature.tcpm_addr) == sizeof(struct sockaddr_storage));
	struct sockaddr_storage address;
	socket_address(state.peer, 0, &address);
	memcpy(&signature.tcpm_addr, &address, sizeof(address));
	signature.tcpm_keylen = static_cast<__u16>(state.md5_length);
	memcpy(signature.tcpm_key, state.md5_key, std::min(state.md5_length, sizeof(signature.tcpm_key)));
	sequence.set(TCP_MD5SIG, &signature, sizeof(signature), "TCP_MD5SIG");
}

} // namespace

RestoreOutcome restore_session(const SessionState &state)
{
	Sequence sequence(socket(state.local.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
	int fd = sequence.outcome.fd;
	if (fd < 0) {
		sequence.failed("socket");
		return sequence.outcome;
	}
	sequence.set(TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR");

	if (sequence.ok() && state.options)
		sequence.check(set_options(fd, state.local.family, *state.options));
	if (state.md5_key)
		set_md5_key(sequence, state);

	struct sockaddr_storage address;
	socklen_t length = socket_address(state.local, state.local_port, &address);
	if (sequence.ok() && bind(fd, reinterpret_cast<struct sockaddr *>(&address), length) < 0)
		sequence.failed("bind");

	sequence.set(TCP_REPAIR_QUEUE, TCP_SEND_QUEUE, "TCP_REPAIR_QUEUE");
	sequence.set(TCP_QUEUE_SEQ, &state.snd_una, sizeof(state.snd_una), "TCP_QUEUE_SEQ");
	sequence.set(TCP_REPAIR_QUEUE, TCP_RECV_QUEUE, "TCP_REPAIR_QUEUE");
	sequence.set(TCP_QUEUE_SEQ, &state.rcv_seq, sizeof(state.rcv_seq), "TCP_QUEUE_SEQ");

	// The option below comes too late for the segment size: connect computes it from the default of 536, and nothing
	// would compute it again.
	uint32_t mss = state.mss;
	if (state.options && state.options->max_segment)
		mss = std::min(mss, *state.options->max_segment);
	sequence.set(TCP_MAXSEG, std::clamp<int>(static_cast<int>(mss), kSmallestMss, 32767), "TCP_MAXSEG");
	length = socket_address(state.peer, state.peer_port, &address);
	if (sequence.ok() && connect(fd, reinterpret_cast<struct sockaddr *>(&address), length) < 0)
		sequence.failed("connect");

	struct tcp_repair_opt options[4];
	size_t count = 0;
	options[count++] = {kOptionMss, mss};
	// Without scaling, too, as shifts of 0: connect has chosen a receive shift, by which an unscaled window would shrink
	// to some bytes (tcp_connect_init and tcp_select_window, net/ipv4/tcp_output.c).
	options[count++] = {kOptionWindowScale, state.snd_wscale | static_cast<uint32_t>(state.rcv_wscale) << 16};
	if (state.sack)
		options[count++] = {kOptionSackPermitted, 0};
	if (state.timestamp)
		options[count++] = {kOptionTimestamp, 0};
	sequence.set(TCP_REPAIR_OPTIONS, options, static_cast<socklen_t>(count * sizeof(options[0])),
		     "TCP_REPAIR_OPTIONS");
	if (state.timestamp) {
		// Since Linux 6.7 the lowest bit switches the socket to microsecond timestamps, which pass half their range
		// in 36 minutes: a peer of an idle session would then drop us by PAWS (RFC 7323, section 5.5). Never set by
		// chance, therefore; one millisecond ahead does no harm.
		uint32_t timestamp = (*state.timestamp + 1) & ~1U;
		sequence.set(TCP_TIMESTAMP, &timestamp, sizeof(timestamp), "TCP_TIMESTAMP");
	}

	fill_queue(sequence, TCP_RECV_QUEUE, state.received, state.received_length, SO_RCVBUFFORCE, "receive queue");
	fill_queue(sequence, TCP_SEND_QUEUE, state.unacked, state.unacked_length, SO_SNDBUFFORCE, "send queue");
	if (sequence.ok() && state.options)
		sequence.check(set_buffer_sizes(fd, *state.options));

	if (state.window) {
		struct tcp_repair_window window = {state.window->snd_wl1, state.window->snd_wnd,
						   state.window->max_window, state.window->rcv_wnd,
						   state.window->rcv_wup};
		sequence.set(TCP_REPAIR_WINDOW, &window, sizeof(window), "TCP_REPAIR_WINDOW");
	}
	// Neither queue selected: a write before the release fails instead of landing in one.
	sequence.set(TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE");

	if (!sequence.ok()) {
		close(fd); // in repair mode: silent
		sequence.outcome.fd = -1;
	}
	return sequence.outcome;
}

int leave_repair(int fd, bool probe)
{
	int mode = probe ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &mode, sizeof(mode)) < 0)
		return errno;
	// Leaving repair clears address reuse, which a socket made by accept() inherits from its listener: without it the
	// restarted application could not bind its listener while this session lives.
	int on = 1;
	return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ? errno : 0;
}

void close_unheard(int fd)
{
	int mode = TCP_REPAIR_ON;
	setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &mode, sizeof(mode)); // tcp_disconnect in net/ipv4/tcp.c
	close(fd);
}

} // namespace tandem
