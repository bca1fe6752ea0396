/* The loader, and the stand-in for DAOS behind it: does that do what a real one was seen to do? */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "monotonic.h"
#include "standin_world.h"

#define FILES 40
#define BYTES 1000

static void fill_world(void)
{
	char data[BYTES];
	memset(data, 'd', sizeof(data));
	world_make();
	for (int i = 0; i < FILES; i++)
		world_file(world_path("dir/f%02d", i), data, sizeof(data));
}

/* A container by handles of our own. */
struct mounted {
	abi_handle pool, cont;
	abi_dfs *mount;
};

/* 0, or what the first says that is refused; then nothing is kept. */
static int try_mount(const char *pool, const char *cont, unsigned access, int flags, struct mounted *out)
{
	int rc = dfs->daos_pool_connect(pool, NULL, ABI_PC_RO, &out->pool, NULL, NULL);
	if (rc)
		return rc;
	rc = dfs->daos_cont_open(out->pool, cont, access, &out->cont, NULL, NULL);
	if (!rc) {
		rc = dfs->dfs_mount(out->pool, out->cont, flags, &out->mount);
		if (rc)
			CHECK(dfs->daos_cont_close(out->cont, NULL) == 0);
	}
	if (rc)
		CHECK(dfs->daos_pool_disconnect(out->pool, NULL) == 0);
	return rc;
}

static void unmount(struct mounted *mounted)
{
	CHECK(dfs->dfs_umount(mounted->mount) == 0);
	CHECK(dfs->daos_pool_disconnect(mounted->pool, NULL) == -ABI_DER_BUSY); /* the container is open */
	CHECK(dfs->daos_cont_close(mounted->cont, NULL) == 0 && dfs->daos_cont_close(mounted->cont, NULL) < 0);
	CHECK(dfs->daos_pool_disconnect(mounted->pool, NULL) == 0);
}

static abi_dfs *connect_to(const char *pool, const char *cont, int flags)
{
	abi_dfs *mount;
	CHECK(others.connect(pool, NULL, cont, flags, NULL, &mount) == 0);
	return mount;
}

static abi_obj *look_up(abi_dfs *mount, const char *path, int flags)
{
	abi_obj *object;
	CHECK(dfs->dfs_lookup(mount, path, flags, &object, NULL, NULL) == 0);
	return object;
}

static int read_now(abi_dfs *mount, abi_obj *object, void *buf, size_t len, uint64_t *got)
{
	abi_iov iov = {.iov_buf = buf, .iov_buf_len = len, .iov_len = len};
	abi_sgl sgl = {.sg_nr = 1, .sg_iovs = &iov};
	return dfs->dfs_read(mount, object, &sgl, 0, got, NULL);
}

/* --- the loader */

static void test_loader_says_what_is_missing(void)
{
	char why[DPX_WHY_ROOM] = "", before[512];
	snprintf(before, sizeof(before), "%s", getenv("DATAPIPES_LIBDFS_DIR"));
	setenv("DATAPIPES_LIBDFS_DIR", "/nowhere", 1);
	CHECK(dpx_dfs_load(&dfs, why) == DPX_DFS_MISSING && dfs == NULL);
	CHECK(strstr(why, "libdaos.so.2") && strstr(why, "DATAPIPES_LIBDFS_DIR") && strstr(why, "install"));
	setenv("DATAPIPES_LIBDFS_DIR", before, 1);
	setenv("STANDIN_VERSION", "3.1.4", 1);
	CHECK(dpx_dfs_load(&dfs, why) == DPX_DFS_MISSING);
	CHECK(strstr(why, "3.1.4") && strstr(why, "2.8"));
	unsetenv("STANDIN_VERSION");
	world_controls();
	world_load(); /* what failed is tried again */
}

static void *load_here(void *unused)
{
	const struct dpx_dfs *mine;
	char why[DPX_WHY_ROOM];
	(void)unused;
	CHECK(dpx_dfs_load(&mine, why) == 0);
	return (void *)(uintptr_t)mine;
}

static void test_all_threads_get_the_same_functions(void)
{
	pthread_t threads[8];
	for (int i = 0; i < 8; i++)
		CHECK(pthread_create(&threads[i], NULL, load_here, NULL) == 0);
	for (int i = 0; i < 8; i++) {
		void *mine;
		pthread_join(threads[i], &mine);
		CHECK(mine == (void *)(uintptr_t)dfs);
	}
}

