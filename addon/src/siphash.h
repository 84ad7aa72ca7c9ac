// SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): the keyed tag of a pulse datagram.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem {

uint64_t siphash24(const uint8_t key[16], const uint8_t *data, size_t length);

} // namespace tandem
