// Descriptors and Unix sockets: channels that carry bytes and descriptors (SCM_RIGHTS), and what JavaScript has no call
// for on a socket that it holds as a number.
#include "arguments.h"
#include "errors.h"
#include "families.h"
#include "polled.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <memory>
#include <vector>

namespace tandem {
namespace {

constexpr size_t kMaxDescriptors = 64; // in one message; the kernel's own limit is 253 (SCM_MAX_FD)
constexpr size_t kReadBytes = 256 * 1024;
// Then the loop's other descriptors get their turn. A read brings one message when that has descriptors. What the first
// sockets that are handed over have to say is answered before the next ones are taken; but with few reads in every turn, a
// thousand would wait for each other's traffic, each for that of all before it. So only the first turns of a burst of
// descriptors are short.
constexpr int kShortTurns = 6;
constexpr int kReadsInShortTurn = 2;
constexpr int kReadsInTurn = 512;
constexpr uint64_t kBurstGapNs = 100 * 1000 * 1000;

struct sockaddr_un unix_address(Napi::Env env, const std::string &path)
{
	struct sockaddr_un address = {};
	address.sun_family = AF_UNIX;
	if (path.empty() || path.size() >= sizeof(address.sun_path))
		fail(env, ENAMETOOLONG, "bind", path + ": a Unix socket's path has 1 to 107 bytes");
	memcpy(address.sun_path, path.c_str(), path.size());
	return address;
}

int unix_socket(Napi::Env env)
{
	return check(env, socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
}

// ── channel ─────────────────────────────────────────────────────────────────────────────────────────────────────

struct QueuedMessage {
	std::vector<uint8_t> data;
	size_t written = 0;
	std::vector<int> fds; // own duplicates, closed once they are in the socket

	QueuedMessage() = default;
	QueuedMessage(QueuedMessage &&) = default;
	~QueuedMessage()
	{
		for (int fd : fds)
			::close(fd);
	}
};

/// Bytes that went into the socket (the descriptors with the first of them), or -1 with errno.
ssize_t send_with_descriptors(int fd, const uint8_t *data, size_t length, const int *fds, size_t count)
{
	struct iovec vector = {const_cast<uint8_t *>(data), length};
	struct msghdr message = {};
	message.msg_iov = &vector;
	message.msg_iovlen = 1;
	alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
	if (count) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
	}
	for (;;) {
		ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0 || errno != EINTR)
			return sent;
	}
}

class Channel final : public Polled {
public:
	Channel(Napi::Env env, int fd, Napi::Function on_data, Napi::Function on_close)
	    : Polled(env, fd, "tandem:channel"),
	      on_data_(Napi::Persistent(on_data)),
	      on_close_(Napi::Persistent(on_close)),
	      self_(std::make_shared<Channel *>(this))
	{
		watch(UV_READABLE);
	}

	/// Null inside once the channel is closed: JavaScript's object may outlive it.
	std::shared_ptr<Channel *> self() const { return self_; }
	size_t pending() const { return pending_; }

	void send(Bytes data, const std::vector<int> &fds)
	{
		if (ending_)
			fail(env_, EPIPE, "sendmsg", "after end()");
		if (fds.size() > kMaxDescriptors)
			fail(env_, EMSGSIZE, "sendmsg", "at most 64 descriptors in a message");
		if (!data.length && !fds.empty())
			fail(env_, EINVAL, "sendmsg", "descriptors need at least one byte to travel with");
		if (!data.length || broken_)
			return; // a broken channel reports itself by onClose
		size_t written = 0;
		if (queue_.empty()) {
			ssize_t sent = send_with_descriptors(fd(), data.data, data.length, fds.data(), fds.size());
			if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
				return breaks(errno);
			if (sent < 0 && errno != EAGAIN)
				fail(env_, errno, "sendmsg");
			written = sent < 0 ? 0 : static_cast<size_t>(sent);
			if (written == data.length)
				return;
		}
		QueuedMessage message;
		if (written == 0) {
			for (int original : fds)
				message.fds.push_back(
					check(env_, fcntl(original, F_DUPFD_CLOEXEC, 3), "fcntl", "duplicate"));
		}
		message.data.assign(data.data + written, data.data + data.length);
		pending_ += message.data.size();
		queue_.push_back(std::move(message));
		watch(UV_READABLE | UV_WRITABLE);
	}

	void end()
	{
		ending_ = true;
		if (queue_.empty())
			close();
	}

protected:
	void closing() override
	{
		*self_ = nullptr;
		queue_.clear();
	}

