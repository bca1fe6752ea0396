#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monotonic.h"
#include "pool.h"
#include "reader_state.h"

/* Threads of the first reader of a session. */
#define START_DEPTH 4

struct dpx_item *dpx_item_new(void)
{
	return calloc(1, sizeof(struct dpx_item));
}

void dpx_item_free(struct dpx_item *item)
{
	if (!item)
		return;
	dpx_buffer_release(item->buffer);
	free(item->path);
	free(item);
}

int dpx_item_set_path(struct dpx_item *item, const char *path, size_t len)
{
	if (len >= item->path_room) {
		size_t room = len < 112 ? 112 : len + len / 2 + 1;
		char *larger = realloc(item->path, room);
		if (!larger)
			return ENOMEM;
		item->path = larger;
		item->path_room = room;
	}
	memcpy(item->path, path, len);
	item->path[len] = '\0';
	return 0;
}

void dpx_item_enqueue(struct dpx_item_queue *queue, struct dpx_item *item)
{
	item->link = NULL;
	*(queue->last ? &queue->last->link : &queue->first) = item;
	queue->last = item;
	queue->count++;
}

struct dpx_item *dpx_item_dequeue(struct dpx_item_queue *queue)
{
	struct dpx_item *item = queue->first;
	if (!item)
		return NULL;
	queue->first = item->link;
	if (!queue->first)
		queue->last = NULL;
	queue->count--;
	return item;
}

/* Who is to be woken, once. Under the lock. */
static void take_sleepers(struct dpx_reader *reader, unsigned *threads, int *consumer)
{
	*threads = reader->to_wake;
	*consumer = reader->tell;
	reader->to_wake = 0;
	reader->tell = 0;
}

static void wake(struct dpx_reader *reader, unsigned threads, int consumer)
{
	if (consumer)
		pthread_cond_signal(&reader->news);
	dpx_pool_wake(reader->session->pool, threads);
}

void dpx_reader_unlock(struct dpx_reader *reader)
{
	unsigned threads;
	int consumer;
	take_sleepers(reader, &threads, &consumer);
	pthread_mutex_unlock(&reader->lock);
	wake(reader, threads, consumer);
}

int dpx_reader_wait_locked(struct dpx_reader *reader, pthread_cond_t *cond, int64_t until)
{
	unsigned threads;
	int consumer;
	take_sleepers(reader, &threads, &consumer);
	wake(reader, threads, consumer);
	return dpx_cond_wait_until(cond, &reader->lock, until);
}

/* Begin where the last reader of the session left off. */
static void init_depth(struct dpx_reader *reader)
{
	struct dpx_session *session = reader->session;
	unsigned most = reader->options.max_in_flight;
	if (reader->options.depth) {
		dpx_adapt_init(&reader->adapt, reader->options.depth < most ? reader->options.depth : most, 1);
		reader->adapt.depth = reader->options.depth < most ? reader->options.depth : most;
		return;
	}
	pthread_mutex_lock(&session->lock);
	reader->adapt = session->adapt[reader->options.batch];
	pthread_mutex_unlock(&session->lock);
	if (reader->adapt.most != most)
		dpx_adapt_init(&reader->adapt, reader->adapt.base ? reader->adapt.base : START_DEPTH, most);
}

/* What the session's buffers may hold for this reader. */
static int64_t kept_bytes(const struct dpx_reader *reader)
{
	uint64_t bytes = reader->options.max_bytes, most = UINT64_C(1) << 40;
	return (int64_t)(bytes < most ? bytes : most);
}

int dpx_reader_open(struct dpx_session *session, const struct dpx_read_options *options, struct dpx_reader **out)
{
	struct dpx_reader *reader = calloc(1, sizeof(*reader));
	if (!reader)
		return ENOMEM;
	reader->options = *options;
	int rc = pthread_mutex_init(&reader->lock, NULL);
	if (rc)
		goto free_reader;
	rc = dpx_cond_init(&reader->news);
	if (rc)
		goto free_lock;
	rc = dpx_cond_init(&reader->idle);
	if (rc)
		goto free_news;
	rc = dpx_cond_init(&reader->departs);
	if (rc)
		goto free_idle;
	atomic_init(&reader->refs, 1);
	reader->session = dpx_session_retain(session);
	reader->options.handles = session->io.open_saved ? options->handles : NULL;
	if (reader->options.handles) {
		dpx_handles_retain(options->handles);
		reader->root = dpx_handles_root(options->handles, session->root);
	}
	atomic_fetch_add(&session->counters.readers_live, 1);
	init_depth(reader);
	reader->keep = options->max_bytes / 8 / (options->max_in_flight ? options->max_in_flight : 1);
	if (reader->keep > DPX_READ_DIRECT)
		reader->keep = DPX_READ_DIRECT;
	dpx_buffers_keep(session->buffers, kept_bytes(reader));
	*out = reader;
	return 0;
free_idle:
	pthread_cond_destroy(&reader->idle);
free_news:
	pthread_cond_destroy(&reader->news);
free_lock:
	pthread_mutex_destroy(&reader->lock);
free_reader:
	free(reader);
	return rc;
}

