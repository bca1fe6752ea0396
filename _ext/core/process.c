#include "process.h"

#include <pthread.h>
#include <stdatomic.h>

static atomic_uint generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int failure;

static void in_child(void)
{
	atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
}

static void watch(void)
{
	failure = pthread_atfork(NULL, NULL, in_child);
}

int dpx_process_watch(void)
{
	pthread_once(&once, watch);
	return failure;
}

unsigned dpx_process_generation(void)
{
	return atomic_load_explicit(&generation, memory_order_relaxed);
}
