// What a refused BPF program's log says in a few lines: the verifier's reason stands last, after thousands of lines of
// state; libbpf wraps it in "BEGIN/END PROG LOAD LOG" and adds its own lines around.
#include "verifier_log.h"

#include <vector>

namespace tandem {

static std::vector<std::string> split_lines(const std::string &text)
{
	std::vector<std::string> lines;
	size_t start = 0;
	while (start < text.size()) {
		size_t end = text.find('\n', start);
		if (end == std::string::npos)
			end = text.size();
		if (end > start)
			lines.push_back(text.substr(start, end - start));
		start = end + 1;
	}
	return lines;
}

static bool starts_with(const std::string &line, const char *prefix)
{
	return line.rfind(prefix, 0) == 0;
}

/// The verifier's statistics at the end of each log.
static bool is_statistics(const std::string &line)
{
	return starts_with(line, "processed ") || starts_with(line, "verification time") ||
	       starts_with(line, "stack depth");
}

std::string summarise_load_log(const std::string &log)
{
	std::vector<std::string> lines = split_lines(log), verifier, around;
	std::string program, source;
	bool inside = false;
	for (const std::string &line : lines) {
		if (line.find("BEGIN PROG LOAD LOG") != std::string::npos) {
			// A later attempt with more log replaces the earlier one.
			program = line.substr(0, line.find(": --"));
			verifier.clear();
			source.clear();
			inside = true;
		} else if (line.find("END PROG LOAD LOG") != std::string::npos) {
			inside = false;
		} else if (!inside) {
			around.push_back(line);
		} else if (starts_with(line, "; ")) {
			source = line;
		} else if (!is_statistics(line)) {
			verifier.push_back(line);
		}
	}
	const std::vector<std::string> &telling = verifier.empty() ? around : verifier;
	std::string summary = program;
	if (!source.empty())
		summary += "\n" + source;
	size_t first = telling.size() > 4 ? telling.size() - 4 : 0;
	for (size_t index = first; index < telling.size(); index++)
		summary += (summary.empty() ? "" : "\n") + telling[index];
	return summary;
}

} // namespace tandem
