#include <errno.h>
#include <string.h>

#include "monotonic.h"
#include "reader_state.h"

/* A consumer that finds nothing waits this long for several items to come together before it asks to be woken for
 * the next one: waking it for each would cost more than reading it. */
#define NAP_NS (200 * INT64_C(1000))

/* How often items are looked over for time-outs. */
#define LOOK_MOST_NS (50 * INT64_C(1000000))
#define LOOK_LEAST_NS INT64_C(1000000)

/* With more items before them, threads do not notice when the consumer comes a little late. */
static int is_short_of_work(const struct dpx_reader *reader)
{
	unsigned most = reader->options.batch ? reader->outstanding : reader->options.max_in_flight;
	unsigned enough = 4 * reader->adapt.depth + 4;
	return reader->pending_count + reader->ready.count <= (enough < most / 2 ? enough : most / 2);
}

void dpx_reader_wake_locked(struct dpx_reader *reader)
{
	if (!reader->waiting)
		return;
	unsigned news = reader->wanting.count + (reader->options.batch ? 0 : reader->ready_count);
	/* Threads that have enough to do yet are no reason to hurry. */
	int wake = news && (reader->any_news || is_short_of_work(reader));
	if (reader->options.batch && reader->ready_count == reader->outstanding)
		wake = 1;
	if (!wake && !reader->failure)
		return;
	reader->waiting = 0;
	reader->tell = 1;
}

void dpx_reader_settle_locked(struct dpx_reader *reader, struct dpx_item *item)
{
	item->state = DPX_ITEM_DONE;
	item->promised = 1;
	while (reader->unfinished && reader->unfinished->state == DPX_ITEM_DONE) {
		reader->unfinished = reader->unfinished->next;
		if (reader->options.ordered)
			reader->ready_count++;
	}
	if (!reader->options.ordered) {
		dpx_item_enqueue(&reader->done, item);
		reader->ready_count++;
	}
}

void dpx_reader_push(struct dpx_reader *reader, struct dpx_item **items, size_t count)
{
	pthread_mutex_lock(&reader->lock);
	for (size_t i = 0; i < count; i++) {
		struct dpx_item *item = items[i];
		item->state = DPX_ITEM_PENDING;
		item->position = reader->positions++;
		item->prev = reader->last;
		item->next = NULL;
		*(reader->last ? &reader->last->next : &reader->first) = item;
		reader->last = item;
		if (!reader->pending)
			reader->pending = item;
		if (!reader->unfinished)
			reader->unfinished = item;
		if (!reader->turn && !item->promised)
			reader->turn = item;
	}
	reader->pending_count += (unsigned)count;
	reader->outstanding += (unsigned)count;
	dpx_reader_spawn_locked(reader);
	dpx_reader_unlock(reader);
}

static void unlink_locked(struct dpx_reader *reader, struct dpx_item *item)
{
	if (reader->turn == item)
		reader->turn = item->next;
	*(item->prev ? &item->prev->next : &reader->first) = item->next;
	*(item->next ? &item->next->prev : &reader->last) = item->prev;
	item->prev = item->next = NULL;
	reader->outstanding--;
	reader->ready_count--;
}

static void take_one(struct dpx_reader *reader, struct dpx_item *item, struct dpx_taken *taken)
{
	unlink_locked(reader, item);
	taken->done[taken->done_count++] = item;
	reader->stats.items++;
	reader->stats.bytes += item->got;
	reader->stats.errors += item->status.err != 0;
}

/* Several at once, unless they are large: their memory is free again only when the last of them was used. */
static void collect_locked(struct dpx_reader *reader, struct dpx_taken *taken)
{
	uint64_t bytes = 0;
	while (reader->wanting.count && taken->wanting_count < DPX_TAKE_MOST)
		taken->wanting[taken->wanting_count++] = dpx_item_dequeue(&reader->wanting);
	if (reader->options.batch && reader->ready_count < reader->outstanding)
		return;
	while (reader->ready_count && taken->done_count < DPX_TAKE_MOST) {
		struct dpx_item *item = reader->options.ordered ? reader->first : reader->done.first;
		bytes += item->held;
		if (taken->done_count && bytes > reader->options.max_bytes / 16)
			break;
		if (!reader->options.ordered)
			dpx_item_dequeue(&reader->done);
		take_one(reader, item, taken);
	}
}

