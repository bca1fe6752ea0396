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
	struct dpx_text path; /* of the directory, with its '/' */
	atomic_int put_off;
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

int dpx_list_is_gone(int err)
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
	if (dpx_list_is_gone(rc))
		return 0;
	if (!rc) {
		dpx_list_dir_close(listing, *dir);
		*dir = moved;
	}
	return rc;
}

int dpx_list_open(struct dpx_listing *listing, const struct dir_node *node, void **dir, struct dpx_stat *self)
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
	if (node->parent && dpx_list_is_gone(rc))
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

/* Called by all runners that read the directory. */
static int on_growth(void *arg, size_t bytes)
{
	struct reading *reading = arg;
	struct dpx_listing *listing = reading->listing;
	if (dpx_list_stopped(listing))
		return ECANCELED;
	size_t counted = atomic_load_explicit(&reading->node->ahead, memory_order_relaxed);
	if (bytes <= counted || atomic_load(&reading->node->wanted))
		return 0;
	while (!atomic_compare_exchange_weak(&reading->node->ahead, &counted, bytes))
		if (bytes <= counted)
			return 0;
	size_t ahead = atomic_fetch_add(&listing->ahead, bytes - counted) + bytes - counted;
	if (bytes > OWN_BYTES && ahead > DPX_LIST_AHEAD_BYTES) {
		atomic_store(&reading->put_off, 1);
		return ECANCELED;
	}
	return 0;
}

static int share(void *arg, size_t count, size_t calls, dpx_dir_step step, void *of)
{
	struct reading *reading = arg;
	if (count == 1)
		return step(of, 0);
	struct list_crew crew = {.step = step, .of = of, .count = count, .calls = calls};
	return dpx_list_share(reading->listing, reading->node, &crew);
}

static void keep_handle(void *arg, const char *name, const struct dpx_handle *handle)
{
	struct reading *reading = arg;
	dpx_list_keep_handle(reading->listing, &reading->path, name, handle);
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
	struct dpx_dir_read job = {
		.io = listing->io,
		.keep_dirs = listing->recursive,
		.kinds = listing->kinds,
		.sizes = listing->sizes,
		.grown = on_growth,
		.share = share,
		.keep_handle = listing->spool ? keep_handle : NULL,
		.arg = reading,
	};
	int rc = dpx_node_path(node, &reading->path);
	if (!rc && dpx_path_resumes(reading->path.text, reading->path.len, listing->start_after, &job.inside))
		rc = dpx_dir_read(&job, dir, &node->names);
	dpx_text_free(&reading->path);
	node->version = job.version;
	if (!rc)
		rc = dpx_node_index(node, listing->sizes);
	pthread_mutex_lock(&listing->lock);
	listing->counts.left_out += rc ? 0 : job.left_out;
	listing->counts.directories += rc ? 0 : 1;
	dpx_listing_worked(listing, listing->sizes ? 0 : 4);
	pthread_mutex_unlock(&listing->lock);
	return rc;
}

void dpx_work_read(struct dpx_listing *listing, struct dir_node *node)
{
	struct reading reading = {.listing = listing, .node = node};
	struct dpx_stat self = {0};
	void *dir;
	int rc = dpx_list_open(listing, node, &dir, &self);
	if (!node->parent && rc == ENOTDIR) {
		rc = read_single(listing, node);
		if (!rc)
			rc = dpx_node_index(node, 0);
	} else if (!rc) {
		node->self_inode = self.inode;
		rc = read_dir(&reading, dir);
		if (!rc)
			dpx_list_look_now(listing, node, dir);
		dpx_list_dir_close(listing, dir);
	}
	if (node->parent && dpx_list_is_gone(rc)) {
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
