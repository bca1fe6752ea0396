/* Handles that a listing comes by, kept in a file without a name until the table that they belong in can be made: a table
 * belongs to an index, and which one that is, and how many files it has, is known when it is complete. */
#ifndef DPX_HANDLES_SPOOL_H
#define DPX_HANDLES_SPOOL_H

#include "handles.h"

struct dpx_spool;

/* In this directory, for a table of so many bytes at most. masks: shell patterns of base names, one of which a file
 * must match to be kept; none: all are. *spool: owned by the caller, one reference. 0 or an errno. */
int dpx_spool_open(const char *directory, uint64_t max_bytes, const char *const *masks, size_t mask_count,
		   struct dpx_spool **spool);

/* retain returns its argument. release accepts NULL. */
struct dpx_spool *dpx_spool_retain(struct dpx_spool *spool);
void dpx_spool_release(struct dpx_spool *spool);

/* As dpx_handles_root(): of the table that will be made. */
struct dpx_handle_key dpx_spool_root(const struct dpx_spool *spool, const char *root);

/* Keep the handle of the file `name` in the directory `dir` (its path with a '/' at the end, or ""); where there is no
 * room, nothing happens. From any thread. */
void dpx_spool_put(struct dpx_spool *spool, const struct dpx_handle_key *root, const char *dir, const char *name,
		   const struct dpx_handle *handle);

/* Let go of all that was put, and keep nothing more: the room is needed. From any thread. */
void dpx_spool_give_up(struct dpx_spool *spool);

/* Make the table, as dpx_handles_open() would, in place of one that is there, of all that was put. It appears when it is
 * complete. When nobody puts any more. 0 or an errno (EEXIST: something else lies there). */
int dpx_spool_settle(struct dpx_spool *spool, const char *path, const char *identity, uint64_t files,
		     uint64_t max_bytes);

#endif
