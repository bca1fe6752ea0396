#include <errno.h>
#include <time.h>

#include "monotonic.h"
#include "pool.h"
#include "reader_state.h"

/* Waits come in slices, so that a closing reader is heard. */
#define SLICE_MS 100

/* The thread that looks after reads stays so long when there are none. */
#define LINGER_NS (20 * INT64_C(1000000))

/* A consumer that looks after reads itself, and is out, may be back before it pays to do so in its place. */
#define GRACE_NS INT64_C(1000000)

/* A consumer that has nothing else to do looks for so long before it sleeps: a round trip of a fast network is over
 * before a sleeper is awake. */
#define SPIN_NS (100 * INT64_C(1000))

/* What a read without waiting has brought needs another look that may take a while: at an end where there should be
 * none, at a size that was not known. */
static int flown(const struct dpx_item *item, const struct dpx_landing *landing)
{
	if (landing->err) /* by a handle that was kept it may fail for that alone */
		return item->recalled ? DPX_FLOWN_ODD : DPX_FLOWN_NOT;
	if (item->want == DPX_SIZE_UNKNOWN && landing->got == dpx_item_room(item))
		return DPX_FLOWN_FULL;
	int is_short = item->want != DPX_SIZE_UNKNOWN && landing->got < item->want;
	return is_short || landing->got == 0 ? DPX_FLOWN_ODD : DPX_FLOWN_NOT;
}

static void give_up_locked(struct dpx_reader *reader);

static void land(struct dpx_reader *reader, const struct dpx_landing *landing)
{
	struct dpx_item *item = landing->tag;
	int look = flown(item, landing);
	if (look == DPX_FLOWN_NOT)
		dpx_item_landed(reader, item, landing->err, landing->got);
	int64_t now = dpx_now_ns();
	pthread_mutex_lock(&reader->lock);
	reader->flying--;
	atomic_fetch_sub_explicit(&reader->aloft, 1, memory_order_relaxed);
	if (item->abandoned) {
		dpx_reader_unlock(reader);
		dpx_item_dispose(reader, item);
		return;
	}
	if (look == DPX_FLOWN_NOT) {
		dpx_reader_finish_locked(reader, item, now);
	} else {
		dpx_reader_unbusy_locked(reader, item, now);
		item->flown = look;
		item->state = DPX_ITEM_READY;
		reader->open_count++;
		dpx_item_enqueue(&reader->ready, item);
		give_up_locked(reader);
	}
	dpx_reader_spawn_locked(reader);
	dpx_reader_unlock(reader);
}

/* Wait until something is under way that nobody else looks after: a queue with nothing on it does not wait itself. 0:
 * nothing is, or will be soon. Under the lock. */
static int stay_locked(struct dpx_reader *reader)
{
	for (int64_t now = dpx_now_ns(), idle_since = now;; now = dpx_now_ns()) {
		int aloft = atomic_load(&reader->aloft) > 0;
		int near = reader->helping || now < reader->helped_at + GRACE_NS;
		if (aloft && !near)
			return 1;
		if (aloft || reader->flying)
			idle_since = now;
		else if (atomic_load_explicit(&reader->cancelled, memory_order_relaxed) || now - idle_since >= LINGER_NS)
			return 0;
		dpx_reader_wait_locked(reader, &reader->departs, now + (near ? GRACE_NS : LINGER_NS));
	}
}

