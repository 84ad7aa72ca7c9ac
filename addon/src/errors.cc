// Failures of system calls as JavaScript errors.
#include "errors.h"

#include <cstring>

namespace tandem {

std::string errno_name(int number)
{
	const char *name = strerrorname_np(number);
	if (name)
		return name;
	return (number >= 4000 ? "BPF_" : "E") + std::to_string(number);
}

Napi::Error coded_error(Napi::Env env, const std::string &code, int number, const std::string &syscall,
			const std::string &message)
{
	Napi::Error error = Napi::Error::New(env, message);
	error.Set("code", Napi::String::New(env, code));
	error.Set("errno", Napi::Number::New(env, number));
	error.Set("syscall", Napi::String::New(env, syscall));
	return error;
}

Napi::Error system_error(Napi::Env env, int number, const std::string &syscall, const std::string &detail)
{
	std::string name = errno_name(number);
	const char *text = strerrordesc_np(number);
	std::string message = syscall + ": " + name + (text ? std::string(", ") + text : "");
	if (!detail.empty())
		message += " (" + detail + ")";
	return coded_error(env, name, number, syscall, message);
}

void fail(Napi::Env env, int number, const std::string &syscall, const std::string &detail)
{
	throw system_error(env, number, syscall, detail);
}

} // namespace tandem
