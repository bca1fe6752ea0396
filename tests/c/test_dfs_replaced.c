/* A file that is replaced while it is read: one of its contents comes, whole. Neither nothing, which is what libdfs gives
 * through the object that was opened before, nor too little. */
#include <time.h>

#include "reader.h"
#include "standin_world.h"

#define READS 1500
#define LENGTH 4000

static atomic_int replacing = 1, taken;

static void pause_us(long us)
{
	struct timespec time = {.tv_nsec = us * 1000};
	nanosleep(&time, NULL);
}

/* Several times on end, that it also happens between two questions of one reader, but less often than a read begins
 * anew; then none until others have been read. */
static void *replace(void *arg)
{
	char content[LENGTH];
	(void)arg;
	for (int i = 0; atomic_load(&replacing); i++) {
		memset(content, 'a' + i % 2, sizeof(content));
		world_file(world_path("next"), content, sizeof(content));
		CHECK(rename(world_path("next"), world_path("file")) == 0);
		pause_us(700);
		for (int before = atomic_load(&taken); i % 15 == 0 && atomic_load(&replacing) && atomic_load(&taken) < before + 100;)
			pause_us(1000);
	}
	return NULL;
}

static void disown(void *owner)
{
	(void)owner;
}

static void check(const struct dpx_item *item)
{
	const char *text = item->dest;
	CHECK(item->status.err == 0 && item->got == LENGTH && text[0] == text[LENGTH - 1]);
}

static void test_one_content_comes_whole(void)
{
	struct dpx_read_options options = {.max_in_flight = 4, .max_bytes = 1 << 20, .disown = disown};
	struct dpx_session *session = world_session();
	struct dpx_reader *reader;
	struct dpx_taken some;
	char text[LENGTH];
	pthread_t thread;
	memset(text, 'a', sizeof(text));
	world_file(world_path("file"), text, sizeof(text));
	CHECK(standin.set("STANDIN_COST", "sleep") == 0);
	CHECK(standin.set("STANDIN_LOOKUP_US", "200") == 0 && standin.set("STANDIN_SIZE_US", "3000") == 0);
	CHECK(standin.set("STANDIN_READ_US", "200") == 0);
	CHECK(pthread_create(&thread, NULL, replace, NULL) == 0);
	CHECK(dpx_reader_open(session, &options, &reader) == 0);
	for (int i = 0; i < READS; i++) {
		struct dpx_item *item = dpx_item_new();
		item->length = DPX_SIZE_UNKNOWN;
		item->size = i % 2 ? LENGTH : DPX_SIZE_UNKNOWN;
		CHECK(dpx_item_set_path(item, "file", 4) == 0);
		dpx_reader_push(reader, &item, 1);
	}
	for (size_t done = 0; done < READS; done += some.done_count) {
		dpx_reader_take(reader, 50, &some);
		for (size_t i = 0; i < some.done_count; i++)
			check(some.done[i]);
		atomic_fetch_add(&taken, (int)some.done_count);
		dpx_reader_recycle(reader, some.done, some.done_count);
		for (size_t i = 0; i < some.done_count; i++)
			dpx_item_free(some.done[i]);
	}
	atomic_store(&replacing, 0);
	CHECK(pthread_join(thread, NULL) == 0);
	standin.reset();
	dpx_reader_cancel(reader);
	CHECK(dpx_reader_drain(reader, 20000) == 0);
	dpx_reader_close(reader);
	world_close(session);
	world_check_empty();
}

static struct dpx_reader *read_file(struct dpx_session *session, uint64_t told)
{
	struct dpx_read_options options = {.max_in_flight = 1, .max_bytes = 1 << 20, .disown = disown};
	struct dpx_item *item = dpx_item_new();
	struct dpx_reader *reader;
	CHECK(dpx_reader_open(session, &options, &reader) == 0);
	item->length = DPX_SIZE_UNKNOWN;
	item->size = told;
	CHECK(dpx_item_set_path(item, "file", 4) == 0);
	dpx_reader_push(reader, &item, 1);
	return reader;
}

/* How much came of the one file, and no more of the reader. */
static size_t come(struct dpx_reader *reader)
{
	struct dpx_taken some = {0};
	while (!some.done_count)
		dpx_reader_take(reader, 50, &some);
	CHECK(some.done_count == 1 && some.done[0]->status.err == 0);
	size_t got = some.done[0]->got;
	dpx_reader_recycle(reader, some.done, 1);
	dpx_item_free(some.done[0]);
	dpx_reader_cancel(reader);
	CHECK(dpx_reader_drain(reader, 20000) == 0);
	dpx_reader_close(reader);
	return got;
}

/* Whoever replaces a file in a relaxed container empties it, and may then be kept from going on for a while: here until
 * the reader has looked three times whether it is empty. A machine may keep the replacement for longer than the reader
 * looks; hence the trials. In a balanced container there is no such moment, and nothing is waited for. */
static void test_a_file_that_is_empty_for_a_moment(void)
{
	for (int balanced = 0; balanced < 2; balanced++) {
		if (balanced)
			world_balanced(1);
		struct dpx_session *session = world_session();
		size_t got = 0;
		for (int trial = 0; trial < (balanced ? 3 : 50) && !got; trial++) {
			world_file(world_path("file"), "", 0);
			world_file(world_path("next"), "content", 7);
			standin.reset(); /* calls are counted from here */
			struct dpx_reader *reader = read_file(session, DPX_SIZE_UNKNOWN);
			for (int ms = 0; standin.count("dfs_lookup_rel") < 4 && ms < 100; ms++)
				pause_us(1000);
			CHECK(rename(world_path("next"), world_path("file")) == 0);
			got = come(reader);
		}
		CHECK(got == (balanced ? 0 : 7));
		world_close(session);
		world_check_empty();
	}
	world_balanced(0);
}

int main(void)
{
	world_make();
	world_load();
	RUN(test_one_content_comes_whole);
	RUN(test_a_file_that_is_empty_for_a_moment);
	world_remove();
	return 0;
}
