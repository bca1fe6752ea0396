/* The dfs table on the stand-in: everything the engine does on a container, and every fault at each call. */
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

#include "listing.h"
#include "put.h"
#include "reader.h"
#include "standin_world.h"

#define FILES 60
#define LARGEST 90000

/* A read that has not come by then never will; all others have, on a machine that is busy too. */
#define NEVER_NS (INT64_C(4) * 1000000000)

static char content[LARGEST + 64];

static size_t size_of(int i)
{
	return i % 10 == 9 ? LARGEST : i % 10 == 0 ? 0 : 100 + (size_t)i;
}

static const char *name_of(int i)
{
	static char names[8][64];
	static unsigned next;
	char *name = names[next++ % 8];
	snprintf(name, sizeof(names[0]), "set/%c/deep/f%02d", 'a' + i % 3, i);
	return name;
}

static void fill_world(void)
{
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (char)(i * 7 % 251);
	world_make();
	CHECK(mkdir(world_path("set"), 0755) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(mkdir(world_path("set/%c", 'a' + i), 0755) == 0 && mkdir(world_path("set/%c/deep", 'a' + i), 0755) == 0);
	for (int i = 0; i < FILES; i++)
		world_file(world_path("%s", name_of(i)), content + i, size_of(i));
	CHECK(symlink("f01", world_path("set/b/deep/link")) == 0);
}

static struct dpx_session *open_session(int *rc)
{
	struct dpx_session_spec spec = {.io = dpx_io_find("dfs"), .root = "pool/cont"};
	struct dpx_session *session = NULL;
	char why[DPX_WHY_ROOM];
	*rc = dpx_session_open(&spec, &session, why);
	return session;
}

/* --- the three big things, each of which gives the errors it met */

struct outcome {
	int errors, first;
};

static void note(struct outcome *outcome, int err)
{
	outcome->first = outcome->errors++ ? outcome->first : err;
}

static void disown(void *unused)
{
	(void)unused;
}

/* Every file, its size told or not. What comes must be right. Reads that do not come are left where they are. */
static struct outcome read_with(struct dpx_session *session, const struct dpx_read_options *more, int told)
{
	struct outcome outcome = {0};
	struct dpx_read_options options = *more;
	options.max_in_flight = 16;
	options.max_bytes = 1 << 20;
	options.disown = disown;
	struct dpx_item *items[FILES];
	struct dpx_taken taken;
	struct dpx_reader *reader;
	CHECK(dpx_reader_open(session, &options, &reader) == 0);
	for (int i = 0; i < FILES; i++) {
		items[i] = dpx_item_new();
		items[i]->length = DPX_SIZE_UNKNOWN;
		items[i]->size = told ? size_of(i) : DPX_SIZE_UNKNOWN;
		CHECK(dpx_item_set_path(items[i], name_of(i), strlen(name_of(i))) == 0);
	}
	dpx_reader_push(reader, items, FILES);
	for (int given = 0; given < FILES;) {
		int rc = dpx_reader_take(reader, 50, &taken);
		CHECK(rc == 0 || rc == EAGAIN);
		for (size_t i = 0; i < taken.done_count; i++, given++) {
			struct dpx_item *item = taken.done[i];
			int at = (int)item->position;
			if (item->status.err)
				note(&outcome, item->status.err);
			else
				CHECK(item->got == size_of(at) &&
				      (!item->got || memcmp(item->dest, content + at, item->got) == 0));
		}
		dpx_reader_recycle(reader, taken.done, taken.done_count);
		for (size_t i = 0; i < taken.done_count; i++)
			dpx_item_free(taken.done[i]);
	}
	dpx_reader_cancel(reader);
	CHECK(dpx_reader_drain(reader, options.timeout_ns ? 10 : 20000) == 0 || options.timeout_ns);
	dpx_reader_close(reader);
	return outcome;
}

static struct outcome read_all(struct dpx_session *session, int told, int verify)
{
	return read_with(session, &(struct dpx_read_options){.verify_size = verify}, told);
}

static struct outcome list_all(struct dpx_session *session, int sizes)
{
	struct outcome outcome = {0};
	struct dpx_list_options options = {.path = "set", .recursive = 1, .kinds = 1, .sizes = sizes};
	struct dpx_listing *listing;
	const struct dpx_list_entry *entries;
	size_t count, seen = 0;
	uint64_t bytes = 0, expected = size_of(1); /* through the link */
	for (int i = 0; i < FILES; i++)
		expected += size_of(i);
	CHECK(dpx_listing_open(session, &options, &listing) == 0);
	for (;;) {
		int rc = dpx_listing_next(listing, 50, &entries, &count);
		if (rc == EAGAIN)
			continue;
		if (rc)
			note(&outcome, rc);
		if (rc || !count)
			break;
		for (size_t i = 0; i < count; i++)
			bytes += entries[i].size == DPX_SIZE_UNKNOWN ? 0 : entries[i].size;
		seen += count;
	}
	CHECK(outcome.errors || (seen == FILES + 1 && (!sizes || bytes == expected)));
	dpx_listing_close(listing, 20000);
	return outcome;
}

static struct outcome write_one(struct dpx_session *session)
{
	struct outcome outcome = {0};
	char back[300];
	int rc = dpx_put_file(session, "new/deeper/file", content, sizeof(back));
	if (rc)
		note(&outcome, rc);
	FILE *file = fopen(world_path("new/deeper/file"), "rb");
	CHECK(!file == !!rc);
	if (file) {
		CHECK(fread(back, 1, sizeof(back), file) == sizeof(back) && memcmp(back, content, sizeof(back)) == 0);
		fclose(file);
	}
	char command[128];
	snprintf(command, sizeof(command), "! ls -A '%s' 2>/dev/null | grep -q part", world_path("new/deeper"));
	CHECK(system(command) == 0); /* nothing half-made stays */
	snprintf(command, sizeof(command), "rm -rf '%s'", world_path("new"));
	CHECK(system(command) == 0);
	return outcome;
}

static void test_lists_reads_and_writes(void)
{
	struct dpx_session *session = world_session();
	for (int i = 0; i < 2; i++) {
		CHECK(list_all(session, i).errors == 0);
		CHECK(read_all(session, i, 0).errors == 0);
		CHECK(read_all(session, i, 1).errors == 0);
		CHECK(write_one(session).errors == 0);
	}
	world_close(session);
	world_check_empty();
}

static struct outcome reads_told(struct dpx_session *session)
{
	return read_all(session, 1, 0);
}

static struct outcome reads_untold(struct dpx_session *session)
{
	return read_all(session, 0, 0);
}

static struct outcome lists(struct dpx_session *session)
{
	return list_all(session, 1);
}

/* One fault at each call in turn, until there is no such call. how: 5, or what becomes of a read; err: what it is then,
 * where it is anything. */
static void fail_at_each_call(const char *what, const char *how, int err, struct outcome (*run)(struct dpx_session *session))
{
	char rule[64];
	long k = 1 - CALLS_STEP, calls;
	do {
		snprintf(rule, sizeof(rule), "%s:%ld=%s", what, k += CALLS_STEP, how);
		CHECK(standin.set("STANDIN_FAIL", rule) == 0);
		struct outcome outcome = {0};
		int rc;
		struct dpx_session *session = open_session(&rc);
		if (rc)
			note(&outcome, rc);
		else
			outcome = run(session);
		calls = standin.count(strcmp(what, "any") == 0 ? "calls" : what);
		CHECK(outcome.errors == 0 || outcome.first == err);
		CHECK(calls >= k || outcome.errors == 0);
		standin.reset();
		if (session)
			world_close(session);
		world_check_empty();
	} while (calls >= k);
	CHECK(k > 5);
}

static void test_a_fault_at_each_call(void)
{
	fail_at_each_call("any", "5", EIO, reads_told);
	fail_at_each_call("any", "5", EIO, reads_untold);
	fail_at_each_call("any", "5", EIO, lists);
	fail_at_each_call("any", "5", EIO, write_one);
}

/* A read that begins well may end badly, or with half of what was asked for: that is all there is of a file whose size
 * is told, and where it is not, the rest is asked for. */
static void test_a_bad_end_of_each_read(void)
{
	fail_at_each_call("dfs_read", "late:5", EIO, reads_told);
	fail_at_each_call("dfs_read", "late:5", EIO, reads_untold);
	fail_at_each_call("dfs_read", "short", ENODATA, reads_told);
	fail_at_each_call("dfs_read", "dead", EIO, reads_told);
}

static void test_a_lost_connection(void)
{
	struct dpx_session *session = world_session();
	standin.reset();
	standin.set("STANDIN_FAIL", "dfs_read:20=dead");
	struct outcome outcome = read_all(session, 1, 0);
	CHECK(outcome.errors >= 1 && outcome.first == EIO);
	CHECK(list_all(session, 1).first == EIO && write_one(session).first == EIO);
	standin.reset();
	CHECK(read_all(session, 1, 0).errors == 0); /* it is back */
	world_close(session);
	world_check_empty();
}

static void let_all_end(struct dpx_session *session)
{
	standin.release();
	while (atomic_load(&session->counters.graveyard))
		usleep(1000);
	standin.reset();
}

/* What is promised to a read that does not come stays with its thread; all others come. */
static void test_reads_that_never_come(void)
{
	struct dpx_session *session = world_session();
	standin.reset();
	standin.set("STANDIN_FAIL", "dfs_read:3=never,dfs_read:20=never");
	struct outcome outcome = read_with(session, &(struct dpx_read_options){.timeout_ns = NEVER_NS}, 1);
	CHECK(outcome.errors == 2 && outcome.first == ETIMEDOUT);
	CHECK(atomic_load(&session->counters.graveyard) == 2 && standin.count("reads") == 2);
	CHECK(read_all(session, 0, 0).errors == 0);
	let_all_end(session);
	world_close(session);
	world_check_empty();
}

static void test_reads_overlap_in_one_thread(void)
{
	struct dpx_session *session = world_session();
	CHECK(read_with(session, &(struct dpx_read_options){.depth = 1}, 1).errors == 0);
	CHECK(standin.count("queues") == 1 && standin.count("reads") == 0); /* the queue is kept for the next reader */
	standin.reset();
	standin.set("STANDIN_FAIL", "dfs_read:1=never");
	struct dpx_read_options options = {.depth = 1, .timeout_ns = NEVER_NS};
	struct outcome outcome = read_with(session, &options, 1);
	CHECK(outcome.errors == 1 && outcome.first == ETIMEDOUT); /* and its thread went on with the others */
	let_all_end(session);
	world_close(session);
	world_check_empty();
}

static void test_without_queues_reads_wait(void)
{
	struct dpx_session *session = world_session();
	standin.set("STANDIN_FAIL", "daos_eq_create:*=1009");
	CHECK(read_all(session, 1, 0).errors == 0 && read_all(session, 0, 0).errors == 0);
	standin.reset();
	world_close(session);
	world_check_empty();
}

static void test_a_short_read_is_an_error(void)
{
	struct dpx_session *session = world_session();
	standin.set("STANDIN_FAIL", "dfs_read:*=short");
	struct outcome outcome = read_all(session, 1, 0);
	CHECK(outcome.errors == FILES - FILES / 10 && outcome.first == ENODATA);
	standin.reset();
	world_close(session);
}

static void test_parents_are_looked_up_once(void)
{
	struct dpx_session *session = world_session();
	CHECK(read_all(session, 1, 0).errors == 0);
	standin.reset();
	CHECK(read_all(session, 1, 0).errors == 0);
	CHECK(standin.count("dfs_lookup_rel") == FILES + 5 * FILES / 10); /* empty ones are looked at five times more */
	world_close(session);
}

static void test_a_request_past_the_end(void)
{
	static const struct {
		uint64_t offset;
		int err;
		size_t got;
	} cases[] = {{0, 0, 101}, {100, 0, 1}, {101, 0, 0}, {102, ENODATA, 0}};
	struct dpx_session *session = world_session();
	struct dpx_read_options options = {.max_in_flight = 1, .max_bytes = 1 << 20, .disown = disown};
	struct dpx_taken taken;
	struct dpx_reader *reader;
	CHECK(dpx_reader_open(session, &options, &reader) == 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dpx_item *item = dpx_item_new();
		item->offset = cases[i].offset;
		item->length = item->size = DPX_SIZE_UNKNOWN;
		CHECK(dpx_item_set_path(item, name_of(1), strlen(name_of(1))) == 0);
		dpx_reader_push(reader, &item, 1);
		do
			dpx_reader_take(reader, 50, &taken);
		while (!taken.done_count);
		CHECK(item->status.err == cases[i].err && item->got == cases[i].got);
		dpx_reader_recycle(reader, &item, 1);
		dpx_item_free(item);
	}
	dpx_reader_cancel(reader);
	CHECK(dpx_reader_drain(reader, 20000) == 0);
	dpx_reader_close(reader);
	world_close(session);
}

static void test_what_changes_behind_the_cache(void)
{
	struct dpx_session *session = world_session();
	char first;
	CHECK(mkdir(world_path("dir/x"), 0755) == 0);
	world_file(world_path("dir/x/f"), "1", 1);
	CHECK(world_read_first(session, "dir/x/f", &first) == 0 && first == '1');
	CHECK(unlink(world_path("dir/x/f")) == 0 && rmdir(world_path("dir/x")) == 0);
	CHECK(world_read_first(session, "dir/x/f", &first) == ENOENT);
	CHECK(mkdir(world_path("dir/x"), 0755) == 0);
	world_file(world_path("dir/x/f"), "2", 1);
	CHECK(world_read_first(session, "dir//x/./f", &first) == 0 && first == '2'); /* another directory of that name */
	CHECK(dpx_session_rename(session, "dir/x", "dir/y") == 0);
	CHECK(world_read_first(session, "dir/x/f", &first) == ENOENT && world_read_first(session, "dir/y/f", &first) == 0);
	CHECK(dpx_session_remove(session, "dir/y") == ENOTEMPTY && dpx_session_remove(session, "dir/y/f") == 0);
	CHECK(dpx_session_remove(session, "dir/y") == 0 && world_read_first(session, "dir/y/f", &first) == ENOENT);
	world_close(session);
	world_check_empty();
}

/* An open file that is removed reads as empty through libdfs, without an error. */
static void test_a_file_removed_while_open(void)
{
	struct dpx_session *session = world_session();
	void *file;
	char first;
	size_t got;
	world_file(world_path("dir/gone"), "1", 1);
	CHECK(dpx_session_open_file(session, "dir/gone", &file) == 0 && unlink(world_path("dir/gone")) == 0);
	CHECK(session->io.read(file, &first, 1, 0, &got) == ENOENT);
	world_file(world_path("dir/gone"), "2", 1);
	CHECK(session->io.read(file, &first, 1, 0, &got) == ESTALE);
	dpx_session_close_file(session, file);
	CHECK(unlink(world_path("dir/gone")) == 0);
	world_close(session);
}

static void test_kinds_and_names(void)
{
	struct dpx_session *session = world_session();
	struct dpx_stat st;
	char name[ABI_MAX_NAME + 2], first;
	void *file;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	CHECK(dpx_session_stat(session, "", &st) == 0 && st.kind == DPX_KIND_DIR);
	CHECK(dpx_session_stat(session, "set/a", &st) == 0 && st.kind == DPX_KIND_DIR);
	CHECK(dpx_session_stat(session, name_of(9), &st) == 0 && st.kind == DPX_KIND_FILE && st.size == LARGEST);
	CHECK(dpx_session_stat(session, "set/b/deep/link", &st) == 0 && st.kind == DPX_KIND_FILE && st.size == size_of(1));
	CHECK(session->io.stat(session->mount, "set/b/deep/link", 0, &st) == 0 && st.kind == DPX_KIND_LINK);
	CHECK(world_read_first(session, "", &first) == EISDIR && world_read_first(session, "set", &first) == EISDIR);
	CHECK(world_read_first(session, name, &first) == ENAMETOOLONG && world_read_first(session, "set/../set", &first) == EINVAL);
	CHECK(world_read_first(session, "set/a/deep/f00/x", &first) == ENOTDIR);
	CHECK(session->io.create(session->mount, "set", &(struct dpx_new_file){0}, &file) == EISDIR);
	CHECK(session->io.mkdir(session->mount, "set") == EEXIST && session->io.mkdir(session->mount, "") == EEXIST);
	CHECK(dpx_session_rename(session, "set", "set/a/in") == EINVAL);
	CHECK(dpx_session_rename(session, "set", name_of(0)) == EINVAL);
	CHECK(dpx_session_rename(session, "set/a/deep/f00", "set/b") == EISDIR);
	CHECK(dpx_session_rename(session, "set/b", "set/a/deep/f00") == ENOTDIR);
	CHECK(dpx_session_remove(session, "nothing") == ENOENT);
	world_close(session);
}

static void test_why_a_container_cannot_be_opened(void)
{
	static const struct {
		const char *root, *name, *value, *says;
		int err;
	} cases[] = {
		{"pool/none", "STANDIN_COST", "none", "no such", ENOENT},
		{"none/cont", "STANDIN_COST", "none", "no such", ENOENT},
		{"pool/b@d", "STANDIN_COST", "none", "not a name", EINVAL},
		{"pool", "STANDIN_COST", "none", "not a name", EINVAL},
		{"pool/cont/more", "STANDIN_COST", "none", "not a name", EINVAL},
		{"pool/cont", "STANDIN_AGENT", "none", "daos_agent", EIO},
		{"pool/cont", "STANDIN_ENGINE", "down", "engine", ETIMEDOUT},
		{"pool/flat", "STANDIN_COST", "none", "type POSIX", EINVAL},
	};
	char why[DPX_WHY_ROOM];
	struct dpx_session *session;
	world_file(world_path("../flat"), "x", 1);
	standin.set("STANDIN_ENGINE_US", "1000");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dpx_session_spec spec = {.io = dpx_io_find("dfs"), .root = cases[i].root};
		CHECK(standin.set(cases[i].name, cases[i].value) == 0);
		CHECK(dpx_session_open(&spec, &session, why) == cases[i].err);
		CHECK(strstr(why, cases[i].says));
		standin.reset();
		standin.set("STANDIN_ENGINE_US", "1000");
	}
	standin.reset();
	world_check_empty();
}

