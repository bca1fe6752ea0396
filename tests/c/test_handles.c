/* The table of handles: by several threads and processes at once, torn, damaged, cut off, without room. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "handles.h"
#include "siphash.h"

#define FILES 1000
#define ROOM ((uint64_t)4 << 20)

static char folder[] = "/tmp/dpx-handles-XXXXXX";
static char path[64];

static struct dpx_handles *open_for(const char *identity, uint64_t files, uint64_t room)
{
	struct dpx_handles *handles = NULL;
	CHECK(dpx_handles_open(path, identity, files, room, &handles) == 0);
	return handles;
}

static struct dpx_handle_key key_of(const struct dpx_handles *handles, int file)
{
	struct dpx_handle_key root = dpx_handles_root(handles, "pool/cont");
	char name[32];
	snprintf(name, sizeof(name), "dir/%d", file);
	return dpx_handles_key(&root, name);
}

/* What is kept of a file in a version: every byte says which. */
static struct dpx_handle made(int file, unsigned version)
{
	struct dpx_handle handle = {.size = (uint64_t)file << 32 | version, .len = DPX_HANDLE_BYTES - version % 8};
	for (size_t i = 0; i < handle.len; i++)
		handle.bytes[i] = (unsigned char)(file * 31 + (int)version * 7 + (int)(i % 5));
	return handle;
}

static void put(struct dpx_handles *handles, int file, unsigned version)
{
	struct dpx_handle_key key = key_of(handles, file);
	struct dpx_handle handle = made(file, version);
	dpx_handles_put(handles, &key, &handle);
}

/* The version that is kept, which must be whole; -1: none. */
static long got(struct dpx_handles *handles, int file)
{
	struct dpx_handle_key key = key_of(handles, file);
	struct dpx_handle handle;
	if (!dpx_handles_get(handles, &key, &handle))
		return -1;
	unsigned version = (unsigned)handle.size;
	struct dpx_handle right = made(file, version);
	CHECK(handle.size == right.size && handle.len == right.len);
	CHECK(memcmp(handle.bytes, right.bytes, right.len) == 0);
	return (long)version;
}

static int kept(struct dpx_handles *handles)
{
	int count = 0;
	for (int i = 0; i < FILES; i++)
		count += got(handles, i) >= 0;
	return count;
}

static void fresh(void)
{
	unlink(path);
}

static void test_hash_is_the_published_one(void)
{
	/* Of the reference implementation: the key is 00 01 .. 0f, the text 00 01 .. so many bytes. */
	static const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
	unsigned char text[1] = {0};
	uint64_t out[2];
	dpx_siphash(key, text, 0, out);
	CHECK(out[0] == 0xe6a825ba047f81a3 && out[1] == 0x930255c71472f66d);
	dpx_siphash(key, text, 1, out);
	CHECK(out[0] == 0x44af996bd8c187da && out[1] == 0x45fc229b11597634);
}

static void test_what_is_put_is_found_by_all_who_open_it(void)
{
	fresh();
	struct dpx_handles *one = open_for("data", 4 * FILES, ROOM), *two = open_for("data", 4 * FILES, ROOM);
	CHECK(kept(one) == 0);
	for (int i = 0; i < FILES; i++)
		put(one, i, 1);
	CHECK(kept(one) == FILES && kept(two) == FILES && got(two, FILES) == -1);
	put(two, 5, 2);
	CHECK(got(one, 5) == 2 && kept(one) == FILES);
	dpx_handles_release(one);
	dpx_handles_release(dpx_handles_retain(two));
	dpx_handles_release(two);
	one = open_for("data", 4 * FILES, ROOM);
	CHECK(kept(one) == FILES && got(one, 5) == 2);
	struct dpx_handle_key root = dpx_handles_root(one, "pool/other"), key = dpx_handles_key(&root, "dir/5");
	struct dpx_handle none;
	CHECK(!dpx_handles_get(one, &key, &none));
	dpx_handles_release(one);
}

/* Each finds a place, whatever the hash's key: in small tables too, which have three quarters of their slots in use. */
static void test_all_are_kept(void)
{
	for (int round = 0; round < 300; round++) {
		fresh();
		struct dpx_handles *handles = open_for("data", 40, ROOM);
		for (int i = 0; i < 40; i++)
			put(handles, i, 1);
		for (int i = 0; i < 40; i++)
			CHECK(got(handles, i) == 1);
		dpx_handles_release(handles);
	}
}

