/* One pass over a directory. Private to dir_read.c and dir_pass.c. */
#ifndef DPX_DIR_PASS_H
#define DPX_DIR_PASS_H

#include <stdatomic.h>

#include "dir_read.h"

struct dpx_dir_part;

struct dpx_dir_pass {
	struct dpx_dir_read *job;
	void *dir;
	struct dpx_names *names;       /* to be filled, empty at first */
	const struct dpx_names *known; /* of earlier passes, sorted: what they told of an entry holds */
	size_t held;                   /* memory of earlier passes that are still kept */

	/* The pass's own. */
	atomic_size_t bytes; /* of all parts, while they are read */
	atomic_size_t left_out;
	struct dpx_dir_part *parts;
	unsigned part_count;
};

/* Names in as many parts as the store has, then the kinds of those that came without one; sorted. 0 or an errno. */
int dpx_dir_pass(struct dpx_dir_pass *pass);

/* Take out what is marked DPX_MARK_DROPPED. */
void dpx_dir_drop_marked(struct dpx_names *names);

#endif
