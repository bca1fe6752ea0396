/* The names of one directory, read so that a change under way loses and repeats nothing: passes are repeated
 * until one of them saw the directory unchanged from its start to its end, and joined where none did. */
#ifndef DPX_DIR_READ_H
#define DPX_DIR_READ_H

#include "handles.h"
#include "io.h"
#include "names.h"

/* Passes over a directory that never holds still. Two in a row that bring no new inode are enough: an entry
 * is missed only if it is renamed past the reader in each of them. */
#define DPX_DIR_PASSES 6

/* Entries that are looked at in one step: few, as the depth is judged by them. */
#define DPX_DIR_STEP 16

/* One of several steps of a work that may be done at the same time: 0 or an errno, which ends the work. */
typedef int (*dpx_dir_step)(void *of, size_t number);

struct dpx_dir_read {
	const struct dpx_io *io;
	int keep_dirs;      /* 0: directories are left out */
	int kinds;          /* 0: entries whose kind does not come with the name are taken for files */
	int sizes;          /* sizes are asked for where kinds are */
	const char *inside; /* borrowed: where to resume, see dpx_name_resumes(), or NULL */

	/* Asked for each entry, by any of the threads; non-zero ends the reading with that value. bytes: memory held by
	 * then. */
	int (*grown)(void *arg, size_t bytes);

	/* Do steps 0 to count - 1, of so many calls to the store each, perhaps on several threads; the first error. */
	int (*share)(void *arg, size_t count, size_t calls, dpx_dir_step step, void *of);

	/* Told for each file of which there is a handle, by any of the threads; NULL: handles are not wanted. */
	void (*keep_handle)(void *arg, const char *name, const struct dpx_handle *handle);
	void *arg;

	uint64_t version; /* result: dir_version after the last pass */
	size_t left_out;  /* result: special files (sockets, pipes, devices) that were not kept */
};

/* Fill an empty table, sorted. Entries whose directory kept changing may carry DPX_MARK_CHECK. Returns 0 or
 * an errno; then the table is empty again. */
int dpx_dir_read(struct dpx_dir_read *job, void *dir, struct dpx_names *names);

enum dpx_look {
	DPX_LOOK_LISTED, /* a file, or a link to one or to nothing */
	DPX_LOOK_OUT,    /* a link to a directory or a special file: never listed */
	DPX_LOOK_GONE,   /* no such name, or a directory under it now */
};

/* Look at one name that a pass took for a file or a link. *size: bytes, DPX_SIZE_UNKNOWN for a link that
 * leads nowhere; *inode: of the name itself, 0 where it was not asked; *handle, if not NULL: of the file, its
 * len 0 where there is none. Returns 0 or an errno. */
int dpx_dir_look(const struct dpx_io *io, void *dir, const char *name, int kind, enum dpx_look *look,
		 uint64_t *size, uint64_t *inode, struct dpx_handle *handle);

/* One entry, by dir_glance or by dir_stat, and its handle in place of the room for one. */
int dpx_dir_ask(const struct dpx_io *io, void *dir, const char *name, struct dpx_glance *glance,
		struct dpx_handle *handle);

#endif