	void ready(int events) override
	{
		if (events & UV_READABLE)
			read();
		if (!closed() && (events & UV_WRITABLE))
			write();
		if (!closed() && broken_)
			report(broken_);
	}

private:
	void breaks(int number)
	{
		// Told from the loop, not from within send(); and not before what the other end wrote has been read.
		broken_ = number;
		queue_.clear();
		pending_ = 0;
		watch(UV_READABLE | UV_WRITABLE);
	}

	void report(int number)
	{
		Napi::Value error = number ? system_error(env_, number, "channel").Value() : env_.Null();
		Napi::Function function = on_close_.Value();
		Napi::FunctionReference keep = Napi::Persistent(function);
		close();
		call(keep, {error});
	}

	void read()
	{
		static thread_local std::vector<uint8_t> buffer(kReadBytes);
		uint64_t now = uv_hrtime();
		if (now - descriptors_at_ > kBurstGapNs)
			turns_ = 0;
		int reads = turns_ < kShortTurns ? kReadsInShortTurn : kReadsInTurn;
		for (int count = 0; count < reads && !closed(); count++) {
			Napi::HandleScope scope(env_);
			struct iovec vector = {buffer.data(), buffer.size()};
			struct msghdr message = {};
			message.msg_iov = &vector;
			message.msg_iovlen = 1;
			alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)];
			message.msg_control = control;
			message.msg_controllen = sizeof(control);
			ssize_t length = recvmsg(fd(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
			if (length < 0) {
				if (errno == EINTR)
					continue;
				if (errno != EAGAIN)
					report(errno == ECONNRESET ? 0 : errno);
				return;
			}
			std::vector<int> fds = received_descriptors(&message);
			if (message.msg_flags & MSG_CTRUNC) {
				for (int received : fds)
					::close(received);
				return report(EMSGSIZE);
			}
			if (length == 0)
				return report(0);
			if (!fds.empty() && descriptors_at_ != now) {
				descriptors_at_ = now;
				turns_++;
			}
			deliver(buffer.data(), static_cast<size_t>(length), fds);
		}
	}

	static std::vector<int> received_descriptors(struct msghdr *message)
	{
		std::vector<int> fds;
		for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
			if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
				continue;
			size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			size_t before = fds.size();
			fds.resize(before + count);
			memcpy(fds.data() + before, CMSG_DATA(header), count * sizeof(int));
		}
		return fds;
	}

	void deliver(const uint8_t *data, size_t length, const std::vector<int> &fds)
	{
		Napi::Array numbers = Napi::Array::New(env_, fds.size());
		for (size_t index = 0; index < fds.size(); index++)
			numbers.Set(static_cast<uint32_t>(index), fds[index]);
		call(on_data_, {copy_bytes(env_, data, length), numbers});
	}

	void write()
	{
		while (!queue_.empty()) {
			QueuedMessage &message = queue_.front();
			ssize_t sent = send_with_descriptors(fd(), message.data.data() + message.written,
							     message.data.size() - message.written, message.fds.data(),
							     message.fds.size());
			if (sent < 0) {
				if (errno != EAGAIN)
					breaks(errno);
				return;
			}
			for (int passed : message.fds)
				::close(passed);
			message.fds.clear();
			message.written += static_cast<size_t>(sent);
			pending_ -= static_cast<size_t>(sent);
			if (message.written == message.data.size())
				queue_.pop_front();
		}
		if (ending_)
			close();
		else
			watch(UV_READABLE);
	}

	Napi::FunctionReference on_data_;
	Napi::FunctionReference on_close_;
	std::shared_ptr<Channel *> self_;
	std::deque<QueuedMessage> queue_;
	size_t pending_ = 0;
	bool ending_ = false;
	int broken_ = 0;
	int turns_ = 0; // with descriptors, in this burst of them
	uint64_t descriptors_at_ = 0;
};

Napi::Value unix_channel(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	Napi::Object handlers = as_object(info[1], "handlers");
	auto *channel = new Channel(env, fd, as_function(handlers.Get("onData"), "onData"),
				    as_function(handlers.Get("onClose"), "onClose"));
	std::shared_ptr<Channel *> self = channel->self();
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("fd", fd);
	add_function(answer, "send", [self](const Napi::CallbackInfo &call) {
		Bytes data = as_bytes(call[0], "data");
		std::vector<int> fds;
		if (!is_absent(call[1])) {
			Napi::Array numbers = call[1].As<Napi::Array>();
			for (uint32_t index = 0; index < numbers.Length(); index++)
				fds.push_back(as_fd(numbers.Get(index)));
		}
		if (!*self)
			fail(call.Env(), EPIPE, "sendmsg", "the channel is closed");
		(*self)->send(data, fds);
	});
	add_function(answer, "pending", [self](const Napi::CallbackInfo &call) -> Napi::Value {
		return Napi::Number::New(call.Env(), *self ? static_cast<double>((*self)->pending()) : 0);
	});
	add_function(answer, "end", [self](const Napi::CallbackInfo &) {
		if (*self)
			(*self)->end();
	});
	add_function(answer, "destroy", [self](const Napi::CallbackInfo &) {
		if (*self)
			(*self)->close();
	});
	return answer;
}

