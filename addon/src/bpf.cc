// BPF through libbpf: objects by path, maps, pins, XDP/TC/tracing/iterator attachments, test runs, statistics, BTF layouts.
// Everything acts in the network namespace of the calling thread.
#include "arguments.h"
#include "errors.h"
#include "families.h"
#include "verifier_log.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <vector>

namespace tandem {
namespace {

// libbpf has one print function for the process; each thread collects only while it is in a call of its own.
thread_local std::string *collected_log = nullptr;

int collect_log(enum libbpf_print_level level, const char *format, va_list arguments)
{
	if (!collected_log || level == LIBBPF_DEBUG)
		return 0;
	va_list again;
	va_copy(again, arguments);
	int length = vsnprintf(nullptr, 0, format, again);
	va_end(again);
	if (length <= 0)
		return 0;
	size_t before = collected_log->size();
	collected_log->resize(before + static_cast<size_t>(length) + 1);
	vsnprintf(collected_log->data() + before, static_cast<size_t>(length) + 1, format, arguments);
	collected_log->resize(before + static_cast<size_t>(length));
	return length;
}

class LogCollector {
public:
	LogCollector() { collected_log = &text; }
	~LogCollector() { collected_log = nullptr; }
	LogCollector(const LogCollector &) = delete;
	LogCollector &operator=(const LogCollector &) = delete;
	std::string text;
};

[[noreturn]] void fail_object(Napi::Env env, const char *code, int number, const char *syscall, const std::string &path,
			      const std::string &log)
{
	std::string summary = summarise_load_log(log);
	Napi::Error error = coded_error(env, code, number, syscall,
					path + ": " + errno_name(number) + (summary.empty() ? "" : "\n" + summary));
	error.Set("summary", Napi::String::New(env, summary));
	error.Set("log", Napi::String::New(env, log));
	throw error;
}

template <typename Each> void for_each_entry(const Napi::Object &options, const char *name, Each each)
{
	Napi::Value record = options.Get(name);
	if (is_absent(record))
		return;
	Napi::Object entries = as_object(record, name);
	Napi::Array keys = entries.GetPropertyNames();
	for (uint32_t index = 0; index < keys.Length(); index++) {
		std::string key = keys.Get(index).ToString().Utf8Value();
		each(key, entries.Get(key));
	}
}

struct bpf_map *find_map(Napi::Env env, struct bpf_object *object, const std::string &name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, name.c_str());
	if (!map)
		fail(env, ENOENT, "bpf_object__find_map_by_name", "no map " + name);
	return map;
}

/// Overwrites the initial value of one `const volatile` global. Its place comes from the DATASEC ".rodata" of the BTF.
void set_rodata(Napi::Env env, struct bpf_object *object, const std::string &name, Bytes value)
{
	struct btf *btf = bpf_object__btf(object);
	int section = btf ? btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC) : -ENOENT;
	if (section < 0)
		fail(env, ENOENT, "rodata", "the object has no constants");
	const struct btf_type *type = btf__type_by_id(btf, static_cast<__u32>(section));
	const struct btf_var_secinfo *variables = btf_var_secinfos(type);
	for (int index = 0; index < btf_vlen(type); index++) {
		const struct btf_type *variable = btf__type_by_id(btf, variables[index].type);
		if (name != btf__name_by_offset(btf, variable->name_off))
			continue;
		if (value.length != variables[index].size)
			fail(env, EINVAL, "rodata", name + " has " + std::to_string(variables[index].size) + " bytes");
		struct bpf_map *map;
		bpf_object__for_each_map (map, object) {
			std::string map_name = bpf_map__name(map);
			const std::string suffix = ".rodata";
			if (!bpf_map__is_internal(map) || map_name.size() < suffix.size() ||
			    map_name.compare(map_name.size() - suffix.size(), suffix.size(), suffix) != 0)
				continue;
			size_t size = 0;
			auto *initial = static_cast<uint8_t *>(const_cast<void *>(bpf_map__initial_value(map, &size)));
			if (!initial || variables[index].offset + value.length > size)
				fail(env, EINVAL, "rodata", name + " is out of its section");
			memcpy(initial + variables[index].offset, value.data, value.length);
			return;
		}
	}
	fail(env, ENOENT, "rodata", "no constant " + name);
}