static void test_a_table_is_of_one_set_of_data(void)
{
	fresh();
	struct dpx_handles *old = open_for("data", 4 * FILES, ROOM);
	put(old, 1, 1);
	struct dpx_handles *new = open_for("other data", 4 * FILES, ROOM);
	CHECK(got(new, 1) == -1 && got(old, 1) == 1); /* who has it open keeps it */
	put(new, 1, 2);
	CHECK(got(old, 1) == 1 && got(new, 1) == 2);
	dpx_handles_release(old);
	dpx_handles_release(new);
}

static void test_no_more_than_fits_is_kept(void)
{
	struct stat st;
	fresh();
	struct dpx_handles *handles = open_for("data", FILES, 100 << 10), *none;
	CHECK(stat(path, &st) == 0 && st.st_size <= 100 << 10);
	for (int i = 0; i < FILES; i++)
		put(handles, i, 1);
	int count = kept(handles);
	CHECK(count > 150 && count <= (100 << 10) / 384);
	dpx_handles_release(handles);
	fresh();
	CHECK(dpx_handles_open(path, "data", FILES, 8000, &none) == ENOSPC && stat(path, &st) != 0);
}

static void test_what_is_longer_than_a_handle_is_not_kept(void)
{
	fresh();
	struct dpx_handles *handles = open_for("data", 4 * FILES, ROOM);
	struct dpx_handle_key key = key_of(handles, 1);
	struct dpx_handle handle = {.len = DPX_HANDLE_BYTES + 1};
	dpx_handles_put(handles, &key, &handle);
	CHECK(got(handles, 1) == -1);
	dpx_handles_release(handles);
}

/* Every thread and process writes and reads the same few files. */
static void *struggle(void *arg)
{
	struct dpx_handles *handles = arg;
	long seen = 0;
	for (unsigned turn = 1; turn <= 20000; turn++) {
		put(handles, (int)(turn % 7), turn);
		seen += got(handles, (int)(turn * 3 % 7)) >= 0;
	}
	return (void *)seen;
}

static long struggle_twice(struct dpx_handles *handles)
{
	pthread_t other;
	void *seen = NULL;
	CHECK(pthread_create(&other, NULL, struggle, handles) == 0);
	long own = (long)struggle(handles);
	CHECK(pthread_join(other, &seen) == 0);
	return own + (long)seen;
}

static void test_writers_at_once_tear_nothing(void)
{
	fresh();
	struct dpx_handles *handles = open_for("data", 4 * FILES, ROOM);
	pid_t child = fork();
	if (child == 0) {
		struct dpx_handles *own = open_for("data", 4 * FILES, ROOM); /* a mapping of its own, and the parent's */
		long seen = struggle_twice(own) + struggle_twice(handles);
		dpx_handles_release(own);
		dpx_handles_release(handles);
		_exit(seen > 0 ? 0 : 1);
	}
	CHECK(struggle_twice(handles) > 0);
	int status;
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	for (int i = 0; i < 7; i++)
		CHECK(got(handles, i) > 0);
	dpx_handles_release(handles);
}

static void test_killed_writers_leave_a_table_of_use(void)
{
	fresh();
	struct dpx_handles *handles = open_for("data", 4 * FILES, ROOM);
	for (int round = 0; round < 20; round++) {
		pid_t child = fork();
		if (child == 0)
			for (unsigned turn = 0;; turn++)
				put(handles, (int)(turn % FILES), turn);
		usleep(3000);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		kept(handles); /* all that is found is whole */
	}
	for (int i = 0; i < FILES; i++)
		put(handles, i, 77);
	int count = 0;
	for (int i = 0; i < FILES; i++)
		count += got(handles, i) == 77;
	CHECK(count == FILES);
	dpx_handles_release(handles);
}

