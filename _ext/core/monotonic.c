#include "monotonic.h"

#include <time.h>

int64_t dpx_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#ifdef __APPLE__ /* has no monotonic condition variables, but waits for a span of time */

int dpx_cond_init(pthread_cond_t *cond)
{
	return pthread_cond_init(cond, NULL);
}

int dpx_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ns)
{
	int64_t span = until_ns - dpx_now_ns();
	if (span < 0)
		span = 0;
	struct timespec wait = {.tv_sec = span / 1000000000, .tv_nsec = span % 1000000000};
	return pthread_cond_timedwait_relative_np(cond, lock, &wait);
}

#else

int dpx_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int rc = pthread_condattr_init(&attr);
	if (rc)
		return rc;
	rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (!rc)
		rc = pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
	return rc;
}

int dpx_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ns)
{
	struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
	return pthread_cond_timedwait(cond, lock, &until);
}

#endif