void reuse_map(Napi::Env env, struct bpf_object *object, const std::string &name, int fd)
{
	// One set of maps serves objects that each use a part of it.
	struct bpf_map *map = bpf_object__find_map_by_name(object, name.c_str());
	if (!map)
		return;
	struct bpf_map_info info = {};
	__u32 length = sizeof(info);
	check(env, bpf_obj_get_info_by_fd(fd, &info, &length), "bpf_obj_get_info_by_fd", name);
	// bpf_map__reuse_fd() takes over whatever sizes the descriptor has; programs compiled for others would be wrong.
	if (info.type != bpf_map__type(map) || info.key_size != bpf_map__key_size(map) ||
	    info.value_size != bpf_map__value_size(map))
		fail(env, EINVAL, "bpf_map__reuse_fd", name + " has another type, key or value size");
	check(env, bpf_map__reuse_fd(map, fd), "bpf_map__reuse_fd", name);
}

// The object lives until close(); never until garbage collection, because JavaScript holds plain descriptor numbers.
struct LoadedObject {
	struct bpf_object *object;
};

Napi::Value load(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::string path = as_text(info[0], "objectPath");
	Napi::Object options = as_object(info[1], "options");
	LogCollector log;

	struct bpf_object_open_opts open_options = {};
	open_options.sz = sizeof(open_options);
	errno = 0;
	struct bpf_object *opened = bpf_object__open_file(path.c_str(), &open_options);
	if (!opened)
		fail_object(env, "BPF_OPEN", errno ? errno : EINVAL, "bpf_object__open_file", path, log.text);
	std::unique_ptr<struct bpf_object, decltype(&bpf_object__close)> object(opened, bpf_object__close);

	for_each_entry(options, "rodata", [&](const std::string &name, const Napi::Value &value) {
		set_rodata(env, opened, name, as_bytes(value, name));
	});
	for_each_entry(options, "maxEntries", [&](const std::string &name, const Napi::Value &value) {
		int result = bpf_map__set_max_entries(find_map(env, opened, name), as_u32(value, name));
		check(env, result, "bpf_map__set_max_entries", name);
	});
	for_each_entry(options, "reuse", [&](const std::string &name, const Napi::Value &value) {
		reuse_map(env, opened, name, as_fd(value, name));
	});
	Napi::Value skip = options.Get("skip");
	if (!is_absent(skip)) {
		Napi::Array names = skip.As<Napi::Array>();
		for (uint32_t index = 0; index < names.Length(); index++) {
			std::string name = as_text(names.Get(index), "skip");
			struct bpf_program *program = bpf_object__find_program_by_name(opened, name.c_str());
			if (!program)
				fail(env, ENOENT, "bpf_object__find_program_by_name", "no program " + name);
			check(env, bpf_program__set_autoload(program, false), "bpf_program__set_autoload", name);
		}
	}

	int result = bpf_object__load(opened);
	if (result < 0)
		fail_object(env, "BPF_LOAD", -result, "bpf_object__load", path, log.text);

	Napi::Object maps = Napi::Object::New(env);
	struct bpf_map *map;
	bpf_object__for_each_map (map, opened) {
		Napi::Object entry = Napi::Object::New(env);
		entry.Set("fd", bpf_map__fd(map));
		entry.Set("type", static_cast<uint32_t>(bpf_map__type(map)));
		entry.Set("keySize", bpf_map__key_size(map));
		entry.Set("valueSize", bpf_map__value_size(map));
		entry.Set("maxEntries", bpf_map__max_entries(map));
		maps.Set(bpf_map__name(map), entry);
	}
	Napi::Object programs = Napi::Object::New(env);
	struct bpf_program *program;
	bpf_object__for_each_program (program, opened) {
		if (bpf_program__fd(program) < 0)
			continue; // skipped
		Napi::Object entry = Napi::Object::New(env);
		entry.Set("fd", bpf_program__fd(program));
		entry.Set("type", static_cast<uint32_t>(bpf_program__type(program)));
		entry.Set("section", bpf_program__section_name(program));
		programs.Set(bpf_program__name(program), entry);
	}

	auto loaded = std::make_shared<LoadedObject>();
	loaded->object = object.release();
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("maps", maps);
	answer.Set("programs", programs);
	add_function(answer, "close", [loaded](const Napi::CallbackInfo &) {
		if (loaded->object)
			bpf_object__close(loaded->object);
		loaded->object = nullptr;
	});
	return answer;
}

