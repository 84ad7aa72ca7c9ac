// One datagram of the pulse (td_wire_pulse of abi.h) between host order and the wire.
#pragma once

#include "abi.h"

#include <cstddef>
#include <cstdint>
#include <optional>

namespace tandem {

using PulseKey = uint8_t[16];

struct PulseMessage {
	uint8_t kind = 0; // enum td_pulse_kind
	uint8_t path = 0;
	uint8_t role = 0; // enum td_role
	uint32_t flags = 0; // enum td_pulse_flag
	uint32_t epoch = 0;
	uint64_t incarnation = 0;
	uint64_t sequence = 0;
	uint64_t sent_ns = 0;
	uint64_t lease_ns = 0;
	uint64_t echo_incarnation = 0;
};

struct td_wire_pulse encode_pulse(const PulseMessage &message, const PulseKey &key);

/// Nothing when length, magic, version, kind or the keyed tag are wrong.
std::optional<PulseMessage> decode_pulse(const uint8_t *data, size_t length, const PulseKey &key);

} // namespace tandem