static int64_t look_every(const struct dpx_reader *reader)
{
	int64_t span = reader->options.timeout_ns / 4;
	return span < LOOK_LEAST_NS ? LOOK_LEAST_NS : span > LOOK_MOST_NS ? LOOK_MOST_NS : span;
}

/* At most so long until `until`, or until it is time to look over the items. */
static unsigned slice_ms(const struct dpx_reader *reader, int64_t now, int64_t until)
{
	int64_t span = until - now;
	if (reader->options.timeout_ns && span > look_every(reader))
		span = look_every(reader);
	return span < 1000000 ? 1 : (unsigned)(span / 1000000);
}

/* Sleep until there may be something, or it is time to look over the items, or `until`. */
static void wait_locked(struct dpx_reader *reader, int64_t now, int64_t until, int *napped)
{
	if (reader->options.timeout_ns && until > now + look_every(reader))
		until = now + look_every(reader);
	reader->any_news = *napped || is_short_of_work(reader);
	if (!reader->any_news && until > now + NAP_NS)
		until = now + NAP_NS;
	*napped = 1;
	reader->waiting = 1;
	dpx_reader_wait_locked(reader, &reader->news, until);
	reader->waiting = 0;
}

/* Why a take cannot go on, or 0. */
static int stopped_locked(struct dpx_reader *reader)
{
	if (atomic_load_explicit(&reader->cancelled, memory_order_relaxed))
		return ECANCELED;
	if (atomic_load_explicit(&reader->session->closed, memory_order_relaxed))
		return EBADF;
	int failure = reader->failure;
	reader->failure = 0;
	return failure;
}

int dpx_reader_take(struct dpx_reader *reader, unsigned wait_ms, struct dpx_taken *taken)
{
	int64_t start = dpx_now_ns(), now = start, until = start + (int64_t)wait_ms * 1000000;
	int napped = 0, rc;
	taken->done_count = taken->wanting_count = 0;
	pthread_mutex_lock(&reader->lock);
	if (reader->tasks == 0)
		dpx_reader_spawn_locked(reader);
	for (;;) {
		rc = stopped_locked(reader);
		if (rc)
			break;
		if (reader->options.timeout_ns && now - reader->expired_at >= look_every(reader))
			dpx_reader_expire_locked(reader, now);
		if (wait_ms) /* else the caller is in a hurry */
			dpx_reader_send_locked(reader);
		collect_locked(reader, taken);
		if (taken->done_count || taken->wanting_count || reader->outstanding == 0)
			break;
		if (now >= until) {
			rc = EAGAIN;
			break;
		}
		if (!dpx_reader_help_locked(reader, slice_ms(reader, now, until)))
			wait_locked(reader, now, until, &napped);
		now = dpx_now_ns();
	}
	dpx_reader_rest_locked(reader, now);
	reader->stats.wait_ns += now - start;
	dpx_reader_unlock(reader);
	return rc;
}

static void blank(struct dpx_item *item, uint64_t keep)
{
	struct dpx_item fresh = {.path = item->path, .path_room = item->path_room};
	if (item->buffer && item->buffer->capacity <= keep)
		fresh.buffer = item->buffer;
	else
		dpx_buffer_release(item->buffer);
	*item = fresh;
}

void dpx_reader_recycle(struct dpx_reader *reader, struct dpx_item **items, size_t count)
{
	uint64_t keep = reader->keep;
	/* Memory goes back before others are told that there is some. */
	for (size_t i = 0; i < count; i++) {
		uint64_t held = items[i]->held;
		blank(items[i], keep);
		items[i]->held = held;
	}
	pthread_mutex_lock(&reader->lock);
	for (size_t i = 0; i < count; i++)
		dpx_reader_unhold_locked(reader, items[i]);
	if (reader->parked_count)
		dpx_reader_unpark_locked(reader);
	dpx_reader_unlock(reader);
}
