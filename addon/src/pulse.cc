// The heartbeat thread: sockets, timer, priority and the lock around the state machine of pulse_state.h. Nothing of
// JavaScript runs in it, so a garbage collection delays neither a heartbeat nor a grant.
#include "arguments.h"
#include "errors.h"
#include "families.h"
#include "ip_address.h"
#include "pulse_state.h"
#include "resident.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <mutex>
#include <thread>

namespace tandem {
namespace {

constexpr int kRealtimePriority = 10; // above everything normal, below what the machine's owner made urgent
constexpr int kNice = -15;

uint64_t boot_time_ns()
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return static_cast<uint64_t>(now.tv_sec) * 1000000000ULL + static_cast<uint64_t>(now.tv_nsec);
}

/// A lock that lends the waiting thread's priority to its holder: JavaScript runs at normal priority, and must not keep
/// the pulse waiting when something else takes the processor from it.
class InheritingMutex {
public:
	InheritingMutex()
	{
		pthread_mutexattr_t attributes;
		pthread_mutexattr_init(&attributes);
		pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
		pthread_mutex_init(&mutex_, &attributes);
		pthread_mutexattr_destroy(&attributes);
	}
	~InheritingMutex() { pthread_mutex_destroy(&mutex_); }
	InheritingMutex(const InheritingMutex &) = delete;
	InheritingMutex &operator=(const InheritingMutex &) = delete;
	void lock() { pthread_mutex_lock(&mutex_); }
	void unlock() { pthread_mutex_unlock(&mutex_); }

private:
	pthread_mutex_t mutex_;
};

/// The map "voice": mapped into memory, or by system calls where the map cannot be.
class VoiceMap {
public:
	VoiceMap() = default;
	VoiceMap(const VoiceMap &) = delete;
	VoiceMap &operator=(const VoiceMap &) = delete;
	~VoiceMap()
	{
		if (mapped_)
			munmap(mapped_, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
		if (fd_ >= 0)
			::close(fd_);
	}

	void open(Napi::Env env, int fd)
	{
		struct bpf_map_info info = {};
		__u32 length = sizeof(info);
		check(env, bpf_obj_get_info_by_fd(fd, &info, &length), "bpf_obj_get_info_by_fd", "voiceMapFd");
		if (info.type != BPF_MAP_TYPE_ARRAY || info.value_size != sizeof(struct td_voice))
			fail(env, EINVAL, "pulseStart", "voiceMapFd is no array of td_voice");
		fd_ = check(env, fcntl(fd, F_DUPFD_CLOEXEC, 3), "fcntl");
		if (info.map_flags & BPF_F_MMAPABLE) {
			void *page = mmap(nullptr, static_cast<size_t>(sysconf(_SC_PAGESIZE)), PROT_READ | PROT_WRITE,
					  MAP_SHARED, fd_, 0);
			mapped_ = page == MAP_FAILED ? nullptr : static_cast<uint64_t *>(page);
		}
	}

	uint64_t until() const
	{
		if (mapped_)
			return __atomic_load_n(mapped_, __ATOMIC_RELAXED);
		uint32_t key = 0;
		struct td_voice voice = {};
		bpf_map_lookup_elem(fd_, &key, &voice);
		return voice.until_ns;
	}

	void extend(uint64_t until_ns)
	{
		if (until_ns <= until())
			return;
		if (mapped_) {
			__atomic_store_n(mapped_, until_ns, __ATOMIC_RELEASE);
			return;
		}
		uint32_t key = 0;
		struct td_voice voice = {until_ns};
		bpf_map_update_elem(fd_, &key, &voice, BPF_ANY);
	}

private:
	int fd_ = -1;
	uint64_t *mapped_ = nullptr;
};

struct PathSocket {
	int fd = -1;
	struct sockaddr_storage partner = {};
	socklen_t partner_length = 0;
};

bool same_address(const struct sockaddr_storage &left, const struct sockaddr_storage &right)
{
	if (left.ss_family != right.ss_family)
		return false;
	if (left.ss_family == AF_INET) {
		const auto &a = reinterpret_cast<const struct sockaddr_in &>(left);
		const auto &b = reinterpret_cast<const struct sockaddr_in &>(right);
		return a.sin_port == b.sin_port && a.sin_addr.s_addr == b.sin_addr.s_addr;
	}
	const auto &a = reinterpret_cast<const struct sockaddr_in6 &>(left);
	const auto &b = reinterpret_cast<const struct sockaddr_in6 &>(right);
	return a.sin6_port == b.sin6_port && memcmp(&a.sin6_addr, &b.sin6_addr, sizeof(a.sin6_addr)) == 0;
}

Napi::Object partner_object(Napi::Env env, const PartnerView &partner)
{
	Napi::Object object = Napi::Object::New(env);
	object.Set("role", static_cast<uint32_t>(partner.role));
	object.Set("epoch", partner.epoch);
	object.Set("flags", partner.flags);
	object.Set("incarnation", Napi::BigInt::New(env, partner.incarnation));
	object.Set("atNs", Napi::BigInt::New(env, partner.at_ns));
	return object;
}

Napi::Object event_object(Napi::Env env, const PulseEvent &event)
{
	Napi::Object object = Napi::Object::New(env);
	switch (event.type) {
	case PulseEvent::Type::partner:
		object = partner_object(env, event.partner);
		object.Set("type", "partner");
		break;
	case PulseEvent::Type::silent:
		object.Set("type", "silent");
		object.Set("lastHeardNs", Napi::BigInt::New(env, event.last_ns));
		break;
	case PulseEvent::Type::path:
		object.Set("type", "path");
		object.Set("path", static_cast<uint32_t>(event.path));
		object.Set("up", event.up);
		break;
	case PulseEvent::Type::expired:
		object.Set("type", "expired");
		object.Set("lastAnsweredNs", Napi::BigInt::New(env, event.last_ns));
		object.Set("atNs", Napi::BigInt::New(env, event.at_ns));
		break;
	case PulseEvent::Type::voice_lost:
		object.Set("type", "voiceLost");
		object.Set("untilNs", Napi::BigInt::New(env, event.last_ns));
		break;
	case PulseEvent::Type::pet_missed:
		object.Set("type", "petMissed");
		break;
	}
	return object;
}

/// Lives until stop() or the end of the environment, whichever comes first, whatever JavaScript still refers to.
class PulseThread : public std::enable_shared_from_this<PulseThread> {
public:
	PulseThread() = default;
	PulseThread(const PulseThread &) = delete;
	PulseThread &operator=(const PulseThread &) = delete;
	~PulseThread() { close_descriptors(); }

