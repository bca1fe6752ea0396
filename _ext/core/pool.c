#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "monotonic.h"

/* Threads only hold a few small frames; sanitizers need more. */
#define STACK_BYTES (512 * 1024)
#define IDLE_NS (5 * INT64_C(1000000000))

struct task {
	dpx_task_fn fn;
	void *arg;
	unsigned count; /* calls left */
	struct task *next;
};

struct dpx_pool {
	pthread_mutex_t lock;
	pthread_cond_t work; /* a task was queued, or the pool was closed */
	pthread_cond_t gone; /* a thread ended */
	atomic_uint refs;    /* the owner's and one for each thread */
	unsigned max_threads;
	unsigned threads; /* these under the lock */
	unsigned idle;    /* threads waiting for work, or on their way to their first */
	unsigned queued;  /* calls not begun */
	int closed;
	struct task *first, *last; /* owned */
};

int dpx_pool_create(unsigned max_threads, struct dpx_pool **out)
{
	struct dpx_pool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		return ENOMEM;
	int rc = pthread_mutex_init(&pool->lock, NULL);
	if (rc)
		goto free_pool;
	rc = dpx_cond_init(&pool->work);
	if (rc)
		goto free_lock;
	rc = dpx_cond_init(&pool->gone);
	if (rc)
		goto free_work;
	pool->max_threads = max_threads ? max_threads : 1;
	atomic_init(&pool->refs, 1);
	*out = pool;
	return 0;
free_work:
	pthread_cond_destroy(&pool->work);
free_lock:
	pthread_mutex_destroy(&pool->lock);
free_pool:
	free(pool);
	return rc;
}

static void drop(struct dpx_pool *pool)
{
	if (atomic_fetch_sub(&pool->refs, 1) != 1)
		return;
	pthread_cond_destroy(&pool->gone);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* The next call to make, waiting for one; 0 when this thread shall end. Under the lock. */
static int next_call(struct dpx_pool *pool, struct task *call)
{
	while (!pool->first) {
		if (pool->closed)
			return 0;
		pool->idle++;
		int rc = dpx_cond_wait_until(&pool->work, &pool->lock, dpx_now_ns() + IDLE_NS);
		pool->idle--;
		if (rc == ETIMEDOUT && !pool->first)
			return 0;
	}
	struct task *task = pool->first;
	*call = *task;
	pool->queued--;
	if (--task->count == 0) {
		pool->first = task->next;
		if (!pool->first)
			pool->last = NULL;
		free(task);
	}
	return 1;
}

static void *run_thread(void *arg)
{
	struct dpx_pool *pool = arg;
	struct task call;
	pthread_mutex_lock(&pool->lock);
	pool->idle--;
	while (next_call(pool, &call)) {
		pthread_mutex_unlock(&pool->lock);
		call.fn(call.arg);
		pthread_mutex_lock(&pool->lock);
	}
	pool->threads--;
	pthread_cond_broadcast(&pool->gone);
	pthread_mutex_unlock(&pool->lock);
	drop(pool);
	return NULL;
}

/* One more thread, under the lock. Signals stay with the program's own threads. */
static int start_thread(struct dpx_pool *pool)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, before;
	int rc = pthread_attr_init(&attr);
	if (rc)
		return rc;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	atomic_fetch_add(&pool->refs, 1);
	rc = pthread_create(&thread, &attr, run_thread, pool);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (rc)
		atomic_fetch_sub(&pool->refs, 1); /* never the last one: the submitter holds its own */
	else
		pool->threads++, pool->idle++;
	return rc;
}

static void append(struct dpx_pool *pool, struct task *task)
{
	if (pool->last)
		pool->last->next = task;
	else
		pool->first = task;
	pool->last = task;
	pool->queued += task->count;
}

/* Threads for so many more calls, under the lock. EAGAIN: there is not one. */
static int provide_threads(struct dpx_pool *pool, unsigned count)
{
	while (pool->idle < pool->queued + count && pool->threads < pool->max_threads)
		if (start_thread(pool))
			break;
	return pool->threads ? 0 : EAGAIN;
}

void dpx_pool_wake(struct dpx_pool *pool, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pthread_cond_signal(&pool->work);
}

int dpx_pool_submit(struct dpx_pool *pool, dpx_task_fn fn, void *arg, unsigned count)
{
	int rc = dpx_pool_queue(pool, fn, arg, count);
	if (!rc)
		dpx_pool_wake(pool, count);
	return rc;
}

int dpx_pool_queue(struct dpx_pool *pool, dpx_task_fn fn, void *arg, unsigned count)
{
	if (count == 0)
		return 0;
	struct task *task = malloc(sizeof(*task));
	if (!task)
		return ENOMEM;
	*task = (struct task){.fn = fn, .arg = arg, .count = count};
	pthread_mutex_lock(&pool->lock);
	int rc = pool->closed ? ESHUTDOWN : provide_threads(pool, count);
	if (!rc) {
		append(pool, task);
		task = NULL;
	}
	pthread_mutex_unlock(&pool->lock);
	free(task);
	return rc;
}

int dpx_pool_close(struct dpx_pool *pool, unsigned wait_ms)
{
	int64_t until = dpx_now_ns() + (int64_t)wait_ms * 1000000;
	int rc = 0;
	pthread_mutex_lock(&pool->lock);
	pool->closed = 1;
	pthread_cond_broadcast(&pool->work);
	while (pool->threads && !rc)
		rc = wait_ms ? dpx_cond_wait_until(&pool->gone, &pool->lock, until) : ETIMEDOUT;
	rc = pool->threads ? ETIMEDOUT : 0;
	pthread_mutex_unlock(&pool->lock);
	return rc;
}

void dpx_pool_release(struct dpx_pool *pool)
{
	if (!pool)
		return;
	dpx_pool_close(pool, 0);
	drop(pool);
}

unsigned dpx_pool_threads(struct dpx_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	unsigned threads = pool->threads;
	pthread_mutex_unlock(&pool->lock);
	return threads;
}
