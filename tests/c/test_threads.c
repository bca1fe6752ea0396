/* Several threads at one session, on the stand-in: each does its own kind of work, and all of it comes out right. What
 * they do to each other's memory is for ThreadSanitizer to say: see test_c_suite.py. */
#include <errno.h>
#include <pthread.h>

#include "handles.h"
#include "listing.h"
#include "opening.h"
#include "put.h"
#include "reader.h"
#include "standin_world.h"

#define FILES 60
#define ROUNDS 12

static char content[4096 + FILES];
static struct dpx_session *session; /* all threads' */
static struct dpx_handles *handles;

static size_t size_of(uint64_t i)
{
	return 1 + (size_t)i * 67;
}

static void fill_world(void)
{
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (char)(i * 7 % 251);
	world_make();
	for (int i = 0; i < FILES; i++)
		world_file(world_path("dir/f%02d", i), content + i, size_of((uint64_t)i));
}

static void disown(void *unused)
{
	(void)unused;
}

/* --- kinds of work, each a thread */

static struct dpx_reader *begin(struct dpx_session *on, unsigned round)
{
	struct dpx_read_options options = {.max_in_flight = 16, .max_bytes = 1 << 16, .disown = disown,
					   .ordered = round % 2, .handles = round % 3 ? handles : NULL};
	struct dpx_reader *reader;
	CHECK(dpx_reader_open(on, &options, &reader) == 0);
	for (int i = 0; i < FILES; i++) {
		struct dpx_item *item = dpx_item_new();
		char path[32];
		int len = snprintf(path, sizeof(path), "dir/f%02d", i);
		item->length = DPX_SIZE_UNKNOWN;
		item->size = round % 4 ? size_of((uint64_t)i) : DPX_SIZE_UNKNOWN;
		CHECK(dpx_item_set_path(item, path, (size_t)len) == 0);
		dpx_reader_push(reader, &item, 1);
	}
	return reader;
}

/* 0 or ECANCELED. */
static int take_all(struct dpx_reader *reader)
{
	struct dpx_taken taken;
	struct dpx_read_stats stats;
	for (int given = 0; given < FILES;) {
		int rc = dpx_reader_take(reader, 50, &taken);
		if (rc == ECANCELED)
			return rc;
		CHECK(rc == 0 || rc == EAGAIN);
		for (size_t i = 0; i < taken.done_count; i++, given++) {
			struct dpx_item *item = taken.done[i];
			CHECK(item->status.err == 0 && item->got == size_of(item->position) &&
			      memcmp(item->dest, content + item->position, item->got) == 0);
		}
		dpx_reader_recycle(reader, taken.done, taken.done_count);
		for (size_t i = 0; i < taken.done_count; i++)
			dpx_item_free(taken.done[i]);
		dpx_reader_stats(reader, &stats);
	}
	return 0;
}

static void finish(struct dpx_reader *reader)
{
	dpx_reader_cancel(reader);
	CHECK(dpx_reader_drain(reader, 20000) == 0);
	for (struct dpx_item *item = dpx_reader_reap(reader), *next; item; item = next) {
		next = item->link;
		dpx_item_free(item);
	}
	dpx_reader_close(reader);
}

static void *read_files(void *unused)
{
	(void)unused;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct dpx_reader *reader = begin(session, round);
		CHECK(take_all(reader) == 0);
		finish(reader);
	}
	return NULL;
}

static void *cancel(void *reader)
{
	dpx_reader_cancel(reader);
	return NULL;
}

static void *read_and_be_cancelled(void *unused)
{
	(void)unused;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_t other;
		struct dpx_reader *reader = begin(session, round);
		CHECK(pthread_create(&other, NULL, cancel, reader) == 0);
		take_all(reader);
		pthread_join(other, NULL);
		finish(reader);
	}
	return NULL;
}

static void *list_names(void *unused)
{
	(void)unused;
	for (int round = 0; round < ROUNDS; round++) {
		struct dpx_list_options options = {.path = "dir", .recursive = 1, .sizes = round % 2};
		struct dpx_listing *listing;
		const struct dpx_list_entry *entries;
		struct dpx_list_counts counts;
		size_t count = 1, seen = 0;
		CHECK(dpx_listing_open(session, &options, &listing) == 0);
		while (count) {
			int rc = dpx_listing_next(listing, 50, &entries, &count);
			CHECK(rc == 0 || rc == EAGAIN);
			count = rc ? 1 : count;
			seen += rc ? 0 : count;
			dpx_listing_counts(listing, &counts);
		}
		CHECK(seen == FILES);
		dpx_listing_close(listing, 20000);
	}
	return NULL;
}

/* In a folder of this thread's own, and all with the same parent. */
static void *write_and_rename(void *number)
{
	char from[64], to[64];
	struct dpx_stat st;
	snprintf(from, sizeof(from), "out/%d/a", *(int *)number);
	snprintf(to, sizeof(to), "out/%d/b", *(int *)number);
	for (int round = 0; round < ROUNDS; round++) {
		CHECK(dpx_put_file(session, from, content, 100 + (size_t)round) == 0);
		CHECK(dpx_session_stat(session, from, &st) == 0 && st.size == 100 + (uint64_t)round);
		CHECK(dpx_session_rename(session, from, to) == 0);
		CHECK(dpx_session_stat(session, from, &st) == ENOENT && dpx_session_remove(session, to) == 0);
	}
	return NULL;
}

