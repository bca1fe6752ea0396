/* One mounted root in one process, shared by everything that reads, lists or writes through it.
 *
 * Lifetime: reference-counted. Every reader, listing, open file and thread at work holds a reference; the last
 * one unmounts, whichever thread drops it. Closing only refuses new work and asks the running to stop, so it
 * never waits on a call to the store that does not return. Counts of buffers are with the buffers. */
#ifndef DPX_SESSION_H
#define DPX_SESSION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "adapt.h"
#include "io.h"
#include "status.h"

struct dpx_buffers;
struct dpx_pool;

/* Live objects and totals; each may be read at any time. */
struct dpx_counters {
	atomic_uint_fast64_t files_open;
	atomic_uint_fast64_t graveyard;    /* items given up on whose thread has not come back */
	atomic_uint_fast64_t readers_live;
	atomic_uint_fast64_t listings_live;
	atomic_uint_fast64_t reads;
	atomic_uint_fast64_t read_bytes;
	atomic_uint_fast64_t lists;
	atomic_uint_fast64_t handle_hits; /* files that were opened by a handle that had been kept */
};

struct dpx_session {
	struct dpx_io io;            /* a copy: wrappers fill in their own hooks */
	void *mount;                 /* owned */
	char *root;                  /* owned: what was mounted */
	pid_t pid;                   /* the process that opened it; no other may use it */
	unsigned generation;         /* the same as dpx_process_generation() counts: cheaper to ask */
	struct dpx_pool *pool;       /* owned; no thread before first use */
	struct dpx_buffers *buffers; /* owned */
	atomic_uint refs;
	atomic_int closed; /* running work looks at it at least every 50 ms, and at each item */
	pthread_mutex_t lock;
	struct dpx_adapt adapt[2]; /* what readers learnt last, of streams and of batches; under the lock */
	struct dpx_adapt listing_adapt; /* and listings */
	struct dpx_counters counters;
};

/* What to open. */
struct dpx_session_spec {
	const struct dpx_io *io; /* borrowed: a table, such as dpx_io_posix */
	const char *root;        /* borrowed for the call: what its mount hook takes */
	unsigned open_delay_us;  /* each open sleeps so long first; 0: none */
};

/* The table of that name, or NULL. */
const struct dpx_io *dpx_io_find(const char *name);

/* *session: owned by the caller, one reference. Returns 0 or an errno, then with a sentence in `why` where the errno
 * alone does not say enough, else "". */
int dpx_session_open(const struct dpx_session_spec *spec, struct dpx_session **session, char why[DPX_WHY_ROOM]);

/* retain returns its argument. release accepts NULL. Neither may be called in a forked child. */
struct dpx_session *dpx_session_retain(struct dpx_session *session);
void dpx_session_release(struct dpx_session *session);

/* Refuse new work, ask running work to stop, wait at most wait_ms for its threads. 0 or ETIMEDOUT. */
int dpx_session_close(struct dpx_session *session, unsigned wait_ms);

/* 0, or why the session cannot be used: EBADF closed, ECHILD opened by another process. */
int dpx_session_check(const struct dpx_session *session);

/* One call of the table each, for a path that must not lead out of the root. 0 or an errno. */
int dpx_session_stat(struct dpx_session *session, const char *path, struct dpx_stat *out);
int dpx_session_rename(struct dpx_session *session, const char *from, const char *to);
int dpx_session_remove(struct dpx_session *session, const char *path);

/* Open and close through the table, counting open files. Return 0 or an errno. */
int dpx_session_open_file(struct dpx_session *session, const char *path, void **file);
int dpx_session_open_saved(struct dpx_session *session, const char *path, const void *handle, size_t len, void **file);
void dpx_session_close_file(struct dpx_session *session, void *file);

#endif
