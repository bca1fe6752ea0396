#include <errno.h>

#include "monotonic.h"
#include "pool.h"
#include "reader_state.h"

/* So often an item is begun anew because its file was replaced. */
#define MOST_BEGINNINGS 100

static void run_task(void *arg);

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many items may be begun now: no more files than max_in_flight are open at once. */
static unsigned may_begin(const struct dpx_reader *reader)
{
	unsigned open = reader->busy + reader->open_count;
	return least(reader->pending_count, open < reader->options.max_in_flight ? reader->options.max_in_flight - open : 0);
}

int dpx_reader_has_work_locked(const struct dpx_reader *reader)
{
	return may_begin(reader) || reader->ready.count;
}

void dpx_reader_spawn_locked(struct dpx_reader *reader)
{
	unsigned begun = dpx_reader_helps_locked(reader) ? 0 : may_begin(reader);
	unsigned useful = least(reader->adapt.depth, reader->calls + begun + reader->ready.count);
	if (useful <= reader->tasks || atomic_load_explicit(&reader->cancelled, memory_order_relaxed))
		return;
	unsigned count = useful - reader->tasks;
	atomic_fetch_add(&reader->refs, count);
	int rc = dpx_pool_queue(reader->session->pool, run_task, reader, count);
	if (rc) {
		atomic_fetch_sub(&reader->refs, count); /* the caller holds another one */
		if (reader->tasks == 0) {
			reader->failure = rc == EAGAIN ? ENOMEM : rc; /* to the consumer EAGAIN says "not yet" */
			dpx_reader_wake_locked(reader);
		}
		return;
	}
	reader->tasks += count;
	reader->to_wake += count;
}

void dpx_reader_busy_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now)
{
	item->state = DPX_ITEM_RUNNING;
	item->busy_since = now;
	item->in_call = 1;
	reader->calls++;
	if (reader->busy++ == 0)
		dpx_adapt_begin(&reader->adapt, now);
}

void dpx_reader_unbusy_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now)
{
	item->busy_ns += now - item->busy_since;
	reader->calls -= (unsigned)item->in_call;
	item->in_call = 0;
	if (--reader->busy == 0)
		dpx_adapt_pause(&reader->adapt, now);
}

struct dpx_item *dpx_reader_next_locked(struct dpx_reader *reader, int64_t now)
{
	struct dpx_item *item = may_begin(reader) ? reader->pending : NULL;
	if (!item)
		return NULL;
	reader->pending = item->next;
	reader->pending_count--;
	dpx_reader_guess_locked(reader, item);
	dpx_reader_busy_locked(reader, item, now);
	return item;
}

/* Something to do for this task, or NULL when it shall end. */
static struct dpx_item *claim_locked(struct dpx_reader *reader, int64_t now)
{
	if (atomic_load_explicit(&reader->cancelled, memory_order_relaxed) ||
	    atomic_load_explicit(&reader->session->closed, memory_order_relaxed) ||
	    reader->tasks > reader->adapt.depth)
		return NULL;
	struct dpx_item *item = dpx_item_dequeue(&reader->ready);
	if (!item)
		return dpx_reader_helps_locked(reader) ? NULL : dpx_reader_next_locked(reader, now);
	reader->open_count--;
	dpx_reader_busy_locked(reader, item, now);
	return item;
}

/* Another file stands where the item's was when it was opened: whether to begin with that one, as a reader would
 * who came a moment later. One that was opened by a handle from before may be any other by now, whatever went wrong. */
static int begins_anew(struct dpx_reader *reader, struct dpx_item *item)
{
	int replaced = item->status.err == ESTALE || (item->status.err && item->recalled);
	if (!replaced || item->file || item->beginnings == MOST_BEGINNINGS)
		return 0;
	item->beginnings++;
	item->status = (struct dpx_status){.err = 0};
	if (dpx_item_want(item) != DPX_SIZE_UNKNOWN)
		return 1; /* into the same memory */
	if (item->owner)
		reader->options.disown(item->owner);
	item->owner = NULL;
	dpx_reader_ask_again(reader, item);
	return 1;
}

/* Returns 0 when the item is done, well or badly; EAGAIN when it waits for memory, EINPROGRESS when its read is under
 * way: then it is not the thread's now. */
static int process_once(struct dpx_reader *reader, struct dpx_item *item)
{
	int rc = item->status.err, flown = item->flown;
	item->flown = DPX_FLOWN_NOT;
	if (rc) { /* the consumer had no memory for it */
		dpx_item_fail(reader, item, DPX_OP_READ, rc);
		return 0;
	}
	if (!item->file && dpx_item_begin(reader, item))
		return 0;
	if (flown == DPX_FLOWN_FULL && dpx_item_landed(reader, item, 0, dpx_item_room(item)) != EAGAIN)
		return 0;
	do {
		rc = dpx_reader_find_memory(reader, item);
		if (rc == EAGAIN)
			return EAGAIN;
		if (rc) {
			dpx_item_fail(reader, item, DPX_OP_READ, rc);
			return 0;
		}
		if (flown != DPX_FLOWN_ODD && dpx_reader_fly(reader, item))
			return EINPROGRESS;
	} while (dpx_item_read(reader, item) == EAGAIN);
	return 0;
}

static int process(struct dpx_reader *reader, struct dpx_item *item)
{
	int rc;
	do
		rc = process_once(reader, item);
	while (!rc && begins_anew(reader, item));
	return rc;
}

void dpx_reader_finish_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now)
{
	dpx_reader_unbusy_locked(reader, item, now);
	if (item->buffer && item->held && item->held <= DPX_READ_DIRECT)
		reader->guess = item->held;
	dpx_reader_settle_locked(reader, item);
	if (!dpx_reader_helps_locked(reader) && dpx_adapt_done(&reader->adapt, item->got, now))
		dpx_reader_spawn_locked(reader);
	if (reader->parked_count)
		dpx_reader_unpark_locked(reader);
	dpx_reader_wake_locked(reader);
}

void dpx_item_dispose(struct dpx_reader *reader, struct dpx_item *item)
{
	if (item->file)
		dpx_session_close_file(reader->session, item->file);
	if (item->owner)
		reader->options.disown(item->owner);
	if (item->tag)
		reader->options.disown(item->tag);
	dpx_item_free(item);
	atomic_fetch_sub(&reader->session->counters.graveyard, 1);
}

/* A task: items, one after the other, while there are any and the depth allows. One lock for each item: what is
 * done is handed over and the next one taken at once. */
static void run_task(void *arg)
{
	struct dpx_reader *reader = arg;
	struct dpx_item *item;
	int64_t now = dpx_now_ns();
	pthread_mutex_lock(&reader->lock);
	while ((item = claim_locked(reader, now))) {
		dpx_reader_unlock(reader);
		int rc = process(reader, item);
		now = dpx_now_ns();
		pthread_mutex_lock(&reader->lock);
		if (rc)
			continue;
		if (item->abandoned) { /* this task was struck off when the item was given up on */
			dpx_reader_unlock(reader);
			dpx_item_dispose(reader, item);
			dpx_reader_drop(reader);
			return;
		}
		dpx_reader_finish_locked(reader, item, now);
	}
	if (--reader->tasks == 0)
		pthread_cond_broadcast(&reader->idle);
	dpx_reader_unlock(reader);
	dpx_reader_drop(reader);
}