static void poll_flights(void *arg)
{
	struct dpx_reader *reader = arg;
	const struct dpx_io *io = &reader->session->io;
	struct dpx_landing landed[DPX_QUEUE_LANDINGS];
	unsigned count = 0;
	pthread_mutex_lock(&reader->lock);
	while (stay_locked(reader)) {
		reader->looking = 1;
		dpx_reader_unlock(reader);
		if (io->read_poll(reader->queue, SLICE_MS, landed, &count)) {
			struct timespec pause = {.tv_nsec = 10 * 1000000}; /* memory is promised: there is no other way */
			nanosleep(&pause, NULL);
		}
		for (unsigned i = 0; i < count; i++)
			land(reader, &landed[i]);
		pthread_mutex_lock(&reader->lock);
		reader->looking = 0;
		if (reader->helping && reader->waiting) { /* it has come back, and waits for its turn to look */
			reader->waiting = 0;
			reader->tell = 1;
		}
	}
	reader->polling = 0;
	pthread_cond_broadcast(&reader->idle);
	dpx_reader_unlock(reader);
	dpx_reader_drop(reader);
}

/* A queue, which takes a while to make the first time. Under the lock, which it gives up meanwhile. */
static int has_queue_locked(struct dpx_reader *reader)
{
	struct dpx_session *session = reader->session;
	if (reader->queue_state == QUEUE_NONE && session->io.queue_open) {
		reader->queue_state = QUEUE_OPENING;
		dpx_reader_unlock(reader);
		void *queue = NULL;
		int rc = session->io.queue_open(session->mount, &queue);
		pthread_mutex_lock(&reader->lock);
		reader->queue = rc ? NULL : queue;
		reader->queue_state = rc ? QUEUE_REFUSED : QUEUE_OPEN;
	}
	return reader->queue_state == QUEUE_OPEN;
}

/* And a thread that looks after it. */
static int is_watched_locked(struct dpx_reader *reader)
{
	if (!has_queue_locked(reader))
		return 0;
	if (!reader->polling) {
		atomic_fetch_add(&reader->refs, 1);
		reader->polling = dpx_pool_submit(reader->session->pool, poll_flights, reader, 1) == 0;
		if (!reader->polling)
			atomic_fetch_sub(&reader->refs, 1); /* the task holds another one */
	}
	return reader->polling;
}

/* A read was started. It may have landed by now. */
static void depart(struct dpx_reader *reader)
{
	if (atomic_fetch_add(&reader->aloft, 1) != 0)
		return; /* there were others, or it has landed */
	pthread_mutex_lock(&reader->lock); /* whoever has found none waits by now */
	dpx_reader_unlock(reader);
	pthread_cond_signal(&reader->departs);
}

/* Start the read of an item that is counted as under way already. 1: it is no longer the caller's. */
static int set_off(struct dpx_reader *reader, struct dpx_item *item)
{
	const struct dpx_io *io = &reader->session->io;
	if (io->read_start(reader->queue, item->file, item->dest, dpx_item_room(item), item->offset, item) == 0) {
		depart(reader);
		return 1;
	}
	pthread_mutex_lock(&reader->lock);
	reader->flying--;
	int abandoned = item->abandoned;
	if (!abandoned) {
		item->in_call = 1;
		reader->calls++;
	}
	dpx_reader_unlock(reader);
	if (abandoned)
		dpx_item_dispose(reader, item);
	return abandoned; /* else reading meets whatever it was again, and says so */
}

static void count_flight_locked(struct dpx_reader *reader, struct dpx_item *item)
{
	item->in_call = 0;
	reader->calls--;
	reader->flying++;
}

int dpx_reader_fly(struct dpx_reader *reader, struct dpx_item *item)
{
	if (!reader->session->io.queue_open || item->want == 0 || reader->options.verify_size)
		return 0;
	pthread_mutex_lock(&reader->lock);
	int flies = dpx_reader_has_work_locked(reader) && is_watched_locked(reader) && !item->abandoned;
	if (flies)
		count_flight_locked(reader, item);
	dpx_reader_unlock(reader);
	return flies && set_off(reader, item);
}

/* --- by the consumer itself */

int dpx_reader_helps_locked(const struct dpx_reader *reader)
{
	return reader->options.handles && !reader->options.verify_size && !reader->helpless &&
	       reader->session->io.queue_open && reader->queue_state != QUEUE_REFUSED;
}

