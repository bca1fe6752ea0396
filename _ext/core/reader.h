/* Many files or ranges read at once, in request order or as completed, bounded in count and in bytes.
 *
 * One consumer at a time pushes requests and takes items; any thread may cancel. Threads of the session's pool do
 * the rest. An item belongs to the consumer while it is filled in and after it was taken, to the reader in
 * between, and to its thread alone once it was given up on (timed out, or cancelled while in a call to the store).
 *
 * Memory. Bytes count from when memory is promised to an item until it is recycled. Promises are made in request
 * order within max_bytes, and out of order within an eighth of it, so that one slow open at the head does not
 * stop the others, and they cannot lock out the head. A file larger than max_bytes is read when nothing
 * else holds memory, apart from that eighth. An item that must wait for memory keeps its file open and no thread.
 *
 * Whose memory: `dest` set before the push, or provided when asked for (a large file whose size was not known),
 * belongs to `owner`, an opaque pointer of the consumer's; otherwise data lands in a buffer of the session. */
#ifndef DPX_READER_H
#define DPX_READER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "buffers.h"
#include "handles.h"
#include "session.h"
#include "status.h"

struct dpx_reader;

enum dpx_item_state {
	DPX_ITEM_NEW,     /* the consumer's */
	DPX_ITEM_PENDING, /* pushed, no thread yet */
	DPX_ITEM_RUNNING, /* a thread is in a call to the store for it, or its read is under way */
	DPX_ITEM_PARKED,  /* open, waiting for a promise of memory */
	DPX_ITEM_WANTING, /* open and promised, waiting for the consumer's memory */
	DPX_ITEM_READY,   /* open and with memory, waiting for a thread */
	DPX_ITEM_DONE,
};

struct dpx_item {
	/* The request. */
	void *tag;         /* the consumer's; never looked at here */
	uint64_t position; /* counts pushed items from 0; set by the push */
	uint64_t offset;
	uint64_t length;   /* bytes, or DPX_SIZE_UNKNOWN: to the end of the file */
	uint64_t size;     /* of the whole file, or DPX_SIZE_UNKNOWN */
	char *path;        /* owned; see dpx_item_set_path() */
	size_t path_room;

	/* Where the data goes. */
	void *dest;                /* NULL until there is memory */
	void *owner;               /* of dest, if it is not `buffer` */
	struct dpx_buffer *buffer; /* owned or NULL */

	/* The result. */
	struct dpx_status status;
	uint64_t got; /* bytes at dest */

	/* The reader's. */
	enum dpx_item_state state;
	int abandoned;      /* its thread disposes of it */
	int in_call;        /* a task is in a call for it; giving up on it is giving up on that task */
	enum { DPX_FLOWN_NOT, DPX_FLOWN_FULL, DPX_FLOWN_ODD } flown; /* what a task is to look into */
	int promised;       /* counts in `held`, or needs no memory any more */
	uint64_t held;      /* bytes promised */
	uint64_t asked;     /* bytes a parked item waits for */
	int direct;         /* of the consumer's memory */
	uint64_t want;      /* bytes to read, or DPX_SIZE_UNKNOWN */
	uint64_t file_size; /* as fstat said, or DPX_SIZE_UNKNOWN */
	unsigned beginnings; /* after the first */
	void *file;         /* open, or NULL */
	int recalled;       /* by a handle that was kept: all that goes wrong is looked at again by path */
	uint64_t known_size; /* of the file, as was kept with its handle; or DPX_SIZE_UNKNOWN */
	atomic_int opened;  /* what a time-out says was being done */
	int64_t busy_since; /* of the call under way */
	int64_t busy_ns;    /* of earlier ones */
	struct dpx_item *prev, *next; /* of those not taken, in request order */
	struct dpx_item *link;        /* of the queue it stands in */
};

