/* A store of made-up files: "N" or "N-anything" is a file of N bytes whose byte at offset o is (N + o) % 251.
 * It counts what is open, fails at a chosen call, is slow, lies about sizes, or hangs. */
#ifndef DPX_TEST_FAKE_FILES_H
#define DPX_TEST_FAKE_FILES_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "io.h"

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	atomic_long calls, open, mounts;
	atomic_long fail_at; /* the call with this number fails with EIO; 0: none */
	atomic_long delay_us;
	atomic_long most_open;
	atomic_int in_calls, most_in_calls;
	atomic_int untold; /* fstat does not tell sizes */
	atomic_int zero;   /* fstat tells 0 */
	atomic_long cut;   /* reads end this many bytes before the size that fstat tells */
	int hang;          /* under the lock: reads of files named "...hang" wait while it is set */
	int hanging;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

struct fake_file {
	uint64_t size;
	int hangs;
};

static void fake_sleep(long us)
{
	struct timespec span = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
	nanosleep(&span, NULL);
}

/* Each call to the store goes through here. */
static int fake_call(void)
{
	long number = atomic_fetch_add(&fake.calls, 1) + 1;
	int inside = atomic_fetch_add(&fake.in_calls, 1) + 1;
	int most = atomic_load(&fake.most_in_calls);
	while (inside > most && !atomic_compare_exchange_weak(&fake.most_in_calls, &most, inside))
		continue;
	if (atomic_load(&fake.delay_us))
		fake_sleep(atomic_load(&fake.delay_us));
	atomic_fetch_sub(&fake.in_calls, 1);
	return number == atomic_load(&fake.fail_at) ? EIO : 0;
}

static int fake_mount(const char *spec, void **mount, char why[DPX_WHY_ROOM])
{
	(void)why;
	(void)spec;
	atomic_fetch_add(&fake.mounts, 1);
	*mount = &fake;
	return 0;
}

static void fake_unmount(void *mount)
{
	CHECK(!mount || atomic_load(&fake.open) == 0);
	atomic_fetch_sub(&fake.mounts, mount != NULL);
}

static int fake_open(void *mount, const char *path, void **out)
{
	(void)mount;
	int rc = fake_call();
	if (rc)
		return rc;
	if (path[0] < '0' || path[0] > '9')
		return ENOENT;
	struct fake_file *file = malloc(sizeof(*file));
	CHECK(file);
	file->size = strtoull(path, NULL, 10);
	file->hangs = strstr(path, "hang") != NULL;
	long open = atomic_fetch_add(&fake.open, 1) + 1;
	if (open > atomic_load(&fake.most_open))
		atomic_store(&fake.most_open, open); /* near enough: it is looked at with one thread, or with care */
	*out = file;
	return 0;
}

static int fake_fstat(void *file, struct dpx_stat *out)
{
	int rc = fake_call();
	uint64_t size = ((struct fake_file *)file)->size;
	if (atomic_load(&fake.untold))
		size = DPX_SIZE_UNKNOWN;
	if (atomic_load(&fake.zero))
		size = 0;
	*out = (struct dpx_stat){.kind = DPX_KIND_FILE, .size = size};
	return rc;
}

static int fake_read(void *file, void *buf, size_t len, uint64_t offset, size_t *got)
{
	struct fake_file *from = file;
	int rc = fake_call();
	pthread_mutex_lock(&fake.lock);
	while (from->hangs && fake.hang) {
		fake.hanging++;
		pthread_cond_broadcast(&fake.changed);
		pthread_cond_wait(&fake.changed, &fake.lock);
		fake.hanging--;
	}
	pthread_mutex_unlock(&fake.lock);
	*got = 0;
	if (rc)
		return rc;
	uint64_t size = from->size - (uint64_t)atomic_load(&fake.cut);
	while (*got < len && offset + *got < size) {
		((unsigned char *)buf)[*got] = (unsigned char)((from->size + offset + *got) % 251);
		++*got;
	}
	return 0;
}

static void fake_close(void *file)
{
	atomic_fetch_sub(&fake.open, 1);
	free(file);
}

static const struct dpx_io fake_io = {
	.name = "fake",
	.mount = fake_mount,
	.unmount = fake_unmount,
	.open = fake_open,
	.fstat = fake_fstat,
	.read = fake_read,
	.close = fake_close,
};

__attribute__((unused)) static void fake_hang(int hang)
{
	pthread_mutex_lock(&fake.lock);
	fake.hang = hang;
	pthread_cond_broadcast(&fake.changed);
	pthread_mutex_unlock(&fake.lock);
}

__attribute__((unused)) static void fake_wait_hanging(int count)
{
	pthread_mutex_lock(&fake.lock);
	while (fake.hanging < count)
		pthread_cond_wait(&fake.changed, &fake.lock);
	pthread_mutex_unlock(&fake.lock);
}

/* Nothing is left, though threads that end by themselves may need a moment. */
__attribute__((unused)) static void fake_check_empty(void)
{
	for (int i = 0; i < 2000 && (atomic_load(&fake.open) || atomic_load(&fake.mounts)); i++)
		fake_sleep(1000);
	CHECK(atomic_load(&fake.open) == 0);
	CHECK(atomic_load(&fake.mounts) == 0);
}

#endif
