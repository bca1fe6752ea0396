/* Handles that are kept from one read to the next: what they spare, and files that have changed meanwhile. */
#include <errno.h>
#include <sys/wait.h>

#include "handles.h"
#include "reader.h"
#include "standin_world.h"

#define FILES 40
#define LARGEST 90000

static char content[LARGEST + 64];
static char table[128];

static size_t size_of(int i)
{
	return i % 10 == 9 ? LARGEST : 100 + (size_t)i;
}

static const char *name_of(int i)
{
	static char name[32];
	snprintf(name, sizeof(name), "dir/f%02d", i);
	return name;
}

static void fill_world(void)
{
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (char)(i * 7 % 251);
	world_make();
	for (int i = 0; i < FILES; i++)
		world_file(world_path("%s", name_of(i)), content + i, size_of(i));
	snprintf(table, sizeof(table), "%s/table", world_root);
}

static struct dpx_handles *open_table(void)
{
	struct dpx_handles *handles;
	CHECK(dpx_handles_open(table, "data", 1000, 1 << 20, &handles) == 0);
	return handles;
}

static void disown(void *unused)
{
	(void)unused;
}

struct request {
	const char *path;
	uint64_t size; /* as told */
	int err;
	uint64_t got;
	char *data; /* owned */
};

static void put_answer(struct request *request, const struct dpx_item *item)
{
	request->err = item->status.err;
	request->got = item->got;
	request->data = malloc(item->got + 1);
	CHECK(request->data);
	if (item->got)
		memcpy(request->data, item->dest, item->got);
}

/* As one batch, into memory of the consumer, who then reads by handles himself; or as they come, by threads. */
static int as_batch;

static void read_requests(struct dpx_session *session, struct dpx_handles *handles, struct request *requests, int count,
			  int verify)
{
	struct dpx_read_options options = {.max_in_flight = 16, .max_bytes = UINT64_MAX / 2, .disown = disown, .ordered = 1,
					   .batch = as_batch, .handles = handles, .verify_size = verify};
	static char memory[FILES][LARGEST];
	struct dpx_taken taken;
	struct dpx_reader *reader;
	CHECK(dpx_reader_open(session, &options, &reader) == 0);
	for (int i = 0; i < count; i++) {
		struct dpx_item *item = dpx_item_new();
		item->length = DPX_SIZE_UNKNOWN;
		item->size = requests[i].size;
		CHECK(dpx_item_set_path(item, requests[i].path, strlen(requests[i].path)) == 0);
		if (as_batch && requests[i].size && requests[i].size <= LARGEST) {
			item->dest = item->owner = memory[i];
			item->promised = 1;
		}
		dpx_reader_push(reader, &item, 1);
	}
	for (int given = 0; given < count;) {
		int rc = dpx_reader_take(reader, 50, &taken);
		CHECK(rc == 0 || rc == EAGAIN);
		for (size_t i = 0; i < taken.done_count; i++, given++)
			put_answer(&requests[taken.done[i]->position], taken.done[i]);
		dpx_reader_recycle(reader, taken.done, taken.done_count);
		for (size_t i = 0; i < taken.done_count; i++)
			dpx_item_free(taken.done[i]);
	}
	dpx_reader_cancel(reader);
	CHECK(dpx_reader_drain(reader, 20000) == 0);
	dpx_reader_close(reader);
}

/* All files; how many failed. What comes is right. */
static int read_all(struct dpx_session *session, struct dpx_handles *handles, int told, int verify)
{
	struct request requests[FILES];
	char names[FILES][32];
	int errors = 0;
	for (int i = 0; i < FILES; i++) {
		snprintf(names[i], sizeof(names[i]), "%s", name_of(i));
		requests[i] = (struct request){.path = names[i], .size = told ? size_of(i) : DPX_SIZE_UNKNOWN};
	}
	read_requests(session, handles, requests, FILES, verify);
	for (int i = 0; i < FILES; i++) {
		CHECK(requests[i].err || (requests[i].got == size_of(i) &&
					  memcmp(requests[i].data, content + i, size_of(i)) == 0));
		CHECK(requests[i].err == 0 || requests[i].err == EIO);
		errors += requests[i].err != 0;
		free(requests[i].data);
	}
	return errors;
}

