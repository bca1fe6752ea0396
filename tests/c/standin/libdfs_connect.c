/* Connecting by name, as other libraries in a process do: libdfs keeps the handles that it has asked for by the words
 * they were asked for with, and gives them to all who use the same, until the last dfs_fini. */
#include "libdfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define MOST_NAMES 16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	char name[300]; /* POOL/CONTAINER, as they were written */
	abi_handle pool, cont;
} kept[MOST_NAMES];
static size_t count;

void standin_forget_names(void)
{
	pthread_mutex_lock(&lock);
	for (; count; count--) {
		daos_cont_close(kept[count - 1].cont, NULL);
		daos_pool_disconnect(kept[count - 1].pool, NULL);
	}
	pthread_mutex_unlock(&lock);
}

static int to_errno(int der)
{
	return der == -ABI_DER_NO_PERM ? EPERM : der == -ABI_DER_INVAL ? EINVAL : der == -ABI_DER_NONEXIST ? ENOENT : EIO;
}

/* The handles by these names, *at from the first who has asked. */
static int find(const char *pool, const char *cont, int writing, size_t *at)
{
	char name[sizeof(kept[0].name)];
	unsigned flags = writing ? 2 : 1;
	snprintf(name, sizeof(name), "%s/%s", pool, cont);
	for (*at = 0; *at < count; ++*at)
		if (strcmp(kept[*at].name, name) == 0)
			return 0;
	if (count == MOST_NAMES)
		return ENOMEM;
	int rc = daos_pool_connect(pool, NULL, flags, &kept[count].pool, NULL, NULL);
	if (rc)
		return to_errno(rc);
	rc = daos_cont_open(kept[count].pool, cont, flags, &kept[count].cont, NULL, NULL);
	if (rc) {
		daos_pool_disconnect(kept[count].pool, NULL);
		return to_errno(rc);
	}
	memcpy(kept[count++].name, name, sizeof(name));
	return 0;
}

int dfs_connect(const char *pool, const char *sys, const char *cont, int flags, void *attr, abi_dfs **out)
{
	int access = flags & O_ACCMODE;
	size_t at;
	(void)sys;
	(void)attr;
	if (!standin_living(LIVE_INITS))
		return EACCES;
	pthread_mutex_lock(&lock);
	int rc = find(pool, cont, access == O_RDWR, &at);
	if (!rc)
		rc = dfs_mount(kept[at].pool, kept[at].cont, access, out); /* never as balanced */
	pthread_mutex_unlock(&lock);
	if (!rc)
		(*out)->by_name = 1;
	return rc;
}

int dfs_disconnect(abi_dfs *dfs)
{
	return standin_let_go(dfs, "dfs_disconnect", 1);
}
