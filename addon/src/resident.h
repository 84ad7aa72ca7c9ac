// Keeps in memory what one thread needs to run, so that a machine short of memory does not delay it.
#pragma once

#include <cstddef>

namespace tandem {

/// Locks the code and data of the shared objects (the addon, libc...; not Node.js itself), the calling thread's stack
/// near its top, and the object given. False when the limit or the lack of CAP_IPC_LOCK refused any of it.
/// Not mlockall(): V8 gives memory back by madvise(MADV_DONTNEED), which fails on locked pages, and V8 aborts.
bool keep_resident(const void *object, size_t length);

} // namespace tandem
