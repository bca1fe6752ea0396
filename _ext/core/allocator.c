#include "allocator.h"

#include <pthread.h>
#include <stdlib.h>

/* Larger than the 128 KiB from which on glibc maps memory: freeing it raises that bound to this size, and the one for
 * giving back the heap's top to twice as much. Any program that frees one large block does the same. */
#define LARGE_BYTES ((size_t)4 << 20)

static void free_one_large_block(void)
{
	void *volatile block = malloc(LARGE_BYTES); /* volatile: or the compiler leaves out both calls */
	free(block);
}

void dpx_allocator_settle(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, free_one_large_block);
}