/* One file: 0 and its content as text, or the errno. */
static int read_text(struct dpx_session *session, struct dpx_handles *handles, const char *path, uint64_t size,
		     int verify, char text[64])
{
	struct request request = {.path = path, .size = size};
	read_requests(session, handles, &request, 1, verify);
	CHECK(request.got < 64);
	memcpy(text, request.data, request.got);
	text[request.got] = '\0';
	free(request.data);
	return request.err;
}

static long opens(void)
{
	return standin.count("dfs_lookup_rel") + standin.count("dfs_open") + standin.count("dfs_lookup");
}

static void test_what_was_read_once_is_not_opened_again(void)
{
	struct dpx_session *session = world_session(), *other = world_session();
	struct dpx_handles *handles = open_table(), *again = open_table();
	for (int told = 0; told < 2; told++) {
		unlink(table);
		dpx_handles_release(handles);
		dpx_handles_release(again);
		handles = open_table();
		again = open_table();
		CHECK(read_all(session, handles, told, 0) == 0);
		standin.reset();
		CHECK(read_all(session, handles, told, 0) == 0 && read_all(other, again, told, 0) == 0);
		CHECK(opens() == 0 && standin.count("dfs_get_size") == 0);
		CHECK(standin.count("dfs_read") == 2 * FILES);
		CHECK(read_all(session, handles, told, 1) == 0 && opens() == 0);
		CHECK(atomic_load(&session->counters.handle_hits) == (uint64_t)(2 * (told + 1) * FILES));
	}
	dpx_handles_release(handles);
	dpx_handles_release(again);
	world_close(session);
	world_close(other);
	world_check_empty();
}

static void test_a_size_that_was_told_is_learnt_by_who_is_not_told(void)
{
	unlink(table);
	struct dpx_session *session = world_session();
	struct dpx_handles *handles = open_table();
	CHECK(read_all(session, handles, 1, 0) == 0 && read_all(session, handles, 0, 0) == 0);
	standin.reset();
	CHECK(read_all(session, handles, 0, 0) == 0 && opens() == 0 && standin.count("dfs_get_size") == 0);
	dpx_handles_release(handles);
	world_close(session);
}

static int in_child(void)
{
	struct dpx_session *session = world_session();
	struct dpx_handles *handles = open_table();
	standin.reset();
	int errors = read_all(session, handles, 1, 0);
	long opened = opens();
	dpx_handles_release(handles);
	world_close(session);
	return errors || opened;
}

static void test_other_processes_open_nothing_either(void)
{
	int status;
	unlink(table);
	struct dpx_session *session = world_session();
	struct dpx_handles *handles = open_table();
	CHECK(read_all(session, handles, 1, 0) == 0);
	pid_t child = fork();
	if (child == 0)
		_exit(in_child());
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	dpx_handles_release(handles);
	world_close(session);
}

static void overwrite(const char *path, const char *text)
{
	FILE *file = fopen(path, "r+b"); /* the same file, unlike world_file() after an unlink */
	CHECK(file && fwrite(text, 1, strlen(text), file) == strlen(text));
	CHECK(ftruncate(fileno(file), (off_t)strlen(text)) == 0 && fclose(file) == 0);
}

