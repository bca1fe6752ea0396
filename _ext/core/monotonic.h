/* Time and timed waits on the monotonic clock, so that a change of the wall clock moves no time-out. */
#ifndef DPX_MONOTONIC_H
#define DPX_MONOTONIC_H

#include <pthread.h>
#include <stdint.h>

/* Nanoseconds since some fixed moment. */
int64_t dpx_now_ns(void);

/* A condition variable for dpx_cond_wait_until(). Returns 0 or an errno. */
int dpx_cond_init(pthread_cond_t *cond);

/* Wait until signalled or until the moment has come; may return early without cause. 0 or ETIMEDOUT. */
int dpx_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ns);

#endif
