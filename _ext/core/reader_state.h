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
	struct dpx_read_options options; /* one reference to the handles, if the store has such */
	struct dpx_handle_key root;      /* where those of this session are kept */
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
	unsigned busy;  /* items in the store's hands: those with a task, and those under way on the queue */
	unsigned calls; /* of them, those that a task is in a call for */
	void *queue;    /* owned; NULL before the first read that nobody waits for */
	enum { QUEUE_NONE, QUEUE_OPENING, QUEUE_OPEN, QUEUE_REFUSED } queue_state;
	unsigned flying;        /* reads that are being started or are under way, those that were given up on too */
	atomic_int aloft;       /* those that were started, less those that have landed; for a moment less than none */
	int polling;            /* a thread is there to look after them, */
	int looking;            /* and does, at this moment */
	int helping;            /* the consumer does it itself: it is in a take */
	int64_t helped_at;      /* when it was last, 0: it will not for now */
	int helpless;           /* it has met what it cannot do; */
	uint64_t able_from;     /* it may be able again from the item at this position on */
	int unwatched;          /* there is no thread to be had: one reference, for what is under way */
	pthread_cond_t departs; /* for that thread */
	int failure;    /* why not even one task could be submitted */
	struct dpx_adapt adapt;

	unsigned to_wake; /* threads that are to be woken once the lock is given up, */
	int tell;         /* and whether the consumer is */
	int waiting;  /* the consumer sleeps */
	int any_news; /* and wants to know of a single item */
	int64_t expired_at; /* when items were last looked over for time-outs */
	uint64_t keep;      /* largest buffer that stays with its item */
	struct dpx_read_stats stats;
};

/* read_file.c: the calls to the store, for one item that belongs to the calling thread. begin opens and finds out
 * `want`; read reads into dest, or to the end of a file that does not tell its size, and closes. landed does the same
 * from where a first read of dpx_item_room() bytes has ended. All set status and close on failure. begin returns its
 * errno; the other two 0, or EAGAIN: the item turned out to need more memory, and is to be read again with it. */
int dpx_item_begin(struct dpx_reader *reader, struct dpx_item *item);
int dpx_item_read(struct dpx_reader *reader, struct dpx_item *item);
size_t dpx_item_room(const struct dpx_item *item);
int dpx_item_landed(struct dpx_reader *reader, struct dpx_item *item, int rc, size_t got);
int dpx_item_fail(struct dpx_reader *reader, struct dpx_item *item, enum dpx_op op, int err);

/* read_handles.c: files that were opened before. */

/* Open the item's file by a handle that was kept, and set known_size. 0, or an errno: it is to be opened by path. */
int dpx_item_recall(struct dpx_reader *reader, struct dpx_item *item);
/* An item was read: keep what is not kept yet of its file, which is open. */
void dpx_item_remember(struct dpx_reader *reader, struct dpx_item *item);

/* read_fly.c: reads that nobody waits for, where the store can do that. One thread looks after all of a reader's, and
 * never calls the store for anything else, so none of them is held up by a call that hangs. */

/* Start the read of an item, if there is something else for its task to do meanwhile. 1: it is no longer the
 * task's; 0: the task is to read it, or finds it abandoned. */
int dpx_reader_fly(struct dpx_reader *reader, struct dpx_item *item);

/* Where files are opened by handles, the consumer starts the reads and looks after them itself while it waits: no thread
 * is woken, and the store's library has one thread in it. A thread stands by, and looks after them once the consumer has
 * been out for a while. helps: whether it does. send: start what may be. help: wait for what is under way; 0: there is
 * nothing to wait for, or somebody else looks. rest: the consumer is out, from now on. */
int dpx_reader_helps_locked(const struct dpx_reader *reader);
void dpx_reader_send_locked(struct dpx_reader *reader);
int dpx_reader_help_locked(struct dpx_reader *reader, unsigned wait_ms);
void dpx_reader_rest_locked(struct dpx_reader *reader, int64_t now);

/* read_memory.c: promises. */

/* Memory for an opened item. EAGAIN: the item was parked, or waits for the consumer, and is no longer the thread's. */
int dpx_reader_find_memory(struct dpx_reader *reader, struct dpx_item *item);
/* Count so many more bytes, whatever the bound says: a file that turns out longer than it told. */
void dpx_reader_hold_more(struct dpx_reader *reader, struct dpx_item *item, uint64_t bytes);
/* An item turned out to need more than it was promised: its turn comes again. */
void dpx_reader_ask_again(struct dpx_reader *reader, struct dpx_item *item);
/* Promise the item its guess, if that is certain not to be missed by others. */
void dpx_reader_guess_locked(struct dpx_reader *reader, struct dpx_item *item);
/* Let parked items go on for which there is memory now. */
void dpx_reader_unpark_locked(struct dpx_reader *reader);
void dpx_reader_unhold_locked(struct dpx_reader *reader, struct dpx_item *item);

/* read_work.c: threads. */

/* As many tasks as there is work for, up to the depth. */
void dpx_reader_spawn_locked(struct dpx_reader *reader);
/* The next item that nobody has had, begun by the calling thread; NULL: there is none, or no more may be open. */
struct dpx_item *dpx_reader_next_locked(struct dpx_reader *reader, int64_t now);
/* The calling thread has begun, or is done with, an item. */
void dpx_reader_busy_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now);
void dpx_reader_unbusy_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now);
/* Whether a task would find something to begin or to go on with. */
int dpx_reader_has_work_locked(const struct dpx_reader *reader);
void dpx_reader_finish_locked(struct dpx_reader *reader, struct dpx_item *item, int64_t now);
/* Free an abandoned item with all it has. */
void dpx_item_dispose(struct dpx_reader *reader, struct dpx_item *item);

/* reader.c. drop gives up one reference. unlock gives up the lock and wakes whom that concerns, in this order: who is
 * woken before finds the lock taken, and sleeps again. wait_locked waits for a condition under the lock. */
void dpx_reader_drop(struct dpx_reader *reader);
void dpx_reader_unlock(struct dpx_reader *reader);
int dpx_reader_wait_locked(struct dpx_reader *reader, pthread_cond_t *cond, int64_t until);
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
