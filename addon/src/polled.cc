// A descriptor watched by the calling environment's event loop.
#include "polled.h"

#include "errors.h"

#include <unistd.h>

namespace tandem {

Polled::Polled(Napi::Env env, int fd, const char *name) : env_(env), fd_(fd), context_(env, name)
{
	uv_loop_t *loop = nullptr;
	if (napi_get_uv_event_loop(env, &loop) != napi_ok)
		fail(env, EINVAL, "napi_get_uv_event_loop");
	int result = uv_poll_init(loop, &handle_, fd);
	if (result < 0)
		fail(env, -result, "uv_poll_init");
	handle_.data = this;
	napi_add_async_cleanup_hook(
		env, [](napi_async_cleanup_hook_handle, void *self) { static_cast<Polled *>(self)->close(); }, this,
		&hook_);
}

void Polled::watch(int events)
{
	if (closed_ || events == watched_)
		return;
	watched_ = events;
	if (!events) {
		uv_poll_stop(&handle_);
		return;
	}
	uv_poll_start(&handle_, events, [](uv_poll_t *handle, int status, int ready) {
		auto *self = static_cast<Polled *>(handle->data);
		// A worker that is being terminated refuses every call into JavaScript, and so throws here: nobody is left to
		// be told, and its cleanup hook closes this.
		try {
			Napi::HandleScope scope(self->env_);
			self->ready(status < 0 ? UV_READABLE | UV_WRITABLE : ready);
		} catch (const Napi::Error &) {
		}
	});
}

void Polled::close()
{
	if (closed_)
		return;
	closed_ = true;
	closing();
	uv_poll_stop(&handle_);
	::close(fd_);
	uv_close(reinterpret_cast<uv_handle_t *>(&handle_), [](uv_handle_t *handle) {
		auto *self = static_cast<Polled *>(handle->data);
		Napi::HandleScope scope(self->env_); // the destructor drops references
		napi_remove_async_cleanup_hook(self->hook_);
		delete self;
	});
}

void Polled::call(const Napi::FunctionReference &function, const std::vector<napi_value> &arguments)
{
	try {
		function.MakeCallback(env_.Global(), arguments, context_);
	} catch (const Napi::Error &error) {
		napi_fatal_exception(env_, error.Value());
	}
}

} // namespace tandem
