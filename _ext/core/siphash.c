#include "siphash.h"

struct lanes {
	uint64_t a, b, c, d;
};

static uint64_t rotated(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void mix(struct lanes *v, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		v->a += v->b;
		v->c += v->d;
		v->b = rotated(v->b, 13) ^ v->a;
		v->d = rotated(v->d, 16) ^ v->c;
		v->a = rotated(v->a, 32);
		v->c += v->b;
		v->a += v->d;
		v->b = rotated(v->b, 17) ^ v->c;
		v->d = rotated(v->d, 21) ^ v->a;
		v->c = rotated(v->c, 32);
	}
}

static void absorb(struct lanes *v, uint64_t word)
{
	v->d ^= word;
	mix(v, 2);
	v->a ^= word;
}

/* Up to 8 bytes, the first the least. */
static uint64_t word_of(const unsigned char *bytes, size_t len)
{
	uint64_t word = 0;
	for (size_t i = 0; i < len; i++)
		word |= (uint64_t)bytes[i] << (8 * i);
	return word;
}

void dpx_siphash(const uint64_t key[2], const void *data, size_t len, uint64_t out[2])
{
	const unsigned char *bytes = data;
	struct lanes v = {
		.a = key[0] ^ 0x736f6d6570736575,
		.b = key[1] ^ 0x646f72616e646f6d ^ 0xee,
		.c = key[0] ^ 0x6c7967656e657261,
		.d = key[1] ^ 0x7465646279746573,
	};
	size_t whole = len / 8 * 8;
	for (size_t at = 0; at < whole; at += 8)
		absorb(&v, word_of(bytes + at, 8));
	absorb(&v, (uint64_t)len << 56 | word_of(bytes + whole, len - whole));
	v.c ^= 0xee;
	mix(&v, 4);
	out[0] = v.a ^ v.b ^ v.c ^ v.d;
	v.b ^= 0xdd;
	mix(&v, 4);
	out[1] = v.a ^ v.b ^ v.c ^ v.d;
}