Napi::Value map_create(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Napi::Object options = as_object(info[0], "options");
	struct bpf_map_create_opts extra = {};
	extra.sz = sizeof(extra);
	if (!is_absent(options.Get("flags")))
		extra.map_flags = as_u32(options.Get("flags"), "flags");
	std::string name = as_text(options.Get("name"), "name");
	int fd = bpf_map_create(static_cast<enum bpf_map_type>(as_u32(options.Get("type"), "type")), name.c_str(),
				as_u32(options.Get("keySize"), "keySize"),
				as_u32(options.Get("valueSize"), "valueSize"),
				as_u32(options.Get("maxEntries"), "maxEntries"), &extra);
	return Napi::Number::New(env, check(env, fd, "bpf_map_create", name));
}

struct MapSizes {
	size_t key;
	size_t value; // what the kernel reads or writes: per-CPU maps have one 8-aligned value for every possible CPU
};

bool is_per_cpu(__u32 type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

/// The kernel copies by its own sizes, so a wrong length from JavaScript would overrun a buffer: asked at every call.
MapSizes map_sizes(Napi::Env env, int fd)
{
	struct bpf_map_info info = {};
	__u32 length = sizeof(info);
	check(env, bpf_obj_get_info_by_fd(fd, &info, &length), "bpf_obj_get_info_by_fd");
	size_t value = info.value_size;
	if (is_per_cpu(info.type))
		value = (value + 7) / 8 * 8 * static_cast<size_t>(libbpf_num_possible_cpus());
	return {info.key_size, value};
}

void check_length(Napi::Env env, size_t given, size_t needed, const char *what)
{
	if (given != needed)
		fail(env, EINVAL, "bpf",
		     std::string(what) + " has " + std::to_string(given) + " bytes, the map wants " +
			     std::to_string(needed));
}

Napi::Value map_lookup(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	Bytes key = as_bytes(info[1], "key");
	uint32_t length = as_u32(info[2], "valueBytes");
	MapSizes sizes = map_sizes(env, fd);
	check_length(env, key.length, sizes.key, "key");
	check_length(env, length, sizes.value, "value");
	auto value = Napi::Uint8Array::New(env, length);
	if (bpf_map_lookup_elem(fd, key.data, value.Data()) < 0) {
		if (errno == ENOENT)
			return env.Null();
		fail(env, errno, "bpf_map_lookup_elem");
	}
	return value;
}

void map_update(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	Bytes key = as_bytes(info[1], "key");
	Bytes value = as_bytes(info[2], "value");
	MapSizes sizes = map_sizes(env, fd);
	check_length(env, key.length, sizes.key, "key");
	check_length(env, value.length, sizes.value, "value");
	uint32_t flags = is_absent(info[3]) ? static_cast<uint32_t>(BPF_ANY) : as_u32(info[3], "flags");
	check(env, bpf_map_update_elem(fd, key.data, value.data, flags), "bpf_map_update_elem");
}

Napi::Value map_delete(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	Bytes key = as_bytes(info[1], "key");
	check_length(env, key.length, map_sizes(env, fd).key, "key");
	if (bpf_map_delete_elem(fd, key.data) < 0) {
		if (errno == ENOENT)
			return Napi::Boolean::New(env, false);
		fail(env, errno, "bpf_map_delete_elem");
	}
	return Napi::Boolean::New(env, true);
}

Napi::Value map_keys(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	uint32_t length = as_u32(info[1], "keyBytes");
	check_length(env, length, map_sizes(env, fd).key, "key");
	struct bpf_map_info description = {};
	__u32 description_length = sizeof(description);
	check(env, bpf_obj_get_info_by_fd(fd, &description, &description_length), "bpf_obj_get_info_by_fd");
	Napi::Array keys = Napi::Array::New(env);
	std::vector<uint8_t> key(length), next(length);
	// A key deleted meanwhile makes the kernel start again from the first: bound the walk.
	uint64_t bound = 2ULL * description.max_entries + 16;
	for (uint32_t index = 0; index < bound; index++) {
		if (bpf_map_get_next_key(fd, index ? key.data() : nullptr, next.data()) < 0) {
			if (errno == ENOENT)
				break;
			fail(env, errno, "bpf_map_get_next_key");
		}
		keys.Set(index, copy_bytes(env, next.data(), length));
		key.swap(next);
	}
	return keys;
}

/// Some entries of a hash, which are no longer there afterwards; each as key, then value.
Napi::Value map_take(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int fd = as_fd(info[0]);
	uint32_t most = as_u32(info[1], "most");
	MapSizes sizes = map_sizes(env, fd);
	std::vector<uint8_t> keys(size_t{most} * sizes.key), values(size_t{most} * sizes.value);
	struct bpf_map_batch_opts options = {};
	options.sz = sizeof(options);
	uint32_t position = 0;
	uint32_t count = most;
	int result = bpf_map_lookup_and_delete_batch(fd, nullptr, &position, keys.data(), values.data(), &count,
						     &options);
	if (result < 0 && result != -ENOENT) // ENOENT: that was all
		fail(env, -result, "bpf_map_lookup_and_delete_batch");
	std::vector<uint8_t> entries;
	entries.reserve(size_t{count} * (sizes.key + sizes.value));
	for (uint32_t index = 0; index < count; index++) {
		auto key = keys.begin() + static_cast<ptrdiff_t>(size_t{index} * sizes.key);
		auto value = values.begin() + static_cast<ptrdiff_t>(size_t{index} * sizes.value);
		entries.insert(entries.end(), key, key + sizes.key);
		entries.insert(entries.end(), value, value + sizes.value);
	}
	return copy_bytes(env, entries.data(), entries.size());
}

Napi::Value possible_cpus(const Napi::CallbackInfo &info)
{
	int count = libbpf_num_possible_cpus();
	if (count < 0)
		fail(info.Env(), -count, "libbpf_num_possible_cpus");
	return Napi::Number::New(info.Env(), count);
}

void pin(const Napi::CallbackInfo &info)
{
	std::string path = as_text(info[1], "path");
	check(info.Env(), bpf_obj_pin(as_fd(info[0]), path.c_str()), "bpf_obj_pin", path);
}

Napi::Value get_pinned(const Napi::CallbackInfo &info)
{
	std::string path = as_text(info[0], "path");
	return Napi::Number::New(info.Env(), check(info.Env(), bpf_obj_get(path.c_str()), "bpf_obj_get", path));
}

Napi::Value xdp_attach(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::string mode = as_text(info[2], "mode");
	struct bpf_link_create_opts options = {};
	options.sz = sizeof(options);
	if (mode == "native")
		options.flags = XDP_FLAGS_DRV_MODE;
	else if (mode == "generic")
		options.flags = XDP_FLAGS_SKB_MODE;
	else
		wrong_type(env, "mode", "\"native\" or \"generic\"");
	int fd = bpf_link_create(as_fd(info[1], "programFd"), as_fd(info[0], "ifindex"), BPF_XDP, &options);
	return Napi::Number::New(env, check(env, fd, "bpf_link_create", mode + " XDP"));
}

Napi::Value xdp_query(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct bpf_xdp_query_opts options = {};
	options.sz = sizeof(options);
	int result = bpf_xdp_query(as_fd(info[0], "ifindex"), 0, &options);
	if (result < 0)
		fail(env, -result, "bpf_xdp_query");
	static const char *const modes[] = {"none", "native", "generic", "offload", "multi"};
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("programId", options.prog_id);
	answer.Set("mode", options.attach_mode < 5 ? modes[options.attach_mode] : "multi");
	return answer;
}

void link_update(const Napi::CallbackInfo &info)
{
	struct bpf_link_update_opts options = {};
	options.sz = sizeof(options);
	check(info.Env(), bpf_link_update(as_fd(info[0], "linkFd"), as_fd(info[1], "programFd"), &options),
	      "bpf_link_update");
}

void link_detach(const Napi::CallbackInfo &info)
{
	check(info.Env(), bpf_link_detach(as_fd(info[0], "linkFd")), "bpf_link_detach");
}

Napi::Value tracing_attach(const Napi::CallbackInfo &info)
{
	// For a tp_btf program the kernel knows the tracepoint from the load; the descriptor is a bpf_link.
	int fd = bpf_raw_tracepoint_open(nullptr, as_fd(info[0], "programFd"));
	return Napi::Number::New(info.Env(), check(info.Env(), fd, "bpf_raw_tracepoint_open"));
}

Napi::Value iterator_attach(const Napi::CallbackInfo &info)
{
	struct bpf_link_create_opts options = {};
	options.sz = sizeof(options);
	int fd = bpf_link_create(as_fd(info[0], "programFd"), 0, BPF_TRACE_ITER, &options);
	return Napi::Number::New(info.Env(), check(info.Env(), fd, "bpf_link_create", "iterator"));
}

/// Reads an iterator to its end. Returns 0, or an errno: EFBIG when there is more than `limit` bytes.
int read_whole(int fd, size_t limit, std::vector<uint8_t> *content)
{
	constexpr size_t step = 256 * 1024;
	for (size_t length = 0;;) {
		content->resize(length + step);
		ssize_t got = read(fd, content->data() + length, step);
		// EAGAIN: a million objects, and nothing was written of any (bpf_seq_read, kernel/bpf/bpf_iter.c).
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0)
			return errno;
		length += static_cast<size_t>(got);
		if (length > limit)
			return EFBIG;
		if (got == 0) {
			content->resize(length);
			return 0;
		}
	}
}

