/* Listing through the dfs table on the stand-in: one large directory in parts and by several threads, what each mode
 * costs, and the handles that looking gives. */
#include <errno.h>
#include <fcntl.h>

#include "handles.h"
#include "handles_spool.h"
#include "listing.h"
#include "reader.h"
#include "standin_world.h"

#define FILES 700 /* in one directory, of which two are empty, with two directories and two links */
#define NAMES (FILES + 4)

static char content[FILES + 10];
static char table[128];

static size_t size_of(int i)
{
	return i % 350 == 0 ? 0 : (size_t)i;
}

static void fill_world(void)
{
	memset(content, 'c', sizeof(content));
	world_make();
	CHECK(mkdir(world_path("flat"), 0755) == 0 && mkdir(world_path("flat/f0010"), 0755) == 0);
	CHECK(mkdir(world_path("flat/z"), 0755) == 0);
	for (int i = 0; i < FILES; i++)
		world_file(world_path("flat/f%04d.bin", i), content, size_of(i));
	world_file(world_path("flat/f0010/in"), content, 3);
	world_file(world_path("flat/z/last"), content, 4);
	CHECK(symlink("f0007.bin", world_path("flat/f0500.link")) == 0 && symlink("z", world_path("flat/linked")) == 0);
	snprintf(table, sizeof(table), "%s/table", world_root);
}

static void close_session(struct dpx_session *session)
{
	world_close(session);
	world_check_empty();
}

struct listed {
	int err;
	size_t count;
	uint64_t bytes, unknown;
	char text[NAMES * 32];
	size_t len;
};

static void take(struct listed *listed, const struct dpx_list_entry *entry)
{
	CHECK(listed->len + entry->path_len + 2 < sizeof(listed->text));
	memcpy(listed->text + listed->len, entry->path, entry->path_len);
	listed->len += entry->path_len;
	listed->text[listed->len++] = '\n';
	listed->text[listed->len] = '\0';
	listed->count++;
	listed->unknown += entry->size == DPX_SIZE_UNKNOWN;
	listed->bytes += entry->size == DPX_SIZE_UNKNOWN ? 0 : entry->size;
}

/* wait_ms: a long one leaves all to the threads of the listing. */
static struct listed list_waiting(struct dpx_session *session, const struct dpx_list_options *options, unsigned wait_ms)
{
	static struct listed listed;
	struct dpx_listing *listing;
	const struct dpx_list_entry *entries;
	size_t count;
	listed = (struct listed){0};
	CHECK(dpx_listing_open(session, options, &listing) == 0);
	for (;;) {
		int rc = dpx_listing_next(listing, wait_ms, &entries, &count);
		if (rc == EAGAIN)
			continue;
		listed.err = rc;
		if (rc || !count)
			break;
		for (size_t i = 0; i < count; i++)
			take(&listed, &entries[i]);
	}
	dpx_listing_close(listing, 20000);
	return listed;
}

static struct listed list_with(struct dpx_session *session, const struct dpx_list_options *options)
{
	return list_waiting(session, options, 50);
}

static struct listed list_flat(struct dpx_session *session, int sizes, int kinds)
{
	struct dpx_list_options options = {.path = "flat", .recursive = 1, .sizes = sizes, .kinds = kinds};
	return list_with(session, &options);
}

/* In path order, as a listing that has nothing to do with directories gives it. */
static const char *expected_names(void)
{
	static char text[NAMES * 32];
	char *at = text;
	for (int i = 0; i < FILES; i++) {
		if (i == 500)
			at += sprintf(at, "flat/f0500.bin\nflat/f0500.link\n");
		else
			at += sprintf(at, i == 11 ? "flat/f0010/in\nflat/f%04d.bin\n" : "flat/f%04d.bin\n", i);
	}
	sprintf(at, "flat/z/last\n");
	return text;
}

static uint64_t expected_bytes(void)
{
	uint64_t bytes = 3 + 4 + 7;
	for (int i = 0; i < FILES; i++)
		bytes += size_of(i);
	return bytes;
}

static long lookups(void)
{
	return standin.count("dfs_lookup_rel");
}

static void test_parts_are_the_whole_in_order(void)
{
	static const char *const parts[] = {"1", "2", "4", "16"};
	struct dpx_session *session = world_session();
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		standin.reset();
		standin.set("STANDIN_PARTS", parts[i]);
		struct listed listed = list_flat(session, 1, 1);
		CHECK(listed.err == 0 && strcmp(listed.text, expected_names()) == 0);
		CHECK(listed.bytes == expected_bytes() && listed.unknown == 0);
		long split = atol(parts[i]);
		CHECK(standin.count("dfs_obj_anchor_set") >= (split > 1 ? 3 * split : 0)); /* three directories */
		CHECK(standin.count("dfs_obj_anchor_set") % split == 0 && standin.count("dfs_obj_anchor_split") >= 3);
	}
	standin.reset();
	close_session(session);
}