struct dpx_read_options {
	unsigned max_in_flight;
	uint64_t max_bytes;
	int ordered;
	unsigned depth;        /* threads; 0: adapt */
	int64_t timeout_ns;    /* of an item in calls to the store; 0: none */
	int verify_size;       /* a file longer than it was said to be is an error as well: EFBIG */
	int consumer_memory;   /* files from DPX_READ_DIRECT bytes on ask the consumer for memory */
	int batch;             /* the consumer waits for all that it pushed */
	struct dpx_handles *handles; /* where handles are kept, or NULL; borrowed for the call, the reader retains it */
	/* The tag or owner of an abandoned item is nobody's any more. Called from any thread, without locks. */
	void (*disown)(void *tag_or_owner);
};

/* From here on a copy costs more than asking the consumer to allocate. */
#define DPX_READ_DIRECT ((uint64_t)64 << 10)

/* Fail with ENOMEM. The reader holds a reference to the session. No thread is started yet. */
int dpx_reader_open(struct dpx_session *session, const struct dpx_read_options *options, struct dpx_reader **out);

/* A blank item or NULL; free accepts NULL and gives back its buffer, never tag or owner. */
struct dpx_item *dpx_item_new(void);
void dpx_item_free(struct dpx_item *item);
int dpx_item_set_path(struct dpx_item *item, const char *path, size_t len);

/* Bytes this item will need as far as the request tells, or DPX_SIZE_UNKNOWN. */
uint64_t dpx_item_want(const struct dpx_item *item);

/* Promise memory, in order, to as many of these items as possible before they are pushed; how many. Those have
 * `held` set, and the consumer must set dest and owner before it pushes them. */
size_t dpx_reader_promise(struct dpx_reader *reader, struct dpx_item **items, size_t count);

/* Hand over items in request order. They stay the reader's until taken. How many may be out at once is the
 * consumer's affair. */
void dpx_reader_push(struct dpx_reader *reader, struct dpx_item **items, size_t count);

#define DPX_TAKE_MOST 32

struct dpx_taken {
	struct dpx_item *done[DPX_TAKE_MOST]; /* transferred to the consumer */
	size_t done_count;
	struct dpx_item *wanting[DPX_TAKE_MOST]; /* still the reader's: provide memory for each */
	size_t wanting_count;
};

/* What there is, waiting at most wait_ms for it. Returns 0, with nothing at all in *taken when nothing is left
 * to wait for; EAGAIN: not yet; ECANCELED; EBADF: the session was closed; or why no thread could be started. */
int dpx_reader_take(struct dpx_reader *reader, unsigned wait_ms, struct dpx_taken *taken);

/* Memory of `want` bytes for an item that wants it (dest NULL: there is none, it fails with ENOMEM). */
void dpx_reader_provide(struct dpx_reader *reader, struct dpx_item *item, void *dest, void *owner);

/* The data of these taken items was used; their promises end. A buffer small enough stays with its item for the
 * next request. Items are blank again, and the consumer's. */
void dpx_reader_recycle(struct dpx_reader *reader, struct dpx_item **items, size_t count);

struct dpx_read_stats {
	uint64_t items, bytes, errors; /* taken */
	int64_t wait_ns;               /* consumers waited */
	unsigned depth, threads, in_flight;
};
void dpx_reader_stats(struct dpx_reader *reader, struct dpx_read_stats *out);

/* From any thread: take answers ECANCELED from now on, threads stop after the item they are at. */
void dpx_reader_cancel(struct dpx_reader *reader);

/* After a cancel, with no consumer inside: wait at most wait_ms for threads; 0 or ETIMEDOUT. */
int dpx_reader_drain(struct dpx_reader *reader, unsigned wait_ms);

/* After a cancel, with no consumer inside: all items that were never taken, chained through `link`, for the consumer
 * to free with their tags and owners. Those whose thread is still out are left to it. */
struct dpx_item *dpx_reader_reap(struct dpx_reader *reader);

/* The consumer's farewell, after the reaping or when nothing is outstanding. Threads that hang keep what they need.
 * Accepts NULL. */
void dpx_reader_close(struct dpx_reader *reader);

#endif
