#include <errno.h>

#include "monotonic.h"
#include "reader_state.h"

/* What a file that does not tell its size is read into at first. */
#define UNTOLD_BYTES ((size_t)64 << 10)

/* Out of order only so much may be promised (see reader.h). As completed, nothing waits for the first one. */
static uint64_t early_bound(const struct dpx_reader *reader)
{
	return reader->options.ordered ? reader->options.max_bytes / 8 : reader->options.max_bytes;
}

static int in_turn(const struct dpx_reader *reader, const struct dpx_item *item)
{
	return reader->turn == item || !reader->turn;
}

/* first_parked: the item is the first of those that wait, so it passes nobody who does. */
static int may_hold(const struct dpx_reader *reader, const struct dpx_item *item, uint64_t bytes, int first_parked)
{
	uint64_t others = reader->held - item->held;
	uint64_t most = reader->options.max_bytes;
	int fits = bytes <= most && others <= most - bytes;
	if (in_turn(reader, item)) {
		if (others == 0 || fits)
			return 1;
		return reader->options.ordered && reader->first == item;
	}
	if (reader->parked_count && !first_parked)
		return 0;
	if (others == 0 && !reader->options.ordered)
		return 1;
	return fits && others + bytes <= early_bound(reader);
}

static void advance_turn(struct dpx_reader *reader)
{
	while (reader->turn && reader->turn->promised)
		reader->turn = reader->turn->next;
}

static void hold(struct dpx_reader *reader, struct dpx_item *item, uint64_t bytes)
{
	reader->held += bytes - item->held;
	item->held = bytes;
	item->promised = 1;
	advance_turn(reader);
}

void dpx_reader_unhold_locked(struct dpx_reader *reader, struct dpx_item *item)
{
	reader->held -= item->held;
	item->held = 0;
}

void dpx_reader_guess_locked(struct dpx_reader *reader, struct dpx_item *item)
{
	uint64_t want = dpx_item_want(item);
	uint64_t bytes = want == DPX_SIZE_UNKNOWN ? reader->guess : want ? dpx_buffers_capacity((size_t)want) : 0;
	if (item->dest || item->held || reader->parked_count || bytes == 0 || bytes > DPX_READ_DIRECT)
		return;
	if (reader->held + bytes > reader->options.max_bytes / 8)
		return;
	reader->held += bytes;
	item->held = bytes;
}

/* Give an item what it was promised: to a thread again, or to the consumer first. */
static void go_on(struct dpx_reader *reader, struct dpx_item *item)
{
	if (item->direct) {
		item->state = DPX_ITEM_WANTING;
		dpx_item_enqueue(&reader->wanting, item);
		dpx_reader_wake_locked(reader);
	} else {
		item->state = DPX_ITEM_READY;
		dpx_item_enqueue(&reader->ready, item);
	}
}

static struct dpx_item *first_parked(const struct dpx_reader *reader)
{
	struct dpx_item *item = reader->turn;
	while (item && item->state != DPX_ITEM_PARKED)
		item = item->next;
	return item;
}

void dpx_reader_unpark_locked(struct dpx_reader *reader)
{
	advance_turn(reader);
	while (reader->parked_count) {
		struct dpx_item *item = first_parked(reader);
		if (!item || !may_hold(reader, item, item->asked, 1))
			break;
		reader->parked_count--;
		hold(reader, item, item->asked);
		go_on(reader, item);
	}
	dpx_reader_spawn_locked(reader);
}

