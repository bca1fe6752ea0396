/* A pool of detached threads that run small tasks. Threads start when a task finds nobody idle, up to a
 * maximum, and end by themselves after a while without work. Each thread holds a reference to the pool, so a
 * thread stuck in a call to the store keeps the pool's memory and nobody has to wait for it.
 *
 * Tasks run without any lock of the pool and with all signals blocked. A pool belongs to the process that
 * made it: in a forked child its threads are gone and none of these functions may be called.
 */
#ifndef DPX_POOL_H
#define DPX_POOL_H

struct dpx_pool;

/* arg: whatever the submitter passed; the task owns what it stands for. */
typedef void (*dpx_task_fn)(void *arg);

/* *pool: owned by the caller until release. Starts no thread. Returns 0 or ENOMEM. */
int dpx_pool_create(unsigned max_threads, struct dpx_pool **pool);

/* Queue `count` calls of fn(arg). They start in the order of submission; when all threads are busy they wait
 * for one. Returns 0, or, with nothing queued: ESHUTDOWN (closed), ENOMEM, or EAGAIN (not one thread could be
 * started). */
int dpx_pool_submit(struct dpx_pool *pool, dpx_task_fn fn, void *arg, unsigned count);

/* The same in two steps, for callers with a lock that those calls take at once: queue under it, and wake as many as were
 * queued when it was given up. */
int dpx_pool_queue(struct dpx_pool *pool, dpx_task_fn fn, void *arg, unsigned count);
void dpx_pool_wake(struct dpx_pool *pool, unsigned count);

/* Take no more tasks and wait at most `wait_ms` for those queued and running to end (0: do not wait; the
 * queued ones run all the same). Returns 0 when all threads are gone, else ETIMEDOUT. May be repeated. */
int dpx_pool_close(struct dpx_pool *pool, unsigned wait_ms);

/* Give the caller's reference back; closes the pool without waiting. Accepts NULL. */
void dpx_pool_release(struct dpx_pool *pool);

/* Threads alive now. */
unsigned dpx_pool_threads(struct dpx_pool *pool);

#endif
