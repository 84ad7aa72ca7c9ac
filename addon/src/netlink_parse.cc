// Bounded parsing of rtnetlink messages.
#include "netlink_parse.h"

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <cstring>

namespace tandem {
namespace {

constexpr size_t align4(size_t length)
{
	return (length + 3) & ~static_cast<size_t>(3);
}

/// Calls `each` with every whole attribute after a fixed header of `skip` bytes; stops at the first malformed one.
template <typename Each> void walk_attributes(const uint8_t *data, size_t length, size_t skip, Each each)
{
	size_t at = align4(skip);
	while (at + sizeof(struct rtattr) <= length) {
		struct rtattr attribute;
		memcpy(&attribute, data + at, sizeof(attribute));
		if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > length - at)
			return;
		each(static_cast<uint16_t>(attribute.rta_type & NLA_TYPE_MASK), data + at + sizeof(attribute),
		     static_cast<size_t>(attribute.rta_len) - sizeof(attribute));
		at += align4(attribute.rta_len);
	}
}

/// A string attribute: up to its NUL or its end.
std::string text_of(const uint8_t *data, size_t length)
{
	return std::string(reinterpret_cast<const char *>(data), strnlen(reinterpret_cast<const char *>(data), length));
}

bool mac_of(const uint8_t *data, size_t length, uint8_t mac[6])
{
	if (length != 6)
		return false;
	memcpy(mac, data, 6);
	return true;
}

std::optional<IpAddress> ip_of(int family, const uint8_t *data, size_t length)
{
	IpAddress address;
	address.family = family;
	if ((family != AF_INET && family != AF_INET6) || length != address.length())
		return std::nullopt;
	memcpy(address.bytes, data, length);
	return address;
}

template <typename Header> bool read_header(const uint8_t *payload, size_t length, Header *header)
{
	if (length < sizeof(*header))
		return false;
	memcpy(header, payload, sizeof(*header));
	return true;
}

uint32_t u32_of(const uint8_t *data, size_t length)
{
	uint32_t value = 0;
	if (length == sizeof(value))
		memcpy(&value, data, sizeof(value));
	return value;
}

} // namespace

bool walk_messages(const uint8_t *data, size_t length,
		   const std::function<void(uint16_t type, const uint8_t *payload, size_t length)> &each)
{
	size_t at = 0;
	while (at < length) {
		struct nlmsghdr header;
		if (length - at < sizeof(header))
			return false;
		memcpy(&header, data + at, sizeof(header));
		if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > length - at)
			return false;
		each(header.nlmsg_type, data + at + sizeof(header), header.nlmsg_len - sizeof(header));
		at += align4(header.nlmsg_len);
	}
	return true;
}

std::optional<Link> parse_link(const uint8_t *payload, size_t length)
{
	struct ifinfomsg header;
	if (!read_header(payload, length, &header))
		return std::nullopt;
	Link link;
	link.ifindex = header.ifi_index;
	link.type = header.ifi_type;
	link.up = header.ifi_flags & IFF_UP;
	link.carrier = header.ifi_flags & IFF_LOWER_UP;
	walk_attributes(payload, length, sizeof(header), [&](uint16_t type, const uint8_t *data, size_t bytes) {
		if (type == IFLA_IFNAME)
			link.name = text_of(data, bytes);
		else if (type == IFLA_ADDRESS)
			link.has_mac = mac_of(data, bytes, link.mac);
		else if (type == IFLA_MTU)
			link.mtu = u32_of(data, bytes);
		else if (type == IFLA_LINKINFO)
			walk_attributes(data, bytes, 0, [&](uint16_t inner, const uint8_t *text, size_t text_bytes) {
				if (inner == IFLA_INFO_KIND)
					link.kind = text_of(text, text_bytes);
			});
	});
	return link;
}

std::optional<InterfaceAddress> parse_address(const uint8_t *payload, size_t length)
{
	struct ifaddrmsg header;
	if (!read_header(payload, length, &header))
		return std::nullopt;
	InterfaceAddress address;
	address.ifindex = static_cast<int>(header.ifa_index);
	address.prefix = header.ifa_prefixlen;
	std::optional<IpAddress> local, remote;
	walk_attributes(payload, length, sizeof(header), [&](uint16_t type, const uint8_t *data, size_t bytes) {
		// On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL, where there is one, is ours.
		if (type == IFA_LOCAL)
			local = ip_of(header.ifa_family, data, bytes);
		else if (type == IFA_ADDRESS)
			remote = ip_of(header.ifa_family, data, bytes);
	});
	if (!local && !remote)
		return std::nullopt;
	address.ip = local ? *local : *remote;
	return address;
}

std::optional<Neighbour> parse_neighbour(const uint8_t *payload, size_t length)
{
	struct ndmsg header;
	if (!read_header(payload, length, &header))
		return std::nullopt;
	Neighbour neighbour;
	neighbour.state = header.ndm_state;
	walk_attributes(payload, length, sizeof(header), [&](uint16_t type, const uint8_t *data, size_t bytes) {
		if (type == NDA_LLADDR)
			neighbour.has_mac = mac_of(data, bytes, neighbour.mac);
	});
	return neighbour;
}

std::optional<Route> parse_route(const uint8_t *payload, size_t length)
{
	struct rtmsg header;
	if (!read_header(payload, length, &header))
		return std::nullopt;
	Route route;
	walk_attributes(payload, length, sizeof(header), [&](uint16_t type, const uint8_t *data, size_t bytes) {
		if (type == RTA_OIF)
			route.ifindex = static_cast<int>(u32_of(data, bytes));
		else if (type == RTA_GATEWAY)
			route.gateway = ip_of(header.rtm_family, data, bytes);
		else if (type == RTA_PREFSRC)
			route.source = ip_of(header.rtm_family, data, bytes);
		else if (type == RTA_VIA && bytes > sizeof(uint16_t)) {
			// A next hop of the other family (RFC 8950): struct rtvia, a family and then its address.
			uint16_t family;
			memcpy(&family, data, sizeof(family));
			route.gateway = ip_of(family, data + sizeof(family), bytes - sizeof(family));
		}
	});
	return route;
}

} // namespace tandem
