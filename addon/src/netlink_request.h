// One request to the kernel by netlink and all of its answer: bounded, and the kernel's only.
#pragma once

#include <napi.h>

#include <linux/netlink.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

namespace tandem {

/// One request under construction: header, fixed part, attributes.
class Request {
public:
	template <typename Fixed> Request(uint16_t type, uint16_t flags, const Fixed &fixed)
	{
		struct nlmsghdr header = {};
		header.nlmsg_type = type;
		header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
		append(&header, sizeof(header));
		append(&fixed, sizeof(fixed));
	}

	void attribute(uint16_t type, const void *data, size_t length)
	{
		struct nlattr attribute = {};
		attribute.nla_type = type;
		attribute.nla_len = static_cast<uint16_t>(sizeof(attribute) + length);
		append(&attribute, sizeof(attribute));
		append(data, length);
	}

	const std::vector<uint8_t> &finish()
	{
		auto length = static_cast<uint32_t>(bytes_.size());
		memcpy(bytes_.data(), &length, sizeof(length));
		return bytes_;
	}

private:
	void append(const void *data, size_t length);

	std::vector<uint8_t> bytes_;
};

using EachMessage = std::function<void(const uint8_t *payload, size_t length)>;

/// Sends the request by `protocol` (NETLINK_ROUTE, ...) and hands over each message of type `answer` until the dump or the
/// acknowledgement ends it. Returns the kernel's errno, 0 for success.
int transact(Napi::Env env, int protocol, Request &request, uint16_t answer, const EachMessage &each);

} // namespace tandem
