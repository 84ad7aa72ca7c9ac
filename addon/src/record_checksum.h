// The TCP checksum of a recorded frame, verified where the batch reader has the bytes in its cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem {

/// `sample` is a td_record followed by its frame, `length` bytes in all: does every offset lie inside the frame, and is
/// the TCP checksum right (RFC 9293, section 3.1; pseudo header of RFC 8200, section 8.1 for IPv6)? Reads nothing outside
/// `length` bytes.
bool checksum_is_right(const uint8_t *sample, size_t length);

} // namespace tandem
