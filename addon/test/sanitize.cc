// The addon's parsers under the sanitizers, with known answers and with random and mutated input: siphash, the pulse's
// datagrams and state machine, rtnetlink messages, the checksum of records, the summary of a verifier log. Every input
// lies at the end of a heap block of its exact size, so that one byte read too far is caught.
// Argument: seed. Prints what it did; exits with 1 on a wrong answer.
#include "netlink_parse.h"
#include "pulse_state.h"
#include "pulse_wire.h"
#include "record_checksum.h"
#include "record_merge.h"
#include "siphash.h"
#include "verifier_log.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

using namespace tandem;

static std::mt19937_64 random_source;

static void expect(bool right, const char *what)
{
	if (right)
		return;
	fprintf(stderr, "wrong: %s\n", what);
	exit(1);
}

static uint64_t below(uint64_t limit)
{
	return random_source() % limit;
}

/// A block of exactly this size, 8-aligned as malloc gives it.
struct Block {
	explicit Block(size_t bytes) : length(bytes), data(static_cast<uint8_t *>(malloc(bytes ? bytes : 1)), free)
	{
		for (size_t index = 0; index < bytes; index++)
			data.get()[index] = static_cast<uint8_t>(random_source());
	}
	size_t length;
	std::unique_ptr<uint8_t, decltype(&free)> data;
};

// ── siphash: the example of the paper's appendix A, and vectors of its authors' reference (key and input 00 01 02 …) ──

static void known_siphash()
{
	uint8_t key[16], input[64];
	for (int index = 0; index < 64; index++)
		input[index] = static_cast<uint8_t>(index);
	memcpy(key, input, sizeof(key));
	expect(siphash24(key, input, 15) == 0xa129ca6149be45e5, "siphash of 15 bytes");
	expect(siphash24(key, input, 0) == 0x726fdb47dd0e0e31, "siphash of nothing");
	expect(siphash24(key, input, 1) == 0x74f839c593dc67fd, "siphash of 1 byte");
	expect(siphash24(key, input, 8) == 0x93f5f5799a932462, "siphash of 8 bytes");
	expect(siphash24(key, input, 63) == 0x958a324ceb064572, "siphash of 63 bytes");
}

// ── pulse ────────────────────────────────────────────────────────────────────────────────────────────────────────

static PulseMessage random_message()
{
	PulseMessage message;
	message.kind = static_cast<uint8_t>(1 + below(2));
	message.path = static_cast<uint8_t>(below(2));
	message.role = static_cast<uint8_t>(below(5));
	message.flags = static_cast<uint32_t>(below(16));
	message.epoch = static_cast<uint32_t>(random_source());
	message.incarnation = random_source();
	message.sequence = random_source();
	message.sent_ns = random_source();
	message.lease_ns = random_source();
	message.echo_incarnation = random_source();
	return message;
}

static void pulse_datagrams()
{
	PulseKey key;
	memset(key, 7, sizeof(key));
	for (int round = 0; round < 20000; round++) {
		PulseMessage message = random_message();
		struct td_wire_pulse wire = encode_pulse(message, key);
		Block block(sizeof(wire));
		memcpy(block.data.get(), &wire, sizeof(wire));
		std::optional<PulseMessage> back = decode_pulse(block.data.get(), block.length, key);
		expect(back && back->sequence == message.sequence && back->sent_ns == message.sent_ns &&
			       back->epoch == message.epoch && back->flags == message.flags &&
			       back->role == message.role && back->incarnation == message.incarnation &&
			       back->lease_ns == message.lease_ns && back->echo_incarnation == message.echo_incarnation,
		       "a pulse comes back as it was");
		block.data.get()[below(block.length)] ^= static_cast<uint8_t>(1 + below(255));
		expect(!decode_pulse(block.data.get(), block.length, key), "a changed pulse is refused");
		Block other(below(130));
		expect(!decode_pulse(other.data.get(), other.length, key), "noise is refused");
	}
}