	void start(Napi::Env env, const Napi::Object &options, const Napi::Function &on_event)
	{
		read_options(env, options);
		prepare_descriptors(env);
		state_ = std::make_unique<PulseState>(settings_, boot_time_ns());
		// It keeps the process alive until stop().
		events_ = Napi::ThreadSafeFunction::New(env, on_event, "tandem:pulse", 0, 1);
		env_ = env;
		running_ = shared_from_this();
		napi_add_env_cleanup_hook(env, stop_with_environment, this);
		thread_ = std::thread([this] { run(); });
	}

	void stop()
	{
		std::shared_ptr<PulseThread> until_done = std::move(running_);
		if (!until_done)
			return;
		napi_remove_env_cleanup_hook(env_, stop_with_environment, this);
		stopping_.store(true);
		wake();
		thread_.join();
		events_.Release();
		std::lock_guard<InheritingMutex> guard(mutex_);
		close_descriptors();
	}

	void say(uint8_t role, uint32_t epoch, uint32_t flags)
	{
		std::lock_guard<InheritingMutex> guard(mutex_);
		state_->say(role, epoch, flags);
		urgent_ = true; // the partner is told now, not at the next beat
		wake();
	}

	void grant(bool on, bool watch)
	{
		std::lock_guard<InheritingMutex> guard(mutex_);
		state_->grant(on, watch, boot_time_ns());
		wake();
	}

	void hold(bool on)
	{
		std::lock_guard<InheritingMutex> guard(mutex_);
		state_->hold(on, voice_.until());
		wake();
	}

	void pet()
	{
		std::lock_guard<InheritingMutex> guard(mutex_);
		if (state_->pet(boot_time_ns()))
			wake();
	}