/* Connections come and go while others are used; the last one ends DAOS, unless somebody else has one. */
static void *open_and_close(void *unused)
{
	(void)unused;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct dpx_session *own = world_session();
		struct dpx_reader *reader = begin(own, round);
		CHECK(round % 2 || take_all(reader) == 0);
		finish(reader);
		CHECK(dpx_session_close(own, 20000) == 0);
		dpx_session_release(own);
	}
	return NULL;
}

static void all_at_once(void)
{
	static int numbers[] = {0, 1};
	void *(*const work[])(void *) = {read_files, read_files, read_and_be_cancelled, list_names, list_names,
					 open_and_close, open_and_close, write_and_rename, write_and_rename};
	enum { COUNT = sizeof(work) / sizeof(work[0]) };
	pthread_t threads[COUNT];
	for (int i = 0; i < COUNT; i++)
		CHECK(pthread_create(&threads[i], NULL, work[i], &numbers[i % 2]) == 0);
	for (int i = 0; i < COUNT; i++)
		pthread_join(threads[i], NULL);
}

static void test_threads_share_a_session(void)
{
	char table[128];
	snprintf(table, sizeof(table), "%s/table", world_root);
	CHECK(dpx_handles_open(table, "data", 1000, 1 << 20, &handles) == 0);
	session = world_session();
	all_at_once();
	CHECK(atomic_load(&session->counters.handle_hits) > 0);
	CHECK(dpx_session_close(session, 20000) == 0);
	dpx_session_release(session);
	dpx_handles_release(handles);
	world_check_empty();
}

static void test_connections_come_and_go(void)
{
	pthread_t threads[4];
	handles = NULL;
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, open_and_close, NULL) == 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	world_check_empty();
}

static void *close_session(void *unused)
{
	(void)unused;
	CHECK(dpx_session_close(session, 20000) == 0);
	return NULL;
}

static void test_a_session_is_closed_while_it_is_read_and_listed(void)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct dpx_list_options options = {.path = "dir", .recursive = 1, .sizes = 1};
		struct dpx_listing *listing;
		const struct dpx_list_entry *entries;
		struct dpx_taken taken;
		size_t count = 1;
		pthread_t other;
		int rc;
		session = world_session();
		struct dpx_reader *reader = begin(session, round);
		CHECK(dpx_listing_open(session, &options, &listing) == 0);
		CHECK(pthread_create(&other, NULL, close_session, NULL) == 0);
		while ((rc = dpx_listing_next(listing, 50, &entries, &count)) == EAGAIN || (!rc && count))
			continue;
		CHECK(rc == 0 || rc == EBADF);
		do {
			rc = dpx_reader_take(reader, 50, &taken);
			for (size_t i = 0; i < taken.done_count; i++)
				dpx_item_free(taken.done[i]);
		} while (rc == EAGAIN || (!rc && taken.done_count));
		pthread_join(other, NULL);
		dpx_listing_close(listing, 20000);
		finish(reader);
		dpx_session_release(session);
		world_check_empty();
	}
}

static int open_soon(const char *root, int patient, struct dpx_session **made)
{
	struct dpx_session_spec spec = {.io = dpx_io_find("dfs"), .root = root};
	struct dpx_opening *opening;
	char why[DPX_WHY_ROOM] = "";
	int rc = EAGAIN;
	CHECK(dpx_opening_start(&spec, &opening) == 0);
	do
		rc = dpx_opening_wait(opening, 1, made, why);
	while (rc == EAGAIN && patient);
	CHECK(rc == 0 || rc == EAGAIN || strstr(why, "no such"));
	dpx_opening_end(opening);
	return rc;
}

/* Whoever does not wait for it leaves nothing behind, whenever that is. */
static void test_sessions_that_are_opened_on_a_thread_of_their_own(void)
{
	struct dpx_session *made = NULL;
	CHECK(open_soon("pool/cont", 1, &made) == 0);
	struct dpx_reader *reader = begin(made, 0);
	CHECK(take_all(reader) == 0);
	finish(reader);
	CHECK(dpx_session_close(made, 20000) == 0);
	dpx_session_release(made);
	CHECK(open_soon("pool/none", 1, &made) == ENOENT && open_soon("none/cont", 1, &made) == ENOENT);
	standin.set("STANDIN_COST", "sleep");
	for (int us = 0; us < 4000; us += 200) {
		char text[32];
		snprintf(text, sizeof(text), "%d", us);
		standin.set("STANDIN_CONNECT_US", text);
		if (open_soon("pool/cont", 0, &made) == 0)
			dpx_session_release(made);
	}
	for (int i = 0; i < 10000 && standin.count("inits"); i++)
		usleep(1000);
	standin.reset();
	world_check_empty();
}

int main(void)
{
	fill_world();
	world_load();
	RUN(test_threads_share_a_session);
	RUN(test_connections_come_and_go);
	RUN(test_sessions_that_are_opened_on_a_thread_of_their_own);
	RUN(test_a_session_is_closed_while_it_is_read_and_listed);
	world_remove();
	return 0;
}