/// An active and a standby on a network that delays, loses, duplicates and reorders, with pauses of either end. At every
/// moment at which the standby may take over, no voice of the active may be left.
static void one_voice()
{
	constexpr uint64_t ms = 1000000, lease = 50 * ms;
	uint64_t takeovers = 0, voiced = 0;
	for (int round = 0; round < 300; round++) {
		PulseSettings settings;
		settings.paths = 2;
		settings.interval_ns = 10 * ms;
		settings.lease_ns = lease;
		settings.pet_limit_ns = 100000 * ms;
		settings.drift_ppm = 1000;
		// Clocks of the two ends have nothing to do with each other.
		uint64_t start = 1000 * ms, offset[2] = {0, below(1000000) * ms};
		settings.incarnation = 1;
		PulseState active(settings, start + offset[0]);
		settings.incarnation = 2;
		PulseState standby(settings, start + offset[1]);
		PulseState *ends[2] = {&active, &standby};
		active.say(TD_ROLE_ACTIVE, 3, 0);
		standby.say(TD_ROLE_STANDBY, 3, 0);
		active.hold(true, 0);
		standby.grant(true, false, start + offset[1]);
		struct Flight {
			uint64_t at;
			int to;
			size_t path;
			PulseMessage message;
		};
		std::vector<Flight> flights;
		uint64_t paused[2] = {0, 0}, voice = 0;
		uint64_t loss = below(60), longest_delay = 1 + below(80);
		auto emit = [&](int from, size_t path, const PulseMessage &message, uint64_t now) {
			for (uint64_t copies = below(20) == 0 ? 2 : 1; copies; copies--) {
				if (below(100) >= loss)
					flights.push_back({now + below(longest_delay * ms), 1 - from, path, message});
			}
		};
		for (uint64_t now = start; now < start + 2000 * ms; now += ms / 2) {
			for (int end = 0; end < 2; end++) {
				if (now < paused[end])
					continue;
				if (below(1500) == 0) {
					paused[end] = now + below(200) * ms;
					continue;
				}
				uint64_t local = now + offset[end];
				for (size_t index = 0; index < flights.size();) {
					Flight flight = flights[index];
					if (flight.to != end || flight.at > now) {
						index++;
						continue;
					}
					flights.erase(flights.begin() + static_cast<long>(index));
					std::optional<PulseMessage> answer = ends[end]->receive(flight.path,
												flight.message, local);
					if (answer)
						emit(end, flight.path, *answer, now);
				}
				ends[end]->advance(local);
				if (ends[end]->heartbeats_due(local)) {
					for (size_t path = 0; path < 2; path++)
						emit(end, path, ends[end]->heartbeat(path, local), now);
				}
				expect(ends[end]->next_deadline() > local, "no deadline is left in the past");
			}
			if (std::optional<uint64_t> until = active.take_voice()) {
				voice = *until;
				voiced++;
			}
			bool expired = false;
			for (const PulseEvent &event : standby.take_events())
				expired = expired || event.type == PulseEvent::Type::expired;
			active.take_events();
			expect(expired == false || !standby.granting(), "expiry revokes");
			if (expired) {
				takeovers++;
				expect(voice <= now, "the active still has a voice when the standby takes over");
				break;
			}
		}
	}
	expect(takeovers > 20 && voiced > 1000, "the rounds saw both voices and takeovers");
	printf("one voice: %lu takeovers, %lu grants\n", takeovers, voiced);
}

// ── netlink ──────────────────────────────────────────────────────────────────────────────────────────────────────

static std::vector<uint8_t> attribute(uint16_t type, const void *data, size_t length)
{
	std::vector<uint8_t> bytes((4 + length + 3) / 4 * 4);
	uint16_t head[2] = {static_cast<uint16_t>(4 + length), type};
	memcpy(bytes.data(), head, 4);
	memcpy(bytes.data() + 4, data, length);
	return bytes;
}

static void parse_everything(const uint8_t *data, size_t length)
{
	walk_messages(data, length, [](uint16_t, const uint8_t *payload, size_t bytes) {
		parse_link(payload, bytes);
		parse_address(payload, bytes);
		parse_neighbour(payload, bytes);
		parse_route(payload, bytes);
	});
}

static void netlink_messages()
{
	struct ifinfomsg link = {};
	link.ifi_index = 5;
	std::vector<uint8_t> message(16 + sizeof(link));
	memcpy(message.data() + 16, &link, sizeof(link));
	uint32_t mtu = 1500;
	for (const auto &part :
	     {attribute(IFLA_IFNAME, "eth0", 5), attribute(IFLA_MTU, &mtu, 4),
	      attribute(IFLA_ADDRESS, "\1\2\3\4\5\6", 6), attribute(IFLA_LINKINFO, "\10\0\1\0veth", 8)})
		message.insert(message.end(), part.begin(), part.end());
	uint32_t total = static_cast<uint32_t>(message.size());
	memcpy(message.data(), &total, 4);
	bool seen = false;
	walk_messages(message.data(), message.size(), [&](uint16_t, const uint8_t *payload, size_t length) {
		std::optional<Link> parsed = parse_link(payload, length);
		seen = parsed && parsed->name == "eth0" && parsed->mtu == 1500 && parsed->kind == "veth" &&
		       parsed->has_mac;
	});
	expect(seen, "a link message");
	for (int round = 0; round < 100000; round++) {
		Block block(round % 2 ? message.size() : below(200));
		if (round % 2) {
			memcpy(block.data.get(), message.data(), message.size());
			for (uint64_t changes = 1 + below(6); changes; changes--)
				block.data.get()[below(block.length)] = static_cast<uint8_t>(below(40));
		}
		parse_everything(block.data.get(), block.length);
		parse_link(block.data.get(), block.length);
		parse_address(block.data.get(), block.length);
		parse_neighbour(block.data.get(), block.length);
		parse_route(block.data.get(), block.length);
	}
}

// ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// The plain sum of RFC 1071, byte pair by byte pair, as a second opinion.
static uint16_t plain_checksum(const std::vector<uint8_t> &bytes)
{
	uint32_t sum = 0;
	for (size_t index = 0; index < bytes.size(); index += 2)
		sum += static_cast<uint32_t>(bytes[index] << 8 | (index + 1 < bytes.size() ? bytes[index + 1] : 0));
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return static_cast<uint16_t>(~sum);
}