/* Whoever comes first; and a user who may only read. */
static void test_reading_and_writing_at_once(void)
{
	struct dpx_session *one = world_session(), *two = world_session();
	CHECK(read_all(one, 1, 0).errors == 0 && write_one(two).errors == 0 && write_one(one).errors == 0);
	world_close(one);
	CHECK(write_one(two).errors == 0);
	world_close(two);
	world_check_empty();
	standin.set("STANDIN_CONTAINER", "read");
	one = world_session();
	CHECK(read_all(one, 1, 0).errors == 0 && write_one(one).first == EPERM);
	world_close(one);
	standin.reset();
}

static int in_child(void)
{
	struct dpx_session *session = world_session();
	struct outcome outcome = read_all(session, 1, 0);
	world_close(session);
	return outcome.errors;
}

static void fork_and_read(long reinits)
{
	int status;
	pid_t child = fork();
	if (child == 0)
		_exit(in_child() || standin.count("daos_reinit") != reinits);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The stand-in gives wrong bytes to a child that goes on, and aborts one that restarts what was never started. */
static void test_a_child_reads_with_daos_of_its_own(void)
{
	standin.reset();
	struct dpx_session *session = world_session();
	CHECK(read_all(session, 1, 0).errors == 0);
	fork_and_read(1);
	CHECK(read_all(session, 1, 0).errors == 0);
	world_close(session);
	fork_and_read(1); /* libdaos stays started */
	world_check_empty();
}

static void test_a_child_of_who_never_used_daos(void)
{
	standin.reset();
	fork_and_read(0);
}

int main(void)
{
	fill_world();
	world_load();
	RUN(test_a_child_of_who_never_used_daos);
	RUN(test_lists_reads_and_writes);
	RUN(test_a_fault_at_each_call);
	RUN(test_a_bad_end_of_each_read);
	RUN(test_a_lost_connection);
	RUN(test_reads_that_never_come);
	RUN(test_reads_overlap_in_one_thread);
	RUN(test_without_queues_reads_wait);
	RUN(test_a_short_read_is_an_error);
	RUN(test_a_request_past_the_end);
	RUN(test_parents_are_looked_up_once);
	RUN(test_what_changes_behind_the_cache);
	RUN(test_a_file_removed_while_open);
	RUN(test_kinds_and_names);
	RUN(test_why_a_container_cannot_be_opened);
	RUN(test_reading_and_writing_at_once);
	RUN(test_a_child_reads_with_daos_of_its_own);
	world_remove();
	return 0;
}