	Napi::Object snapshot(Napi::Env env)
	{
		std::lock_guard<InheritingMutex> guard(mutex_);
		Napi::Object answer = Napi::Object::New(env);
		answer.Set("granting", state_->granting());
		answer.Set("voiceUntilNs", Napi::BigInt::New(env, voice_.until()));
		answer.Set("lastAnsweredNs", Napi::BigInt::New(env, state_->last_answered_ns()));
		answer.Set("partner", state_->partner() ? partner_object(env, *state_->partner()) : env.Null());
		Napi::Array paths = Napi::Array::New(env, paths_.size());
		for (size_t index = 0; index < paths_.size(); index++) {
			const PathView &view = state_->path(index);
			Napi::Object path = Napi::Object::New(env);
			path.Set("up", view.up);
			path.Set("lastHeardNs", Napi::BigInt::New(env, view.last_heard_ns));
			path.Set("rttNs", Napi::BigInt::New(env, view.rtt_ns));
			path.Set("sent", Napi::BigInt::New(env, view.sent));
			path.Set("received", Napi::BigInt::New(env, view.received));
			path.Set("refused", Napi::BigInt::New(env, view.refused));
			paths.Set(static_cast<uint32_t>(index), path);
		}
		answer.Set("paths", paths);
		answer.Set("priority", priority_);
		answer.Set("memoryLocked", memory_locked_);
		return answer;
	}

private:
	/// A worker that ends without stop() must not leave the thread behind with a dead environment.
	static void stop_with_environment(void *self) { static_cast<PulseThread *>(self)->stop(); }

	void close_descriptors()
	{
		for (PathSocket &path : paths_) {
			if (path.fd >= 0)
				::close(path.fd);
			path.fd = -1;
		}
		for (int *fd : {&epoll_, &timer_, &wake_}) {
			if (*fd >= 0)
				::close(*fd);
			*fd = -1;
		}
	}

	void read_options(Napi::Env env, const Napi::Object &options)
	{
		Bytes key = as_bytes(options.Get("key"), "key");
		if (key.length != sizeof(key_))
			fail(env, EINVAL, "pulseStart", "the key must have 16 bytes");
		memcpy(key_, key.data, sizeof(key_));
		settings_.incarnation = as_u64(options.Get("incarnation"), "incarnation");
		settings_.interval_ns = as_u64(options.Get("intervalNs"), "intervalNs");
		settings_.lease_ns = as_u64(options.Get("leaseNs"), "leaseNs");
		settings_.pet_limit_ns = as_u64(options.Get("petLimitNs"), "petLimitNs");
		settings_.drift_ppm = as_u32(options.Get("driftPpm"), "driftPpm");
		constexpr uint64_t hour = 3600ULL * 1000000000ULL;
		if (!settings_.incarnation || settings_.interval_ns < 100000 ||
		    settings_.interval_ns > settings_.lease_ns || settings_.lease_ns > hour ||
		    settings_.pet_limit_ns > hour || settings_.drift_ppm > 1000000)
			fail(env, EINVAL, "pulseStart",
			     "incarnation not 0, 0.1 ms <= interval <= lease <= 1 h, petLimit <= 1 h, drift <= 10^6 ppm");
		voice_.open(env, as_fd(options.Get("voiceMapFd"), "voiceMapFd"));
		Napi::Value paths = options.Get("paths");
		if (!paths.IsArray() || paths.As<Napi::Array>().Length() < 1 || paths.As<Napi::Array>().Length() > 2)
			fail(env, EINVAL, "pulseStart", "one or two paths");
		for (uint32_t index = 0; index < paths.As<Napi::Array>().Length(); index++)
			open_path(env, as_object(paths.As<Napi::Array>().Get(index), "path"));
		settings_.paths = paths_.size();
	}

