#include <errno.h>

#include "monotonic.h"
#include "reader_state.h"

/* Put `fresh`, which is done, in the place of `item` and leave that to its thread. */
static void replace_locked(struct dpx_reader *reader, struct dpx_item *item, struct dpx_item *fresh)
{
	fresh->tag = item->tag;
	fresh->position = item->position;
	fresh->state = DPX_ITEM_RUNNING; /* until settled */
	fresh->status = (struct dpx_status){.err = ETIMEDOUT, .op = atomic_load(&item->opened) ? DPX_OP_READ : DPX_OP_OPEN};
	fresh->prev = item->prev;
	fresh->next = item->next;
	*(item->prev ? &item->prev->next : &reader->first) = fresh;
	*(item->next ? &item->next->prev : &reader->last) = fresh;
	if (reader->turn == item)
		reader->turn = fresh;
	if (reader->unfinished == item)
		reader->unfinished = fresh;
	item->abandoned = 1;
	item->tag = NULL;
	item->prev = item->next = NULL;
	atomic_fetch_add(&reader->session->counters.graveyard, 1);
	reader->held -= item->held; /* and item->held is the thread's to read */
	reader->tasks -= (unsigned)item->in_call;
	reader->calls -= (unsigned)item->in_call;
	if (--reader->busy == 0)
		dpx_adapt_pause(&reader->adapt, dpx_now_ns());
	dpx_reader_settle_locked(reader, fresh);
}

void dpx_reader_expire_locked(struct dpx_reader *reader, int64_t now)
{
	int64_t timeout = reader->options.timeout_ns;
	struct dpx_item *next;
	if (timeout == 0)
		return;
	reader->expired_at = now;
	for (struct dpx_item *item = reader->unfinished; item && item != reader->pending; item = next) {
		next = item->next;
		if (item->state != DPX_ITEM_RUNNING || item->busy_ns + (now - item->busy_since) < timeout)
			continue;
		struct dpx_item *fresh = dpx_item_new();
		if (!fresh)
			break; /* no memory to say so: next time */
		replace_locked(reader, item, fresh);
	}
	if (reader->parked_count)
		dpx_reader_unpark_locked(reader);
	else
		dpx_reader_spawn_locked(reader);
}
