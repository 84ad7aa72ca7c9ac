// Keeps in memory what one thread needs to run.
#include "resident.h"

#include <link.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace tandem {
namespace {

constexpr size_t kStackBytes = 128 * 1024;

bool lock_range(uintptr_t from, uintptr_t to)
{
	auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
	from &= ~(page - 1);
	to = (to + page - 1) & ~(page - 1);
	return mlock(reinterpret_cast<const void *>(from), to - from) == 0;
}

int lock_object(struct dl_phdr_info *info, size_t, void *all_locked)
{
	// The first, without a name, is Node.js itself: large, and not in the pulse's way. The vDSO is never paged out.
	if (!info->dlpi_name || info->dlpi_name[0] != '/')
		return 0;
	for (int index = 0; index < info->dlpi_phnum; index++) {
		const ElfW(Phdr) &segment = info->dlpi_phdr[index];
		if (segment.p_type != PT_LOAD)
			continue;
		uintptr_t start = info->dlpi_addr + segment.p_vaddr;
		if (!lock_range(start, start + segment.p_memsz))
			*static_cast<bool *>(all_locked) = false;
	}
	return 0;
}

bool lock_stack()
{
	pthread_attr_t attributes;
	if (pthread_getattr_np(pthread_self(), &attributes) != 0)
		return false;
	void *lowest = nullptr;
	size_t size = 0;
	pthread_attr_getstack(&attributes, &lowest, &size);
	pthread_attr_destroy(&attributes);
	auto low = reinterpret_cast<uintptr_t>(lowest);
	uintptr_t top = low + size;
	return lock_range(size > kStackBytes ? top - kStackBytes : low, top);
}

} // namespace

bool keep_resident(const void *object, size_t length)
{
	bool all_locked = true;
	dl_iterate_phdr(lock_object, &all_locked);
	auto start = reinterpret_cast<uintptr_t>(object);
	if (!lock_range(start, start + length))
		all_locked = false;
	return lock_stack() && all_locked;
}

} // namespace tandem