	void open_path(Napi::Env env, const Napi::Object &options)
	{
		std::string local_text = as_text(options.Get("localIp"), "localIp");
		std::string partner_text = as_text(options.Get("partnerIp"), "partnerIp");
		std::string device = as_text(options.Get("device"), "device");
		uint32_t port = as_u32(options.Get("port"), "port");
		std::optional<IpAddress> local = parse_ip(local_text), partner = parse_ip(partner_text);
		if (!local || !partner || local->family != partner->family)
			fail(env, EINVAL, "pulseStart",
			     local_text + " and " + partner_text + " must be addresses of one family");
		if (!port || port > 65535)
			fail(env, EINVAL, "pulseStart", "port " + std::to_string(port));

		PathSocket path;
		path.fd = check(env, socket(local->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
		paths_.push_back(path); // closed with this object from here on
		check(env,
		      setsockopt(path.fd, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
				 static_cast<socklen_t>(device.size())),
		      "setsockopt", "SO_BINDTODEVICE " + device);
		// CS6, network control (RFC 4594, section 3.1). A device that cannot say so still carries it.
		int traffic_class = IPTOS_CLASS_CS6;
		if (local->family == AF_INET)
			setsockopt(path.fd, IPPROTO_IP, IP_TOS, &traffic_class, sizeof(traffic_class));
		else
			setsockopt(path.fd, IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof(traffic_class));
		struct sockaddr_storage address;
		socklen_t length = bound_address(*local, static_cast<uint16_t>(port), device, &address);
		check(env, bind(path.fd, reinterpret_cast<struct sockaddr *>(&address), length), "bind",
		      local_text + " port " + std::to_string(port) + " on " + device);
		paths_.back().partner_length = bound_address(*partner, static_cast<uint16_t>(port), device,
							     &paths_.back().partner);
	}

	/// A link-local IPv6 address needs its device.
	static socklen_t bound_address(const IpAddress &ip, uint16_t port, const std::string &device,
				       struct sockaddr_storage *out)
	{
		socklen_t length = socket_address(ip, port, out);
		if (ip.family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(reinterpret_cast<const struct in6_addr *>(ip.bytes)))
			reinterpret_cast<struct sockaddr_in6 *>(out)->sin6_scope_id = if_nametoindex(device.c_str());
		return length;
	}

	void prepare_descriptors(Napi::Env env)
	{
		epoll_ = check(env, epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
		timer_ = check(env, timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create");
		wake_ = check(env, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd");
		std::vector<int> fds = {timer_, wake_};
		for (const PathSocket &path : paths_)
			fds.push_back(path.fd);
		for (int fd : fds) {
			struct epoll_event event = {};
			event.events = EPOLLIN;
			event.data.fd = fd;
			check(env, epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
		}
	}

	void make_prompt()
	{
		struct sched_param parameters = {};
		parameters.sched_priority = kRealtimePriority;
		const char *reached = "normal";
		if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameters) == 0)
			reached = "realtime";
		else if (setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNice) == 0)
			reached = "nice";
		bool locked = keep_resident(state_.get(), sizeof(PulseState));
		std::lock_guard<InheritingMutex> guard(mutex_);
		priority_ = reached;
		memory_locked_ = locked;
	}

	void wake()
	{
		uint64_t one = 1;
		if (wake_ >= 0 && write(wake_, &one, sizeof(one)) < 0) {
			// It is full, which wakes as well.
		}
	}

	static void consume(int fd)
	{
		uint64_t count;
		while (read(fd, &count, sizeof(count)) > 0) {
		}
	}

	void run()
	{
		pthread_setname_np(pthread_self(), "tandem-pulse");
		make_prompt();
		while (!stopping_.load()) {
			std::vector<PulseEvent> events;
			uint64_t deadline;
			{
				std::lock_guard<InheritingMutex> guard(mutex_);
				for (size_t index = 0; index < paths_.size(); index++)
					receive_all(index);
				uint64_t now = boot_time_ns();
				state_->advance(now);
				if (state_->heartbeats_due(now) || urgent_)
					send_heartbeats();
				urgent_ = false;
				// Granting was revoked, and the voice stored, under the lock: only now is anybody told.
				events = state_->take_events();
				deadline = state_->next_deadline();
			}
			for (const PulseEvent &event : events)
				tell(event);
			wait_until(deadline);
		}
	}

	void wait_until(uint64_t deadline)
	{
		struct itimerspec when = {};
		if (deadline != UINT64_MAX) {
			deadline = std::max<uint64_t>(deadline, 1); // 0 would disarm
			when.it_value.tv_sec = static_cast<time_t>(deadline / 1000000000ULL);
			when.it_value.tv_nsec = static_cast<long>(deadline % 1000000000ULL);
		}
		timerfd_settime(timer_, TFD_TIMER_ABSTIME, &when, nullptr);
		struct epoll_event ready[4];
		epoll_wait(epoll_, ready, 4, -1);
		consume(timer_);
		consume(wake_);
	}

	/// Under the lock, so that no grant can leave after grant(false) has returned.
	void receive_all(size_t index)
	{
		PathSocket &path = paths_[index];
		// Bounded: a flood must not keep the lock.
		for (int count = 0; count < 64; count++) {
			uint8_t buffer[sizeof(struct td_wire_pulse) + 1]; // one more, so that a longer datagram shows
			struct sockaddr_storage from = {};
			socklen_t from_length = sizeof(from);
			ssize_t length = recvfrom(path.fd, buffer, sizeof(buffer), MSG_DONTWAIT,
						  reinterpret_cast<struct sockaddr *>(&from), &from_length);
			if (length < 0)
				return;
			if (!same_address(from, path.partner)) {
				state_->refused(index);
				continue;
			}
			std::optional<PulseMessage> answer = state_->receive(
				index, decode_pulse(buffer, static_cast<size_t>(length), key_), boot_time_ns());
			if (answer)
				send(path, *answer);
			if (std::optional<uint64_t> until = state_->take_voice())
				voice_.extend(*until);
		}
	}

	void send_heartbeats()
	{
		if (state_->muted())
			return;
		for (size_t index = 0; index < paths_.size(); index++)
			send(paths_[index], state_->heartbeat(index, boot_time_ns()));
	}

	/// What cannot be sent is lost, as on the wire; the next heartbeat follows soon.
	void send(const PathSocket &path, const PulseMessage &message)
	{
		struct td_wire_pulse wire = encode_pulse(message, key_);
		sendto(path.fd, &wire, sizeof(wire), MSG_DONTWAIT | MSG_NOSIGNAL,
		       reinterpret_cast<const struct sockaddr *>(&path.partner), path.partner_length);
	}

	void tell(const PulseEvent &event)
	{
		auto *copy = new PulseEvent(event);
		napi_status status = events_.NonBlockingCall(
			copy, [](Napi::Env env, Napi::Function on_event, PulseEvent *told) {
				std::unique_ptr<PulseEvent> owned(told);
				if (env != nullptr && !on_event.IsEmpty())
					on_event.Call({event_object(env, *owned)});
			});
		if (status != napi_ok)
			delete copy; // the environment is ending
	}

	PulseSettings settings_;
	PulseKey key_ = {};
	VoiceMap voice_;
	std::vector<PathSocket> paths_;
	int epoll_ = -1;
	int timer_ = -1;
	int wake_ = -1;
	bool memory_locked_ = false;
	const char *priority_ = "normal";
	InheritingMutex mutex_; // guards state_, voice_, urgent_, priority_, memory_locked_ and every sending
	std::unique_ptr<PulseState> state_;
	bool urgent_ = false;
	Napi::ThreadSafeFunction events_;
	std::atomic<bool> stopping_{false};
	std::thread thread_;
	napi_env env_ = nullptr;
	std::shared_ptr<PulseThread> running_; // itself
};

Napi::Value pulse_start(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto pulse = std::make_shared<PulseThread>();
	pulse->start(env, as_object(info[0], "options"), as_function(info[1], "onEvent"));
	Napi::Object answer = Napi::Object::New(env);
	add_function(answer, "say", [pulse](const Napi::CallbackInfo &call) {
		Napi::Object state = as_object(call[0], "state");
		pulse->say(static_cast<uint8_t>(as_u32(state.Get("role"), "role")), as_u32(state.Get("epoch"), "epoch"),
			   as_u32(state.Get("flags"), "flags"));
	});
	add_function(answer, "grant", [pulse](const Napi::CallbackInfo &call) {
		pulse->grant(as_flag(call[0], "on"), !call[1].IsUndefined() && as_flag(call[1], "watch"));
	});
	add_function(answer, "hold", [pulse](const Napi::CallbackInfo &call) { pulse->hold(as_flag(call[0], "on")); });
	add_function(answer, "pet", [pulse](const Napi::CallbackInfo &) { pulse->pet(); });
	add_function(answer, "snapshot",
		     [pulse](const Napi::CallbackInfo &call) -> Napi::Value { return pulse->snapshot(call.Env()); });
	add_function(answer, "stop", [pulse](const Napi::CallbackInfo &) { pulse->stop(); });
	return answer;
}

Napi::Value boot_time(const Napi::CallbackInfo &info)
{
	return Napi::BigInt::New(info.Env(), boot_time_ns());
}

} // namespace

void register_pulse(Napi::Env, Napi::Object exports)
{
	add_function(exports, "pulseStart", pulse_start);
	add_function(exports, "bootTimeNs", boot_time);
}

} // namespace tandem