/* What is not asked for is not paid for. The few look-ups beside those of entries are of directories, and of links. */
static void test_each_mode_costs_what_it_asks(void)
{
	struct dpx_session *session = world_session();
	standin.reset();
	CHECK(list_flat(session, 1, 0).bytes == expected_bytes()); /* sizes tell the kinds too */
	CHECK(lookups() >= NAMES && lookups() < NAMES + 20 && standin.count("dfs_lookup_rel+size") >= NAMES);
	standin.reset();
	struct listed types = list_flat(session, 0, 1);
	CHECK(strcmp(types.text, expected_names()) == 0 && types.unknown >= FILES);
	CHECK(lookups() >= NAMES && lookups() < NAMES + 20 && standin.count("dfs_lookup_rel+size") < 20);
	CHECK(standin.count("dfs_get_size") == 0 && standin.count("dfs_stat") == 0 && standin.count("dfs_read") == 0);
	standin.reset();
	struct listed names = list_flat(session, 0, 0);
	CHECK(names.err == 0 && names.count == NAMES && names.unknown == NAMES);
	CHECK(strstr(names.text, "flat/z\n") && strstr(names.text, "flat/f0500.link\n")); /* taken for files */
	CHECK(lookups() < 4 && standin.count("dfs_stat") == 0);
	CHECK(standin.count("dfs_readdir") <= 3 * (NAMES / 256 + 1));
	standin.reset();
	close_session(session);
}

/* Entries of one directory are looked at by several threads, whether or not it has parts. */
static void test_one_directory_is_worked_on_at_once(void)
{
	struct dpx_session *session = world_session();
	for (int parts = 1; parts <= 4; parts += 3) {
		standin.reset();
		standin.set("STANDIN_PARTS", parts == 1 ? "1" : "4");
		standin.set("STANDIN_COST", "sleep");
		standin.set("STANDIN_LOOKUP_US", "1000");
		struct dpx_list_options options = {.path = "flat", .recursive = 0, .kinds = 1, .depth = 4};
		CHECK(list_waiting(session, &options, 60000).err == 0);
		CHECK(standin.count("at_once") >= 3 && standin.count("at_once") <= 4);
		options.depth = 1;
		standin.reset();
		CHECK(list_with(session, &options).err == 0);
		CHECK(standin.count("at_once") == 1);
	}
	standin.reset();
	close_session(session);
}

