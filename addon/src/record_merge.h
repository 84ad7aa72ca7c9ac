// Neighbouring records of one input stream made one, as GRO makes one segment of them for the active's TCP: a long
// stream then costs the recorder a record a burst, not one a frame.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem {

/// Both are a td_record followed by its frame; whether the checksum of `sample` is right is in its flags, that of `next` is,
/// and there is room behind `sample`. If `next` continues `sample`, appends its payload to that of `sample` and returns the
/// bytes `sample` then has; 0, and nothing changed, if not.
///
/// It does if both are inward, with right checksums and payload, `next` begins where `sample` ends, and they do not
/// differ in anything the recorder judges a segment by (tcp_gro_receive in net/ipv4/tcp_offload.c; PSH tells the
/// recorder nothing). Outward records stay as they are: their size is one that the path carries.
size_t merge_records(uint8_t *sample, const uint8_t *next);

} // namespace tandem
