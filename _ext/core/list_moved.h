/* What to do when something is no longer where a listing saw it: find it again by its inode. Private to the
 * listing. */
#ifndef DPX_LIST_MOVED_H
#define DPX_LIST_MOVED_H

#include "dir_read.h"
#include "list_tree.h"

/* Open the directory of a node, wherever it has moved within its parents. ENOENT: it is gone. */
int dpx_moved_open(struct dpx_listing *listing, const struct dir_node *node, void **dir);

/* An entry that a look did not find under its name. */
struct dpx_lost {
	uint64_t inode;
	size_t index;    /* among the node's entries */
	int displaced;   /* another file has its name now, and is listed under it */
	int seen;        /* some pass met the inode */
	int found;       /* and a look confirmed it */
	enum dpx_look look;
	uint64_t size;
	char *name;      /* owned: where a pass met it */
};

/* Passes over one directory in search of renamed files, for a listing's whole length. */
#define DPX_MOVED_PASSES 64

/* Look for `count` lost entries of one taken chunk and give each its place in the listing: its old name, a new
 * one, or none. Frees their names. Returns 0 or an errno. */
int dpx_moved_resolve(struct dpx_listing *listing, struct dir_node *node, void *dir, struct dpx_lost *lost,
		      size_t count);

#endif
