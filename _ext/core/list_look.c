/* Looking at files whose size, or whose being there, the pass over their directory did not settle. */
#include <errno.h>
#include <stdlib.h>

#include "list_moved.h"
#include "list_tree.h"

void dpx_list_keep_handle(struct dpx_listing *listing, const struct dpx_text *dir, const char *name,
			  const struct dpx_handle *handle)
{
	if (handle->size) /* an empty file is always looked at by path, so a handle would be of no help */
		dpx_spool_put(listing->spool, &listing->spool_root, dir->len ? dir->text : "", name, handle);
}

static void report(struct dpx_listing *listing, size_t calls)
{
	pthread_mutex_lock(&listing->lock);
	dpx_listing_worked(listing, calls);
	pthread_mutex_unlock(&listing->lock);
}

/* Look at the files of one chunk. Returns 0 or an errno that belongs to no entry. */
static int look_at(struct dpx_listing *listing, struct dir_node *node, void *dir, size_t chunk)
{
	size_t at = chunk * DPX_LIST_CHUNK, end = at + dpx_chunk_entries(node, chunk), count = 0, out = 0, calls = 0;
	struct dpx_lost *lost = NULL;
	struct dpx_handle handle = {0};
	struct dpx_text path = {0};
	int rc = listing->spool ? dpx_node_path(node, &path) : 0;
	for (; !rc && at < end && !dpx_list_stopped(listing); at++) {
		struct dpx_name *entry = &node->names.entries[at];
		enum dpx_look look;
		uint64_t inode;
		if (!dpx_entry_needs_look(entry, listing->sizes))
			continue;
		if (++calls % DPX_DIR_STEP == 0)
			report(listing, DPX_DIR_STEP);
		int err = dpx_dir_look(listing->io, dir, entry->text, entry->kind, &look, &entry->size, &inode,
				       listing->spool ? &handle : NULL);
		entry->mark = DPX_MARK_NONE;
		if (err) {
			entry->mark = DPX_MARK_FAILED;
			entry->size = (uint64_t)err;
			break; /* the consumer will go no further */
		}
		if (look == DPX_LOOK_OUT) {
			entry->mark = DPX_MARK_DROPPED;
			out++;
		}
		if (handle.len && look == DPX_LOOK_LISTED)
			dpx_list_keep_handle(listing, &path, entry->text, &handle);
		int displaced = look != DPX_LOOK_GONE && inode && entry->inode && inode != entry->inode;
		if (look != DPX_LOOK_GONE && !displaced)
			continue;
		if (!lost)
			lost = calloc(DPX_LIST_CHUNK, sizeof(*lost));
		if (!lost)
			rc = ENOMEM;
		else
			lost[count++] = (struct dpx_lost){.inode = entry->inode, .index = at, .displaced = displaced};
	}
	if (!rc && count)
		rc = dpx_moved_resolve(listing, node, dir, lost, count);
	for (size_t i = 0; rc && !dpx_list_is_gone(rc) && i < count; i++) {
		node->names.entries[lost[i].index].mark = DPX_MARK_FAILED;
		node->names.entries[lost[i].index].size = (uint64_t)rc;
	}
	free(lost);
	dpx_text_free(&path);
	pthread_mutex_lock(&listing->lock);
	listing->counts.left_out += out;
	dpx_listing_worked(listing, calls % DPX_DIR_STEP);
	pthread_mutex_unlock(&listing->lock);
	return rc;
}

/* The directory of a chunk is gone, with all that was still to be looked at, or cannot be looked into. */
static void chunk_fails(struct dpx_listing *listing, struct dir_node *node, size_t chunk, int err)
{
	int gone = node->parent && dpx_list_is_gone(err);
	for (size_t i = chunk * DPX_LIST_CHUNK; i < node->names.count && i < (chunk + 1) * DPX_LIST_CHUNK; i++) {
		struct dpx_name *entry = &node->names.entries[i];
		if (entry->mark > DPX_MARK_CHECK || !dpx_entry_needs_look(entry, listing->sizes))
			continue;
		entry->mark = gone ? DPX_MARK_DROPPED : DPX_MARK_FAILED;
		entry->size = (uint64_t)err;
	}
}

void dpx_work_look(struct dpx_listing *listing, struct dir_node *node, size_t chunk)
{
	struct dpx_stat self;
	void *dir;
	int rc = dpx_list_open(listing, node, &dir, &self);
	if (!rc) {
		rc = look_at(listing, node, dir, chunk);
		dpx_list_dir_close(listing, dir);
	}
	if (rc)
		chunk_fails(listing, node, chunk, rc);
	pthread_mutex_lock(&listing->lock);
	node->chunks[chunk] = CHUNK_DONE;
	dpx_listing_notify(listing, node, dpx_chunk_entries(node, chunk));
	pthread_mutex_unlock(&listing->lock);
}

void dpx_list_look_now(struct dpx_listing *listing, struct dir_node *node, void *dir)
{
	size_t open = 0, chunk = 0;
	for (size_t i = 0; i < node->chunk_count; i++) {
		if (node->chunks[i] == CHUNK_OPEN) {
			open++;
			chunk = i;
		}
	}
	if (open != 1)
		return;
	int rc = look_at(listing, node, dir, chunk);
	if (rc)
		chunk_fails(listing, node, chunk, rc);
	node->chunks[chunk] = CHUNK_FREE;
}
