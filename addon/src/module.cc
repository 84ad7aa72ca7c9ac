// The addon's door: registers each family's functions. Keeps no state of the process, so it loads in any number of
// worker threads.
#include "families.h"

static Napi::Object initialise(Napi::Env env, Napi::Object exports)
{
	tandem::register_bpf(env, exports);
	tandem::register_ring(env, exports);
	tandem::register_restore(env, exports);
	tandem::register_inject(env, exports);
	tandem::register_descriptors(env, exports);
	tandem::register_tcp_state(env, exports);
	tandem::register_pulse(env, exports);
	tandem::register_rtnetlink(env, exports);
	tandem::register_socket_end(env, exports);
	tandem::register_sd_notify(env, exports);
	tandem::register_spawn(env, exports);
	return exports;
}

NODE_API_MODULE(tandem, initialise)