/// A record in a batch, and the same in the ring as if it continued the first: both become one, inside the batch.
static void merge_twice(struct td_record record, const Block &block)
{
	Block batch(2 * block.length), ring(block.length);
	record.tcp_flags = 0x10;
	record.flags = TD_RECORD_CHECKSUM_OK;
	memcpy(batch.data.get(), block.data.get(), block.length);
	memcpy(batch.data.get(), &record, sizeof(record));
	record.seq += record.payload_length;
	record.flags = 0;
	memcpy(ring.data.get(), block.data.get(), block.length);
	memcpy(ring.data.get(), &record, sizeof(record));
	size_t end = sizeof(record) + record.payload_offset, payload = record.payload_length;
	const uint8_t *merged = batch.data.get();
	expect(merge_records(batch.data.get(), ring.data.get()) == (payload ? end + 2 * payload : 0), "one record");
	expect(memcmp(merged + end, block.data.get() + end, payload) == 0, "the first payload");
	if (payload)
		expect(memcmp(merged + end + payload, block.data.get() + end, payload) == 0,
		       "and the second behind it");
}

static void records()
{
	uint64_t right = 0;
	for (int round = 0; round < 50000; round++) {
		bool v6 = below(2);
		size_t l3 = 14 + 4 * below(3), ip = v6 ? 40 + 8 * below(3) : 20 + 4 * below(11),
		       tcp = 20 + 4 * below(11);
		size_t payload = below(2) ? below(40) : below(3000), padding = below(8), l4 = l3 + ip;
		Block block(sizeof(struct td_record) + l4 + tcp + payload + padding);
		uint8_t *frame = block.data.get() + sizeof(struct td_record);
		struct td_record record = {};
		record.frame_length = static_cast<uint16_t>(l4 + tcp + payload + padding);
		record.l3_offset = static_cast<uint16_t>(l3);
		record.l4_offset = static_cast<uint16_t>(l4);
		record.payload_offset = static_cast<uint16_t>(l4 + tcp);
		record.payload_length = static_cast<uint16_t>(payload);
		record.key.family = v6 ? 6 : 4;
		memcpy(block.data.get(), &record, sizeof(record));
		frame[l4 + 16] = frame[l4 + 17] = 0;
		size_t addresses = v6 ? l3 + 8 : l3 + 12, address_bytes = v6 ? 32 : 8, segment = tcp + payload;
		std::vector<uint8_t> summed(frame + addresses, frame + addresses + address_bytes);
		for (size_t byte : {size_t(0), size_t(6), segment >> 8, segment & 255})
			summed.push_back(static_cast<uint8_t>(byte));
		summed.insert(summed.end(), frame + l4, frame + l4 + segment);
		uint16_t checksum = plain_checksum(summed);
		frame[l4 + 16] = static_cast<uint8_t>(checksum >> 8);
		frame[l4 + 17] = static_cast<uint8_t>(checksum);
		expect(checksum_is_right(block.data.get(), block.length), "a right checksum");
		right++;
		merge_twice(record, block);
		frame[l4 + below(segment)] ^= static_cast<uint8_t>(1 << below(8));
		expect(!checksum_is_right(block.data.get(), block.length), "a flipped bit");
		// Headers that lie: nothing may be read outside the block.
		for (int lies = 0; lies < 4; lies++) {
			uint8_t *header = block.data.get();
			uint16_t lie = static_cast<uint16_t>(below(2) ? below(100) : random_source());
			memcpy(header + offsetof(struct td_record, frame_length) + 2 * below(6), &lie, 2);
			checksum_is_right(header, block.length);
		}
		Block noise(below(300));
		checksum_is_right(noise.data.get(), noise.length);
	}
	printf("records: %lu right checksums\n", right);
}

static void verifier_logs()
{
	std::string log =
		"libbpf: prog 'p': BPF program load failed: EACCES\nlibbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n"
		"0: R1=ctx()\n; return data[20];\n1: (71) r0 = *(u8 *)(r1 +20)\ninvalid access to packet\n"
		"processed 2 insns\n-- END PROG LOAD LOG --\nlibbpf: failed to load object\n";
	std::string summary = summarise_load_log(log);
	expect(summary.find("invalid access to packet") != std::string::npos, "the reason");
	expect(summary.find("return data[20]") != std::string::npos, "the source line");
	expect(summary.find("processed") == std::string::npos, "no statistics");
	for (int round = 0; round < 20000; round++) {
		std::string changed = log.substr(below(log.size()));
		for (uint64_t changes = below(8); changes && !changed.empty(); changes--)
			changed[below(changed.size())] = static_cast<char>(below(2) ? '\n' : random_source());
		summarise_load_log(changed);
	}
}

int main(int count, char **arguments)
{
	random_source.seed(count > 1 ? strtoull(arguments[1], nullptr, 10) : 1);
	known_siphash();
	pulse_datagrams();
	one_voice();
	netlink_messages();
	records();
	verifier_logs();
	return 0;
}