/* --- starting and connecting */

static void test_mounting(void)
{
	struct mounted one, two;
	char uuid[37], pool_uuid[37];
	CHECK(dfs->daos_pool_connect("pool", NULL, ABI_PC_RO, &one.pool, NULL, NULL) < 0); /* before dfs_init */
	standin.set("STANDIN_AGENT", "none");
	CHECK(dfs->dfs_init() == EIO);
	standin.set("STANDIN_AGENT", "");
	standin.set("STANDIN_ENGINE", "down");
	standin.set("STANDIN_ENGINE_US", "1000");
	CHECK(dfs->dfs_init() == ETIMEDOUT);
	standin.reset();
	CHECK(dfs->dfs_init() == 0 && dfs->dfs_init() == 0);
	CHECK(try_mount("none", "cont", ABI_COO_RO, O_RDONLY, &one) == -ABI_DER_NONEXIST);
	CHECK(try_mount("pool", "none", ABI_COO_RO, O_RDONLY, &one) == -ABI_DER_NONEXIST);
	CHECK(try_mount("pool", "bad label!", ABI_COO_RO, O_RDONLY, &one) == -ABI_DER_INVAL);
	CHECK(try_mount("bad label!", "cont", ABI_COO_RO, O_RDONLY, &one) == -ABI_DER_INVAL);
	world_file(world_path("../flat"), "x", 1);
	CHECK(try_mount("pool", "flat", ABI_COO_RO, O_RDONLY, &one) == EINVAL); /* not POSIX */
	standin.uuid("pool", pool_uuid);
	standin.uuid("cont", uuid);
	CHECK(try_mount(pool_uuid, uuid, ABI_COO_RO, O_RDONLY, &one) == 0);
	CHECK(try_mount("pool", "cont", ABI_COO_RW, O_RDWR, &two) == 0 && standin.count("handles") == 4);
	CHECK(others.disconnect(one.mount) == EINVAL); /* only what dfs_connect has made */
	unmount(&one);
	CHECK(dfs->dfs_mount(one.pool, one.cont, O_RDONLY, &one.mount) == EINVAL);
	unmount(&two);
	CHECK(dfs->dfs_fini() == 0 && standin.count("inits") == 1);
	CHECK(dfs->dfs_fini() == 0 && dfs->dfs_fini() == EINVAL);
	world_check_empty();
}

static void test_connecting_by_name(void)
{
	abi_dfs *mount;
	CHECK(others.connect("pool", NULL, "cont", O_RDONLY, NULL, &mount) == EACCES); /* before dfs_init */
	CHECK(dfs->dfs_init() == 0);
	CHECK(others.connect("none", NULL, "cont", O_RDONLY, NULL, &mount) == ENOENT);
	CHECK(others.connect("pool", NULL, "none", O_RDONLY, NULL, &mount) == ENOENT);
	CHECK(others.connect("pool", NULL, "bad label!", O_RDONLY, NULL, &mount) == EINVAL);
	mount = connect_to("pool", "cont", O_RDONLY);
	CHECK(dfs->dfs_umount(mount) == EINVAL && others.disconnect(mount) == 0);
	CHECK(standin.count("handles") == 2); /* kept for the next one by these names */
	CHECK(dfs->dfs_fini() == 0);
	world_check_empty();
}

static void test_disconnecting_after_the_end_aborts(void)
{
	CHECK(dfs->dfs_init() == 0);
	pid_t child = fork();
	if (child == 0) {
		abi_dfs *mount = connect_to("pool", "cont", O_RDONLY);
		CHECK(freopen("/dev/null", "w", stderr));
		dfs->dfs_fini();
		others.disconnect(mount);
		_exit(0);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && (!WIFEXITED(status) || WEXITSTATUS(status) != 0));
	CHECK(dfs->dfs_fini() == 0);
}

static int create_in(abi_dfs *mount, const char *name)
{
	abi_obj *object;
	int rc = dfs->dfs_open(mount, NULL, name, S_IFREG | 0644, O_RDWR | O_CREAT, 0, 0, NULL, &object);
	if (!rc)
		dfs->dfs_release(object);
	return rc;
}