Napi::Value iterate(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	size_t limit = as_u32(info[1], "maxBytes");
	int fd = check(env, bpf_iter_create(as_fd(info[0], "linkFd")), "bpf_iter_create");
	std::vector<uint8_t> content;
	int error = read_whole(fd, limit, &content);
	close(fd);
	if (error)
		fail(env, error, "read", "iterator");
	return copy_bytes(env, content.data(), content.size());
}

struct bpf_tc_hook tc_hook(const Napi::CallbackInfo &info)
{
	std::string where = as_text(info[1], "where");
	struct bpf_tc_hook hook = {};
	hook.sz = sizeof(hook);
	hook.ifindex = as_fd(info[0], "ifindex");
	if (where == "ingress")
		hook.attach_point = BPF_TC_INGRESS;
	else if (where == "egress")
		hook.attach_point = BPF_TC_EGRESS;
	else
		wrong_type(info.Env(), "where", "\"ingress\" or \"egress\"");
	return hook;
}

void tc_attach(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct bpf_tc_hook hook = tc_hook(info);
	LogCollector log;
	int result = bpf_tc_hook_create(&hook);
	if (result < 0 && result != -EEXIST)
		fail(env, -result, "bpf_tc_hook_create", log.text);
	struct bpf_tc_opts options = {};
	options.sz = sizeof(options);
	options.prog_fd = as_fd(info[2], "programFd");
	options.priority = as_u32(info[3], "priority");
	options.handle = as_u32(info[4], "handle");
	options.flags = BPF_TC_F_REPLACE;
	result = bpf_tc_attach(&hook, &options);
	if (result < 0)
		fail(env, -result, "bpf_tc_attach", log.text);
}

