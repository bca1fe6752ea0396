/* Open directories by path: what files are looked up in, so that a path costs one round trip and not one for each
 * of its parts. Bounded (least recently used first), counted (what is in use outlives its place here), and believed
 * for a few seconds only, since a directory may be renamed and another one put in its place. */
#ifndef DPX_DFS_PARENTS_H
#define DPX_DFS_PARENTS_H

#include "dfs_load.h"

#define DPX_DFS_PARENTS 1024
#define DPX_DFS_PARENT_NS (5 * INT64_C(1000000000))

struct dpx_dfs_parents;

struct dpx_dfs_parent {
	abi_obj *obj; /* borrowed while it is held */

	/* The cache's own. */
	char *path; /* owned */
	size_t path_len;
	uint64_t hash;
	int64_t looked_up;
	unsigned holders;
	int listed;
	struct dpx_dfs_parent *newer, *older, *chain;
};

/* root: the container's, borrowed. flags: what directories are opened with. Returns 0 or an errno. */
int dpx_dfs_parents_create(const struct dpx_dfs *dfs, abi_dfs *mount, abi_obj *root, int flags,
			   struct dpx_dfs_parents **out);

/* No directory may be held. Accepts NULL. */
void dpx_dfs_parents_free(struct dpx_dfs_parents *parents);

/* The directory at this path, which has neither empty parts nor "."; "" is the root. Held by the caller until
 * released. ENOTDIR if it is something else. Links are followed. *recalled becomes 1, also on failure, when anything on
 * the way was not looked up by this very call. */
int dpx_dfs_parents_get(struct dpx_dfs_parents *parents, const char *path, size_t len, struct dpx_dfs_parent **out,
			int *recalled);
void dpx_dfs_parents_release(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *parent);

/* Look it up again next time: all on the way to this path, itself included; or itself and all below it. */
void dpx_dfs_parents_forget_above(struct dpx_dfs_parents *parents, const char *path, size_t len);
void dpx_dfs_parents_forget_below(struct dpx_dfs_parents *parents, const char *path, size_t len);

#endif
