// One datagram of the pulse between host order and the wire.
#include "pulse_wire.h"

#include "siphash.h"

#include <endian.h>

#include <cstring>

namespace tandem {

static uint64_t tag_of(const struct td_wire_pulse &wire, const PulseKey &key)
{
	return siphash24(key, reinterpret_cast<const uint8_t *>(&wire), offsetof(struct td_wire_pulse, mac));
}

struct td_wire_pulse encode_pulse(const PulseMessage &message, const PulseKey &key)
{
	struct td_wire_pulse wire = {};
	wire.magic = htobe32(TD_PULSE_MAGIC);
	wire.version = TD_ABI_VERSION;
	wire.kind = message.kind;
	wire.path = message.path;
	wire.role = message.role;
	wire.flags = htobe32(message.flags);
	wire.epoch = htobe32(message.epoch);
	wire.incarnation = htobe64(message.incarnation);
	wire.sequence = htobe64(message.sequence);
	wire.sent_ns = htobe64(message.sent_ns);
	wire.lease_ns = htobe64(message.lease_ns);
	wire.echo_incarnation = htobe64(message.echo_incarnation);
	wire.mac = htobe64(tag_of(wire, key));
	return wire;
}

std::optional<PulseMessage> decode_pulse(const uint8_t *data, size_t length, const PulseKey &key)
{
	struct td_wire_pulse wire;
	if (length != sizeof(wire))
		return std::nullopt;
	memcpy(&wire, data, sizeof(wire));
	if (be32toh(wire.magic) != TD_PULSE_MAGIC || wire.version != TD_ABI_VERSION ||
	    be64toh(wire.mac) != tag_of(wire, key))
		return std::nullopt;
	if (wire.kind != TD_PULSE_HEARTBEAT && wire.kind != TD_PULSE_ANSWER)
		return std::nullopt;
	PulseMessage message;
	message.kind = wire.kind;
	message.path = wire.path;
	message.role = wire.role;
	message.flags = be32toh(wire.flags);
	message.epoch = be32toh(wire.epoch);
	message.incarnation = be64toh(wire.incarnation);
	message.sequence = be64toh(wire.sequence);
	message.sent_ns = be64toh(wire.sent_ns);
	message.lease_ns = be64toh(wire.lease_ns);
	message.echo_incarnation = be64toh(wire.echo_incarnation);
	return message;
}

} // namespace tandem
