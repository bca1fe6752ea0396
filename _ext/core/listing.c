#include "listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "list_tree.h"
#include "monotonic.h"
#include "pool.h"

#define FILL_ENTRIES (DPX_LIST_BLOCK / 4)

void dpx_listing_notify(struct dpx_listing *listing, const struct dir_node *node, size_t entries)
{
	listing->done_ahead += entries;
	if ((listing->waiting == WAIT_CURRENT && node == listing->current) ||
	    (listing->waiting == WAIT_FILL && listing->done_ahead >= FILL_ENTRIES))
		pthread_cond_broadcast(&listing->ready);
}

static void listing_free(struct dpx_listing *listing)
{
	while (listing->all)
		dpx_node_free(listing, listing->all);
	pthread_mutex_destroy(&listing->lock);
	pthread_cond_destroy(&listing->ready);
	pthread_cond_destroy(&listing->done);
	dpx_spool_release(listing->spool);
	free(listing->root);
	free(listing->root_prefix);
	free(listing->start_after);
	free(listing->entries);
	free(listing->starts);
	dpx_text_free(&listing->paths);
	dpx_text_free(&listing->prefix);
	dpx_text_free(&listing->error_path);
	atomic_fetch_sub(&listing->session->counters.listings_live, 1);
	dpx_session_release(listing->session);
	free(listing);
}

/* Takes the lock's ownership: it is released, and gone with the last reference. */
static void unref_and_unlock(struct dpx_listing *listing)
{
	int last = --listing->refs == 0;
	pthread_mutex_unlock(&listing->lock);
	if (last)
		listing_free(listing);
}

void dpx_listing_worked(struct dpx_listing *listing, size_t calls)
{
	if (calls && !listing->depth_fixed)
		dpx_adapt_worked(&listing->adapt, (double)calls, dpx_now_ns());
}

static void run(void *arg);

int dpx_listing_kick(struct dpx_listing *listing)
{
	if (listing->running >= listing->adapt.depth || dpx_list_stopped(listing) || !dpx_work_waits(listing))
		return 0;
	if (listing->running++ == 0)
		dpx_adapt_begin(&listing->adapt, dpx_now_ns());
	listing->refs++;
	int rc = dpx_pool_submit(listing->session->pool, run, listing, 1);
	if (rc) {
		listing->running--;
		listing->refs--;
	}
	return rc == EAGAIN ? ENOMEM : rc; /* to the consumer EAGAIN says "not yet" */
}

static void run(void *arg)
{
	struct dpx_listing *listing = arg;
	struct list_work work;
	pthread_mutex_lock(&listing->lock);
	while (!dpx_list_stopped(listing) && listing->running <= listing->adapt.depth) {
		int taken = dpx_work_take(listing, &work);
		if (taken < 0)
			listing->starved = ENOMEM;
		if (taken <= 0)
			break;
		dpx_listing_kick(listing); /* without a thread for one more, this one goes on alone */
		pthread_mutex_unlock(&listing->lock);
		if (work.kind == WORK_READ)
			dpx_work_read(listing, work.node);
		else if (work.kind == WORK_LOOK)
			dpx_work_look(listing, work.node, work.chunk);
		else
			dpx_work_help(listing, work.node);
		pthread_mutex_lock(&listing->lock);
	}
	if (--listing->running == 0)
		dpx_adapt_pause(&listing->adapt, dpx_now_ns());
	if (listing->running == 0 || listing->starved)
		pthread_cond_broadcast(&listing->ready);
	unref_and_unlock(listing);
}

/* Where calls are round trips, one runner at first: a client that burns a core while it waits is slower with any more. Else
 * two for each core. A later listing begins where the last one ended. */
static void init_depth(struct dpx_listing *listing, unsigned fixed)
{
	struct dpx_session *session = listing->session;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned first = cores < 1 ? 2 : cores > 4 ? 8 : 2 * (unsigned)cores;
	pthread_mutex_lock(&session->lock);
	listing->adapt = session->listing_adapt;
	pthread_mutex_unlock(&session->lock);
	if (fixed)
		dpx_adapt_init(&listing->adapt, fixed, fixed);
	else if (!listing->adapt.most)
		dpx_adapt_init(&listing->adapt, session->io.size_costs ? 1 : first, DPX_LIST_DEEPEST);
}

