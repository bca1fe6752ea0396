/* The names of one directory: an arena of text and an array of entries, sorted as the engine lists them.
 * A directory's name is kept with a '/' at its end, so plain byte order of the kept text is the order of the
 * whole paths: `a-b`, `a.txt`, `a/`. A table is filled by one thread; once sorted it only changes entry by
 * entry, and readers of other entries need no lock.
 */
#ifndef DPX_NAMES_H
#define DPX_NAMES_H

#include <stddef.h>
#include <stdint.h>

enum dpx_mark {
	DPX_MARK_NONE = 0,
	DPX_MARK_CHECK,  /* seen while the directory changed: must be looked at again before it is listed */
	DPX_MARK_DROPPED, /* not listed: it is gone, is listed under another name, or is no file */
	DPX_MARK_FAILED, /* could not be looked at; `size` holds the errno */
};

struct dpx_name {
	const char *text; /* borrowed from the table's arena, NUL-terminated */
	uint64_t key;     /* eight bytes of text, big-endian, after what all names share; for sorting only */
	uint64_t inode;
	uint64_t size;    /* bytes or DPX_SIZE_UNKNOWN */
	uint8_t kind;     /* enum dpx_kind */
	uint8_t mark;     /* enum dpx_mark */
};

/* Of the arena; names_join.c hangs one on another. */
struct dpx_name_chunk {
	struct dpx_name_chunk *next;
	size_t size, used;
	char text[];
};

struct dpx_names {
	struct dpx_name *entries; /* owned */
	size_t count;
	size_t capacity;
	size_t shared;                /* leading bytes that all names have in common */
	struct dpx_name_chunk *arena; /* owned, newest first */
	size_t bytes;                 /* memory held by the arena and the array */
};

/* Zeroed memory is an empty table. free accepts one and leaves one. */
void dpx_names_free(struct dpx_names *names);

/* Append a copy of `text` (len bytes, no NUL or '/' inside). Returns 0, ENOMEM or ENAMETOOLONG. */
int dpx_names_add(struct dpx_names *names, const char *text, size_t len, const struct dpx_name *like);

/* Move all entries of `from`, unsorted, behind those of `into`; `from` is empty then. Returns 0 or ENOMEM, and then
 * nothing has moved. */
int dpx_names_absorb(struct dpx_names *into, struct dpx_names *from);

/* Take back the entry added last, with its memory. */
void dpx_names_pop(struct dpx_names *names);

/* Give an entry its kind; a directory's text gains its '/'. Only before the table is sorted. */
void dpx_name_set_kind(struct dpx_name *entry, int kind);

/* Sort in place by text and drop repeated names. O(n log n), no further memory. */
void dpx_names_sort(struct dpx_names *names);

/* Index of an entry of a sorted table, or SIZE_MAX. */
size_t dpx_names_find(const struct dpx_names *names, const char *text);

/* Move into sorted `into` what only sorted `from` has; entries of `into` that `from` lacks are marked
 * DPX_MARK_CHECK, those in both take what `from` says. *unseen: how many inodes of `from` were new.
 * Returns 0 or ENOMEM; `into` is sorted again. */
int dpx_names_merge(struct dpx_names *into, const struct dpx_names *from, size_t *unseen);

struct dpx_inode_at {
	uint64_t inode;
	size_t index;
};

/* A table's inodes in ascending order (ties by index); the caller frees it. NULL: no memory. */
struct dpx_inode_at *dpx_names_by_inode(const struct dpx_names *names);

/* First of `count` pairs with this inode, or SIZE_MAX. */
size_t dpx_inode_find(const struct dpx_inode_at *pairs, size_t count, uint64_t inode);

#endif
