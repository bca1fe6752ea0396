#include "dir_read.h"
#include "list_moved.h"
#include "list_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A directory met ahead of the consumer may grow this large before the common bound concerns it. */
#define OWN_BYTES ((size_t)1 << 20)

struct reading {
	struct dpx_listing *listing;
	struct dir_node *node;
	int put_off;
};

int dpx_list_stopped(struct dpx_listing *listing)
{
	return atomic_load_explicit(&listing->cancelled, memory_order_relaxed) ||
	       atomic_load_explicit(&listing->session->closed, memory_order_relaxed);
}

int dpx_list_dir_open(struct dpx_listing *listing, const char *path, int follow, void **dir)
{
	int rc = listing->io->dir_open(listing->mount, path, follow, dir);
	if (!rc)
		atomic_fetch_add(&listing->session->counters.files_open, 1);
	return rc;
}

void dpx_list_dir_close(struct dpx_listing *listing, void *dir)
{
	listing->io->dir_close(dir);
	atomic_fetch_sub(&listing->session->counters.files_open, 1);
}

static int is_gone(int err)
{
	return err == ENOENT || err == ENOTDIR || err == ESTALE;
}

/* Has the parent changed since it was read? Where it cannot be asked, yes. */
static int parent_changed(struct dpx_listing *listing, const struct dir_node *parent)
{
	const struct dpx_io *io = listing->io;
	struct dpx_text path = {0};
	void *dir = NULL;
	uint64_t version = 0;
	int rc = dpx_node_path(parent, &path);
	if (!rc) {
		path.len -= path.len > 0;
		path.text[path.len] = '\0';
		rc = dpx_list_dir_open(listing, path.text, !parent->parent, &dir);
	}
	if (!rc) {
		rc = io->dir_version(dir, &version);
		dpx_list_dir_close(listing, dir);
	}
	dpx_text_free(&path);
	return rc || !version || version != parent->version;
}

/* Another directory under the node's name: look where the right one went. When it is nowhere, the one that is
 * there is as good as any. */
static int open_displaced(struct dpx_listing *listing, const struct dir_node *node, void **dir)
{
	void *moved;
	if (!parent_changed(listing, node->parent))
		return 0;
	int rc = dpx_moved_open(listing, node, &moved);
	if (is_gone(rc))
		return 0;
	if (!rc) {
		dpx_list_dir_close(listing, *dir);
		*dir = moved;
	}
	return rc;
}

/* *self: the directory's own stat. On an error *dir is NULL. */
static int open_dir(struct dpx_listing *listing, const struct dir_node *node, void **dir, struct dpx_stat *self)
{
	const struct dpx_io *io = listing->io;
	uint64_t expected = node->self_inode ? node->self_inode : node->inode;
	struct dpx_text path = {0};
	*dir = NULL;
	int rc = dpx_node_path(node, &path);
	if (!rc) {
		path.len -= path.len > 0;
		path.text[path.len] = '\0';
		rc = dpx_list_dir_open(listing, path.text, !node->parent, dir);
	}
	dpx_text_free(&path);
	if (node->parent && is_gone(rc))
		rc = dpx_moved_open(listing, node, dir);
	if (!rc)
		rc = io->dir_stat(*dir, "", 0, self);
	if (!rc && node->parent && expected && self->inode != expected) {
		rc = open_displaced(listing, node, dir);
		if (!rc)
			rc = io->dir_stat(*dir, "", 0, self);
	}
	if (rc && *dir) {
		dpx_list_dir_close(listing, *dir);
		*dir = NULL;
	}
	return rc;
}