static void test_who_connects_first_decides_what_is_allowed(void)
{
	char uuid[37];
	CHECK(dfs->dfs_init() == 0);
	others.disconnect(connect_to("pool", "cont", O_RDONLY));
	abi_dfs *mount = connect_to("pool", "cont", O_RDWR);
	CHECK(create_in(mount, "made") == EPERM);
	others.disconnect(mount);
	standin.uuid("cont", uuid);
	mount = connect_to("pool", uuid, O_RDWR);
	CHECK(create_in(mount, "made") == 0);
	others.disconnect(mount);
	CHECK(dfs->dfs_fini() == 0 && dfs->dfs_init() == 0);
	mount = connect_to("pool", "cont", O_RDWR); /* forgotten by the last dfs_fini */
	abi_dfs *reader = connect_to("pool", "cont", O_RDONLY);
	CHECK(create_in(mount, "made2") == 0 && create_in(reader, "made3") == EPERM);
	CHECK(dfs->dfs_remove(mount, NULL, "made", false, NULL) == 0 && dfs->dfs_remove(mount, NULL, "made2", false, NULL) == 0);
	others.disconnect(reader);
	others.disconnect(mount);
	CHECK(dfs->dfs_fini() == 0);
	world_check_empty();
}

static void test_what_handles_allow(void)
{
	struct mounted one;
	abi_handle pool;
	CHECK(dfs->dfs_init() == 0);
	CHECK(try_mount("pool", "cont", ABI_COO_RO, O_RDWR, &one) == 0);
	CHECK(create_in(one.mount, "made") == EPERM);
	unmount(&one);
	CHECK(try_mount("pool", "cont", ABI_COO_RW, O_RDONLY, &one) == 0);
	CHECK(create_in(one.mount, "made") == EPERM);
	unmount(&one);
	standin.set("STANDIN_POOL", "read"); /* says nothing of what is in its containers */
	CHECK(dfs->daos_pool_connect("pool", NULL, 2, &pool, NULL, NULL) == -ABI_DER_NO_PERM);
	CHECK(try_mount("pool", "cont", ABI_COO_RW, O_RDWR, &one) == 0);
	CHECK(create_in(one.mount, "made") == 0 && dfs->dfs_remove(one.mount, NULL, "made", false, NULL) == 0);
	unmount(&one);
	standin.set("STANDIN_CONTAINER", "read");
	CHECK(try_mount("pool", "cont", ABI_COO_RW, O_RDWR, &one) == -ABI_DER_NO_PERM);
	CHECK(try_mount("pool", "cont", ABI_COO_RO, O_RDONLY, &one) == 0);
	unmount(&one);
	standin.set("STANDIN_POOL", "none");
	CHECK(try_mount("pool", "cont", ABI_COO_RO, O_RDONLY, &one) == -ABI_DER_NO_PERM);
	standin.reset();
	CHECK(dfs->dfs_fini() == 0);
	world_check_empty();
}

static int is_there(abi_dfs *mount, const char *name)
{
	struct stat st;
	return dfs->dfs_stat(mount, NULL, name, &st) == 0;
}

static void remove_without_transactions(const char *name, int expected)
{
	struct mounted other;
	CHECK(try_mount("pool", "cont", ABI_COO_RW, O_RDWR, &other) == 0);
	CHECK(is_there(other.mount, name) && dfs->dfs_remove(other.mount, NULL, name, false, NULL) == expected);
	unmount(&other);
}

