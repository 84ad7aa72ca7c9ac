// The restore under the sanitizers, on real sockets in a network namespace of its own: states, options and keys at random,
// right and wrong ones. Every buffer is a heap block of its exact size. Whatever comes of a session: a descriptor in repair
// mode, or an error with the step's name and no descriptor left behind; and MD5 keys of any length come to rest whole.
// Arguments: seed, rounds. Exits with 1 on a wrong answer.
#include "tcp_repair.h"

#include <dirent.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

using namespace tandem;

namespace {

std::mt19937_64 random_source;

void expect(bool right, const char *what)
{
	if (right)
		return;
	fprintf(stderr, "wrong: %s\n", what);
	exit(1);
}

uint64_t below(uint64_t limit)
{
	return random_source() % limit;
}

bool sometimes()
{
	return below(4) == 0;
}

/// Random bytes in a block of exactly their size.
struct Block {
	explicit Block(size_t bytes) : length(bytes), data(new uint8_t[bytes])
	{
		for (size_t index = 0; index < bytes; index++)
			data[index] = static_cast<uint8_t>(random_source());
	}
	size_t length;
	std::unique_ptr<uint8_t[]> data;
};

void own_namespace()
{
	expect(unshare(CLONE_NEWNET) == 0, "a network namespace (needs root)");
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq request = {};
	strcpy(request.ifr_name, "lo");
	request.ifr_flags = IFF_UP;
	expect(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo is up");
	close(fd);
}

size_t open_descriptors()
{
	size_t count = 0;
	DIR *directory = opendir("/proc/self/fd");
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

std::optional<int> maybe(uint64_t limit)
{
	if (sometimes())
		return static_cast<int>(below(limit));
	return std::nullopt;
}

SocketOptions random_options()
{
	SocketOptions options;
	options.ttl = maybe(300);
	options.min_ttl = sometimes() ? static_cast<int>(below(300)) : 0;
	options.tos = static_cast<int>(below(256));
	options.no_delay = sometimes();
	options.keep_alive = sometimes();
	options.keep_idle = maybe(40000);
	options.keep_interval = maybe(40000);
	options.keep_count = maybe(150);
	options.user_timeout = static_cast<int>(below(1ULL << 31));
	const char *names[] = {"", "reno", "cubic", "no-such", "a-name-much-longer-than-any-algorithm's"};
	options.congestion = names[below(5)];
	if (sometimes())
		options.max_segment = static_cast<uint32_t>(below(70000));
	const char *devices[] = {"", "", "", "lo", "none", "a-name-much-longer-than-any-device's"};
	options.device = devices[below(6)];
	options.send_buffer = maybe(1 << 20);
	options.receive_buffer = maybe(1 << 20);
	options.priority = static_cast<uint32_t>(random_source());
	options.mark = static_cast<uint32_t>(random_source());
	options.linger = maybe(1ULL << 31);
	return options;
}

IpAddress loopback(int family)
{
	IpAddress address;
	address.family = family;
	if (family == AF_INET)
		memcpy(address.bytes, "\x7f\0\0\1", 4);
	else
		address.bytes[15] = 1;
	return address;
}

/// Returns whether the session was restored.
bool restore_random(uint16_t port)
{
	SessionState state;
	int family = below(2) ? AF_INET : AF_INET6;
	state.local = state.peer = loopback(family);
	state.local_port = 179;
	state.peer_port = port;
	Block unacked(sometimes() ? below(200000) : below(100)), received(sometimes() ? below(200000) : below(100));
	Block key(1 + below(80));
	state.snd_una = static_cast<uint32_t>(random_source());
	state.unacked = unacked.data.get();
	state.unacked_length = unacked.length;
	state.rcv_seq = static_cast<uint32_t>(random_source());
	state.received = received.data.get();
	state.received_length = received.length;
	state.mss = static_cast<uint16_t>(1 + below(65535));
	state.snd_wscale = static_cast<uint8_t>(below(15));
	state.rcv_wscale = static_cast<uint8_t>(below(15));
	state.sack = sometimes();
	if (sometimes())
		state.timestamp = static_cast<uint32_t>(random_source());
	if (sometimes())
		state.options = random_options();
	if (sometimes()) {
		state.md5_key = key.data.get();
		state.md5_length = key.length;
	}
	if (sometimes()) {
		uint32_t window = static_cast<uint32_t>(below(1 << 20));
		state.window = SessionState::Window{static_cast<uint32_t>(random_source()), window, window + 1, window,
						    static_cast<uint32_t>(state.rcv_seq + received.length)};
	}
	RestoreOutcome outcome = restore_session(state);
	expect((outcome.fd >= 0) == (outcome.error == 0), "a descriptor or an error");
	expect((outcome.error == 0) == (*outcome.step == 0), "an error has its step");
	if (outcome.fd < 0)
		return false;
	expect(leave_repair(outcome.fd, false) == 0, "repair mode is left");
	const linger off = {0, 0};
	setsockopt(outcome.fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off)); // nobody answers what is unacknowledged
	expect(close(outcome.fd) == 0, "the descriptor is open");
	return true;
}

} // namespace

int main(int count, char **arguments)
{
	random_source.seed(count > 1 ? strtoull(arguments[1], nullptr, 10) : 1);
	uint64_t rounds = count > 2 ? strtoull(arguments[2], nullptr, 10) : 1000, restored = 0;
	own_namespace();
	size_t before = open_descriptors();
	for (uint64_t round = 0; round < rounds; round++)
		restored += restore_random(static_cast<uint16_t>(1024 + round % 60000));
	expect(open_descriptors() == before, "no descriptor is left");
	expect(restored > rounds / 4 && restored < rounds, "both outcomes are met");
	printf("restored %llu of %llu sessions\n", static_cast<unsigned long long>(restored),
	       static_cast<unsigned long long>(rounds));
	return 0;
}
