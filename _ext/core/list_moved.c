#include "list_moved.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dir_read.h"

#define SEARCH_PASSES 8

struct search {
	struct dpx_listing *listing;
	struct dpx_lost *lost; /* in order of inode */
	size_t count;
};

static int by_inode(const void *a, const void *b)
{
	const struct dpx_lost *x = a, *y = b;
	return x->inode < y->inode ? -1 : x->inode > y->inode;
}

static int on_entry(void *arg, const struct dpx_dirent *entry)
{
	struct search *search = arg;
	if (dpx_list_stopped(search->listing))
		return ECANCELED;
	struct dpx_lost key = {.inode = entry->inode};
	struct dpx_lost *lost = bsearch(&key, search->lost, search->count, sizeof(key), by_inode);
	if (!lost || !entry->inode || lost->found)
		return 0;
	lost->seen = 1;
	free(lost->name);
	lost->name = strndup(entry->name, entry->name_len);
	return lost->name ? 0 : ENOMEM;
}

/* One pass, and a look at what it met. *open: how many are still to be found. */
static int search_once(struct search *search, const struct dir_node *node, void *dir, size_t *open)
{
	const struct dpx_io *io = search->listing->io;
	for (size_t i = 0; i < search->count; i++) {
		if (!search->lost[i].found) {
			free(search->lost[i].name);
			search->lost[i].name = NULL;
		}
	}
	int rc = io->dir_list(dir, 0, 1, on_entry, search);
	*open = 0;
	for (size_t i = 0; !rc && i < search->count; i++) {
		struct dpx_lost *lost = &search->lost[i];
		uint64_t inode;
		if (!lost->found && lost->name) {
			int kind = node->names.entries[lost->index].kind;
			rc = dpx_dir_look(io, dir, lost->name, kind, &lost->look, &lost->size, &inode, NULL);
			lost->found = lost->look != DPX_LOOK_GONE && (!inode || inode == lost->inode);
		}
		*open += !lost->found;
	}
	return rc;
}

static int search_all(struct search *search, struct dir_node *node, void *dir)
{
	const struct dpx_io *io = search->listing->io;
	uint64_t before, now;
	size_t open = search->count;
	int looked = 0;
	int rc = io->dir_version(dir, &before);
	if (!rc && before && before == node->version) {
		/* Unchanged since it was read: what "has another file" is a store whose two ways to tell an
		 * inode disagree. */
		size_t kept = 0;
		for (size_t i = 0; i < search->count; i++)
			if (!search->lost[i].displaced)
				search->lost[kept++] = search->lost[i];
		search->count = open = kept;
	}
	for (unsigned turn = 0; !rc && open && turn < SEARCH_PASSES; turn++) {
		if (atomic_fetch_add(&node->passes, 1) >= DPX_MOVED_PASSES)
			break;
		looked = 1;
		rc = search_once(search, node, dir, &open);
		if (!rc && open)
			rc = io->dir_version(dir, &now);
		if (!rc && open && before && before == now)
			break; /* a pass over a directory at rest: what it did not meet is gone */
		before = now;
	}
	for (size_t i = 0; !looked && i < search->count; i++)
		search->lost[i].seen = 1; /* it may well be there */
	return rc;
}

/* Put a file in between under its new name. 0 when the consumer is past that place, or without memory. */
static int add_extra(struct dir_node *node, const char *name, uint64_t size)
{
	if (node->last && strcmp(name, node->last) <= 0)
		return 0;
	struct extra_name **at = &node->extras;
	while (*at && strcmp((*at)->text, name) < 0)
		at = &(*at)->next;
	if (*at && strcmp((*at)->text, name) == 0)
		return 1;
	size_t len = strlen(name) + 1;
	struct extra_name *extra = malloc(sizeof(*extra) + len);
	if (!extra)
		return 0;
	extra->next = *at;
	extra->size = size;
	memcpy(extra->text, name, len);
	*at = extra;
	return 1;
}

/* With the lock held. An entry that was met but never caught keeps its old name, without a size; one whose new
 * name cannot be had any more keeps the old one too. */
