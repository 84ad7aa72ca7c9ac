// A descriptor watched by the calling environment's event loop, with the lifetime rules of libuv and Node-API in one
// place: the handle is freed in its close callback, and the end of a worker thread waits for that.
#pragma once

#include <napi.h>
#include <uv.h>

namespace tandem {

class Polled {
public:
	/// Takes over the descriptor. Throws when the loop cannot watch it (the descriptor then stays the caller's).
	Polled(Napi::Env env, int fd, const char *name);
	virtual ~Polled() = default;
	Polled(const Polled &) = delete;
	Polled &operator=(const Polled &) = delete;

	/// UV_READABLE | UV_WRITABLE, 0 for none.
	void watch(int events);
	/// Closes the descriptor at once and deletes this object later. No call of ready() after it.
	void close();
	bool closed() const { return closed_; }
	int fd() const { return fd_; }

protected:
	/// `events`: UV_*. On a failing descriptor both are set, so that reading or writing shows the error.
	virtual void ready(int events) = 0;
	/// Before the descriptor is closed.
	virtual void closing() {}
	/// Calls JavaScript from the loop; what it throws becomes an uncaught exception.
	void call(const Napi::FunctionReference &function, const std::vector<napi_value> &arguments);

	Napi::Env env_;

private:
	int fd_;
	bool closed_ = false;
	int watched_ = 0;
	uv_poll_t handle_;
	Napi::AsyncContext context_;
	napi_async_cleanup_hook_handle hook_ = nullptr;
};

} // namespace tandem