// ── listener ────────────────────────────────────────────────────────────────────────────────────────────────────

class Listener final : public Polled {
public:
	Listener(Napi::Env env, int fd, std::string path, const struct stat &inode, Napi::Function on_accept)
	    : Polled(env, fd, "tandem:listener"),
	      path_(std::move(path)),
	      inode_(inode),
	      on_accept_(Napi::Persistent(on_accept)),
	      self_(std::make_shared<Listener *>(this)),
	      spare_(open("/dev/null", O_RDONLY | O_CLOEXEC))
	{
		watch(UV_READABLE);
	}
	~Listener() override
	{
		if (spare_ >= 0)
			::close(spare_);
	}
	std::shared_ptr<Listener *> self() const { return self_; }

protected:
	void closing() override
	{
		*self_ = nullptr;
		// Somebody else's socket may be at the path by now.
		struct stat now = {};
		if (lstat(path_.c_str(), &now) == 0 && now.st_ino == inode_.st_ino && now.st_dev == inode_.st_dev)
			unlink(path_.c_str());
	}

	void ready(int) override
	{
		while (!closed()) {
			Napi::HandleScope scope(env_);
			int fd = accept4(this->fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
			if (fd >= 0) {
				call(on_accept_, {Napi::Number::New(env_, fd)});
			} else if (errno == EMFILE && spare_ >= 0) {
				// Refuse the caller instead of being woken for it for ever.
				::close(spare_);
				fd = accept4(this->fd(), nullptr, nullptr, SOCK_CLOEXEC);
				if (fd >= 0)
					::close(fd);
				spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
			} else if (errno != EINTR && errno != ECONNABORTED) {
				return;
			}
		}
	}

private:
	std::string path_;
	struct stat inode_;
	Napi::FunctionReference on_accept_;
	std::shared_ptr<Listener *> self_;
	int spare_;
};

/// True when a socket is at the path that nobody listens on: left by a process that was killed.
bool is_abandoned(const struct sockaddr_un &address)
{
	int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (probe < 0)
		return false;
	int result = connect(probe, reinterpret_cast<const struct sockaddr *>(&address), sizeof(address));
	bool refused = result < 0 && errno == ECONNREFUSED;
	::close(probe);
	return refused;
}

Napi::Value unix_listen(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::string path = as_text(info[0], "path");
	auto mode = static_cast<mode_t>(as_u32(info[1], "mode"));
	Napi::Function on_accept = as_function(info[2], "onAccept");
	struct sockaddr_un address = unix_address(env, path);
	int fd = unix_socket(env);
	const auto *generic = reinterpret_cast<const struct sockaddr *>(&address);
	// The mode of the socket before bind becomes the mode of the file, so it is never open wider than wanted.
	fchmod(fd, mode);
	int result = bind(fd, generic, sizeof(address));
	if (result < 0 && errno == EADDRINUSE && is_abandoned(address) && unlink(path.c_str()) == 0)
		result = bind(fd, generic, sizeof(address));
	struct stat inode = {};
	if (result == 0)
		result = chmod(path.c_str(), mode); // past the umask
	if (result == 0)
		result = lstat(path.c_str(), &inode);
	if (result == 0)
		result = listen(fd, 128);
	if (result < 0) {
		int number = errno;
		::close(fd);
		fail(env, number, "bind", path);
	}
	auto *listener = new Listener(env, fd, path, inode, on_accept);
	std::shared_ptr<Listener *> self = listener->self();
	Napi::Object answer = Napi::Object::New(env);
	add_function(answer, "close", [self](const Napi::CallbackInfo &) {
		if (*self)
			(*self)->close();
	});
	return answer;
}

// ── single calls ────────────────────────────────────────────────────────────────────────────────────────────────

Napi::Value unix_connect(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::string path = as_text(info[0], "path");
	struct sockaddr_un address = unix_address(env, path);
	int fd = unix_socket(env);
	if (connect(fd, reinterpret_cast<const struct sockaddr *>(&address), sizeof(address)) < 0) {
		int number = errno;
		::close(fd);
		fail(env, number, "connect", path);
	}
	return Napi::Number::New(env, fd);
}

Napi::Value socket_pair(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fds[2];
	check(env, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), "socketpair");
	Napi::Array answer = Napi::Array::New(env, 2);
	answer.Set(0u, fds[0]);
	answer.Set(1u, fds[1]);
	return answer;
}