static void place(struct dir_node *node, const struct dpx_lost *lost)
{
	struct dpx_name *own = &node->names.entries[lost->index];
	int listed = lost->found && lost->look == DPX_LOOK_LISTED;
	size_t other = lost->found ? dpx_names_find(&node->names, lost->name) : SIZE_MAX;
	if (lost->displaced) {
		if (listed && other == SIZE_MAX)
			add_extra(node, lost->name, lost->size);
		return;
	}
	own->mark = DPX_MARK_NONE;
	own->size = listed ? lost->size : DPX_SIZE_UNKNOWN;
	if (!lost->seen || (lost->found && !listed)) {
		own->mark = DPX_MARK_DROPPED;
	} else if (lost->found && other == SIZE_MAX) {
		if (add_extra(node, lost->name, lost->size))
			own->mark = DPX_MARK_DROPPED;
	} else if (lost->found && other != lost->index) {
		struct dpx_name *entry = &node->names.entries[other];
		if (entry->mark != DPX_MARK_DROPPED) { /* it replaced a file that is listed under this name */
			own->mark = DPX_MARK_DROPPED;
		} else if (other >= node->handed) {
			entry->mark = DPX_MARK_NONE;
			entry->size = lost->size;
			own->mark = DPX_MARK_DROPPED;
		}
	}
}

int dpx_moved_resolve(struct dpx_listing *listing, struct dir_node *node, void *dir, struct dpx_lost *lost,
		      size_t count)
{
	struct search search = {.listing = listing, .lost = lost, .count = count};
	qsort(lost, count, sizeof(*lost), by_inode);
	int rc = search_all(&search, node, dir);
	pthread_mutex_lock(&listing->lock);
	for (size_t i = 0; !rc && i < search.count; i++)
		place(node, &lost[i]);
	pthread_mutex_unlock(&listing->lock);
	for (size_t i = 0; i < count; i++)
		free(lost[i].name);
	return rc;
}

struct child_search {
	struct dpx_listing *listing;
	uint64_t inode;
	struct dpx_text *path;
	int found, rc;
};

static int on_child(void *arg, const struct dpx_dirent *entry)
{
	struct child_search *search = arg;
	if (dpx_list_stopped(search->listing))
		return ECANCELED;
	if (entry->inode != search->inode || (entry->kind != DPX_KIND_DIR && entry->kind != DPX_KIND_UNKNOWN))
		return 0;
	search->found = 1;
	search->rc = search->path->len ? dpx_text_add(search->path, "/", 1) : 0;
	if (!search->rc)
		search->rc = dpx_text_add(search->path, entry->name, entry->name_len);
	return EEXIST; /* seen enough */
}

/* Lengthen `path` by the name that a directory inode has now in the open directory `dir`. */
static int find_child(struct dpx_listing *listing, void *dir, uint64_t inode, struct dpx_text *path)
{
	const struct dpx_io *io = listing->io;
	struct child_search search = {.listing = listing, .inode = inode, .path = path};
	uint64_t before, now;
	int rc = inode ? io->dir_version(dir, &before) : ENOENT;
	for (unsigned turn = 0; !rc && !search.found && turn < SEARCH_PASSES; turn++) {
		rc = io->dir_list(dir, 0, 1, on_child, &search);
		if (search.found)
			return search.rc;
		if (!rc)
			rc = io->dir_version(dir, &now);
		if (!rc && before && before == now)
			break;
		before = now;
	}
	return rc ? rc : ENOENT;
}

/* Once up to a parent that is where it was, and down again by inodes. EAGAIN: something that had just been
 * found was gone when it was opened. */
static int open_once(struct dpx_listing *listing, const struct dir_node *node, struct dpx_text *path, void **dir)
{
	const struct dir_node *at = node;
	void *open = NULL;
	int rc;
	do {
		at = at->parent;
		rc = dpx_node_path(at, path);
		if (!rc) {
			path->len -= path->len > 0;
			path->text[path->len] = '\0';
			rc = dpx_list_dir_open(listing, path->text, !at->parent, &open);
		}
	} while (at->parent && (rc == ENOENT || rc == ENOTDIR));
	while (!rc && at != node) {
		const struct dir_node *child = node;
		while (child->parent != at)
			child = child->parent;
		rc = find_child(listing, open, child->inode, path);
		dpx_list_dir_close(listing, open);
		open = NULL;
		if (!rc) {
			rc = dpx_list_dir_open(listing, path->text, 0, &open);
			rc = rc == ENOENT || rc == ENOTDIR ? EAGAIN : rc;
		}
		at = child;
	}
	*dir = open;
	return rc;
}

int dpx_moved_open(struct dpx_listing *listing, const struct dir_node *node, void **dir)
{
	struct dpx_text path = {0};
	int rc = EAGAIN;
	for (int turn = 0; rc == EAGAIN && turn < 2 * SEARCH_PASSES && !dpx_list_stopped(listing); turn++)
		rc = open_once(listing, node, &path, dir);
	dpx_text_free(&path);
	return rc == EAGAIN ? ENOENT : rc;
}