void dpx_reader_drop(struct dpx_reader *reader)
{
	if (atomic_fetch_sub(&reader->refs, 1) != 1)
		return;
	struct dpx_session *session = reader->session;
	if (reader->queue)
		session->io.queue_close(reader->queue);
	pthread_cond_destroy(&reader->departs);
	pthread_cond_destroy(&reader->idle);
	pthread_cond_destroy(&reader->news);
	pthread_mutex_destroy(&reader->lock);
	dpx_handles_release(reader->options.handles);
	free(reader);
	dpx_session_release(session);
}

void dpx_reader_close(struct dpx_reader *reader)
{
	if (!reader)
		return;
	struct dpx_session *session = reader->session;
	void *queue = NULL;
	pthread_mutex_lock(&reader->lock);
	struct dpx_adapt adapt = reader->adapt;
	dpx_adapt_pause(&adapt, dpx_now_ns());
	if (!reader->tasks && !reader->polling && !reader->flying) { /* for the next reader, who may come before threads end */
		queue = reader->queue;
		reader->queue = NULL;
	}
	dpx_reader_unlock(reader);
	if (queue)
		session->io.queue_close(queue);
	if (!reader->options.depth) {
		pthread_mutex_lock(&session->lock);
		session->adapt[reader->options.batch] = adapt;
		pthread_mutex_unlock(&session->lock);
	}
	dpx_buffers_keep(session->buffers, -kept_bytes(reader));
	atomic_fetch_sub(&session->counters.readers_live, 1);
	dpx_reader_drop(reader);
}

void dpx_reader_stats(struct dpx_reader *reader, struct dpx_read_stats *out)
{
	pthread_mutex_lock(&reader->lock);
	*out = reader->stats;
	out->depth = reader->adapt.depth;
	out->threads = reader->tasks;
	out->in_flight = reader->outstanding;
	dpx_reader_unlock(reader);
}

void dpx_reader_cancel(struct dpx_reader *reader)
{
	atomic_store(&reader->cancelled, 1);
	pthread_mutex_lock(&reader->lock);
	reader->waiting = 0;
	pthread_cond_broadcast(&reader->news);
	pthread_cond_broadcast(&reader->departs);
	dpx_reader_unlock(reader);
}

int dpx_reader_drain(struct dpx_reader *reader, unsigned wait_ms)
{
	int64_t until = dpx_now_ns() + (int64_t)wait_ms * 1000000;
	int rc = 0;
	pthread_mutex_lock(&reader->lock);
	while ((reader->tasks || reader->polling) && rc != ETIMEDOUT)
		rc = dpx_reader_wait_locked(reader, &reader->idle, until);
	rc = reader->tasks || reader->polling ? ETIMEDOUT : 0;
	dpx_reader_unlock(reader);
	return rc;
}

struct dpx_item *dpx_reader_reap(struct dpx_reader *reader)
{
	struct dpx_item *chain = NULL, *next;
	pthread_mutex_lock(&reader->lock);
	for (struct dpx_item *item = reader->first; item; item = next) {
		next = item->next;
		item->prev = item->next = item->link = NULL;
		if (item->state == DPX_ITEM_RUNNING) {
			item->abandoned = 1;
			atomic_fetch_add(&reader->session->counters.graveyard, 1);
			reader->tasks -= (unsigned)item->in_call;
			continue;
		}
		item->link = chain;
		chain = item;
	}
	reader->first = reader->last = reader->pending = reader->turn = reader->unfinished = NULL;
	reader->outstanding = reader->pending_count = reader->parked_count = reader->ready_count = reader->open_count = 0;
	reader->ready = reader->wanting = reader->done = (struct dpx_item_queue){0};
	dpx_reader_unlock(reader);
	for (struct dpx_item *item = chain; item; item = item->link) {
		if (item->file)
			dpx_session_close_file(reader->session, item->file);
		item->file = NULL;
	}
	return chain;
}
