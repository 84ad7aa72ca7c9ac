// Ends TCP sockets of the calling thread's network namespace by their addresses, whoever has them: sock_diag(7) with
// SOCK_DESTROY (tcp_abort, net/ipv4/tcp.c). Their owners see ECONNABORTED.
#include "arguments.h"
#include "errors.h"
#include "families.h"
#include "ip_address.h"
#include "netlink_request.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace tandem {
namespace {

/// All states but LISTEN and CLOSE; a request socket is NEW_SYN_RECV (include/net/tcp_states.h).
constexpr uint32_t kConnected = 0x1fff & ~((1u << TCP_LISTEN) | (1u << TCP_CLOSE));

/// What a socket must have; port 0, and no peer address: any.
struct Selector {
	IpAddress local;
	uint16_t local_port;
	std::optional<IpAddress> peer;
	uint16_t peer_port;
};

struct Found {
	uint8_t family;
	struct inet_diag_sockid id;
};

uint16_t as_port(const Napi::Value &value, const char *name)
{
	uint32_t port = as_u32(value, name);
	if (port > UINT16_MAX)
		fail(value.Env(), EINVAL, name, std::to_string(port));
	return static_cast<uint16_t>(port);
}

/// An IPv6 socket may serve IPv4: then its addresses are mapped ones.
IpAddress address_of(uint8_t family, const __be32 (&words)[4])
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	IpAddress address;
	const auto *bytes = reinterpret_cast<const uint8_t *>(words);
	bool is_mapped = family == AF_INET6 && memcmp(bytes, mapped, sizeof(mapped)) == 0;
	address.family = is_mapped ? AF_INET : family;
	memcpy(address.bytes, is_mapped ? bytes + sizeof(mapped) : bytes, address.length());
	return address;
}

bool is_same(const IpAddress &one, const IpAddress &other)
{
	return one.family == other.family && memcmp(one.bytes, other.bytes, one.length()) == 0;
}

bool matches(const Selector &selector, const Found &found)
{
	const struct inet_diag_sockid &id = found.id;

	return (selector.local_port == 0 || selector.local_port == ntohs(id.idiag_sport)) &&
	       (selector.peer_port == 0 || selector.peer_port == ntohs(id.idiag_dport)) &&
	       is_same(selector.local, address_of(found.family, id.idiag_src)) &&
	       (!selector.peer || is_same(*selector.peer, address_of(found.family, id.idiag_dst)));
}

struct inet_diag_req_v2 request_for(uint8_t family, uint32_t states)
{
	struct inet_diag_req_v2 request = {};
	request.sdiag_family = family;
	request.sdiag_protocol = IPPROTO_TCP;
	request.idiag_states = states;
	return request;
}

std::vector<Found> find(Napi::Env env, uint8_t family, const std::vector<Selector> &selectors)
{
	std::vector<Found> found;
	Request request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request_for(family, kConnected));
	int outcome = transact(
		env, NETLINK_SOCK_DIAG, request, SOCK_DIAG_BY_FAMILY, [&](const uint8_t *payload, size_t length) {
			struct inet_diag_msg message;
			if (length < sizeof(message))
				return;
			memcpy(&message, payload, sizeof(message));
			Found each = {message.idiag_family, message.id};
			bool wanted = std::any_of(selectors.begin(), selectors.end(),
						  [&](const Selector &selector) { return matches(selector, each); });
			if (wanted)
				found.push_back(each);
		});
	if (outcome)
		fail(env, outcome, "SOCK_DIAG_BY_FAMILY");
	return found;
}

/// False: it has ended by itself.
bool end(Napi::Env env, const Found &found)
{
	struct inet_diag_req_v2 fixed = request_for(found.family, ~0u);
	fixed.id = found.id;
	Request request(SOCK_DESTROY, NLM_F_ACK, fixed);
	int outcome = transact(env, NETLINK_SOCK_DIAG, request, SOCK_DESTROY, [](const uint8_t *, size_t) {});
	if (outcome && outcome != ENOENT)
		fail(env, outcome, "SOCK_DESTROY");
	return outcome == 0;
}

Napi::Value sockets_end(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Napi::Array list = as_object(info[0], "selectors").As<Napi::Array>();
	std::vector<Selector> selectors;
	for (uint32_t index = 0; index < list.Length(); index++) {
		Napi::Object entry = as_object(list.Get(index), "selector");
		Napi::Value peer = entry.Get("peerIp");
		selectors.push_back({
			as_ip(entry.Get("localIp"), "localIp"),
			as_port(entry.Get("localPort"), "localPort"),
			is_absent(peer) ? std::nullopt : std::optional(as_ip(peer, "peerIp")),
			as_port(entry.Get("peerPort"), "peerPort"),
		});
	}
	uint32_t ended = 0;
	for (uint8_t family : {AF_INET, AF_INET6})
		for (const Found &found : find(env, family, selectors))
			ended += end(env, found) ? 1 : 0;
	return Napi::Number::New(env, ended);
}

} // namespace

void register_socket_end(Napi::Env, Napi::Object exports)
{
	add_function(exports, "socketsEnd", sockets_end);
}

} // namespace tandem
