// Links, addresses, neighbours and routes of the calling thread's network namespace, by rtnetlink; what else a process
// wants to know of its place: the namespace's cookie, its capabilities.
#include "arguments.h"
#include "errors.h"
#include "families.h"
#include "ip_address.h"
#include "netlink_parse.h"
#include "netlink_request.h"

#include <linux/capability.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace tandem {
namespace {

void ignore(const uint8_t *, size_t) {}

Napi::Value links(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct ifinfomsg fixed = {};
	Request request(RTM_GETLINK, NLM_F_DUMP, fixed);
	Napi::Array answer = Napi::Array::New(env);
	int outcome = transact(env, NETLINK_ROUTE, request, RTM_NEWLINK, [&](const uint8_t *payload, size_t length) {
		std::optional<Link> link = parse_link(payload, length);
		if (!link)
			return;
		Napi::Object entry = Napi::Object::New(env);
		entry.Set("ifindex", link->ifindex);
		entry.Set("name", link->name);
		entry.Set("mac", copy_bytes(env, link->mac, link->has_mac ? 6 : 0));
		entry.Set("mtu", link->mtu);
		entry.Set("up", link->up);
		entry.Set("carrier", link->carrier);
		entry.Set("type", static_cast<uint32_t>(link->type));
		entry.Set("kind", link->kind);
		answer.Set(answer.Length(), entry);
	});
	if (outcome)
		fail(env, outcome, "RTM_GETLINK");
	return answer;
}

Napi::Value addresses(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct ifaddrmsg fixed = {};
	Request request(RTM_GETADDR, NLM_F_DUMP, fixed);
	Napi::Array answer = Napi::Array::New(env);
	int outcome = transact(env, NETLINK_ROUTE, request, RTM_NEWADDR, [&](const uint8_t *payload, size_t length) {
		std::optional<InterfaceAddress> address = parse_address(payload, length);
		if (!address)
			return;
		Napi::Object entry = Napi::Object::New(env);
		entry.Set("ifindex", address->ifindex);
		entry.Set("ip", ip_text(address->ip));
		entry.Set("prefix", static_cast<uint32_t>(address->prefix));
		answer.Set(answer.Length(), entry);
	});
	if (outcome)
		fail(env, outcome, "RTM_GETADDR");
	return answer;
}

void change_address(const Napi::CallbackInfo &info, uint16_t type, uint16_t flags, const char *name)
{
	Napi::Env env = info.Env();
	struct ifaddrmsg fixed = {};
	IpAddress ip = as_ip(info[1], "ip");
	uint32_t prefix = as_u32(info[2], "prefix");
	if (prefix > ip.length() * 8)
		fail(env, EINVAL, name, "prefix " + std::to_string(prefix));
	fixed.ifa_family = static_cast<uint8_t>(ip.family);
	fixed.ifa_prefixlen = static_cast<uint8_t>(prefix);
	fixed.ifa_index = as_u32(info[0], "ifindex");
	// Without NODAD a new IPv6 address is tentative for a second, and a takeover has no second.
	uint32_t address_flags = IFA_F_NODAD;
	if (ip.family == AF_INET6)
		fixed.ifa_flags = IFA_F_NODAD;
	Request request(type, static_cast<uint16_t>(NLM_F_ACK | flags), fixed);
	request.attribute(IFA_LOCAL, ip.bytes, ip.length());
	request.attribute(IFA_ADDRESS, ip.bytes, ip.length());
	// Deprecated at once: used by who binds to it, and never chosen for what this host says for itself (RFC 6724, rule 3),
	// which would be held back while the router is fenced. IPv4 chooses the network's first address anyway.
	struct ifa_cacheinfo lifetimes = {};
	lifetimes.ifa_valid = UINT32_MAX;
	if (ip.family == AF_INET6) {
		request.attribute(IFA_FLAGS, &address_flags, sizeof(address_flags));
		request.attribute(IFA_CACHEINFO, &lifetimes, sizeof(lifetimes));
	}
	int outcome = transact(env, NETLINK_ROUTE, request, type, ignore);
	if (outcome)
		fail(env, outcome, name, ip_text(ip) + "/" + std::to_string(prefix));
}

void address_add(const Napi::CallbackInfo &info)
{
	change_address(info, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "RTM_NEWADDR");
}

void address_delete(const Napi::CallbackInfo &info)
{
	change_address(info, RTM_DELADDR, 0, "RTM_DELADDR");
}

Napi::Value neighbour(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	IpAddress ip = as_ip(info[1], "ip");
	struct ndmsg fixed = {};
	fixed.ndm_family = static_cast<uint8_t>(ip.family);
	fixed.ndm_ifindex = static_cast<int>(as_u32(info[0], "ifindex"));
	Request request(RTM_GETNEIGH, NLM_F_ACK, fixed);
	request.attribute(NDA_DST, ip.bytes, ip.length());
	std::optional<Neighbour> found;
	int outcome = transact(env, NETLINK_ROUTE, request, RTM_NEWNEIGH, [&](const uint8_t *payload, size_t length) {
		found = parse_neighbour(payload, length);
	});
	if (outcome && outcome != ENOENT && outcome != ENODEV)
		fail(env, outcome, "RTM_GETNEIGH", ip_text(ip));
	// An entry being resolved, or one that failed, may keep an address that nobody answers for.
	if (!found || !found->has_mac || (found->state & (NUD_INCOMPLETE | NUD_FAILED)))
		return env.Null();
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("mac", copy_bytes(env, found->mac, 6));
	answer.Set("state", static_cast<uint32_t>(found->state));
	return answer;
}

Napi::Value optional_ip(Napi::Env env, const std::optional<IpAddress> &ip)
{
	return ip ? Napi::Value(Napi::String::New(env, ip_text(*ip))) : env.Null();
}

/// There is none, or one of type unreachable, prohibit or blackhole (fib_props, net/ipv4/fib_semantics.c).
bool means_no_route(int outcome)
{
	return outcome == ENETUNREACH || outcome == EHOSTUNREACH || outcome == EACCES || outcome == EINVAL;
}

Napi::Value route(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	IpAddress destination = as_ip(info[0], "destination");
	struct rtmsg fixed = {};
	fixed.rtm_family = static_cast<uint8_t>(destination.family);
	fixed.rtm_dst_len = static_cast<uint8_t>(destination.length() * 8);
	std::optional<IpAddress> source;
	if (!is_absent(info[1])) {
		source = as_ip(info[1], "source");
		if (source->family != destination.family)
			fail(env, EAFNOSUPPORT, "RTM_GETROUTE", "source and destination");
		fixed.rtm_src_len = fixed.rtm_dst_len;
	}
	Request request(RTM_GETROUTE, NLM_F_ACK, fixed);
	request.attribute(RTA_DST, destination.bytes, destination.length());
	if (source)
		request.attribute(RTA_SRC, source->bytes, source->length());
	std::optional<Route> found;
	int outcome = transact(env, NETLINK_ROUTE, request, RTM_NEWROUTE,
			       [&](const uint8_t *payload, size_t length) { found = parse_route(payload, length); });
	if (outcome && !means_no_route(outcome))
		fail(env, outcome, "RTM_GETROUTE", ip_text(destination));
	if (!found || !found->ifindex)
		return env.Null();
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("ifindex", found->ifindex);
	answer.Set("gateway", optional_ip(env, found->gateway));
	answer.Set("source", optional_ip(env, found->source));
	return answer;
}

Napi::Value netns_cookie(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	int socket = check(env, ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	uint64_t cookie = 0;
	socklen_t length = sizeof(cookie);
	int result = getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length);
	int number = errno;
	close(socket);
	if (result < 0)
		fail(env, number, "getsockopt", "SO_NETNS_COOKIE");
	return Napi::BigInt::New(env, cookie);
}

Napi::Value capabilities(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
	check(env, static_cast<int>(syscall(SYS_capget, &header, data)), "capget");
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("effective",
		   Napi::BigInt::New(env, static_cast<uint64_t>(data[1].effective) << 32 | data[0].effective));
	return answer;
}

} // namespace

void register_rtnetlink(Napi::Env, Napi::Object exports)
{
	add_function(exports, "links", links);
	add_function(exports, "addresses", addresses);
	add_function(exports, "addressAdd", address_add);
	add_function(exports, "addressDelete", address_delete);
	add_function(exports, "neighbour", neighbour);
	add_function(exports, "route", route);
	add_function(exports, "netnsCookie", netns_cookie);
	add_function(exports, "capabilities", capabilities);
}

} // namespace tandem
