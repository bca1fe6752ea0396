/* Writing through both tables: what is replaced leaves nothing of itself, what fails leaves nothing either. */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "put.h"
#include "standin_world.h"
#include "write_file.h"

static const struct dpx_new_file as_it_is;

static char data[8000];

static struct dpx_session *open_session(const char *table)
{
	char root[128];
	snprintf(root, sizeof(root), "%s/pool/cont", world_root);
	struct dpx_session_spec spec = {.io = dpx_io_find(table), .root = strcmp(table, "dfs") == 0 ? "pool/cont" : root};
	struct dpx_session *session = NULL;
	char why[DPX_WHY_ROOM];
	CHECK(dpx_session_open(&spec, &session, why) == 0);
	return session;
}

static void close_session(struct dpx_session *session)
{
	CHECK(atomic_load(&session->counters.files_open) == 0);
	CHECK(dpx_session_close(session, 20000) == 0);
	dpx_session_release(session);
	world_check_empty();
}

/* What lies there, seen without the table: so many of these bytes, then so many zeros. */
static void check_file(const char *name, char byte, size_t bytes, size_t zeros)
{
	char back[sizeof(data) * 2];
	FILE *file = fopen(world_path("%s", name), "rb");
	CHECK(file && fread(back, 1, sizeof(back), file) == bytes + zeros && fclose(file) == 0);
	for (size_t i = 0; i < bytes + zeros; i++)
		CHECK(back[i] == (i < bytes ? byte : 0));
}

static void truncates(const char *table)
{
	struct dpx_session *session = open_session(table);
	const struct dpx_io *io = &session->io;
	void *file;
	memset(data, 'd', sizeof(data));
	CHECK(io->create(session->mount, "dir/cut", &as_it_is, &file) == 0 && io->write(file, data, 100, 0) == 0);
	CHECK(io->truncate(file, 40) == 0);
	check_file("dir/cut", 'd', 40, 0);
	CHECK(io->truncate(file, 60) == 0);
	check_file("dir/cut", 'd', 40, 20);
	CHECK(io->write(file, data, 20, 40) == 0 && io->truncate(file, 60) == 0);
	check_file("dir/cut", 'd', 60, 0);
	CHECK(io->truncate(file, 0) == 0);
	check_file("dir/cut", 'd', 0, 0);
	io->close(file);
	close_session(session);
}

static void replaces(const char *table)
{
	struct dpx_session *session = open_session(table);
	struct dpx_write_file *file;
	memset(data, 'o', sizeof(data));
	CHECK(dpx_put_file(session, "dir/put", data, 5000) == 0 && dpx_put_file(session, "dir/over", data, 5000) == 0);
	memset(data, 'n', sizeof(data));
	CHECK(dpx_put_file(session, "dir/put", data, 10) == 0);
	check_file("dir/put", 'n', 10, 0);
	CHECK(dpx_write_file_open(session, "dir/over", &as_it_is, &file) == 0);
	CHECK(dpx_write_file_append(file, data, 10) == 0 && dpx_write_file_sync(file) == 0);
	check_file("dir/over", 'n', 10, 0);
	dpx_write_file_close(file);
	close_session(session);
}

/* A disk that is full in the middle of a write, as far as a limit can play it. */
static void limit_files(rlim_t bytes)
{
	struct rlimit limit;
	CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
	limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
	CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void cuts_off(const char *table)
{
	struct dpx_session *session = open_session(table);
	struct dpx_write_file *file;
	memset(data, 'w', sizeof(data));
	CHECK(dpx_write_file_open(session, "dir/torn", &as_it_is, &file) == 0 && dpx_write_file_append(file, data, 6000) == 0);
	limit_files(10000);
	CHECK(dpx_write_file_append(file, data, 6000) == EFBIG);
	limit_files(RLIM_INFINITY);
	check_file("dir/torn", 'w', 10000, 0); /* half of it */
	CHECK(dpx_write_file_sync(file) == 0);
	check_file("dir/torn", 'w', 6000, 0);
	CHECK(dpx_write_file_append(file, data, 100) == 0 && dpx_write_file_sync(file) == 0);
	check_file("dir/torn", 'w', 6100, 0);
	dpx_write_file_close(file);
	close_session(session);
}

static void test_truncate_cuts_and_extends(void)
{
	truncates("posix");
	truncates("dfs");
}

static void test_a_longer_file_leaves_no_tail(void)
{
	replaces("posix");
	replaces("dfs");
}

static void test_what_a_failed_write_left_is_cut_off(void)
{
	cuts_off("posix");
	cuts_off("dfs");
}

static void test_what_cannot_be_cut_off_is_said_until_it_is(void)
{
	struct dpx_session *session = open_session("dfs");
	struct dpx_write_file *file;
	standin.reset();
	CHECK(dpx_write_file_open(session, "dir/said", &as_it_is, &file) == 0 && dpx_write_file_append(file, data, 50) == 0);
	CHECK(dpx_write_file_sync(file) == 0 && standin.count("dfs_punch") == 0);
	standin.set("STANDIN_FAIL", "dfs_write:2=5,dfs_punch:1=13");
	CHECK(dpx_write_file_append(file, data, 50) == EIO);
	CHECK(dpx_write_file_sync(file) == EACCES && dpx_write_file_sync(file) == 0 && dpx_write_file_sync(file) == 0);
	CHECK(standin.count("dfs_punch") == 2);
	dpx_write_file_close(file);
	standin.reset();
	close_session(session);
}

int main(void)
{
	signal(SIGXFSZ, SIG_IGN);
	world_make();
	world_load();
	RUN(test_truncate_cuts_and_extends);
	RUN(test_a_longer_file_leaves_no_tail);
	RUN(test_what_a_failed_write_left_is_cut_off);
	RUN(test_what_cannot_be_cut_off_is_said_until_it_is);
	world_remove();
	return 0;
}
