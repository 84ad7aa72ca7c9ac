// Many sessions restored in one call: the JavaScript values are read first, then only system calls are made.
#include "arguments.h"
#include "errors.h"
#include "families.h"
#include "tcp_repair.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <thread>
#include <vector>

namespace tandem {
namespace {

IpAddress key_address(const Napi::Object &session, const char *name, int family)
{
	Bytes bytes = as_bytes(session.Get(name), name);
	if (bytes.length != 16)
		fail(session.Env(), EINVAL, "restore", std::string(name) + " must have 16 bytes");
	IpAddress address;
	address.family = family;
	memcpy(address.bytes, bytes.data, address.length());
	return address;
}

uint16_t port_of(const Napi::Object &session, const char *name)
{
	uint32_t port = as_u32(session.Get(name), name);
	if (!port || port > 65535)
		fail(session.Env(), EINVAL, "restore", std::string(name) + " " + std::to_string(port));
	return static_cast<uint16_t>(port);
}

uint8_t shift_of(const Napi::Value &value, const char *name)
{
	uint32_t shift = as_u32(value, name);
	if (shift > 14) // RFC 7323, section 2.3
		fail(value.Env(), EINVAL, "restore", std::string(name) + " is larger than 14");
	return static_cast<uint8_t>(shift);
}

constexpr size_t kMostKey = 80; // TCP_MD5SIG_MAXKEYLEN

int whole_of(const Napi::Object &options, const char *name)
{
	uint32_t value = as_u32(options.Get(name), name);
	if (value > INT32_MAX)
		fail(options.Env(), EINVAL, "restore", std::string(name) + " " + std::to_string(value));
	return static_cast<int>(value);
}

std::optional<int> whole_if_given(const Napi::Object &options, const char *name)
{
	if (is_absent(options.Get(name)))
		return std::nullopt;
	return whole_of(options, name);
}

SocketOptions read_options(const Napi::Object &options)
{
	SocketOptions read;
	read.ttl = whole_if_given(options, "ttl");
	read.min_ttl = whole_of(options, "minTtl");
	read.tos = whole_of(options, "tos");
	read.no_delay = as_flag(options.Get("noDelay"), "noDelay");
	read.keep_alive = as_flag(options.Get("keepAlive"), "keepAlive");
	read.keep_idle = whole_if_given(options, "keepIdle");
	read.keep_interval = whole_if_given(options, "keepInterval");
	read.keep_count = whole_if_given(options, "keepCount");
	read.user_timeout = whole_of(options, "userTimeout");
	read.congestion = as_text(options.Get("congestion"), "congestion");
	if (std::optional<int> largest = whole_if_given(options, "maxSegment"))
		read.max_segment = static_cast<uint32_t>(*largest);
	if (!is_absent(options.Get("device")))
		read.device = as_text(options.Get("device"), "device");
	read.send_buffer = whole_if_given(options, "sendBuffer");
	read.receive_buffer = whole_if_given(options, "receiveBuffer");
	read.priority = as_u32(options.Get("priority"), "priority");
	read.mark = as_u32(options.Get("mark"), "mark");
	read.linger = whole_if_given(options, "linger");
	return read;
}

SessionState read_session(const Napi::Object &session)
{
	Napi::Env env = session.Env();
	SessionState state;
	uint32_t family = as_u32(session.Get("family"), "family");
	if (family != 4 && family != 6)
		fail(env, EAFNOSUPPORT, "restore", "family is 4 or 6");
	int address_family = family == 4 ? AF_INET : AF_INET6;
	state.local = key_address(session, "localIp", address_family);
	state.peer = key_address(session, "peerIp", address_family);
	state.local_port = port_of(session, "localPort");
	state.peer_port = port_of(session, "peerPort");
	state.snd_una = as_u32(session.Get("sndUna"), "sndUna");
	Bytes unacked = as_bytes(session.Get("unacked"), "unacked");
	state.unacked = unacked.data;
	state.unacked_length = unacked.length;
	state.rcv_seq = as_u32(session.Get("rcvSeq"), "rcvSeq");
	Bytes received = as_bytes(session.Get("received"), "received");
	state.received = received.data;
	state.received_length = received.length;
	uint32_t mss = as_u32(session.Get("mss"), "mss");
	if (!mss || mss > 65535)
		fail(env, EINVAL, "restore", "mss " + std::to_string(mss));
	state.mss = static_cast<uint16_t>(mss);
	Napi::Value send_shift = session.Get("sndWscale"), receive_shift = session.Get("rcvWscale");
	if (is_absent(send_shift) != is_absent(receive_shift))
		fail(env, EINVAL, "restore", "both window scales or neither");
	if (!is_absent(send_shift)) {
		state.snd_wscale = shift_of(send_shift, "sndWscale");
		state.rcv_wscale = shift_of(receive_shift, "rcvWscale");
	}
	state.sack = as_flag(session.Get("sackPermitted"), "sackPermitted");
	Napi::Value timestamp = session.Get("timestamp");
	if (!is_absent(timestamp))
		state.timestamp = as_u32(timestamp, "timestamp");
	Napi::Value window = session.Get("window");
	if (!is_absent(window)) {
		Napi::Object values = as_object(window, "window");
		state.window = SessionState::Window{
			as_u32(values.Get("sndWl1"), "sndWl1"), as_u32(values.Get("sndWnd"), "sndWnd"),
			as_u32(values.Get("maxWindow"), "maxWindow"), as_u32(values.Get("rcvWnd"), "rcvWnd"),
			as_u32(values.Get("rcvWup"), "rcvWup")};
	}
	Napi::Value options = session.Get("options");
	if (!is_absent(options))
		state.options = read_options(as_object(options, "options"));
	Napi::Value key = session.Get("md5");
	if (!is_absent(key)) {
		Bytes bytes = as_bytes(key, "md5");
		if (!bytes.length || bytes.length > kMostKey)
			fail(env, EINVAL, "restore", "an MD5 key has 1 to 80 bytes");
		state.md5_key = bytes.data;
		state.md5_length = bytes.length;
	}
	return state;
}

/// System calls only, so several threads share them: a takeover has the whole machine to itself.
std::vector<RestoreOutcome> restore_all(const std::vector<SessionState> &states)
{
	constexpr size_t worthwhile = 64; // sessions a thread
	size_t threads = std::min<size_t>(
		{4, std::max(1U, std::thread::hardware_concurrency()), 1 + states.size() / worthwhile});
	std::vector<RestoreOutcome> outcomes(states.size());
	auto work = [&](size_t first) {
		for (size_t index = first; index < states.size(); index += threads)
			outcomes[index] = restore_session(states[index]);
	};
	std::vector<std::thread> others;
	for (size_t first = 1; first < threads; first++)
		others.emplace_back(work, first);
	work(0);
	for (std::thread &other : others)
		other.join();
	return outcomes;
}

Napi::Value restore(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	if (!info[0].IsArray())
		wrong_type(env, "sessions", "an array");
	Napi::Array sessions = info[0].As<Napi::Array>();
	std::vector<SessionState> states;
	states.reserve(sessions.Length());
	for (uint32_t index = 0; index < sessions.Length(); index++) {
		Napi::HandleScope scope(env);
		states.push_back(read_session(as_object(sessions.Get(index), "session")));
	}
	std::vector<RestoreOutcome> outcomes = restore_all(states);

	Napi::Array answer = Napi::Array::New(env, outcomes.size());
	for (uint32_t index = 0; index < outcomes.size(); index++) {
		const RestoreOutcome &outcome = outcomes[index];
		Napi::HandleScope scope(env);
		Napi::Object entry = Napi::Object::New(env);
		if (outcome.fd >= 0) {
			entry.Set("fd", outcome.fd);
		} else {
			std::string code = errno_name(outcome.error);
			entry.Set("code", code);
			entry.Set("step", outcome.step);
			entry.Set("message", std::string(outcome.step) + ": " + code + ", " + strerror(outcome.error));
		}
		answer.Set(index, entry);
	}
	return answer;
}

Napi::Value restore_release(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	if (!info[0].IsArray())
		wrong_type(env, "fds", "an array");
	Napi::Array fds = info[0].As<Napi::Array>();
	bool probe = as_flag(info[1], "probe");
	std::vector<int> numbers;
	for (uint32_t index = 0; index < fds.Length(); index++)
		numbers.push_back(as_fd(fds.Get(index)));
	Napi::Array answer = Napi::Array::New(env, numbers.size());
	for (uint32_t index = 0; index < numbers.size(); index++) {
		int number = leave_repair(numbers[index], probe);
		answer.Set(index, number ? errno_name(number) : std::string());
	}
	return answer;
}

void restore_drop(const Napi::CallbackInfo &info)
{
	close_unheard(as_fd(info[0]));
}

/// Grows the process's descriptor table once, ahead of need: each doubling in a process with threads waits for an RCU
/// grace period (fs/file.c, expand_fdtable), and a takeover of a thousand sessions would wait five times.
void grow_descriptor_table()
{
	constexpr rlim_t wanted = 65536; // half a megabyte of table
	struct rlimit limit = {};
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	int fd = eventfd(0, EFD_CLOEXEC);
	int high = fcntl(fd, F_DUPFD_CLOEXEC, static_cast<int>(std::min(wanted, limit.rlim_cur)) - 1);
	if (high >= 0)
		close(high);
	if (fd >= 0)
		close(fd);
}

} // namespace

void register_restore(Napi::Env, Napi::Object exports)
{
	grow_descriptor_table();
	add_function(exports, "restore", restore);
	add_function(exports, "restoreRelease", restore_release);
	add_function(exports, "restoreDrop", restore_drop);
}

} // namespace tandem