/* A store whose clock is ahead vouches for nothing: the directory is passed over again, but nothing is looked at twice. */
static void test_passes_again_look_at_nothing_twice(void)
{
	struct timespec ahead[2] = {{.tv_sec = 4000000000}, {.tv_sec = 4000000000}}, past[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
	struct dpx_session *session = world_session();
	CHECK(utimensat(AT_FDCWD, world_path("flat"), ahead, 0) == 0);
	standin.reset();
	CHECK(strcmp(list_flat(session, 1, 1).text, expected_names()) == 0);
	CHECK(standin.count("dfs_readdir") >= 2 * (NAMES / 256 + 1) && lookups() < NAMES + 20);
	CHECK(utimensat(AT_FDCWD, world_path("flat"), past, 0) == 0);
	close_session(session);
}

static void test_start_after_looks_at_what_comes_after(void)
{
	struct dpx_session *session = world_session();
	struct dpx_list_options options = {.path = "flat", .recursive = 1, .sizes = 1, .start_after = "flat/f0690.bin"};
	const char *rest = strstr(expected_names(), "flat/f0691.bin");
	standin.reset();
	CHECK(strcmp(list_with(session, &options).text, rest) == 0 && lookups() < 30);
	options.start_after = "flat/f0010/a"; /* in a directory, whose name alone comes before */
	CHECK(strcmp(list_with(session, &options).text, strstr(expected_names(), "flat/f0010/in")) == 0);
	close_session(session);
}

/* A true beginning of the whole, then the error; nothing is left. */
static void test_a_fault_at_each_call(void)
{
	static const char *const parts[] = {"1", "4"};
	static char rule[64];
	for (int turn = 0; turn < 2; turn++) {
		long calls, k = 0, faults = 0;
		do {
			struct dpx_session *session = world_session();
			standin.reset();
			standin.set("STANDIN_PARTS", parts[turn]);
			k += k < 60 ? 1 : 13;
			snprintf(rule, sizeof(rule), "any:%ld=5", k);
			CHECK(standin.set("STANDIN_FAIL", rule) == 0);
			struct listed listed = list_flat(session, 1, 1);
			calls = standin.count("calls");
			CHECK(listed.err == (calls >= k ? EIO : 0));
			CHECK(strncmp(expected_names(), listed.text, listed.len) == 0);
			CHECK(listed.err || listed.len == strlen(expected_names()));
			faults += listed.err != 0;
			standin.reset();
			close_session(session);
		} while (calls >= k);
		CHECK(faults > 60);
	}
}

/* One that goes away between its name and the look at it does not appear; all others do. */
static void test_what_goes_away_meanwhile_is_left_out_alone(void)
{
	struct dpx_session *session = world_session();
	struct dpx_list_options options = {.path = "flat", .recursive = 1, .sizes = 1, .depth = 1};
	size_t whole = list_with(session, &options).count;
	standin.reset();
	standin.set("STANDIN_FAIL", "dfs_lookup_rel:300=2,dfs_lookup_rel:400=2");
	struct listed listed = list_with(session, &options);
	CHECK(listed.err == 0 && listed.count == whole - 2);
	standin.reset();
	close_session(session);
}

/* Given up at any moment, with threads inside. */
static void test_closing_early(void)
{
	struct dpx_session *session = world_session();
	standin.set("STANDIN_PARTS", "4");
	standin.set("STANDIN_COST", "sleep");
	for (unsigned wait_ms = 0; wait_ms < 30; wait_ms += 3) {
		struct dpx_list_options options = {.path = "flat", .recursive = 1, .sizes = 1};
		const struct dpx_list_entry *entries;
		struct dpx_listing *listing;
		size_t count;
		CHECK(dpx_listing_open(session, &options, &listing) == 0);
		int rc = dpx_listing_next(listing, wait_ms, &entries, &count);
		CHECK(rc == 0 || rc == EAGAIN);
		dpx_listing_close(listing, 20000);
	}
	standin.reset();
	close_session(session);
}

/* --- handles */

static struct dpx_spool *open_spool(const char *mask)
{
	struct dpx_spool *spool;
	CHECK(dpx_spool_open(world_root, 1 << 20, &mask, mask ? 1 : 0, &spool) == 0);
	return spool;
}

static struct listed list_into(struct dpx_session *session, struct dpx_spool *spool, int sizes)
{
	struct dpx_list_options options = {.path = "flat", .recursive = 1, .sizes = sizes, .kinds = 1, .spool = spool};
	return list_with(session, &options);
}

static void disown(void *unused)
{
	(void)unused;
}

/* Read all files and the link by a table; how many failed. */
static int read_all(struct dpx_session *session, struct dpx_handles *handles)
{
	struct dpx_read_options options = {.max_in_flight = 16, .max_bytes = 1 << 20, .disown = disown, .handles = handles};
	struct dpx_reader *reader;
	struct dpx_taken taken;
	char name[64];
	int errors = 0;
	CHECK(dpx_reader_open(session, &options, &reader) == 0);
	for (int i = 0; i <= FILES; i++) {
		struct dpx_item *item = dpx_item_new();
		item->length = item->size = DPX_SIZE_UNKNOWN;
		snprintf(name, sizeof(name), i < FILES ? "flat/f%04d.bin" : "flat/f0500.link", i);
		CHECK(dpx_item_set_path(item, name, strlen(name)) == 0);
		dpx_reader_push(reader, &item, 1);
	}
	for (int given = 0; given <= FILES;) {
		int rc = dpx_reader_take(reader, 50, &taken);
		CHECK(rc == 0 || rc == EAGAIN);
		for (size_t i = 0; i < taken.done_count; i++, given++) {
			errors += taken.done[i]->status.err != 0;
			int position = (int)taken.done[i]->position;
			CHECK(taken.done[i]->status.err || taken.done[i]->got == size_of(position < FILES ? position : 7));
		}
		dpx_reader_recycle(reader, taken.done, taken.done_count);
		for (size_t i = 0; i < taken.done_count; i++)
			dpx_item_free(taken.done[i]);
	}
	dpx_reader_cancel(reader);
	CHECK(dpx_reader_drain(reader, 20000) == 0);
	dpx_reader_close(reader);
	return errors;
}

static struct dpx_handles *settle(struct dpx_spool *spool)
{
	struct dpx_handles *handles;
	CHECK(dpx_spool_settle(spool, table, "data", NAMES, 1 << 20) == 0);
	dpx_spool_release(spool);
	CHECK(dpx_handles_open(table, "data", NAMES, 1 << 20, &handles) == 0);
	return handles;
}

static void test_what_was_listed_is_read_without_opening(void)
{
	struct dpx_session *session = world_session();
	for (int sizes = 0; sizes < 2; sizes++) {
		struct dpx_spool *spool = open_spool(NULL);
		standin.reset();
		CHECK(list_into(session, spool, sizes).err == 0);
		CHECK(lookups() < NAMES + 20); /* no more than without */
		struct dpx_handles *handles = settle(spool);
		uint64_t hits = atomic_load(&session->counters.handle_hits);
		standin.reset();
		CHECK(read_all(session, handles) == 0);
		CHECK(lookups() <= 6 && standin.count("dfs_open") == 0); /* of the empty ones, and their directory */
		CHECK(standin.count("dfs_get_size") <= 2 && standin.count("dfs_lookup") == 0);
		/* All of them and the link; but for the empty ones, where that is known. */
		hits = atomic_load(&session->counters.handle_hits) - hits;
		CHECK(hits == FILES + 1 - (sizes ? 2 : 0));
		dpx_handles_release(handles);
	}
	close_session(session);
}

/* How many files a table of what was put opens. */
static long kept(struct dpx_session *session, struct dpx_spool *spool)
{
	struct dpx_handles *handles = settle(spool);
	standin.reset();
	CHECK(read_all(session, handles) == 0);
	dpx_handles_release(handles);
	return FILES + 1 - lookups();
}

static int about(long value, long expected)
{
	return value <= expected && value >= expected - 4; /* the directory, and empty files, may be looked up again */
}

static void test_only_what_is_meant_is_kept(void)
{
	struct dpx_session *session = world_session();
	struct dpx_spool *spool = open_spool("f01*.bin"), *small;
	CHECK(list_into(session, spool, 1).err == 0 && about(kept(session, spool), 100));
	CHECK(dpx_spool_open(world_root, 384 * 50, NULL, 0, &small) == 0);
	CHECK(list_into(session, small, 1).err == 0);
	long most = kept(session, small);
	CHECK(most > 20 && most <= 50);
	CHECK(about(kept(session, open_spool(NULL)), 0));
	close_session(session);
}

/* Handles that cannot be had do not concern the listing. */
static void test_a_listing_without_handles_is_whole(void)
{
	struct dpx_session *session = world_session();
	struct dpx_spool *spool = open_spool(NULL);
	standin.set("STANDIN_FAIL", "dfs_obj_local2global:*=12");
	CHECK(strcmp(list_into(session, spool, 1).text, expected_names()) == 0);
	standin.reset();
	CHECK(about(kept(session, spool), 0));
	close_session(session);
}

static void test_a_table_takes_the_place_of_a_table_only(void)
{
	struct dpx_session *session = world_session();
	struct dpx_spool *spool = open_spool(NULL);
	char text[8] = "";
	CHECK(list_into(session, spool, 1).err == 0);
	world_file(table, "theirs", 6);
	CHECK(dpx_spool_settle(spool, table, "data", NAMES, 1 << 20) == EEXIST);
	FILE *file = fopen(table, "rb");
	CHECK(file && fread(text, 1, 6, file) == 6 && strcmp(text, "theirs") == 0 && fclose(file) == 0);
	CHECK(unlink(table) == 0);
	CHECK(dpx_spool_settle(spool, "/nowhere/table", "data", NAMES, 1 << 20) == ENOENT);
	CHECK(dpx_spool_settle(spool, table, "other", NAMES, 1 << 20) == 0); /* is replaced by the next */
	CHECK(about(kept(session, spool), FILES - 1));
	CHECK(unlink(table) == 0);
	char command[128];
	snprintf(command, sizeof(command), "! ls -A '%s' | grep -q -e table -e handles", world_root);
	CHECK(system(command) == 0); /* nothing else is left */
	close_session(session);
}

int main(void)
{
	fill_world();
	world_load();
	RUN(test_parts_are_the_whole_in_order);
	RUN(test_each_mode_costs_what_it_asks);
	RUN(test_one_directory_is_worked_on_at_once);
	RUN(test_passes_again_look_at_nothing_twice);
	RUN(test_start_after_looks_at_what_comes_after);
	RUN(test_a_fault_at_each_call);
	RUN(test_what_goes_away_meanwhile_is_left_out_alone);
	RUN(test_closing_early);
	world_balanced(1); /* an empty file is looked at once more there, not five times: look-ups are counted */
	RUN(test_what_was_listed_is_read_without_opening);
	RUN(test_only_what_is_meant_is_kept);
	RUN(test_a_listing_without_handles_is_whole);
	RUN(test_a_table_takes_the_place_of_a_table_only);
	world_balanced(0);
	world_remove();
	return 0;
}
