// What a refused BPF program's log says in a few lines.
#pragma once

#include <string>

namespace tandem {

/// The last telling lines of libbpf's output for a failed load: the program's name, the last source line the verifier
/// stood at, the instructions just before the refusal and the reason. Joined by newlines, never longer than 8 lines.
std::string summarise_load_log(const std::string &log);

} // namespace tandem
