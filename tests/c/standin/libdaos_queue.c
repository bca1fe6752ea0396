/* Event queues: events complete on a thread of the library's own, when their time has come. One lock for all. */
#include "standin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#define MOST_QUEUES 4096
#define DER_INVAL 1003
#define DER_NONEXIST 1005
#define DER_UNINIT 1015

enum state { EVENT_IDLE = 1, EVENT_RUNNING, EVENT_DONE };

/* What ev_private holds. */
struct inside {
	enum state state;
	uint64_t queue; /* cookie */
	abi_event *next;
};

struct queue {
	int live;
	unsigned events, running;
	pthread_cond_t news;
	abi_event *first, *last; /* done, not polled */
};

struct job {
	int64_t due;
	unsigned until; /* see standin_fault */
	abi_event *event;
	int (*fn)(void *arg);
	void *arg;
	struct job *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t due; /* for the thread */
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static atomic_uint releases;
static struct queue queues[MOST_QUEUES];
static struct job *jobs, *last_job; /* by time */
static int thread_runs;

static struct inside *inside(abi_event *event)
{
	_Static_assert(sizeof(struct inside) <= sizeof(event->ev_private), "too large");
	return (struct inside *)&event->ev_private;
}

static void make_condition(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* Conditions remember waiting threads, which the child does not have; nor does it have the parent's reads. */
static void in_child(void)
{
	make_condition(&due);
	thread_runs = 0;
	jobs = last_job = NULL;
	for (size_t i = 0; i < MOST_QUEUES; i++) {
		queues[i].running = 0;
		make_condition(&queues[i].news);
	}
	standin_live(LIVE_READS, -standin_living(LIVE_READS));
	pthread_mutex_unlock(&lock);
}

/* The other lock is taken inside this one, so its handlers have to be there first. */
static void begin(void)
{
	standin_is_dead();
	make_condition(&due);
	pthread_atfork(before_fork, in_parent, in_child);
}

static void enter(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, begin);
	pthread_mutex_lock(&lock);
}

static int leave(int rc)
{
	pthread_mutex_unlock(&lock);
	return rc;
}

static struct timespec moment(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static struct queue *queue_of(uint64_t cookie)
{
	return cookie >= 1 && cookie <= MOST_QUEUES && queues[cookie - 1].live ? &queues[cookie - 1] : NULL;
}

static void complete_locked(abi_event *event, int error)
{
	struct inside *in = inside(event);
	struct queue *queue = queue_of(in->queue);
	event->ev_error = error;
	in->state = EVENT_DONE;
	in->next = NULL;
	queue->running--;
	if (queue->last)
		inside(queue->last)->next = event;
	else
		queue->first = event;
	queue->last = event;
	standin_live(LIVE_READS, -1);
	pthread_cond_broadcast(&queue->news);
}

/* The thread waits for its time. */
static struct job *next_job(void)
{
	struct job *job = jobs;
	while (job && job->until > atomic_load(&releases))
		job = job->next;
	return job;
}

static void unlink_job(struct job *job)
{
	struct job *before = NULL;
	for (struct job *at = jobs; at != job; at = at->next)
		before = at;
	*(before ? &before->next : &jobs) = job->next;
	if (last_job == job)
		last_job = before;
}

static void link_job(struct job *job)
{
	struct job **at = &jobs;
	if (last_job && last_job->due <= job->due)
		at = &last_job->next;
	while (*at && (*at)->due <= job->due)
		at = &(*at)->next;
	job->next = *at;
	*at = job;
	if (!job->next)
		last_job = job;
}

static void *run_thread(void *unused)
{
	(void)unused;
	prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
	pthread_mutex_lock(&lock);
	for (;;) {
		struct job *job = next_job();
		if (!job) {
			pthread_cond_wait(&due, &lock);
			continue;
		}
		if (job->due > standin_now()) {
			struct timespec until = moment(job->due);
			pthread_cond_timedwait(&due, &lock, &until);
			continue;
		}
		unlink_job(job);
		pthread_mutex_unlock(&lock);
		int error = job->fn(job->arg);
		pthread_mutex_lock(&lock);
		complete_locked(job->event, standin_is_dead() ? EIO : error);
		free(job);
	}
	return NULL;
}

static int start_thread_locked(void)
{
	pthread_t thread;
	if (thread_runs)
		return 0;
	int rc = pthread_create(&thread, NULL, run_thread, NULL);
	if (rc)
		return rc;
	pthread_detach(thread);
	thread_runs = 1;
	return 0;
}

int standin_launch(abi_event *event, int64_t delay_ns, unsigned until, int (*fn)(void *arg), void *arg)
{
	struct job *job = malloc(sizeof(*job));
	if (!job)
		return ENOMEM;
	int astray = standin_astray();
	enter();
	struct inside *in = inside(event);
	struct queue *queue = queue_of(in->queue);
	if (!queue || in->state == EVENT_RUNNING || (!astray && start_thread_locked())) {
		free(job);
		return leave(EINVAL);
	}
	*job = (struct job){.due = standin_now() + delay_ns, .until = until, .event = event, .fn = fn, .arg = arg};
	in->state = EVENT_RUNNING;
	queue->running++;
	standin_live(LIVE_READS, 1);
	if (astray) { /* nobody else will come */
		complete_locked(event, fn(arg));
		free(job);
		return leave(0);
	}
	link_job(job);
	if (next_job() == job)
		pthread_cond_signal(&due);
	return leave(0);
}

void standin_release(void)
{
	enter();
	atomic_fetch_add(&releases, 1);
	pthread_cond_signal(&due);
	pthread_cond_broadcast(&released);
	leave(0);
}

unsigned standin_next_release(void)
{
	return atomic_load(&releases) + 1;
}

void standin_hang(unsigned until)
{
	enter();
	standin_live(LIVE_READS, 1);
	while (until > atomic_load(&releases))
		pthread_cond_wait(&released, &lock);
	standin_live(LIVE_READS, -1);
	leave(0);
}

int daos_eq_create(abi_handle *out)
{
	struct standin_fault fault = standin_enter("daos_eq_create", 0);
	if (fault.code)
		return -fault.code;
	standin_pay(COST_QUEUE, 1);
	if (!standin_living(LIVE_INITS))
		return -DER_UNINIT;
	enter();
	for (uint64_t i = 0; i < MOST_QUEUES; i++) {
		if (queues[i].live)
			continue;
		queues[i] = (struct queue){.live = 1};
		make_condition(&queues[i].news);
		out->cookie = i + 1;
		standin_live(LIVE_QUEUES, 1);
		return leave(0);
	}
	return leave(-ABI_DER_NOMEM);
}

int daos_eq_destroy(abi_handle handle, int flags)
{
	enter();
	struct queue *queue = queue_of(handle.cookie);
	if (!queue)
		return leave(-DER_NONEXIST);
	if (queue->running && !(flags & ABI_EQ_DESTROY_FORCE))
		return leave(-ABI_DER_BUSY);
	while (queue->running)
		pthread_cond_wait(&queue->news, &lock);
	standin_live(LIVE_EVENTS, -(long)queue->events);
	queue->live = 0;
	standin_live(LIVE_QUEUES, -1);
	return leave(0);
}

int daos_eq_poll(abi_handle handle, int wait_running, int64_t timeout_us, unsigned count, abi_event **done)
{
	struct standin_fault fault = standin_enter("daos_eq_poll", -1);
	if (fault.code)
		return -fault.code;
	enter();
	struct queue *queue = queue_of(handle.cookie);
	struct timespec until = moment(standin_now() + timeout_us * 1000);
	if (!queue)
		return leave(-DER_NONEXIST);
	while (!queue->first && timeout_us && (queue->running || !wait_running))
		if (timeout_us < 0)
			pthread_cond_wait(&queue->news, &lock);
		else if (pthread_cond_timedwait(&queue->news, &lock, &until) == ETIMEDOUT)
			break;
	unsigned n = 0;
	for (; n < count && queue->first; n++) {
		done[n] = queue->first;
		queue->first = inside(done[n])->next;
		if (!queue->first)
			queue->last = NULL;
		inside(done[n])->state = EVENT_IDLE;
	}
	return leave((int)n);
}

int daos_event_init(abi_event *event, abi_handle handle, abi_event *parent)
{
	struct standin_fault fault = standin_enter("daos_event_init", 0);
	if (fault.code || parent)
		return fault.code ? -fault.code : -DER_INVAL;
	enter();
	struct queue *queue = queue_of(handle.cookie);
	if (!queue)
		return leave(-DER_NONEXIST);
	*event = (abi_event){0};
	*inside(event) = (struct inside){.state = EVENT_IDLE, .queue = handle.cookie};
	queue->events++;
	standin_live(LIVE_EVENTS, 1);
	return leave(0);
}

static void unlink_done(struct queue *queue, abi_event *event)
{
	abi_event *before = NULL;
	for (abi_event *at = queue->first; at; before = at, at = inside(at)->next) {
		if (at != event)
			continue;
		*(before ? &inside(before)->next : &queue->first) = inside(at)->next;
		if (queue->last == at)
			queue->last = before;
		return;
	}
}

int daos_event_fini(abi_event *event)
{
	enter();
	struct inside *in = inside(event);
	struct queue *queue = queue_of(in->queue);
	if (in->state == EVENT_RUNNING)
		return leave(-ABI_DER_BUSY);
	if (!queue)
		return leave(-DER_NONEXIST);
	unlink_done(queue, event);
	in->queue = 0;
	queue->events--;
	standin_live(LIVE_EVENTS, -1);
	return leave(0);
}

int daos_event_abort(abi_event *event)
{
	(void)event; /* and the read goes on */
	return 0;
}