Napi::Value unix_peer(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct ucred credentials = {};
	socklen_t length = sizeof(credentials);
	check(env, getsockopt(as_fd(info[0]), SOL_SOCKET, SO_PEERCRED, &credentials, &length), "getsockopt",
	      "SO_PEERCRED");
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("pid", credentials.pid);
	answer.Set("uid", credentials.uid);
	answer.Set("gid", credentials.gid);
	return answer;
}

Napi::Value write_some(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	Bytes data = as_bytes(info[1], "data");
	size_t offset = as_u32(info[2], "offset"), length = as_u32(info[3], "length");
	if (offset > data.length || length > data.length - offset)
		throw Napi::RangeError::New(env, "offset and length must lie within data");
	for (;;) {
		ssize_t written = send(fd, data.data + offset, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (written < 0 && errno == ENOTSOCK)
			written = write(fd, data.data + offset, length);
		if (written >= 0)
			return Napi::Number::New(env, static_cast<double>(written));
		if (errno == EAGAIN)
			return Napi::Number::New(env, 0);
		if (errno != EINTR)
			fail(env, errno, "send");
	}
}

void close_fd(const Napi::CallbackInfo &info)
{
	check(info.Env(), ::close(as_fd(info[0])), "close");
}

/// The last close of somebody else's socket, which must not wait as its SO_LINGER says (inet_release, net/ipv4/af_inet.c:
/// also of a non-blocking one).
void close_at_once(const Napi::CallbackInfo &info)
{
	const linger off = {0, 0};
	int fd = as_fd(info[0]);

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	check(info.Env(), ::close(fd), "close");
}

Napi::Value dup_fd(const Napi::CallbackInfo &info)
{
	return Napi::Number::New(info.Env(), check(info.Env(), fcntl(as_fd(info[0]), F_DUPFD_CLOEXEC, 3), "fcntl"));
}

/// Not connected; its family does not matter to whoever puts another in its place.
Napi::Value tcp_socket(const Napi::CallbackInfo &info)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return Napi::Number::New(info.Env(), check(info.Env(), fd, "socket"));
}

void replace_fd(const Napi::CallbackInfo &info)
{
	int old = as_fd(info[0]), fd = as_fd(info[1]), on = 1;
	check(info.Env(), ioctl(fd, FIONBIO, &on), "ioctl", "FIONBIO");
	check(info.Env(), dup3(fd, old, O_CLOEXEC), "dup3");
	::close(fd);
}

/// A duplicate of another process's descriptor (Linux 5.6); needs the right to trace it.
Napi::Value pidfd_getfd(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int pid = as_fd(info[0], "pid"), target = as_fd(info[1]);
	auto process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
	check(env, process, "pidfd_open", std::to_string(pid));
	auto fd = static_cast<int>(syscall(SYS_pidfd_getfd, process, target, 0)); // close-on-exec
	int error = errno;
	::close(process);
	if (fd < 0)
		fail(env, error, "pidfd_getfd", std::to_string(pid) + ", " + std::to_string(target));
	return Napi::Number::New(env, fd);
}

void shutdown_write(const Napi::CallbackInfo &info)
{
	check(info.Env(), shutdown(as_fd(info[0]), SHUT_WR), "shutdown");
}

/// Past the limits of net.core.*mem_max where the capability allows.
void set_buffer(Napi::Env env, int fd, int forced, int plain, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) == 0)
		return;
	check(env, setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes)), "setsockopt", "buffer size");
}

void set_buffer_sizes(const Napi::CallbackInfo &info)
{
	int fd = as_fd(info[0]);
	auto send = static_cast<int>(as_u32(info[1], "send")), receive = static_cast<int>(as_u32(info[2], "receive"));
	if (send)
		set_buffer(info.Env(), fd, SO_SNDBUFFORCE, SO_SNDBUF, send);
	if (receive)
		set_buffer(info.Env(), fd, SO_RCVBUFFORCE, SO_RCVBUF, receive);
}

} // namespace

void register_descriptors(Napi::Env, Napi::Object exports)
{
	add_function(exports, "socketPair", socket_pair);
	add_function(exports, "unixListen", unix_listen);
	add_function(exports, "unixConnect", unix_connect);
	add_function(exports, "unixChannel", unix_channel);
	add_function(exports, "unixPeer", unix_peer);
	add_function(exports, "writeSome", write_some);
	add_function(exports, "closeFd", close_fd);
	add_function(exports, "closeAtOnce", close_at_once);
	add_function(exports, "dupFd", dup_fd);
	add_function(exports, "tcpSocket", tcp_socket);
	add_function(exports, "replaceFd", replace_fd);
	add_function(exports, "pidfdGetfd", pidfd_getfd);
	add_function(exports, "shutdownWrite", shutdown_write);
	add_function(exports, "setBufferSizes", set_buffer_sizes);
}

} // namespace tandem
