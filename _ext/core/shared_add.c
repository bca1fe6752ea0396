#include "shared_add.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

static double as_double(uint64_t bits)
{
	double number;
	memcpy(&number, &bits, sizeof(number));
	return number;
}

static uint64_t as_bits(double number)
{
	uint64_t bits;
	memcpy(&bits, &number, sizeof(bits));
	return bits;
}

void dpx_shared_add(double *at, const double *amounts, size_t count)
{
	_Atomic uint64_t *words = (_Atomic uint64_t *)at;
	for (size_t i = 0; i < count; i++) {
		uint64_t before = atomic_load_explicit(&words[i], memory_order_relaxed);
		while (amounts[i] != 0 &&
		       !atomic_compare_exchange_weak_explicit(&words[i], &before, as_bits(as_double(before) + amounts[i]),
							      memory_order_relaxed, memory_order_relaxed))
			; /* `before` is what is there now */
	}
}
