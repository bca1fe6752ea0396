/* The names of one directory, read so that a change under way loses and repeats nothing: passes are repeated
 * until one of them saw the directory unchanged from its start to its end, and joined where none did. */
#ifndef DPX_DIR_READ_H
#define DPX_DIR_READ_H

#include "io.h"
#include "names.h"

/* Passes over a directory that never holds still. Two in a row that bring no new inode are enough: an entry
 * is missed only if it is renamed past the reader in each of them. */
#define DPX_DIR_PASSES 6

struct dpx_dir_read {
	const struct dpx_io *io;
	int keep_dirs;      /* 0: directories are left out */
	int sizes;          /* the hint for dir_list */
	const char *inside; /* borrowed: where to resume, see dpx_name_resumes(), or NULL */

	/* Asked for each entry; non-zero ends the reading with that value. bytes: memory held by then. */
	int (*grown)(void *arg, size_t bytes);
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
 * leads nowhere; *inode: of the name itself, 0 where it was not asked. Returns 0 or an errno. */
int dpx_dir_look(const struct dpx_io *io, void *dir, const char *name, int kind, enum dpx_look *look,
		 uint64_t *size, uint64_t *inode);

#endif