/* The consumer looks after reads no more, for now or until further notice: a thread does, from then on. */
static void leave_locked(struct dpx_reader *reader, int64_t helped_at)
{
	reader->helping = 0;
	reader->helped_at = helped_at;
	int unwatched = reader->flying && !is_watched_locked(reader);
	if (unwatched && !reader->unwatched) /* whatever becomes of the consumer: they write into memory that items hold */
		atomic_fetch_add(&reader->refs, 1);
	if (!unwatched && reader->unwatched)
		atomic_fetch_sub(&reader->refs, 1); /* the caller holds another one */
	reader->unwatched = unwatched;
}

static void give_up_locked(struct dpx_reader *reader)
{
	reader->helpless = 1;
	reader->able_from = reader->positions;
	leave_locked(reader, 0);
	dpx_reader_spawn_locked(reader);
}

/* Leave an item to threads, and with it all that was pushed until now: where one file is not known, others are not. */
static void decline_locked(struct dpx_reader *reader, struct dpx_item *item)
{
	item->status = (struct dpx_status){.err = 0};
	dpx_reader_unbusy_locked(reader, item, dpx_now_ns());
	item->state = DPX_ITEM_READY;
	reader->open_count++;
	dpx_item_enqueue(&reader->ready, item);
	give_up_locked(reader);
}

/* Open an item by its handle and start its read. What needs more than that is left to threads. */
static void send_locked(struct dpx_reader *reader, struct dpx_item *item)
{
	dpx_reader_unlock(reader);
	int opened = dpx_item_recall(reader, item) == 0 && dpx_item_begin(reader, item) == 0;
	int sent = opened && item->want && item->want != DPX_SIZE_UNKNOWN;
	if (sent) {
		int rc = dpx_reader_find_memory(reader, item);
		if (rc == EAGAIN) { /* it waits for memory, and is not ours any more */
			pthread_mutex_lock(&reader->lock);
			return;
		}
		sent = !rc;
	}
	pthread_mutex_lock(&reader->lock);
	if (sent) {
		count_flight_locked(reader, item);
		dpx_reader_unlock(reader);
		sent = set_off(reader, item);
		pthread_mutex_lock(&reader->lock);
	}
	if (!sent)
		decline_locked(reader, item);
}

void dpx_reader_send_locked(struct dpx_reader *reader)
{
	struct dpx_item *item;
	if (reader->helpless && (!reader->first || reader->first->position >= reader->able_from))
		reader->helpless = 0;
	if (!dpx_reader_helps_locked(reader) || !reader->pending_count)
		return;
	if (!has_queue_locked(reader)) {
		dpx_reader_spawn_locked(reader);
		return;
	}
	reader->helping = 1;
	while (reader->flying < DPX_QUEUE_FLIGHTS && dpx_reader_helps_locked(reader) &&
	       (item = dpx_reader_next_locked(reader, dpx_now_ns())))
		send_locked(reader, item);
}

int dpx_reader_help_locked(struct dpx_reader *reader, unsigned wait_ms)
{
	struct dpx_landing landed[DPX_QUEUE_LANDINGS];
	unsigned count = 0;
	if (!dpx_reader_helps_locked(reader))
		return 0;
	reader->helping = 1;
	if (atomic_load(&reader->aloft) <= 0 || reader->looking)
		return 0;
	dpx_reader_unlock(reader);
	int64_t until = dpx_now_ns() + SPIN_NS;
	int rc;
	do
		rc = reader->session->io.read_poll(reader->queue, 0, landed, &count);
	while (!rc && !count && dpx_now_ns() < until);
	if (!rc && !count)
		rc = reader->session->io.read_poll(reader->queue, wait_ms, landed, &count);
	for (unsigned i = 0; i < count; i++)
		land(reader, &landed[i]);
	pthread_mutex_lock(&reader->lock);
	return !rc;
}

void dpx_reader_rest_locked(struct dpx_reader *reader, int64_t now)
{
	if (reader->helping)
		leave_locked(reader, now);
}