static void test_balanced(void)
{
	struct mounted one;
	CHECK(dfs->dfs_init() == 0);
	world_file(world_path("../cont.balanced"), "", 0);
	CHECK(try_mount("pool", "cont", ABI_COO_RW, O_RDWR, &one) == EPERM);
	CHECK(try_mount("pool", "cont", ABI_COO_RO, O_RDONLY, &one) == EPERM);
	CHECK(try_mount("pool", "cont", ABI_COO_RO, O_RDONLY | ABI_DFS_BALANCED, &one) == 0);
	CHECK(create_in(one.mount, "made") == EPERM);
	unmount(&one);
	for (int flags = O_RDWR; flags <= (O_RDWR | ABI_DFS_BALANCED); flags += ABI_DFS_BALANCED) {
		CHECK(flags == O_RDWR ? unlink(world_path("../cont.balanced")) == 0 : 1);
		CHECK(symlink("dir", world_path("link")) == 0);
		CHECK(try_mount("pool", "cont", ABI_COO_RW, flags, &one) == 0);
		CHECK(create_in(one.mount, "one") == 0 && create_in(one.mount, "two") == 0);
		CHECK(dfs->dfs_move(one.mount, NULL, "one", NULL, "two", NULL) == 0);
		CHECK(!is_there(one.mount, "one") && is_there(one.mount, "two"));
		if (flags != O_RDWR)
			remove_without_transactions("two", ENOENT);
		CHECK(create_in(one.mount, "one") == 0 && dfs->dfs_move(one.mount, NULL, "one", NULL, "two", NULL) == 0);
		CHECK(dfs->dfs_remove(one.mount, NULL, "two", false, NULL) == 0);
		CHECK(create_in(one.mount, "one") == 0 && dfs->dfs_move(one.mount, NULL, "one", NULL, "two", NULL) == 0);
		remove_without_transactions("two", 0); /* which has replaced nothing */
		CHECK(dfs->dfs_move(one.mount, NULL, "link", NULL, "moved", NULL) == 0);
		CHECK(is_there(one.mount, "link") == (flags != O_RDWR)); /* said to be moved, and is not */
		CHECK(unlink(world_path(flags == O_RDWR ? "moved" : "link")) == 0);
		unmount(&one);
	}
	CHECK(dfs->dfs_fini() == 0);
	world_check_empty();
}

/* --- names */