Napi::Value tc_detach(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct bpf_tc_hook hook = tc_hook(info);
	struct bpf_tc_opts options = {};
	options.sz = sizeof(options);
	options.priority = as_u32(info[2], "priority");
	options.handle = as_u32(info[3], "handle");
	LogCollector log;
	int result = bpf_tc_detach(&hook, &options);
	// EINVAL is the kernel's answer when the device has no clsact at all (net/sched/cls_api.c).
	if (result == -ENOENT || result == -EINVAL)
		return Napi::Boolean::New(env, false);
	if (result < 0)
		fail(env, -result, "bpf_tc_detach", log.text);
	return Napi::Boolean::New(env, true);
}

Napi::Value test_run(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Napi::Object options = as_object(info[1], "options");
	struct bpf_test_run_opts run = {};
	run.sz = sizeof(run);
	std::vector<uint8_t> out;
	if (!is_absent(options.Get("data"))) {
		Bytes data = as_bytes(options.Get("data"), "data");
		run.data_in = data.data;
		run.data_size_in = static_cast<__u32>(data.length);
		// Room for what a program may push in front.
		out.resize(is_absent(options.Get("outBytes")) ? data.length + 1024
							      : as_u32(options.Get("outBytes"), "outBytes"));
		run.data_out = out.data();
		run.data_size_out = static_cast<__u32>(out.size());
	}
	if (!is_absent(options.Get("context"))) {
		Bytes context = as_bytes(options.Get("context"), "context");
		run.ctx_in = context.data;
		run.ctx_size_in = static_cast<__u32>(context.length);
	}
	if (!is_absent(options.Get("repeat")))
		run.repeat = static_cast<int>(as_u32(options.Get("repeat"), "repeat"));
	check(env, bpf_prog_test_run_opts(as_fd(info[0], "programFd"), &run), "bpf_prog_test_run_opts");
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("retval", run.retval);
	answer.Set("data", copy_bytes(env, out.data(), run.data_out ? run.data_size_out : 0));
	answer.Set("durationNs", run.duration);
	return answer;
}

