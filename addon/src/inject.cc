// Whole Ethernet frames out of a device through its egress hook, marked, so that the data plane's egress program turns
// them round into the same device's ingress: the injector's way into the local stack.
#include "arguments.h"
#include "errors.h"
#include "families.h"

#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

namespace tandem {
namespace {

constexpr size_t kBatch = 64;

/// One packet socket a thread, kept: closing one waits for an RCU grace period, milliseconds in the middle of a takeover.
/// It belongs to the network namespace it was made in, so another namespace or mark gets another one.
class PacketSocket {
public:
	~PacketSocket() { drop(); }

	int get(Napi::Env env, uint32_t mark)
	{
		struct stat now = {};
		check(env, stat("/proc/thread-self/ns/net", &now), "stat", "/proc/thread-self/ns/net");
		if (fd_ >= 0 && now.st_ino == namespace_ && mark == mark_)
			return fd_;
		drop();
		// Protocol 0: it receives nothing.
		fd_ = check(env, socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), "socket", "packet");
		namespace_ = now.st_ino;
		mark_ = mark;
		check(env, setsockopt(fd_, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), "setsockopt", "SO_MARK");
		int room = 8 << 20;
		setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
		return fd_;
	}

private:
	void drop()
	{
		if (fd_ >= 0)
			::close(fd_);
		fd_ = -1;
	}

	int fd_ = -1;
	ino_t namespace_ = 0;
	uint32_t mark_ = 0;
};

Napi::Value inject_frames(const Napi::CallbackInfo &info)
{
	static thread_local PacketSocket packet_socket;
	Napi::Env env = info.Env();
	struct sockaddr_ll device = {};
	device.sll_family = AF_PACKET;
	device.sll_ifindex = as_fd(info[0], "ifindex");
	device.sll_halen = ETH_ALEN;
	if (!info[1].IsArray())
		wrong_type(env, "frames", "an array");
	Napi::Array frames = info[1].As<Napi::Array>();
	int fd = packet_socket.get(env, as_u32(info[2], "mark"));

	uint32_t count = frames.Length();
	std::vector<struct iovec> vectors(count);
	std::vector<struct mmsghdr> messages(count);
	for (uint32_t index = 0; index < count; index++) {
		Napi::HandleScope scope(env);
		Bytes frame = as_bytes(frames.Get(index), "frame");
		if (frame.length < ETH_HLEN)
			fail(env, EINVAL, "injectFrames", "a frame without its Ethernet header");
		vectors[index] = {frame.data, frame.length};
		messages[index].msg_hdr.msg_iov = &vectors[index];
		messages[index].msg_hdr.msg_iovlen = 1;
		messages[index].msg_hdr.msg_name = &device;
		messages[index].msg_hdr.msg_namelen = sizeof(device);
	}
	uint32_t taken = 0;
	while (taken < count) {
		int sent = sendmmsg(fd, messages.data() + taken, std::min<size_t>(kBatch, count - taken), MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN) {
			struct pollfd wait = {fd, POLLOUT, 0};
			if (poll(&wait, 1, 100) > 0)
				continue;
			break;
		}
		if (sent < 0) {
			if (errno != ENOBUFS && errno != ENETDOWN && errno != ENXIO)
				fail(env, errno, "sendmmsg");
			break; // the device's queue is full, it is down or gone: the caller sees how many were taken
		}
		taken += static_cast<uint32_t>(sent);
	}
	return Napi::Number::New(env, taken);
}

} // namespace

void register_inject(Napi::Env, Napi::Object exports)
{
	add_function(exports, "injectFrames", inject_frames);
}

} // namespace tandem
