/* SipHash-2-4 with 128 bits of output (J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012):
 * a hash with a key, for which nobody who does not have the key finds two texts that meet. */
#ifndef DPX_SIPHASH_H
#define DPX_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

void dpx_siphash(const uint64_t key[2], const void *data, size_t len, uint64_t out[2]);

#endif
