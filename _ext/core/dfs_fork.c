#include "dfs_fork.h"

#include <pthread.h>
#include <time.h>

#define LONGEST_MS 2000

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static unsigned holders; /* under the gate */

/* Goes on with the gate held, so that nobody begins anything before the child is there. */
static void before_fork(void)
{
	static const struct timespec pause = {.tv_nsec = 1000000};
	for (int waited_ms = 0;; waited_ms++) {
		pthread_mutex_lock(&gate);
		if (!holders || waited_ms >= LONGEST_MS)
			return;
		pthread_mutex_unlock(&gate);
		nanosleep(&pause, NULL);
	}
}

static void in_parent(void)
{
	pthread_mutex_unlock(&gate);
}

static void in_child(void)
{
	pthread_mutex_init(&gate, NULL);
	holders = 0; /* threads that are the parent's */
}

static void watch(void)
{
	pthread_atfork(before_fork, in_parent, in_child);
}

void dpx_dfs_hold_forks(void)
{
	pthread_once(&once, watch);
	pthread_mutex_lock(&gate);
	holders++;
	pthread_mutex_unlock(&gate);
}

void dpx_dfs_let_forks(void)
{
	pthread_mutex_lock(&gate);
	holders--;
	pthread_mutex_unlock(&gate);
}