Napi::Value statistics_enable(const Napi::CallbackInfo &info)
{
	return Napi::Number::New(info.Env(),
				 check(info.Env(), bpf_enable_stats(BPF_STATS_RUN_TIME), "bpf_enable_stats"));
}

struct bpf_prog_info program_info(const Napi::CallbackInfo &info)
{
	struct bpf_prog_info description = {};
	__u32 length = sizeof(description);
	check(info.Env(), bpf_obj_get_info_by_fd(as_fd(info[0]), &description, &length), "bpf_obj_get_info_by_fd");
	return description;
}

Napi::Value program_statistics(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct bpf_prog_info description = program_info(info);
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("id", description.id);
	answer.Set("name", Napi::String::New(env, description.name));
	answer.Set("runTimeNs", Napi::BigInt::New(env, static_cast<uint64_t>(description.run_time_ns)));
	answer.Set("runCount", Napi::BigInt::New(env, static_cast<uint64_t>(description.run_cnt)));
	return answer;
}

Napi::Value program_id(const Napi::CallbackInfo &info)
{
	return Napi::Number::New(info.Env(), program_info(info).id);
}

Napi::Object struct_layout(Napi::Env env, const struct btf *btf, const struct btf_type *type)
{
	Napi::Array members = Napi::Array::New(env);
	const struct btf_member *member = btf_members(type);
	for (int index = 0; index < btf_vlen(type); index++, member++) {
		__s64 size = btf__resolve_size(btf, member->type);
		Napi::Object entry = Napi::Object::New(env);
		entry.Set("name", Napi::String::New(env, btf__name_by_offset(btf, member->name_off)));
		entry.Set("offset", btf_member_bit_offset(type, static_cast<__u32>(index)) / 8);
		entry.Set("size", static_cast<double>(size < 0 ? 0 : size));
		members.Set(static_cast<uint32_t>(index), entry);
	}
	Napi::Object layout = Napi::Object::New(env);
	layout.Set("size", type->size);
	layout.Set("members", members);
	return layout;
}

