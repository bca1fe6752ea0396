#include "listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "list_tree.h"
#include "monotonic.h"
#include "pool.h"

#define FILL_ENTRIES (DPX_LIST_BLOCK / 4)
#define ADAPT_CALLS 128

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

static uint64_t thread_sleeps(void)
{
#ifdef RUSAGE_THREAD
	struct rusage usage;
	return getrusage(RUSAGE_THREAD, &usage) ? 0 : (uint64_t)usage.ru_nvcsw;
#else
	return 0;
#endif
}

/* More runners only where they sleep: when a quarter of the calls waited for the store. */
static void adapt(struct dpx_listing *listing, uint64_t sleeps)
{
	listing->sleeps += sleeps;
	if (listing->depth_fixed || listing->calls < ADAPT_CALLS)
		return;
	if (listing->sleeps * 4 >= listing->calls && listing->depth < DPX_LIST_DEEPEST)
		listing->depth *= 2;
	listing->calls = listing->sleeps = 0;
}

static void run(void *arg);

int dpx_listing_kick(struct dpx_listing *listing)
{
	if (listing->running >= listing->depth || dpx_list_stopped(listing) || !dpx_work_waits(listing))
		return 0;
	listing->running++;
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
	while (!dpx_list_stopped(listing)) {
		int taken = dpx_work_take(listing, &work);
		if (taken < 0)
			listing->starved = ENOMEM;
		if (taken <= 0)
			break;
		dpx_listing_kick(listing); /* without a thread for one more, this one goes on alone */
		pthread_mutex_unlock(&listing->lock);
		uint64_t slept = thread_sleeps();
		if (work.kind == WORK_READ)
			dpx_work_read(listing, work.node);
		else
			dpx_work_look(listing, work.node, work.chunk);
		slept = thread_sleeps() - slept;
		pthread_mutex_lock(&listing->lock);
		adapt(listing, slept);
	}
	listing->running--;
	if (listing->running == 0 || listing->starved)
		pthread_cond_broadcast(&listing->ready);
	unref_and_unlock(listing);
}

static int copy_options(struct dpx_listing *listing, const struct dpx_list_options *options)
{
	size_t len = strlen(options->path);
	listing->root_slash = len > 0 && options->path[len - 1] == '/';
	while (len > 0 && options->path[len - 1] == '/')
		len--;
	listing->recursive = options->recursive;
	listing->sizes = options->sizes;
	listing->depth_fixed = options->depth > 0;
	listing->depth = options->depth;
	if (!listing->depth) {
		long cores = sysconf(_SC_NPROCESSORS_ONLN);
		listing->depth = cores < 1 ? 2 : cores > 4 ? 8 : 2 * (unsigned)cores;
	}
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
	unref_and_unlock(listing);
}

void dpx_listing_counts(struct dpx_listing *listing, struct dpx_list_counts *out)
{
	pthread_mutex_lock(&listing->lock);
	*out = listing->counts;
	out->depth = listing->depth;
	pthread_mutex_unlock(&listing->lock);
}

const struct dpx_status *dpx_listing_error(struct dpx_listing *listing, const char **path, size_t *path_len)
{
	*path = listing->error_path.text ? listing->error_path.text : "";
	*path_len = listing->error_path.len;
	return &listing->error;
}
