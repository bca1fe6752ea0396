/* A recursive listing in path order, made by several threads at once and taken by one consumer.
 *
 * Order: ascending bytes of the whole path (a directory's name counts with its '/'), the same on every call.
 * Each directory is one table of names (names.h), read whole and sorted. Tables form a tree; the consumer
 * walks it depth first, and runners do ahead of it, in the same order, what it will need: read directories (in
 * as many parts as the store has them in, and the kinds of what is in them in steps), then look at their files in
 * chunks, so that a wide directory occupies as many runners as many small ones.
 *
 * Memory: the tables of the directories on the way from the root to the consumer, plus read-ahead of at most
 * DPX_LIST_AHEAD_BYTES (and 1 MiB for each runner) in tables that the consumer has not reached. A larger
 * directory met while reading ahead is put off until the consumer stands before it. At most
 * DPX_LIST_AHEAD_LOOKS files are looked at ahead of the consumer, tables below one chunk aside.
 *
 * Listed: regular files, and symbolic links by what they lead to: a file with its size, nothing (or nothing
 * that may be reached) with DPX_SIZE_UNKNOWN, a directory not at all: its files are listed where they are,
 * and no walk goes in circles. Only the listing's root itself may be a link to a directory. Sockets, pipes
 * and devices are left out. Both are counted in `left_out`.
 *
 * Changes under way: see dir_read.h for a directory that changes while it is read. A file that was renamed
 * between the reading and the look appears under its new name where the order still allows, else under its
 * old one; one that was removed does not appear; so with directories, whose files keep the old name.
 *
 * Errors come at their place in the order, after all entries before them, and stay.
 */
#ifndef DPX_LISTING_H
#define DPX_LISTING_H

#include <stddef.h>
#include <stdint.h>

#include "session.h"
#include "status.h"

#define DPX_LIST_AHEAD_BYTES ((size_t)16 << 20)
#define DPX_LIST_AHEAD_LOOKS ((size_t)64 << 10)
#define DPX_LIST_BLOCK 4096
#define DPX_LIST_DEEPEST 32

struct dpx_spool;

struct dpx_list_options {
	const char *path;        /* a directory or one file; "" is the root */
	const char *start_after; /* a path as the listing gives it: only what comes after it; NULL: all */
	int recursive;           /* 0: the files of the directory itself only */
	int sizes;               /* 0: sizes are not asked for, and mostly unknown */
	int kinds;               /* 0, without sizes: names whose kind does not come with them are taken for files */
	struct dpx_spool *spool; /* borrowed for the call, or NULL: where to keep handles that looking gives */
	unsigned depth;          /* runners at once; 0: found by trying (adapt.h) */
};

struct dpx_list_entry {
	const char *path; /* borrowed from the listing until the next call; not NUL-terminated */
	size_t path_len;
	uint64_t size;    /* bytes or DPX_SIZE_UNKNOWN */
};

struct dpx_list_counts {
	uint64_t entries, directories, left_out, depth;
};

struct dpx_listing;

/* Begin; all strings are copied, nothing is asked of the store yet. The listing holds a reference to the
 * session and runs on its pool. *out: owned by the caller until dpx_listing_close(). */
int dpx_listing_open(struct dpx_session *session, const struct dpx_list_options *options,
		     struct dpx_listing **out);

/* The next entries, waiting at most wait_ms for them: 0 with *count > 0, or *count == 0 at the end (also after
 * a cancel); EAGAIN when none are there yet; else the listing's error, on this and every further call (EBADF when
 * the session was closed meanwhile). One thread at a time. */
int dpx_listing_next(struct dpx_listing *listing, unsigned wait_ms, const struct dpx_list_entry **entries,
		     size_t *count);

/* Of the error that next returned: what was being done, and to which path (borrowed; len without NUL). */
const struct dpx_status *dpx_listing_error(struct dpx_listing *listing, const char **path, size_t *path_len);

void dpx_listing_counts(struct dpx_listing *listing, struct dpx_list_counts *out);

/* Stop early, from any thread: next answers with the end, runners stop at their next entry. */
void dpx_listing_cancel(struct dpx_listing *listing);

/* Cancel, wait at most wait_ms for the runners, and give up the caller's reference. A runner that hangs in the
 * store keeps the rest alive until it returns. Accepts NULL. */
void dpx_listing_close(struct dpx_listing *listing, unsigned wait_ms);

#endif
