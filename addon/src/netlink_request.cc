#include "netlink_request.h"
#include "errors.h"
#include "netlink_parse.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

namespace tandem {
namespace {

class Descriptor {
public:
	explicit Descriptor(int fd) : fd_(fd) {}
	~Descriptor() { ::close(fd_); }
	Descriptor(const Descriptor &) = delete;
	Descriptor &operator=(const Descriptor &) = delete;
	int get() const { return fd_; }

private:
	int fd_;
};

} // namespace

void Request::append(const void *data, size_t length)
{
	auto *from = static_cast<const uint8_t *>(data);
	bytes_.insert(bytes_.end(), from, from + length);
	bytes_.resize((bytes_.size() + 3) / 4 * 4);
}

int transact(Napi::Env env, int protocol, Request &request, uint16_t answer, const EachMessage &each)
{
	Descriptor socket(check(env, ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "socket", "netlink"));
	struct timeval limit = {5, 0}; // the kernel answers within the call; this only bounds what should not happen
	check(env, setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), "setsockopt");
	struct sockaddr_nl kernel = {};
	kernel.nl_family = AF_NETLINK;
	const std::vector<uint8_t> &bytes = request.finish();
	check(env,
	      static_cast<int>(sendto(socket.get(), bytes.data(), bytes.size(), 0,
				      reinterpret_cast<struct sockaddr *>(&kernel), sizeof(kernel))),
	      "sendto", "netlink");

	constexpr size_t kBytes = 128 * 1024; // the kernel's messages are at most 32 KiB
	std::unique_ptr<uint8_t[]> buffer(new uint8_t[kBytes]);
	int outcome = -1;
	while (outcome < 0) {
		struct sockaddr_nl from = {};
		socklen_t from_length = sizeof(from);
		ssize_t length = recvfrom(socket.get(), buffer.get(), kBytes, MSG_TRUNC,
					  reinterpret_cast<struct sockaddr *>(&from), &from_length);
		if (length < 0 && errno == EINTR)
			continue;
		check(env, static_cast<int>(length), "recvfrom", "netlink");
		if (from.nl_pid != 0)
			continue; // only the kernel is believed
		if (static_cast<size_t>(length) > kBytes)
			fail(env, EMSGSIZE, "recvfrom", "netlink");
		bool whole = walk_messages(buffer.get(), static_cast<size_t>(length),
					   [&](uint16_t type, const uint8_t *payload, size_t payload_length) {
						   if (type == NLMSG_ERROR || type == NLMSG_DONE) {
							   int32_t number = 0;
							   if (payload_length >= sizeof(number))
								   memcpy(&number, payload, sizeof(number));
							   outcome = number < 0 ? -number : 0;
						   } else if (type == answer) {
							   each(payload, payload_length);
						   }
					   });
		if (!whole)
			fail(env, EBADMSG, "recvfrom", "netlink");
	}
	return outcome;
}

} // namespace tandem