/* Any byte of the slots may have become another one. */
static void test_damage_is_not_believed(void)
{
	struct stat st;
	fresh();
	struct dpx_handles *handles = open_for("data", 4 * FILES, ROOM);
	for (int i = 0; i < FILES; i++)
		put(handles, i, 1);
	CHECK(stat(path, &st) == 0);
	int fd = open(path, O_RDWR);
	for (off_t at = 8192; at < st.st_size; at += 61) {
		unsigned char byte;
		CHECK(pread(fd, &byte, 1, at) == 1);
		byte ^= 0x10;
		CHECK(pwrite(fd, &byte, 1, at) == 1);
	}
	CHECK(kept(handles) == 0);
	dpx_handles_release(handles);
	for (off_t at = 0; at < 56; at++) { /* of the header */
		unsigned char byte, other;
		CHECK(pread(fd, &byte, 1, at) == 1);
		other = byte ^ 1;
		CHECK(pwrite(fd, &other, 1, at) == 1);
		int rc = dpx_handles_open(path, "data", 4 * FILES, ROOM, &handles);
		CHECK(at < 8 ? rc == EEXIST : rc == 0);
		if (rc == 0) { /* made anew */
			CHECK(kept(handles) == 0);
			dpx_handles_release(handles);
			close(fd);
			fd = open(path, O_RDWR);
		} else {
			CHECK(pwrite(fd, &byte, 1, at) == 1);
		}
	}
	close(fd);
}

static void test_a_table_that_is_cut_off_is_not_looked_into(void)
{
	fresh();
	struct dpx_handles *handles = open_for("data", 4 * FILES, ROOM);
	for (int i = 0; i < FILES; i++)
		put(handles, i, 1);
	CHECK(truncate(path, 9000) == 0);
	put(handles, 1, 2);
	CHECK(kept(handles) == 0);
	struct dpx_handles *again = open_for("data", 4 * FILES, ROOM);
	put(again, 1, 3);
	CHECK(got(again, 1) == 3 && kept(handles) == 0);
	dpx_handles_release(handles);
	dpx_handles_release(again);
}

static void test_other_files_are_left_alone(void)
{
	struct dpx_handles *handles;
	char back[8] = "";
	fresh();
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	CHECK(write(fd, "theirs", 6) == 6);
	CHECK(dpx_handles_open(path, "data", 4 * FILES, ROOM, &handles) == EEXIST);
	CHECK(pread(fd, back, sizeof(back), 0) == 6 && memcmp(back, "theirs", 6) == 0);
	close(fd);
	fresh();
	CHECK(mkfifo(path, 0644) == 0);
	CHECK(dpx_handles_open(path, "data", 4 * FILES, ROOM, &handles) == EEXIST);
	fresh();
	CHECK(mkdir(path, 0755) == 0);
	CHECK(dpx_handles_open(path, "data", 4 * FILES, ROOM, &handles) != 0);
	CHECK(rmdir(path) == 0);
}

/* No file may grow beyond the bound, as on a full disk: nothing is kept beyond it, and nobody dies of it. */
static void test_without_room_nothing_is_kept(void)
{
	fresh();
	pid_t child = fork();
	if (child == 0) {
		struct rlimit limit = {.rlim_cur = 10000, .rlim_max = 10000};
		struct dpx_handles *handles = open_for("data", 1, ROOM), *none = NULL;
		signal(SIGXFSZ, SIG_IGN);
		put(handles, 1, 1);
		CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
		put(handles, 2, 1);
		CHECK(got(handles, 1) == 1);
		fresh();
		int rc = dpx_handles_open(path, "data", 4 * FILES, ROOM, &none);
		dpx_handles_release(handles);
		_exit(rc == EFBIG && access(path, F_OK) != 0 ? 0 : 1);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	char command[128];
	snprintf(command, sizeof(command), "test -z \"$(ls -A %s)\"", folder);
	CHECK(system(command) == 0); /* nothing half-made stays */
}

int main(void)
{
	CHECK(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/handles", folder);
	RUN(test_hash_is_the_published_one);
	RUN(test_what_is_put_is_found_by_all_who_open_it);
	RUN(test_all_are_kept);
	RUN(test_a_table_is_of_one_set_of_data);
	RUN(test_no_more_than_fits_is_kept);
	RUN(test_what_is_longer_than_a_handle_is_not_kept);
	RUN(test_writers_at_once_tear_nothing);
	RUN(test_killed_writers_leave_a_table_of_use);
	RUN(test_damage_is_not_believed);
	RUN(test_a_table_that_is_cut_off_is_not_looked_into);
	RUN(test_other_files_are_left_alone);
	RUN(test_without_room_nothing_is_kept);
	fresh();
	CHECK(rmdir(folder) == 0);
	return 0;
}
