// Bounded parsing of rtnetlink messages (rtnetlink(7)): each function looks at one message's payload only, never past
// its length, and leaves out what is missing or malformed.
#pragma once

#include "ip_address.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace tandem {

struct Link {
	int ifindex = 0;
	std::string name;
	uint8_t mac[6] = {};
	bool has_mac = false;
	uint32_t mtu = 0;
	bool up = false; // administratively (IFF_UP); with or without a carrier
	bool carrier = false; // IFF_LOWER_UP
	uint16_t type = 0;
	std::string kind;
};

struct InterfaceAddress {
	int ifindex = 0;
	IpAddress ip;
	uint8_t prefix = 0;
};

struct Neighbour {
	uint8_t mac[6] = {};
	bool has_mac = false;
	uint16_t state = 0; // NUD_*
};

struct Route {
	int ifindex = 0;
	std::optional<IpAddress> gateway;
	std::optional<IpAddress> source;
};

/// Calls `each` with type and payload of every whole message in a datagram; false when one is cut or overlong.
bool walk_messages(const uint8_t *data, size_t length,
		   const std::function<void(uint16_t type, const uint8_t *payload, size_t length)> &each);

std::optional<Link> parse_link(const uint8_t *payload, size_t length);
std::optional<InterfaceAddress> parse_address(const uint8_t *payload, size_t length);
std::optional<Neighbour> parse_neighbour(const uint8_t *payload, size_t length);
std::optional<Route> parse_route(const uint8_t *payload, size_t length);

} // namespace tandem
