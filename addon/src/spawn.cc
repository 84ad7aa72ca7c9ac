// Starts a program whose standard input and output is one descriptor. posix_spawn shares the memory until the program
// runs, where fork copies the page tables of an agent with a large ring: tens of milliseconds for each session.

#include "arguments.h"
#include "errors.h"
#include "families.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <vector>

namespace tandem {
namespace {

std::vector<std::string> as_texts(const Napi::Value &value, const std::string &name)
{
	if (!value.IsArray())
		wrong_type(value.Env(), name, "an array");
	auto array = value.As<Napi::Array>();
	std::vector<std::string> texts;
	for (uint32_t index = 0; index < array.Length(); index++)
		texts.push_back(as_text(array.Get(index), name));
	return texts;
}

/// As exec wants them: the pointers are into `texts`.
std::vector<char *> pointers_to(std::vector<std::string> &texts)
{
	std::vector<char *> pointers;
	for (std::string &text : texts)
		pointers.push_back(text.data());
	pointers.push_back(nullptr);
	return pointers;
}

/// In a session of its own, with no signal blocked or ignored, and without the agent's priority. Returns its number; the
/// program is looked for in the agent's PATH.
Napi::Value spawn_with(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::vector<std::string> words = as_texts(info[0], "command"), settings = as_texts(info[1], "environment");
	int fd = as_fd(info[2]);
	if (words.empty())
		wrong_type(env, "command", "a program and its parameters");

	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, 0);
	posix_spawn_file_actions_adddup2(&actions, fd, 1);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	pid_t pid = 0;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); // as a program expects its standard input
	int error = posix_spawnp(&pid, words[0].c_str(), &actions, &attributes, pointers_to(words).data(),
				 pointers_to(settings).data());
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	if (error)
		fail(env, error, "posix_spawn", words[0]);
	setpriority(PRIO_PROCESS, static_cast<id_t>(pid), 0);
	return Napi::Number::New(env, pid);
}

/// Has this child ended? Then nothing of it is left.
Napi::Value reap(const Napi::CallbackInfo &info)
{
	return Napi::Boolean::New(info.Env(), waitpid(as_fd(info[0], "pid"), nullptr, WNOHANG) != 0);
}

} // namespace

void register_spawn(Napi::Env, Napi::Object exports)
{
	add_function(exports, "spawnWith", spawn_with);
	add_function(exports, "reap", reap);
}

} // namespace tandem