/* What stood there when it was read first, what stands there now, and how a reader is told of it. */
static void check_changed(struct dpx_session *session, const char *now, int anew, int told, int verify, int err,
			  const char *gives)
{
	struct dpx_handles *handles = open_table();
	uint64_t size = told ? 5 : DPX_SIZE_UNKNOWN;
	char text[64];
	unlink(world_path("dir/changing"));
	world_file(world_path("dir/changing"), "first", 5);
	for (int i = 0; i < 2; i++)
		CHECK(read_text(session, handles, "dir/changing", size, verify, text) == 0 && strcmp(text, "first") == 0);
	if (anew)
		CHECK(unlink(world_path("dir/changing")) == 0);
	if (now && anew)
		world_file(world_path("dir/changing"), now, strlen(now));
	else if (now)
		overwrite(world_path("dir/changing"), now);
	for (int i = 0; i < 3; i++) {
		if (i == 2)
			standin.reset();
		CHECK(read_text(session, handles, "dir/changing", size, verify, text) == err);
		CHECK(err || strcmp(text, gives) == 0);
	}
	CHECK(err || opens() == 0); /* it was learnt anew */
	dpx_handles_release(handles);
}

static void test_changed_files_are_looked_at_by_path(void)
{
	struct dpx_session *session = world_session();
	for (int verify = 0; verify < 2; verify++)
		for (int told = 0; told < 2; told++) {
			check_changed(session, NULL, 1, told, verify, ENOENT, NULL);
			for (int anew = 0; anew < 2; anew++) {
				check_changed(session, "again", anew, told, verify, 0, "again");
				check_changed(session, "less", anew, told, verify, told ? ENODATA : 0, "less");
			}
			check_changed(session, "much more", 1, told, verify, told && verify ? EFBIG : 0,
				      told ? "much " : "much more");
		}
	/* Growth in place is noticed by who asks for the size. */
	check_changed(session, "much more", 0, 1, 1, EFBIG, NULL);
	check_changed(session, "much more", 0, 0, 1, 0, "much more");
	check_changed(session, "much more", 0, 1, 0, 0, "much ");
	check_changed(session, "much more", 0, 0, 0, 0, "much ");
	CHECK(unlink(world_path("dir/changing")) == 0);
	world_close(session);
	world_check_empty();
}

static void test_files_that_become_others(void)
{
	struct dpx_session *session = world_session();
	struct dpx_handles *handles = open_table();
	char text[64];
	world_file(world_path("dir/kind"), "first", 5);
	CHECK(read_text(session, handles, "dir/kind", 5, 0, text) == 0);
	CHECK(unlink(world_path("dir/kind")) == 0 && mkdir(world_path("dir/kind"), 0755) == 0);
	CHECK(read_text(session, handles, "dir/kind", 5, 0, text) == EISDIR);
	CHECK(rmdir(world_path("dir/kind")) == 0);
	world_file(world_path("dir/kind"), "", 0);
	CHECK(read_text(session, handles, "dir/kind", 5, 0, text) == ENODATA);
	CHECK(read_text(session, handles, "dir/kind", DPX_SIZE_UNKNOWN, 0, text) == 0 && !*text);
	CHECK(unlink(world_path("dir/kind")) == 0);
	dpx_handles_release(handles);
	world_close(session);
}