/* Under the lock: a promise, or a place among the parked. Returns 0 when the thread may go on itself. */
static int ask(struct dpx_reader *reader, struct dpx_item *item, uint64_t bytes, int direct)
{
	if (item->abandoned || atomic_load_explicit(&reader->cancelled, memory_order_relaxed))
		return ECANCELED;
	int granted = item->held >= bytes || may_hold(reader, item, bytes, 0);
	if (granted)
		hold(reader, item, bytes);
	if (granted && !direct)
		return 0;
	item->asked = bytes;
	item->direct = direct;
	reader->open_count++;
	dpx_reader_unbusy_locked(reader, item, dpx_now_ns());
	if (granted) {
		go_on(reader, item);
	} else {
		/* A guess that was too small is given back: it could keep others from their turn. */
		dpx_reader_unhold_locked(reader, item);
		item->state = DPX_ITEM_PARKED;
		reader->parked_count++;
		dpx_reader_unpark_locked(reader);
	}
	return EAGAIN;
}

int dpx_reader_find_memory(struct dpx_reader *reader, struct dpx_item *item)
{
	if (item->dest || item->want == 0)
		return 0;
	int direct = reader->options.consumer_memory && item->want != DPX_SIZE_UNKNOWN && item->want >= DPX_READ_DIRECT;
	size_t need = item->want == DPX_SIZE_UNKNOWN ? UNTOLD_BYTES : (size_t)item->want;
	uint64_t bytes = direct ? item->want : dpx_buffers_capacity(need);
	if (bytes < need)
		return ENOMEM;
	if (direct || bytes > item->held) {
		pthread_mutex_lock(&reader->lock);
		int rc = ask(reader, item, bytes, direct);
		dpx_reader_unlock(reader);
		if (rc)
			return rc;
	}
	if (item->buffer && item->buffer->capacity < need) {
		dpx_buffer_release(item->buffer);
		item->buffer = NULL;
	}
	if (!item->buffer) {
		int rc = dpx_buffers_get(reader->session->buffers, need, &item->buffer);
		if (rc)
			return rc;
	}
	item->dest = item->buffer->data;
	return 0;
}

void dpx_reader_ask_again(struct dpx_reader *reader, struct dpx_item *item)
{
	pthread_mutex_lock(&reader->lock);
	if (!item->abandoned) {
		dpx_reader_unhold_locked(reader, item);
		item->promised = 0;
		if (!reader->turn || reader->turn->position > item->position)
			reader->turn = item;
	}
	dpx_reader_unlock(reader);
	dpx_buffer_release(item->buffer);
	item->buffer = NULL;
	item->dest = NULL;
}

void dpx_reader_hold_more(struct dpx_reader *reader, struct dpx_item *item, uint64_t bytes)
{
	pthread_mutex_lock(&reader->lock);
	if (!item->abandoned) {
		reader->held += bytes;
		item->held += bytes;
	}
	dpx_reader_unlock(reader);
}

size_t dpx_reader_promise(struct dpx_reader *reader, struct dpx_item **items, size_t count)
{
	size_t done = 0;
	pthread_mutex_lock(&reader->lock);
	advance_turn(reader);
	uint64_t most = reader->turn ? early_bound(reader) : reader->options.max_bytes;
	for (; done < count && !reader->parked_count; done++) {
		uint64_t bytes = dpx_item_want(items[done]);
		int fits = bytes <= most && reader->held <= most - bytes;
		if (bytes == DPX_SIZE_UNKNOWN || (!fits && (reader->turn || reader->held > 0)))
			break;
		reader->held += bytes;
		items[done]->held = bytes;
		items[done]->promised = 1;
	}
	dpx_reader_unlock(reader);
	return done;
}

void dpx_reader_provide(struct dpx_reader *reader, struct dpx_item *item, void *dest, void *owner)
{
	pthread_mutex_lock(&reader->lock);
	item->dest = dest;
	item->owner = owner;
	if (!dest) /* the file must be closed, and closing may block: a thread does it */
		item->status = (struct dpx_status){.err = ENOMEM, .op = DPX_OP_READ};
	item->state = DPX_ITEM_READY;
	dpx_item_enqueue(&reader->ready, item);
	dpx_reader_spawn_locked(reader);
	dpx_reader_unlock(reader);
}
