/* What opening and reading files has taught, kept for whoever reads them next: the store's own handle of each file as
 * bytes, and its size. It lies in a file that is mapped, shared, by all processes that read the same data, at the same
 * time or later.
 *
 * A table of slots, found by a hash of 128 bits of a file's path, with a key of the table's own: no two paths meet but
 * by a chance of 2^-64. Nobody waits for anybody: a slot's first word counts its changes and is odd during one, readers
 * compare it before and after, and a checksum tells what a crash or a file system has left half-written. What is
 * kept is a hint, always: it may be out of date, and it may not be there.
 *
 * Its room is reserved piece by piece, when something is kept there; where the disk is full, or the file system reserves
 * nothing, nothing more is kept. */
#ifndef DPX_HANDLES_H
#define DPX_HANDLES_H

#include <stddef.h>
#include <stdint.h>

/* Longer ones are not kept. */
#define DPX_HANDLE_BYTES 344

struct dpx_handles;

struct dpx_handle {
	uint64_t size; /* of the file in bytes, or DPX_SIZE_UNKNOWN */
	size_t len;    /* of the handle */
	unsigned char bytes[DPX_HANDLE_BYTES];
};

struct dpx_handle_key {
	uint64_t words[2];
};

/* Open the table at `path`, or make it, for so many files and in so many bytes at most: more files than fit are not
 * kept. One that is there keeps its size; it is replaced if it was made for another `identity`, which says what data
 * its handles belong to, or is damaged. A table that may not be written to is only read. *handles: owned by the caller,
 * one reference. 0 or an errno (EEXIST: something else lies there). */
int dpx_handles_open(const char *path, const char *identity, uint64_t files, uint64_t max_bytes,
		     struct dpx_handles **handles);

/* retain returns its argument. release accepts NULL. Both may be called in a forked child, which shares the table. */
struct dpx_handles *dpx_handles_retain(struct dpx_handles *handles);
void dpx_handles_release(struct dpx_handles *handles);

/* Where the handle of a file is kept. root: what the path is relative to; its own key stands for it. */
struct dpx_handle_key dpx_handles_root(const struct dpx_handles *handles, const char *root);
struct dpx_handle_key dpx_handles_key(const struct dpx_handle_key *root, const char *path);

/* 1: *out is what was put there last; 0: nothing. */
int dpx_handles_get(const struct dpx_handles *handles, const struct dpx_handle_key *key, struct dpx_handle *out);

/* Keep it, in place of what was kept before; where there is no room, nothing happens. Of several at once, any wins. */
void dpx_handles_put(struct dpx_handles *handles, const struct dpx_handle_key *key, const struct dpx_handle *handle);

#endif
