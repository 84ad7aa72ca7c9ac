// Tells the service manager of our state (sd_notify(3)): one datagram to the socket that it named in NOTIFY_SOCKET.
#include "arguments.h"
#include "errors.h"
#include "families.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace tandem {
namespace {

Napi::Value sd_notify(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::string state = as_text(info[0], "state");
	// From process.env, not getenv: JavaScript may have changed it, and worker threads have one of their own.
	Napi::Value named = env.Global().Get("process").As<Napi::Object>().Get("env").As<Napi::Object>().Get(
		"NOTIFY_SOCKET");
	if (!named.IsString())
		return Napi::Boolean::New(env, false);
	std::string path = named.As<Napi::String>().Utf8Value();
	struct sockaddr_un address = {};
	address.sun_family = AF_UNIX;
	if (path.empty())
		return Napi::Boolean::New(env, false);
	if (path.size() >= sizeof(address.sun_path))
		fail(env, ENAMETOOLONG, "sendto", path);
	memcpy(address.sun_path, path.data(), path.size());
	if (path[0] == '@')
		address.sun_path[0] = '\0'; // the abstract namespace
	auto length = static_cast<socklen_t>(offsetof(struct sockaddr_un, sun_path) + path.size());
	int fd = check(env, socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	ssize_t sent = sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
			      reinterpret_cast<struct sockaddr *>(&address), length);
	int number = errno;
	::close(fd);
	if (sent < 0)
		fail(env, number, "sendto", path);
	return Napi::Boolean::New(env, true);
}

} // namespace

void register_sd_notify(Napi::Env, Napi::Object exports)
{
	add_function(exports, "sdNotify", sd_notify);
}

} // namespace tandem
