// SipHash-2-4, written from the paper: words are little-endian, the last one carries the length in its top byte.
#include "siphash.h"

namespace tandem {
namespace {

uint64_t rotate(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

uint64_t little_endian(const uint8_t *bytes, size_t count)
{
	uint64_t word = 0;
	for (size_t index = 0; index < count; index++)
		word |= static_cast<uint64_t>(bytes[index]) << (8 * index);
	return word;
}

struct State {
	uint64_t a, b, c, d;

	void rounds(int count)
	{
		for (; count; count--) {
			a += b;
			c += d;
			b = rotate(b, 13) ^ a;
			d = rotate(d, 16) ^ c;
			a = rotate(a, 32);
			c += b;
			a += d;
			b = rotate(b, 17) ^ c;
			d = rotate(d, 21) ^ a;
			c = rotate(c, 32);
		}
	}

	void absorb(uint64_t word)
	{
		d ^= word;
		rounds(2);
		a ^= word;
	}
};

} // namespace

uint64_t siphash24(const uint8_t key[16], const uint8_t *data, size_t length)
{
	uint64_t low = little_endian(key, 8), high = little_endian(key + 8, 8);
	// "somepseudorandomlygeneratedbytes"
	State state = {low ^ 0x736f6d6570736575, high ^ 0x646f72616e646f6d, low ^ 0x6c7967656e657261,
		       high ^ 0x7465646279746573};
	size_t at = 0;
	for (; length - at >= 8; at += 8)
		state.absorb(little_endian(data + at, 8));
	state.absorb(little_endian(data + at, length - at) | static_cast<uint64_t>(length) << 56);
	state.c ^= 0xff;
	state.rounds(4);
	return state.a ^ state.b ^ state.c ^ state.d;
}

} // namespace tandem