static void test_names(abi_dfs *mount)
{
	abi_obj *object;
	char longer[ABI_MAX_NAME + 2];
	struct stat st;
	memset(longer, 'n', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	CHECK(dfs->dfs_lookup(mount, "dir/f00", O_RDONLY, &object, NULL, NULL) == EINVAL);
	CHECK(dfs->dfs_lookup_rel(mount, NULL, longer, O_RDONLY, &object, NULL, NULL) == EINVAL);
	CHECK(dfs->dfs_lookup_rel(mount, NULL, "dir/f00", O_RDONLY, &object, NULL, NULL) == EINVAL);
	CHECK(dfs->dfs_lookup_rel(mount, NULL, "nothing", O_RDONLY, &object, NULL, NULL) == ENOENT);
	abi_obj *dir = look_up(mount, "/dir", O_RDONLY);
	CHECK(dfs->dfs_stat(mount, dir, "f00", &st) == 0 && st.st_size == BYTES && st.st_ino == 0);
	abi_obj *file = look_up(mount, "/dir/f00", O_RDONLY);
	CHECK(dfs->dfs_lookup_rel(mount, file, "x", O_RDONLY, &object, NULL, NULL) == ENOTDIR);
	CHECK(dfs->dfs_mkdir(mount, NULL, "dir", 0755, 0) == EEXIST);
	CHECK(dfs->dfs_remove(mount, NULL, "dir", false, NULL) == ENOTEMPTY);
	dfs->dfs_release(file);
	dfs->dfs_release(dir);
}

/* How many names; *met: which. They come in no order of theirs. */
static unsigned list_part(abi_dfs *mount, abi_obj *dir, abi_anchor anchor, uint64_t *met)
{
	struct dirent entries[7];
	unsigned seen = 0;
	int last = -1, sorted = 1;
	while (anchor.da_type != ABI_ANCHOR_EOF) {
		uint32_t count = 7;
		CHECK(dfs->dfs_readdir(mount, dir, &anchor, &count, entries) == 0);
		for (uint32_t i = 0; i < count; i++) {
			int number = atoi(entries[i].d_name + 1);
			CHECK(entries[i].d_name[0] == 'f' && !(*met >> number & 1));
			*met |= UINT64_C(1) << number;
			sorted &= number > last;
			last = number;
		}
		seen += count;
	}
	CHECK(!sorted);
	return seen;
}

static void test_listing_in_parts(abi_dfs *mount)
{
	abi_anchor anchors[4];
	uint32_t parts = 0, wrong = 3;
	uint64_t met = 0, all = (UINT64_C(1) << FILES) - 1;
	unsigned seen = 0;
	abi_obj *dir = look_up(mount, "/dir", O_RDONLY);
	CHECK(list_part(mount, dir, (abi_anchor){0}, &met) == FILES && met == all);
	standin.set("STANDIN_PARTS", "4");
	CHECK(dfs->dfs_obj_anchor_split(dir, &parts, NULL) == 0 && parts == 4);
	CHECK(dfs->dfs_obj_anchor_split(dir, &wrong, NULL) == EINVAL); /* no other number */
	CHECK(dfs->dfs_obj_anchor_set(dir, 4, &anchors[0]) == EINVAL);
	met = 0;
	for (uint32_t i = 0; i < parts; i++) {
		CHECK(dfs->dfs_obj_anchor_set(dir, i, &anchors[i]) == 0);
		unsigned here = list_part(mount, dir, anchors[i], &met);
		CHECK(here < FILES);
		seen += here;
	}
	CHECK(seen == FILES && met == all);
	standin.reset();
	dfs->dfs_release(dir);
}

/* A directory that changes under a pass: what stays in it is given once. */
static void test_listing_while_names_come_and_go(abi_dfs *mount)
{
	struct dirent entries[7];
	abi_anchor anchor = {0};
	uint32_t count = 7;
	uint64_t met = 0;
	abi_obj *dir = look_up(mount, "/dir", O_RDONLY);
	CHECK(dfs->dfs_readdir(mount, dir, &anchor, &count, entries) == 0 && count == 7);
	for (uint32_t i = 0; i < count; i++)
		met |= UINT64_C(1) << atoi(entries[i].d_name + 1);
	world_file(world_path("dir/f%02d", FILES), "", 0);
	CHECK(unlink(world_path("dir/f%02d", FILES)) == 0);
	CHECK(list_part(mount, dir, anchor, &met) == FILES - 7 && met == (UINT64_C(1) << FILES) - 1);
	dfs->dfs_release(dir);
}

/* --- reading */

static void test_reading_past_the_end_and_through_stale_handles(abi_dfs *mount)
{
	char buf[BYTES + 10], blob[400];
	uint64_t got;
	abi_obj *object = look_up(mount, "/dir/f01", O_RDONLY), *again;
	CHECK(read_now(mount, object, buf, sizeof(buf), &got) == 0 && got == BYTES && buf[0] == 'd');
	abi_iov iov = {0};
	CHECK(dfs->dfs_obj_local2global(mount, object, &iov) == 0 && iov.iov_buf_len == 344);
	iov.iov_buf = blob;
	CHECK(dfs->dfs_obj_local2global(mount, object, &iov) == 0 && iov.iov_len == 344);
	long lookups = standin.count("dfs_lookup");
	CHECK(dfs->dfs_obj_global2local(mount, O_RDONLY, iov, &again) == 0);
	CHECK(read_now(mount, again, buf, BYTES, &got) == 0 && got == BYTES && standin.count("dfs_lookup") == lookups);
	dfs->dfs_release(again);
	CHECK(unlink(world_path("dir/f01")) == 0);
	CHECK(dfs->dfs_obj_global2local(mount, O_RDONLY, iov, &again) == 0);
	CHECK(read_now(mount, object, buf, BYTES, &got) == 0 && got == 0);
	CHECK(read_now(mount, again, buf, BYTES, &got) == 0 && got == 0);
	memset(buf, 'd', BYTES);
	world_file(world_path("dir/f01"), buf, BYTES); /* another file of the same name */
	CHECK(read_now(mount, object, buf, BYTES, &got) == 0 && got == 0);
	CHECK(read_now(mount, again, buf, BYTES, &got) == 0 && got == 0);
	dfs->dfs_release(again);
	dfs->dfs_release(object);
}

struct flight {
	abi_event event;
	abi_iov iov;
	abi_sgl sgl;
	uint64_t got;
	char buf[BYTES];
};

static int take_off(abi_dfs *mount, abi_obj *object, struct flight *flight)
{
	flight->iov = (abi_iov){.iov_buf = flight->buf, .iov_buf_len = BYTES, .iov_len = BYTES};
	flight->sgl = (abi_sgl){.sg_nr = 1, .sg_iovs = &flight->iov};
	return dfs->dfs_read(mount, object, &flight->sgl, 0, &flight->got, &flight->event);
}

static void test_queue(abi_dfs *mount)
{
	static struct flight flights[FILES];
	abi_event *done[FILES];
	abi_handle queue;
	abi_obj *object = look_up(mount, "/dir/f00", O_RDONLY);
	CHECK(dfs->daos_eq_create(&queue) == 0);
	standin.set("STANDIN_FAIL", "dfs_read:*=never");
	for (int i = 0; i < FILES; i++) {
		CHECK(dfs->daos_event_init(&flights[i].event, queue, NULL) == 0);
		CHECK(take_off(mount, object, &flights[i]) == 0);
	}
	CHECK(dfs->daos_eq_poll(queue, 1, ABI_EQ_NOWAIT, FILES, done) == 0);
	CHECK(dfs->daos_event_fini(&flights[0].event) == -ABI_DER_BUSY);
	CHECK(dfs->daos_eq_destroy(queue, 0) == -ABI_DER_BUSY);
	CHECK(dfs->dfs_fini() == EBUSY);
	CHECK(standin.count("reads") == FILES);
	standin.release();
	while (standin.count("reads"))
		usleep(1000);
	for (int left = FILES, n; left; left -= n) {
		n = dfs->daos_eq_poll(queue, 1, 100000, 7, done);
		CHECK(n == (left < 7 ? left : 7));
		for (int i = 0; i < n; i++)
			CHECK(done[i]->ev_error == 0);
	}
	for (int i = 0; i < FILES; i++)
		CHECK(flights[i].got == BYTES && flights[i].buf[BYTES - 1] == 'd');
	standin.reset();
	standin.set("STANDIN_DELAY_US", "20000");
	int64_t begin = dpx_now_ns();
	flights[0].got = 0;
	CHECK(take_off(mount, object, &flights[0]) == 0); /* a polled event may be used again */
	CHECK(dfs->daos_eq_destroy(queue, ABI_EQ_DESTROY_FORCE) == 0 && flights[0].got == BYTES);
	CHECK(dpx_now_ns() - begin >= 20000000);
	CHECK(dfs->daos_event_fini(&flights[0].event) < 0);
	dfs->dfs_release(object);
	standin.reset();
}

static void test_faults(abi_dfs *mount)
{
	static struct flight flight, other;
	abi_event *done[2];
	abi_handle queue;
	abi_obj *object = look_up(mount, "/dir/f00", O_RDONLY), *none;
	char buf[BYTES];
	uint64_t got;
	CHECK(standin.set("STANDIN_FAIL", "dfs_read:2=5,dfs_lookup_rel:1+=2,dfs_read:3=short,dfs_read:4=late:110") == 0);
	CHECK(read_now(mount, object, buf, BYTES, &got) == 0 && got == BYTES);
	CHECK(read_now(mount, object, buf, BYTES, &got) == EIO);
	CHECK(read_now(mount, object, buf, BYTES, &got) == 0 && got == BYTES / 2);
	CHECK(dfs->dfs_lookup_rel(mount, NULL, "dir", O_RDONLY, &none, NULL, NULL) == ENOENT);
	CHECK(dfs->daos_eq_create(&queue) == 0 && dfs->daos_event_init(&flight.event, queue, NULL) == 0);
	CHECK(dfs->daos_event_init(&other.event, queue, NULL) == 0);
	CHECK(take_off(mount, object, &flight) == 0);
	CHECK(dfs->daos_eq_poll(queue, 1, 1000000, 2, done) == 1 && flight.event.ev_error == 110);
	standin.reset();
	standin.set("STANDIN_FAIL", "dfs_read:1=never,dfs_read:2=dead");
	standin.set("STANDIN_DELAY_US", "10000");
	CHECK(take_off(mount, object, &flight) == 0);
	CHECK(dfs->daos_eq_poll(queue, 1, 30000, 2, done) == 0);
	CHECK(standin.count("dfs_read") == 1 && standin.count("calls") == 1); /* waiting is none */
	CHECK(take_off(mount, object, &other) == EIO && read_now(mount, object, buf, BYTES, &got) == EIO);
	standin.release();
	CHECK(dfs->daos_eq_poll(queue, 1, 1000000, 2, done) == 1 && flight.event.ev_error == EIO);
	CHECK(standin.set("STANDIN_FAIL", "nonsense") == -1 && standin.set("STANDIN_NOTHING", "1") == -1);
	standin.reset();
	CHECK(dfs->daos_event_fini(&flight.event) == 0 && dfs->daos_event_fini(&other.event) == 0);
	CHECK(dfs->daos_eq_destroy(queue, 0) == 0);
	dfs->dfs_release(object);
}

static void *read_some(void *mount)
{
	char buf[BYTES];
	uint64_t got;
	abi_obj *object = look_up(mount, "/dir/f00", O_RDONLY);
	CHECK(read_now(mount, object, buf, BYTES, &got) == 0 && got == BYTES);
	dfs->dfs_release(object);
	return NULL;
}

static void test_a_release_ends_what_began_before_it(abi_dfs *mount)
{
	pthread_t thread;
	standin.reset();
	standin.set("STANDIN_COST", "sleep");
	standin.set("STANDIN_READ_US", "100000"); /* then it would wait for a release */
	standin.set("STANDIN_FAIL", "dfs_read:*=never");
	CHECK(pthread_create(&thread, NULL, read_some, mount) == 0);
	while (!standin.count("dfs_read"))
		usleep(1000);
	usleep(10000);
	standin.reset();
	standin.release();
	CHECK(pthread_join(thread, NULL) == 0);
}

static void test_a_second_trip_when_the_size_is_not_known(abi_dfs *mount)
{
	char buf[BYTES + 1];
	uint64_t got;
	abi_obj *object = look_up(mount, "/dir/f00", O_RDONLY);
	standin.set("STANDIN_COST", "sleep");
	standin.set("STANDIN_READ_US", "20000");
	int64_t begin = dpx_now_ns();
	CHECK(read_now(mount, object, buf, BYTES + 1, &got) == 0 && got == BYTES);
	CHECK(dpx_now_ns() - begin >= 40000000);
	standin.set("STANDIN_COST", "burn");
	begin = clock();
	CHECK(read_now(mount, object, buf, BYTES, &got) == 0);
	CHECK((clock() - begin) * (1000000 / CLOCKS_PER_SEC) >= 19000);
	standin.reset();
	dfs->dfs_release(object);
}

static void test_a_child_reads_wrong_bytes_until_reinit(abi_dfs *mount)
{
	abi_obj *object = look_up(mount, "/dir/f00", O_RDONLY);
	pid_t child = fork();
	if (child == 0) {
		char buf[BYTES];
		uint64_t got;
		int wrong = read_now(mount, object, buf, BYTES, &got) == 0 && got == BYTES && buf[0] != 'd';
		int rc = dfs->daos_reinit();
		int right = read_now(mount, object, buf, BYTES, &got) == 0 && got == BYTES && buf[0] == 'd';
		_exit(wrong && rc == 0 && right ? 0 : 1);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	dfs->dfs_release(object);
}

static void on_mount(void (*test)(abi_dfs *mount))
{
	CHECK(dfs->dfs_init() == 0);
	struct mounted mounted;
	CHECK(try_mount("pool", "cont", ABI_COO_RW, O_RDWR, &mounted) == 0);
	test(mounted.mount);
	unmount(&mounted);
	CHECK(dfs->dfs_fini() == 0);
	world_check_empty();
}

#define RUN_ON_MOUNT(test) (printf("%s\n", #test), fflush(stdout), on_mount(test))

int main(void)
{
	fill_world();
	RUN(test_loader_says_what_is_missing);
	RUN(test_all_threads_get_the_same_functions);
	RUN(test_mounting);
	RUN(test_connecting_by_name);
	RUN(test_disconnecting_after_the_end_aborts);
	RUN(test_who_connects_first_decides_what_is_allowed);
	RUN(test_what_handles_allow);
	RUN(test_balanced);
	RUN_ON_MOUNT(test_names);
	RUN_ON_MOUNT(test_listing_in_parts);
	RUN_ON_MOUNT(test_listing_while_names_come_and_go);
	RUN_ON_MOUNT(test_reading_past_the_end_and_through_stale_handles);
	RUN_ON_MOUNT(test_queue);
	RUN_ON_MOUNT(test_faults);
	RUN_ON_MOUNT(test_a_release_ends_what_began_before_it);
	RUN_ON_MOUNT(test_a_second_trip_when_the_size_is_not_known);
	RUN_ON_MOUNT(test_a_child_reads_wrong_bytes_until_reinit);
	world_remove();
	return 0;
}
