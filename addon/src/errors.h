// Failures of system calls as JavaScript errors: {code: errno name, errno, syscall}, the shape NativeError of native.ts.
#pragma once

#include <napi.h>

#include <string>

namespace tandem {

/// "EPERM" for 1; "E4001" for what is no errno (libbpf's own numbers have names of their own, "BPF_4001").
std::string errno_name(int number);

/// The error without throwing it. `number` is positive.
Napi::Error system_error(Napi::Env env, int number, const std::string &syscall, const std::string &detail = "");

/// An error with a code that is no errno ("BPF_LOAD").
Napi::Error coded_error(Napi::Env env, const std::string &code, int number, const std::string &syscall,
			const std::string &message);

[[noreturn]] void fail(Napi::Env env, int number, const std::string &syscall, const std::string &detail = "");

/// Returns `result` when it is not negative, else throws errno as a failure of `syscall`.
inline int check(Napi::Env env, int result, const char *syscall, const std::string &detail = "")
{
	if (result < 0)
		fail(env, errno, syscall, detail);
	return result;
}

} // namespace tandem
