// The TCP checksum of a recorded frame, verified where the batch reader has the bytes in its cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem {

/// `sample` is a td_record followed by its frame, `length` bytes in all. Sets TD_RECORD_CHECKSUM_OK in its flags when
/// every offset lies inside the frame and the TCP checksum is right (RFC 9293, section 3.1; pseudo header of RFC 8200,
/// section 8.1 for IPv6), else clears it. Touches nothing outside `length` bytes. `sample` is 8-aligned.
void mark_checksum(uint8_t *sample, size_t length);

} // namespace tandem
