/* What the files of the batch reader share; nobody else includes this. Functions named *_locked are called under
 * the reader's lock, all others without. */
#ifndef DPX_READER_STATE_H
#define DPX_READER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "adapt.h"
#include "reader.h"

/* First in, first out, through `link`. Zeroed memory is an empty one. */
struct dpx_item_queue {
	struct dpx_item *first, *last; /* borrowed from the list of those not taken */
	unsigned count;
};

struct dpx_reader {
	struct dpx_session *session; /* one reference */
	struct dpx_read_options options;
	atomic_uint refs; /* the owner's and one for each task of the pool */
	atomic_int cancelled;

	pthread_mutex_t lock; /* all that follows */
	pthread_cond_t news;  /* for the consumer */
	pthread_cond_t idle;  /* no task is left */

	struct dpx_item *first, *last; /* owned: all that were pushed and not taken, in request order */
	struct dpx_item *pending;      /* the first that no thread has had */
	struct dpx_item *turn;         /* the first without a promise of memory */
	struct dpx_item *unfinished;   /* the first that is not done */
	unsigned outstanding;          /* length of that list */
	unsigned pending_count;
	unsigned parked_count;
	unsigned open_count;           /* items that wait with their file open: parked, wanting, ready */
	unsigned ready_count;          /* items that the consumer could take now */
	struct dpx_item_queue ready;   /* DPX_ITEM_READY */
	struct dpx_item_queue wanting; /* DPX_ITEM_WANTING that the consumer does not know of */
	struct dpx_item_queue done;    /* as completed, unless ordered */

	uint64_t held;  /* bytes promised to items not recycled */
	uint64_t guess; /* bytes that the last small file took */
	uint64_t positions;

	unsigned tasks; /* calls submitted to the pool and not over, those that hang left out */
	unsigned busy;  /* of them, those that have an item */
	int failure;    /* why not even one task could be submitted */
	struct dpx_adapt adapt;

	int waiting;  /* the consumer sleeps */
	int any_news; /* and wants to know of a single item */
	int64_t expired_at; /* when items were last looked over for time-outs */
	uint64_t keep;      /* largest buffer that stays with its item */
	struct dpx_read_stats stats;
};

/* read_file.c: the calls to the store, for one item that belongs to the calling thread. begin opens and finds out
 * `want`; finish reads into dest, or to the end of a file that does not tell its size, and closes. Both set
 * status and close on failure, and return its errno. */
int dpx_item_begin(struct dpx_reader *reader, struct dpx_item *item);
int dpx_item_finish(struct dpx_reader *reader, struct dpx_item *item);
int dpx_item_fail(struct dpx_reader *reader, struct dpx_item *item, enum dpx_op op, int err);

/* read_memory.c: promises. */

/* Memory for an opened item. EAGAIN: the item was parked, or waits for the consumer, and is no longer the thread's. */
int dpx_reader_find_memory(struct dpx_reader *reader, struct dpx_item *item);
/* Count so many more bytes, whatever the bound says: a file that turns out longer than it told. */
void dpx_reader_hold_more(struct dpx_reader *reader, struct dpx_item *item, uint64_t bytes);
/* Promise the item its guess, if that is certain not to be missed by others. */
void dpx_reader_guess_locked(struct dpx_reader *reader, struct dpx_item *item);
/* Let parked items go on for which there is memory now. */
void dpx_reader_unpark_locked(struct dpx_reader *reader);
void dpx_reader_unhold_locked(struct dpx_reader *reader, struct dpx_item *item);

/* read_work.c: threads. */

/* As many tasks as there is work for, up to the depth. */
void dpx_reader_spawn_locked(struct dpx_reader *reader);
/* The calling thread has begun, or is done with, an item. */
void dpx_reader_busy_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now);
void dpx_reader_unbusy_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now);
/* Free an abandoned item with all it has. */
void dpx_item_dispose(struct dpx_reader *reader, struct dpx_item *item);

/* reader.c. drop gives up one reference. */
void dpx_reader_drop(struct dpx_reader *reader);
void dpx_item_enqueue(struct dpx_item_queue *queue, struct dpx_item *item);
struct dpx_item *dpx_item_dequeue(struct dpx_item_queue *queue);

/* read_take.c: the consumer's side. */

/* Something has changed that the consumer may be waiting for. */
void dpx_reader_wake_locked(struct dpx_reader *reader);
/* Mark an item as done; it counts for the consumer from now on. */
void dpx_reader_settle_locked(struct dpx_reader *reader, struct dpx_item *item);

/* read_expire.c: give up on items that are overdue; each is replaced by one that says ETIMEDOUT. */
void dpx_reader_expire_locked(struct dpx_reader *reader, int64_t now);

#endif
