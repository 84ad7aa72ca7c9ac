// Every family of functions, one file each; each adds its functions of the interface `Native` to the exports.
#pragma once

#include <napi.h>

namespace tandem {

void register_bpf(Napi::Env env, Napi::Object exports);
void register_ring(Napi::Env env, Napi::Object exports);
void register_restore(Napi::Env env, Napi::Object exports);
void register_inject(Napi::Env env, Napi::Object exports);
void register_descriptors(Napi::Env env, Napi::Object exports);
void register_tcp_state(Napi::Env env, Napi::Object exports);
void register_pulse(Napi::Env env, Napi::Object exports);
void register_rtnetlink(Napi::Env env, Napi::Object exports);
void register_socket_end(Napi::Env env, Napi::Object exports);
void register_sd_notify(Napi::Env env, Napi::Object exports);
void register_spawn(Napi::Env env, Napi::Object exports);

} // namespace tandem