static int copy_options(struct dpx_listing *listing, const struct dpx_list_options *options)
{
	size_t len = strlen(options->path);
	listing->root_slash = len > 0 && options->path[len - 1] == '/';
	while (len > 0 && options->path[len - 1] == '/')
		len--;
	listing->recursive = options->recursive;
	listing->sizes = options->sizes;
	listing->kinds = options->kinds || options->sizes;
	if (options->spool && listing->io->open_saved) {
		listing->spool = dpx_spool_retain(options->spool);
		listing->spool_root = dpx_spool_root(options->spool, listing->session->root);
	}
	listing->depth_fixed = options->depth > 0;
	init_depth(listing, options->depth);
	listing->root = strndup(options->path, len);
	listing->root_prefix = calloc(1, len + 2);
	listing->start_after = options->start_after ? strdup(options->start_after) : NULL;
	listing->entries = malloc(DPX_LIST_BLOCK * sizeof(*listing->entries));
	listing->starts = malloc(DPX_LIST_BLOCK * sizeof(*listing->starts));
	if (!listing->root || !listing->root_prefix || (options->start_after && !listing->start_after) ||
	    !listing->entries || !listing->starts)
		return ENOMEM;
	memcpy(listing->root_prefix, options->path, len);
	if (len)
		listing->root_prefix[len] = '/';
	listing->root_node = dpx_node_new(listing, NULL, 0);
	if (!listing->root_node)
		return ENOMEM;
	listing->root_node->name = listing->root_prefix;
	listing->root_node->path_len = strlen(listing->root_prefix);
	atomic_store(&listing->root_node->wanted, 1);
	listing->current = listing->root_node;
	return 0;
}

int dpx_listing_open(struct dpx_session *session, const struct dpx_list_options *options,
		     struct dpx_listing **out)
{
	*out = NULL;
	int rc = dpx_path_check(options->path);
	if (rc)
		return rc;
	struct dpx_listing *listing = calloc(1, sizeof(*listing));
	if (!listing)
		return ENOMEM;
	rc = pthread_mutex_init(&listing->lock, NULL);
	if (rc)
		goto free_memory;
	rc = dpx_cond_init(&listing->ready);
	if (rc)
		goto free_lock;
	rc = pthread_cond_init(&listing->done, NULL);
	if (rc)
		goto free_ready;
	listing->refs = 1;
	listing->session = dpx_session_retain(session);
	listing->io = &session->io;
	listing->mount = session->mount;
	atomic_fetch_add(&session->counters.listings_live, 1);
	atomic_fetch_add(&session->counters.lists, 1);
	rc = copy_options(listing, options);
	if (rc)
		listing_free(listing);
	else
		*out = listing;
	return rc;
free_ready:
	pthread_cond_destroy(&listing->ready);
free_lock:
	pthread_mutex_destroy(&listing->lock);
free_memory:
	free(listing);
	return rc;
}

void dpx_listing_cancel(struct dpx_listing *listing)
{
	atomic_store(&listing->cancelled, 1);
	pthread_mutex_lock(&listing->lock);
	pthread_cond_broadcast(&listing->ready);
	pthread_mutex_unlock(&listing->lock);
}

void dpx_listing_close(struct dpx_listing *listing, unsigned wait_ms)
{
	if (!listing)
		return;
	int64_t until = dpx_now_ns() + wait_ms * INT64_C(1000000);
	dpx_listing_cancel(listing);
	pthread_mutex_lock(&listing->lock);
	while (listing->running > 0 && dpx_cond_wait_until(&listing->ready, &listing->lock, until) == 0)
		;
	struct dpx_adapt learnt = listing->adapt;
	dpx_adapt_pause(&learnt, dpx_now_ns());
	struct dpx_session *session = listing->session;
	if (!listing->depth_fixed) {
		pthread_mutex_lock(&session->lock);
		session->listing_adapt = learnt;
		pthread_mutex_unlock(&session->lock);
	}
	unref_and_unlock(listing);
}

void dpx_listing_counts(struct dpx_listing *listing, struct dpx_list_counts *out)
{
	pthread_mutex_lock(&listing->lock);
	*out = listing->counts;
	out->depth = listing->adapt.depth;
	pthread_mutex_unlock(&listing->lock);
}

const struct dpx_status *dpx_listing_error(struct dpx_listing *listing, const char **path, size_t *path_len)
{
	*path = listing->error_path.text ? listing->error_path.text : "";
	*path_len = listing->error_path.len;
	return &listing->error;
}