/* Neither to begin with nor at the end: what is under way is looked after by who waits for it. */
static void test_a_batch_by_handles_takes_no_thread(void)
{
	struct dpx_session *session = world_session();
	struct dpx_handles *handles = open_table();
	struct dpx_read_options options = {.max_in_flight = 16, .max_bytes = UINT64_MAX / 2, .disown = disown, .ordered = 1,
					   .batch = 1, .handles = handles};
	struct dpx_item *items[FILES];
	struct dpx_read_stats stats;
	struct dpx_taken taken;
	struct dpx_reader *reader;
	static char memory[FILES][LARGEST];
	CHECK(read_all(session, handles, 1, 0) == 0);
	CHECK(dpx_reader_open(session, &options, &reader) == 0);
	int count = 0;
	for (int i = 0; i < FILES; i++) {
		if (!size_of(i))
			continue;
		struct dpx_item *item = items[count++] = dpx_item_new();
		item->length = DPX_SIZE_UNKNOWN;
		item->size = size_of(i);
		item->dest = item->owner = memory[i];
		item->promised = 1;
		CHECK(dpx_item_set_path(item, name_of(i), strlen(name_of(i))) == 0);
	}
	standin.reset();
	dpx_reader_push(reader, items, (size_t)count);
	for (int given = 0; given < count;) {
		dpx_reader_stats(reader, &stats);
		CHECK(stats.threads == 0);
		dpx_reader_take(reader, 10000, &taken);
		given += (int)taken.done_count;
		for (size_t i = 0; i < taken.done_count; i++)
			CHECK(taken.done[i]->status.err == 0);
		dpx_reader_recycle(reader, taken.done, taken.done_count);
		for (size_t i = 0; i < taken.done_count; i++)
			dpx_item_free(taken.done[i]);
	}
	CHECK(opens() == 0 && standin.count("dfs_read") == count);
	CHECK(dpx_reader_drain(reader, 0) == 0);
	dpx_reader_close(reader);
	dpx_handles_release(handles);
	world_close(session);
	world_check_empty();
}

/* Without them, or where they fail, files are opened by path. */
static void test_handles_of_no_use(void)
{
	static const char *const rules[] = {"dfs_obj_global2local:*=22", "dfs_obj_global2local:3=12",
					    "dfs_read:5=late:5", "dfs_read:5=5", "dfs_read:5=short"};
	struct dpx_session *session = world_session();
	struct dpx_handles *handles = open_table();
	CHECK(read_all(session, handles, 1, 0) == 0);
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		standin.set("STANDIN_FAIL", rules[i]);
		CHECK(read_all(session, handles, (int)i % 2, 0) == 0);
		standin.reset();
	}
	unlink(table);
	dpx_handles_release(handles);
	handles = open_table();
	standin.set("STANDIN_FAIL", "dfs_obj_local2global:*=12");
	CHECK(read_all(session, handles, 1, 0) == 0);
	standin.reset();
	CHECK(read_all(session, handles, 1, 0) == 0 && opens() >= FILES);
	dpx_handles_release(handles);
	world_close(session);
	world_check_empty();
}

/* A fault that lasts is said; nothing that is wrong is delivered, nothing is left. */
static void test_a_fault_at_each_call(void)
{
	struct dpx_session *session = world_session();
	struct dpx_handles *handles = open_table();
	char rule[64];
	CHECK(read_all(session, handles, 0, 0) == 0);
	standin.reset();
	CHECK(read_all(session, handles, 0, 0) == 0);
	long calls = standin.count("calls");
	CHECK(calls >= 2 * FILES);
	for (long k = 1; k <= calls; k++) {
		standin.reset();
		snprintf(rule, sizeof(rule), "any:%ld+=5", k);
		CHECK(standin.set("STANDIN_FAIL", rule) == 0);
		int errors = read_all(session, handles, (int)(k % 2), 0);
		CHECK(k > 2L * FILES || errors > 0); /* a file takes two: its handle made and its content read */
	}
	standin.reset();
	CHECK(read_all(session, handles, 0, 0) == 0);
	dpx_handles_release(handles);
	world_close(session);
	world_check_empty();
}

int main(void)
{
	fill_world();
	world_load();
	for (as_batch = 0; as_batch < 2; as_batch++) {
		RUN(test_what_was_read_once_is_not_opened_again);
		RUN(test_a_size_that_was_told_is_learnt_by_who_is_not_told);
		RUN(test_other_processes_open_nothing_either);
		RUN(test_changed_files_are_looked_at_by_path);
		RUN(test_files_that_become_others);
		RUN(test_handles_of_no_use);
		RUN(test_a_fault_at_each_call);
	}
	as_batch = 0;
	RUN(test_a_batch_by_handles_takes_no_thread);
	world_remove();
	return 0;
}