Napi::Object enum_values(Napi::Env env, const struct btf *btf, const struct btf_type *type)
{
	Napi::Object values = Napi::Object::New(env);
	bool is_signed = btf_kflag(type);
	const struct btf_enum *entry = btf_enum(type);
	for (int index = 0; index < btf_vlen(type); index++, entry++) {
		double value = is_signed ? static_cast<double>(entry->val)
					 : static_cast<double>(static_cast<__u32>(entry->val));
		values.Set(btf__name_by_offset(btf, entry->name_off), value);
	}
	return values;
}

Napi::Value btf_layouts(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	std::string path = as_text(info[0], "objectPath");
	LogCollector log;
	std::unique_ptr<struct btf, decltype(&btf__free)> btf(btf__parse(path.c_str(), nullptr), btf__free);
	if (!btf)
		fail_object(env, "BPF_OPEN", errno ? errno : EINVAL, "btf__parse", path, log.text);
	Napi::Object structs = Napi::Object::New(env);
	Napi::Object enums = Napi::Object::New(env);
	for (__u32 id = 1; id < btf__type_cnt(btf.get()); id++) {
		const struct btf_type *type = btf__type_by_id(btf.get(), id);
		std::string name = btf__name_by_offset(btf.get(), type->name_off);
		if (name.empty())
			continue;
		if (btf_is_struct(type))
			structs.Set(name, struct_layout(env, btf.get(), type));
		else if (btf_is_enum(type))
			enums.Set(name, enum_values(env, btf.get(), type));
	}
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("structs", structs);
	answer.Set("enums", enums);
	return answer;
}

} // namespace

void register_bpf(Napi::Env, Napi::Object exports)
{
	libbpf_set_print(collect_log);
	add_function(exports, "bpfLoad", load);
	add_function(exports, "bpfMapCreate", map_create);
	add_function(exports, "bpfMapLookup", map_lookup);
	add_function(exports, "bpfMapUpdate", map_update);
	add_function(exports, "bpfMapDelete", map_delete);
	add_function(exports, "bpfMapKeys", map_keys);
	add_function(exports, "bpfMapTake", map_take);
	add_function(exports, "bpfPossibleCpus", possible_cpus);
	add_function(exports, "bpfPin", pin);
	add_function(exports, "bpfGetPinned", get_pinned);
	add_function(exports, "bpfXdpAttach", xdp_attach);
	add_function(exports, "bpfXdpQuery", xdp_query);
	add_function(exports, "bpfLinkUpdate", link_update);
	add_function(exports, "bpfLinkDetach", link_detach);
	add_function(exports, "bpfTracingAttach", tracing_attach);
	add_function(exports, "bpfIteratorAttach", iterator_attach);
	add_function(exports, "bpfIterate", iterate);
	add_function(exports, "bpfTcAttach", tc_attach);
	add_function(exports, "bpfTcDetach", tc_detach);
	add_function(exports, "bpfTestRun", test_run);
	add_function(exports, "bpfStatisticsEnable", statistics_enable);
	add_function(exports, "bpfProgramStatistics", program_statistics);
	add_function(exports, "bpfProgramIdByFd", program_id);
	add_function(exports, "bpfBtf", btf_layouts);
}

} // namespace tandem
