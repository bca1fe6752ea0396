/* Memory that files are read into, never zero-filled, kept for reuse by size class so that a big buffer is not
 * mapped and faulted in again for each file.
 *
 * The pool outlives its owner while buffers are out: each buffer holds a reference. */
#ifndef DPX_BUFFERS_H
#define DPX_BUFFERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct dpx_buffers;

struct dpx_buffer {
	unsigned char *data;       /* owned; 64-byte aligned */
	size_t capacity;           /* bytes */
	struct dpx_buffers *pool;  /* one reference, given back with the buffer */
	struct dpx_buffer *next;   /* of the free list */
};

/* *buffers: owned by the caller until release. Returns 0 or an errno. */
int dpx_buffers_create(struct dpx_buffers **buffers);
void dpx_buffers_release(struct dpx_buffers *buffers);

/* The capacity of a buffer for `bytes` bytes: at most a quarter more (and a page). */
size_t dpx_buffers_capacity(size_t bytes);

/* Raise (or, negative, lower again) how many bytes are kept for reuse. Each reader adds its own bound while it is
 * open; a few MiB are always kept. */
void dpx_buffers_keep(struct dpx_buffers *buffers, int64_t bytes);

/* *buffer: owned by the caller until dpx_buffer_release(), which accepts NULL. Returns 0 or ENOMEM. */
int dpx_buffers_get(struct dpx_buffers *buffers, size_t bytes, struct dpx_buffer **buffer);
void dpx_buffer_release(struct dpx_buffer *buffer);

struct dpx_buffers_stats {
	uint64_t live;       /* buffers in use */
	uint64_t live_bytes; /* their capacity */
	uint64_t kept_bytes; /* capacity of those kept for reuse */
};
void dpx_buffers_stats(struct dpx_buffers *buffers, struct dpx_buffers_stats *out);

#endif
