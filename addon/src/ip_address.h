// IP addresses between text and bytes.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

namespace tandem {

struct IpAddress {
	int family = AF_UNSPEC;
	uint8_t bytes[16] = {}; // network order, IPv4 in the first 4

	size_t length() const { return family == AF_INET ? 4 : 16; }
};

inline std::optional<IpAddress> parse_ip(const std::string &text)
{
	IpAddress address;
	address.family = text.find(':') == std::string::npos ? AF_INET : AF_INET6;
	if (inet_pton(address.family, text.c_str(), address.bytes) != 1)
		return std::nullopt;
	return address;
}

inline std::string ip_text(const IpAddress &address)
{
	char text[INET6_ADDRSTRLEN] = "";
	inet_ntop(address.family, address.bytes, text, sizeof(text));
	return text;
}

/// Fills a socket address; returns its length. `port` in host order.
inline socklen_t socket_address(const IpAddress &address, uint16_t port, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof(*out));
	if (address.family == AF_INET) {
		auto *v4 = reinterpret_cast<struct sockaddr_in *>(out);
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		memcpy(&v4->sin_addr, address.bytes, 4);
		return sizeof(*v4);
	}
	auto *v6 = reinterpret_cast<struct sockaddr_in6 *>(out);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	memcpy(&v6->sin6_addr, address.bytes, 16);
	return sizeof(*v6);
}

} // namespace tandem
