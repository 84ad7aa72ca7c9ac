// The TCP checksum of a recorded frame.
#include "record_checksum.h"

#include "abi.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>

namespace tandem {
namespace {

/// One's complement sum of native-order 32-bit words; the order of bytes does not matter to it (RFC 1071, section 2).
/// 64 bits cannot overflow: lengths come from 16-bit fields. `data` must start at an even offset of what is summed.
uint64_t sum_words(const uint8_t *data, size_t length)
{
	uint64_t sum = 0;
	size_t words = length / 4;
	for (size_t index = 0; index < words; index++) {
		uint32_t word;
		memcpy(&word, data + 4 * index, 4);
		sum += word;
	}
	uint32_t rest = 0;
	memcpy(&rest, data + 4 * words, length % 4);
	return sum + rest;
}

uint16_t fold(uint64_t sum)
{
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 32) + (sum & 0xffffffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return static_cast<uint16_t>(sum);
}

} // namespace

bool checksum_is_right(const uint8_t *sample, size_t length)
{
	struct td_record record;
	if (length < sizeof(record))
		return false;
	memcpy(&record, sample, sizeof(record));
	const uint8_t *frame = sample + sizeof(record);
	size_t frame_length = record.frame_length;
	if (frame_length > length - sizeof(record) || record.payload_offset < record.l4_offset + 20U)
		return false;
	size_t segment = record.payload_offset - record.l4_offset + record.payload_length;
	if (record.l4_offset + segment > frame_length)
		return false;
	// The addresses stand in a row in both headers, source first.
	size_t addresses, bytes;
	if (record.key.family == 4) {
		addresses = record.l3_offset + 12U;
		bytes = 8;
	} else if (record.key.family == 6) {
		addresses = record.l3_offset + 8U;
		bytes = 32;
	} else {
		return false;
	}
	if (addresses + bytes > record.l4_offset)
		return false;
	uint64_t sum = sum_words(frame + addresses, bytes) + htonl(static_cast<uint32_t>(segment)) +
		       htons(IPPROTO_TCP) + sum_words(frame + record.l4_offset, segment);
	return fold(sum) == 0xffff;
}

} // namespace tandem
