// Which records are one to the recorder, and how they become it.
#include "record_merge.h"

#include "abi.h"

#include <cstring>

namespace tandem {
namespace {

constexpr uint8_t kAck = 0x10, kPsh = 0x08;
constexpr int kLongestFrame = 0xffff; // td_record.frame_length

bool is_plain_input(const struct td_record &record)
{
	return (record.flags & (TD_RECORD_CHECKSUM_OK | TD_RECORD_OUT)) == TD_RECORD_CHECKSUM_OK &&
	       (record.tcp_flags & ~kPsh) == kAck && record.payload_length > 0;
}

bool continues(const struct td_record &record, const struct td_record &next)
{
	return is_plain_input(record) && is_plain_input(next) && next.flow == record.flow &&
	       next.seq == record.seq + record.payload_length && next.ack == record.ack &&
	       next.window == record.window && next.flags == record.flags && next.tsval == record.tsval &&
	       next.tsecr == record.tsecr && next.epoch == record.epoch && next.service == record.service &&
	       next.uplink == record.uplink &&
	       record.payload_offset + record.payload_length + next.payload_length <= kLongestFrame;
}

} // namespace

size_t merge_records(uint8_t *sample, const uint8_t *next)
{
	struct td_record record, more;
	memcpy(&record, sample, sizeof(record));
	memcpy(&more, next, sizeof(more));
	more.flags |= TD_RECORD_CHECKSUM_OK;
	if (!continues(record, more))
		return 0;
	uint8_t *frame = sample + sizeof(record);
	memcpy(frame + record.payload_offset + record.payload_length, next + sizeof(more) + more.payload_offset,
	       more.payload_length);
	record.payload_length = static_cast<uint16_t>(record.payload_length + more.payload_length);
	record.frame_length = static_cast<uint16_t>(record.payload_offset + record.payload_length);
	memcpy(sample, &record, sizeof(record));
	return sizeof(record) + record.frame_length;
}

} // namespace tandem
