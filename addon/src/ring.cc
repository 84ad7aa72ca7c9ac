// Batches out of a BPF ring buffer: one copy a sample into memory of the caller, no callback, no wakeup. Records
// (td_record) have their checksums verified where they are, and those that continue one another become one.
// The layout is the kernel's (kernel/bpf/ringbuf.c): one page with the consumer position, one with the producer
// position, then the data mapped twice in a row, so that a sample never wraps. Positions only grow; each sample has a
// header of 8 bytes whose first word is its length with two flag bits.
#include "abi.h"
#include "arguments.h"
#include "errors.h"
#include "families.h"
#include "record_checksum.h"
#include "record_merge.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>

namespace tandem {
namespace {

constexpr size_t kGiveBack = 64 * 1024; // bytes read before the producers get the room back within one drain

class MappedRing {
public:
	MappedRing(Napi::Env env, int fd, bool records) : records_(records), page_(sysconf(_SC_PAGESIZE))
	{
		struct bpf_map_info info = {};
		__u32 length = sizeof(info);
		check(env, bpf_obj_get_info_by_fd(fd, &info, &length), "bpf_obj_get_info_by_fd");
		if (info.type != BPF_MAP_TYPE_RINGBUF)
			fail(env, EINVAL, "ringOpen", "the map is no ring buffer");
		size_ = info.max_entries;
		void *consumer = mmap(nullptr, page_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (consumer == MAP_FAILED)
			fail(env, errno, "mmap", "consumer page");
		void *producer = mmap(nullptr, page_ + 2 * size_, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(page_));
		if (producer == MAP_FAILED) {
			int number = errno;
			munmap(consumer, page_);
			fail(env, number, "mmap", "ring data");
		}
		consumer_ = static_cast<unsigned long *>(consumer);
		producer_ = static_cast<const unsigned long *>(producer);
		data_ = static_cast<const uint8_t *>(producer) + page_;
	}
	~MappedRing() { close(); }
	MappedRing(const MappedRing &) = delete;
	MappedRing &operator=(const MappedRing &) = delete;

	size_t size() const { return size_; }

	void close()
	{
		if (!consumer_)
			return;
		munmap(consumer_, page_);
		munmap(const_cast<unsigned long *>(producer_), page_ + 2 * size_);
		consumer_ = nullptr;
	}

	unsigned long backlog(Napi::Env env) const
	{
		require_open(env);
		return __atomic_load_n(producer_, __ATOMIC_ACQUIRE) - __atomic_load_n(consumer_, __ATOMIC_RELAXED);
	}

	struct Batch {
		size_t bytes;
		uint32_t records;
	};

	Batch drain(Napi::Env env, Bytes target)
	{
		require_open(env);
		if (reinterpret_cast<uintptr_t>(target.data) % 8)
			fail(env, EINVAL, "drain", "the target must be 8-aligned");
		Batch batch = {0, 0};
		uint8_t *last = nullptr;
		unsigned long position = __atomic_load_n(consumer_, __ATOMIC_RELAXED);
		unsigned long given_back = position;
		unsigned long end = __atomic_load_n(producer_, __ATOMIC_ACQUIRE);
		while (position < end) {
			const uint8_t *header = data_ + (position & (size_ - 1));
			uint32_t word = __atomic_load_n(reinterpret_cast<const uint32_t *>(header), __ATOMIC_ACQUIRE);
			if (word & BPF_RINGBUF_BUSY_BIT)
				break; // reserved, not committed yet; what is behind it waits as well
			size_t length = word & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
			size_t padded = (length + 7) / 8 * 8;
			if (!(word & BPF_RINGBUF_DISCARD_BIT)) {
				size_t needed = BPF_RINGBUF_HDR_SZ + padded;
				if (needed > target.length - batch.bytes) {
					if (batch.records == 0)
						fail(env, EMSGSIZE, "drain",
						     "the next sample needs " + std::to_string(needed) + " bytes");
					break;
				}
				const uint8_t *sample = header + BPF_RINGBUF_HDR_SZ;
				bool right = records_ && checksum_is_right(sample, length);
				if (size_t merged = right && last ? merge_into(last, sample) : 0) {
					batch.bytes = static_cast<size_t>(last - target.data) + merged;
				} else {
					last = target.data + batch.bytes;
					copy_sample(last, sample, length, padded, right);
					batch.bytes += needed;
					batch.records++;
				}
			}
			position += BPF_RINGBUF_HDR_SZ + padded;
			if (position - given_back >= kGiveBack) {
				__atomic_store_n(consumer_, position, __ATOMIC_RELEASE);
				given_back = position;
			}
		}
		__atomic_store_n(consumer_, position, __ATOMIC_RELEASE);
		return batch;
	}

private:
	void require_open(Napi::Env env) const
	{
		if (!consumer_)
			fail(env, EBADF, "ring", "it is closed");
	}

	void copy_sample(uint8_t *to, const uint8_t *from, size_t length, size_t padded, bool checksum_right) const
	{
		uint32_t head[2] = {static_cast<uint32_t>(length), 1};
		memcpy(to, head, sizeof(head));
		memcpy(to + sizeof(head), from, length);
		memset(to + sizeof(head) + length, 0, padded - length);
		if (records_ && length >= sizeof(struct td_record)) {
			uint8_t &flags = to[sizeof(head) + offsetof(struct td_record, flags)];
			flags = static_cast<uint8_t>(flags & ~TD_RECORD_CHECKSUM_OK);
			if (checksum_right)
				flags |= TD_RECORD_CHECKSUM_OK;
		}
	}

	/// The bytes that the entry at `last` then has, padding included; 0: `sample` becomes an entry of its own.
	static size_t merge_into(uint8_t *last, const uint8_t *sample)
	{
		uint32_t head[2];
		size_t length = merge_records(last + sizeof(head), sample);
		if (length == 0)
			return 0;
		memcpy(head, last, sizeof(head));
		head[0] = static_cast<uint32_t>(length);
		head[1]++;
		memcpy(last, head, sizeof(head));
		return sizeof(head) + (length + 7) / 8 * 8;
	}

	bool records_;
	size_t page_;
	size_t size_ = 0;
	unsigned long *consumer_ = nullptr;
	const unsigned long *producer_ = nullptr;
	const uint8_t *data_ = nullptr;
};

Napi::Value open_ring(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	Napi::Object options = as_object(info[1], "options");
	auto ring = std::make_shared<MappedRing>(env, as_fd(info[0], "mapFd"),
						 as_flag(options.Get("records"), "records"));
	Napi::Object answer = Napi::Object::New(env);
	answer.Set("size", static_cast<double>(ring->size()));
	add_function(answer, "drain", [ring](const Napi::CallbackInfo &call) -> Napi::Value {
		MappedRing::Batch batch = ring->drain(call.Env(), as_bytes(call[0], "target"));
		Napi::Object result = Napi::Object::New(call.Env());
		result.Set("bytes", static_cast<double>(batch.bytes));
		result.Set("records", batch.records);
		result.Set("backlog", static_cast<double>(ring->backlog(call.Env())));
		return result;
	});
	add_function(answer, "backlog", [ring](const Napi::CallbackInfo &call) -> Napi::Value {
		return Napi::Number::New(call.Env(), static_cast<double>(ring->backlog(call.Env())));
	});
	add_function(answer, "close", [ring](const Napi::CallbackInfo &) { ring->close(); });
	return answer;
}

} // namespace

void register_ring(Napi::Env, Napi::Object exports)
{
	add_function(exports, "ringOpen", open_ring);
}

} // namespace tandem
