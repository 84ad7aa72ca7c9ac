/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What is ours: service addresses and services, and the one classification all programs start with. */
#ifndef TANDEM_SERVICE_H
#define TANDEM_SERVICE_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct td_address);
	__type(value, __u32);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct td_service_key);
	__type(value, struct td_service);
} services SEC(".maps");

enum td_class {
	TD_CLASS_TRANSIT, /* not about a service address */
	TD_CLASS_NEIGHBOUR, /* ARP or ND about a service address */
	TD_CLASS_OTHER, /* to or from a service address, but not of a service */
	TD_CLASS_SEGMENT, /* of a service; the packet is parsed fully */
	TD_CLASS_FRAGMENT,
	TD_CLASS_MALFORMED,
};

static __always_inline bool td_is_service_address(const __u32 *ip, __u32 family)
{
	struct td_address key;

	__builtin_memcpy(key.ip, ip, 16);
	key.family = family;
	return bpf_map_lookup_elem(&addresses, &key) != NULL;
}

/* A passive service listens on the local port; an active-open one is known by the remote port. Ports: __be16. */
static __always_inline struct td_service *td_service_of(const __u32 *local_ip, __u32 family, __u16 local_port,
							__u16 remote_port)
{
	struct td_service_key key;
	struct td_service *service;

	__builtin_memcpy(key.ip, local_ip, 16);
	key.port = local_port;
	key.family = family;
	key.kind = TD_SERVICE_PASSIVE;
	service = bpf_map_lookup_elem(&services, &key);
	if (service)
		return service;
	key.port = remote_port;
	key.kind = TD_SERVICE_ACTIVE;
	return bpf_map_lookup_elem(&services, &key);
}

/* `out`: the local side is the source. Transit costs one lookup (an IPv6 neighbour message two). */
static __always_inline int td_classify(void *data, void *end, __u32 length, bool out, struct td_packet *packet)
{
	const __u32 *local = out ? packet->source : packet->destination;
	struct td_service *service;
	__u32 target[4];

	switch (td_parse_addresses(data, end, packet)) {
	case TD_PARSED_FOREIGN:
		return TD_CLASS_TRANSIT;
	case TD_PARSED_ARP:
		/* Inward only what asks for the address. Outward also what claims it. */
		if (td_is_service_address(packet->destination, 4) || (out && td_is_service_address(packet->source, 4)))
			return TD_CLASS_NEIGHBOUR;
		return TD_CLASS_TRANSIT;
	case TD_PARSED_IP:
		break;
	default:
		return TD_CLASS_MALFORMED;
	}

	/* Solicitations go to a multicast address, and answers come from any address. */
	if (packet->family == 6 && td_parse_neighbour(data, end, packet, target) && td_is_service_address(target, 6))
		return TD_CLASS_NEIGHBOUR;
	if (!td_is_service_address(local, packet->family))
		return TD_CLASS_TRANSIT;

	switch (td_parse_segment(data, end, length, packet)) {
	case TD_PARSED_SEGMENT:
		break;
	case TD_PARSED_OTHER:
		return TD_CLASS_OTHER;
	case TD_PARSED_FRAGMENT:
		return TD_CLASS_FRAGMENT;
	default:
		return TD_CLASS_MALFORMED;
	}
	service = out ? td_service_of(local, packet->family, packet->source_port, packet->destination_port)
		      : td_service_of(local, packet->family, packet->destination_port, packet->source_port);
	if (!service)
		return TD_CLASS_OTHER;
	packet->service = service->id;
	return TD_CLASS_SEGMENT;
}

/* The session's name, whichever way the packet goes. */
static __always_inline void td_flow_key_of(const struct td_packet *packet, bool out, struct td_flow_key *key)
{
	__builtin_memcpy(key->local_ip, out ? packet->source : packet->destination, 16);
	__builtin_memcpy(key->peer_ip, out ? packet->destination : packet->source, 16);
	key->local_port = out ? packet->source_port : packet->destination_port;
	key->peer_port = out ? packet->destination_port : packet->source_port;
	*(__u32 *)&key->family = 0;
	key->family = packet->family;
}

#endif
