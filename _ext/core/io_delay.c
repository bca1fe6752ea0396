#include "io_delay.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

struct delay_mount {
	struct dpx_io inner; /* a copy */
	void *mount;         /* owned: the inner table's */
	struct timespec delay;
};

/* Linux rounds sleeps up by 50 us unless told otherwise; the rest of this file wants to be believed. */
static void sleep_exactly(const struct timespec *span)
{
#ifdef __linux__
	static _Thread_local int told;
	if (!told)
		told = prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL) == 0;
#endif
	struct timespec left = *span;
	while (nanosleep(&left, &left) && errno == EINTR)
		continue;
}

static void delay_unmount(void *mount)
{
	struct delay_mount *outer = mount;
	if (!outer)
		return;
	outer->inner.unmount(outer->mount);
	free(outer);
}

static int delay_open(void *mount, const char *path, void **file)
{
	struct delay_mount *outer = mount;
	sleep_exactly(&outer->delay);
	return outer->inner.open(outer->mount, path, file);
}

static int delay_stat(void *mount, const char *path, int follow, struct dpx_stat *out)
{
	struct delay_mount *outer = mount;
	return outer->inner.stat(outer->mount, path, follow, out);
}

static int delay_dir_open(void *mount, const char *path, int follow, void **dir)
{
	struct delay_mount *outer = mount;
	sleep_exactly(&outer->delay);
	return outer->inner.dir_open(outer->mount, path, follow, dir);
}

static int delay_create(void *mount, const char *path, const struct dpx_new_file *how, void **file)
{
	struct delay_mount *outer = mount;
	return outer->inner.create(outer->mount, path, how, file);
}

static int delay_rename(void *mount, const char *from, const char *to)
{
	struct delay_mount *outer = mount;
	return outer->inner.rename(outer->mount, from, to);
}

static int delay_remove(void *mount, const char *path)
{
	struct delay_mount *outer = mount;
	return outer->inner.remove(outer->mount, path);
}

static int delay_mkdir(void *mount, const char *path)
{
	struct delay_mount *outer = mount;
	return outer->inner.mkdir(outer->mount, path);
}

int dpx_io_delay_wrap(const struct dpx_io *inner, void *inner_mount, unsigned open_delay_us, struct dpx_io *table,
		      void **mount)
{
	struct delay_mount *outer = malloc(sizeof(*outer));
	if (!outer)
		return ENOMEM;
	outer->inner = *inner;
	outer->mount = inner_mount;
	outer->delay.tv_sec = open_delay_us / 1000000;
	outer->delay.tv_nsec = (long)(open_delay_us % 1000000) * 1000;
	*table = *inner; /* files and directory handles are the inner table's own */
	table->name = "delay";
	table->mount = NULL;
	table->unmount = delay_unmount;
	table->queue_open = NULL; /* would be given the wrong mount */
	table->open_saved = NULL;
	table->open = delay_open;
	table->stat = delay_stat;
	table->dir_open = delay_dir_open;
	table->create = delay_create;
	table->rename = delay_rename;
	table->remove = delay_remove;
	table->mkdir = delay_mkdir;
	*mount = outer;
	return 0;
}