/* Look at the files of one chunk. Returns 0 or an errno that belongs to no entry. */
static int look_at(struct dpx_listing *listing, struct dir_node *node, void *dir, size_t chunk)
{
	size_t at = chunk * DPX_LIST_CHUNK, end = at + dpx_chunk_entries(node, chunk), count = 0, out = 0;
	struct dpx_lost *lost = NULL;
	int rc = 0;
	for (; !rc && at < end && !dpx_list_stopped(listing); at++) {
		struct dpx_name *entry = &node->names.entries[at];
		enum dpx_look look;
		uint64_t inode;
		if (!dpx_entry_needs_look(entry, listing->sizes))
			continue;
		int err = dpx_dir_look(listing->io, dir, entry->text, entry->kind, &look, &entry->size, &inode);
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
	for (size_t i = 0; rc && !is_gone(rc) && i < count; i++) {
		node->names.entries[lost[i].index].mark = DPX_MARK_FAILED;
		node->names.entries[lost[i].index].size = (uint64_t)rc;
	}
	free(lost);
	pthread_mutex_lock(&listing->lock);
	listing->counts.left_out += out;
	listing->calls += at - chunk * DPX_LIST_CHUNK;
	pthread_mutex_unlock(&listing->lock);
	return rc;
}

/* The directory of a chunk is gone, with all that was still to be looked at, or cannot be looked into. */
static void chunk_fails(struct dpx_listing *listing, struct dir_node *node, size_t chunk, int err)
{
	int gone = node->parent && is_gone(err);
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
	int rc = open_dir(listing, node, &dir, &self);
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

static int on_growth(void *arg, size_t bytes)
{
	struct reading *reading = arg;
	struct dpx_listing *listing = reading->listing;
	if (dpx_list_stopped(listing))
		return ECANCELED;
	size_t counted = atomic_load_explicit(&reading->node->ahead, memory_order_relaxed);
	if (bytes <= counted || atomic_load(&reading->node->wanted))
		return 0;
	atomic_store(&reading->node->ahead, bytes);
	size_t ahead = atomic_fetch_add(&listing->ahead, bytes - counted) + bytes - counted;
	if (bytes > OWN_BYTES && ahead > DPX_LIST_AHEAD_BYTES) {
		reading->put_off = 1;
		return ECANCELED;
	}
	return 0;
}

/* The root turned out not to be a directory. */
static int read_single(struct dpx_listing *listing, struct dir_node *node)
{
	struct dpx_stat st;
	int rc = listing->io->stat(listing->mount, listing->root, 1, &st);
	if (rc)
		return rc;
	if (st.kind != DPX_KIND_FILE || listing->root_slash)
		return ENOTDIR;
	node->path_len = 0; /* its one entry is the whole path */
	if (!dpx_name_resumes(listing->root, listing->start_after))
		return 0;
	struct dpx_name like = {.kind = DPX_KIND_FILE, .size = st.size, .inode = st.inode};
	return dpx_names_add(&node->names, listing->root, strlen(listing->root), &like);
}

static int read_dir(struct reading *reading, void *dir)
{
	struct dpx_listing *listing = reading->listing;
	struct dir_node *node = reading->node;
	struct dpx_text path = {0};
	struct dpx_dir_read job = {
		.io = listing->io,
		.keep_dirs = listing->recursive,
		.sizes = listing->sizes,
		.grown = on_growth,
		.arg = reading,
	};
	int rc = dpx_node_path(node, &path);
	if (!rc && dpx_path_resumes(path.text, path.len, listing->start_after, &job.inside))
		rc = dpx_dir_read(&job, dir, &node->names);
	dpx_text_free(&path);
	node->version = job.version;
	if (!rc)
		rc = dpx_node_index(node, listing->sizes);
	pthread_mutex_lock(&listing->lock);
	listing->counts.left_out += rc ? 0 : job.left_out;
	listing->counts.directories += rc ? 0 : 1;
	listing->calls += 4;
	pthread_mutex_unlock(&listing->lock);
	return rc;
}

/* A directory whose looks fit one chunk is done in one go, while it is open. */
static void look_now(struct dpx_listing *listing, struct dir_node *node, void *dir)
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

void dpx_work_read(struct dpx_listing *listing, struct dir_node *node)
{
	struct reading reading = {.listing = listing, .node = node};
	struct dpx_stat self = {0};
	void *dir;
	int rc = open_dir(listing, node, &dir, &self);
	if (!node->parent && rc == ENOTDIR) {
		rc = read_single(listing, node);
		if (!rc)
			rc = dpx_node_index(node, 0);
	} else if (!rc) {
		node->self_inode = self.inode;
		rc = read_dir(&reading, dir);
		if (!rc)
			look_now(listing, node, dir);
		dpx_list_dir_close(listing, dir);
	}
	if (node->parent && is_gone(rc)) {
		dpx_names_free(&node->names);
		rc = 0; /* removed: nothing to list */
	}
	pthread_mutex_lock(&listing->lock);
	node->err = rc;
	node->op = DPX_OP_LIST;
	node->state = rc ? NODE_FAILED : NODE_READY;
	if (reading.put_off) {
		atomic_fetch_sub(&listing->ahead, atomic_exchange(&node->ahead, 0));
		node->state = atomic_load(&node->wanted) ? NODE_NEW : NODE_PUT_OFF;
		listing->put_off += node->state == NODE_PUT_OFF;
	}
	size_t ready = node->state == NODE_READY ? node->names.count : 0;
	for (size_t i = 0; i < node->chunk_count; i++)
		ready -= ready && node->chunks[i] == CHUNK_OPEN ? dpx_chunk_entries(node, i) : 0;
	dpx_listing_notify(listing, node, ready);
	pthread_mutex_unlock(&listing->lock);
}
