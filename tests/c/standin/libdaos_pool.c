/* Pools and containers by name, and the handles of those who ask for them here. */
#include "standin.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LABEL_MOST 127
#define MOST_HANDLES 256
#define DER_NO_HDL 1002
#define DER_UNINIT 1015
#define DER_MISC 1025

/* Taken while somebody connects, as in libdaos (systems_lock): a child that is forked meanwhile finds it taken for good. */
static pthread_mutex_t systems = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct handle {
	enum { FREE, POOL, CONTAINER } kind;
	char pool[LABEL_MOST + 1], cont[LABEL_MOST + 1]; /* as they were written */
	int writable;
	abi_handle of; /* a container: its pool */
} handles[MOST_HANDLES]; /* a cookie is a place here, from 1 on */

static int good_label(const char *label)
{
	size_t len = strlen(label);
	for (const char *at = label; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("_-.:", *at))
			return 0;
	return len > 0 && len <= LABEL_MOST && label[0] != '.';
}

/* The directory entry of `folder` that answers to a label or UUID. */
static int find_entry(int folder, const char *name, char found[NAME_MAX + 1])
{
	struct stat st;
	char uuid[37];
	if (!good_label(name))
		return EINVAL;
	snprintf(found, NAME_MAX + 1, "%s", name);
	if (fstatat(folder, name, &st, 0) == 0)
		return 0;
	int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *pass = again < 0 ? NULL : fdopendir(again);
	if (!pass)
		return errno;
	int rc = ENOENT;
	for (struct dirent *entry; rc && (entry = readdir(pass));) {
		standin_uuid(entry->d_name, uuid);
		if (strcmp(uuid, name) == 0) {
			snprintf(found, NAME_MAX + 1, "%s", entry->d_name);
			rc = 0;
		}
	}
	closedir(pass);
	return rc;
}

static int open_in(const char *pool, const char *cont, char name[NAME_MAX + 1], int *folder)
{
	int root = open(standin_text("STANDIN_ROOT"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return errno;
	int rc = find_entry(root, pool, name);
	if (!rc && (*folder = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = errno;
	close(root);
	if (rc || !cont)
		return rc;
	rc = find_entry(*folder, cont, name);
	if (rc)
		close(*folder);
	return rc;
}

static int der(int rc)
{
	return rc == 0 ? 0 : rc == ENOENT ? -ABI_DER_NONEXIST : rc == EINVAL ? -ABI_DER_INVAL : -DER_MISC;
}

static int take(const struct handle *what, abi_handle *out)
{
	int rc = -ABI_DER_NOMEM;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; rc && i < MOST_HANDLES; i++)
		if (handles[i].kind == FREE) {
			handles[i] = *what;
			out->cookie = i + 1;
			rc = 0;
		}
	pthread_mutex_unlock(&lock);
	if (!rc)
		standin_live(LIVE_HANDLES, 1);
	return rc;
}

static int look(abi_handle handle, int kind, struct handle *out)
{
	int rc = -DER_NO_HDL;
	pthread_mutex_lock(&lock);
	if (handle.cookie >= 1 && handle.cookie <= MOST_HANDLES && (int)handles[handle.cookie - 1].kind == kind) {
		*out = handles[handle.cookie - 1];
		rc = 0;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

static int has_open(abi_handle pool)
{
	for (size_t i = 0; i < MOST_HANDLES; i++)
		if (handles[i].kind == CONTAINER && handles[i].of.cookie == pool.cookie)
			return 1;
	return 0;
}

static int drop(abi_handle handle, int kind)
{
	struct handle was;
	int rc = look(handle, kind, &was);
	if (rc)
		return rc;
	pthread_mutex_lock(&lock);
	if (kind == POOL && has_open(handle))
		rc = -ABI_DER_BUSY;
	else
		handles[handle.cookie - 1].kind = FREE;
	pthread_mutex_unlock(&lock);
	if (!rc)
		standin_live(LIVE_HANDLES, -1);
	return rc;
}

/* setting: what the user may do. */
static int is_refused(const char *setting, int writing)
{
	const char *may = standin_text(setting);
	return strcmp(may, "none") == 0 || (writing && strcmp(may, "read") == 0);
}

int daos_pool_connect(const char *pool, const char *sys, unsigned flags, abi_handle *out, abi_pool_info *info,
		      abi_event *event)
{
	struct standin_fault fault = standin_enter("daos_pool_connect", 1);
	struct handle handle = {.kind = POOL};
	char name[NAME_MAX + 1];
	int folder;
	(void)sys;
	if (fault.code)
		return -fault.code;
	if (info || event)
		return -ABI_DER_INVAL; /* nobody here asks for that */
	if (!standin_living(LIVE_INITS))
		return -DER_UNINIT;
	int rc = der(open_in(pool, NULL, name, &folder));
	if (rc)
		return rc;
	close(folder);
	pthread_mutex_lock(&systems);
	standin_pay(COST_CONNECT, 1);
	pthread_mutex_unlock(&systems);
	snprintf(handle.pool, sizeof(handle.pool), "%s", pool);
	return is_refused("STANDIN_POOL", flags != ABI_PC_RO) ? -ABI_DER_NO_PERM : take(&handle, out);
}

int daos_pool_disconnect(abi_handle pool, abi_event *event)
{
	standin_enter("daos_pool_disconnect", -1);
	standin_pay(COST_CONNECT, 1);
	return event ? -ABI_DER_INVAL : drop(pool, POOL);
}

/* Of the pool's handle, one for reading will do. */
int daos_cont_open(abi_handle pool, const char *cont, unsigned flags, abi_handle *out, abi_cont_info *info,
		   abi_event *event)
{
	struct standin_fault fault = standin_enter("daos_cont_open", 1);
	struct handle handle;
	char name[NAME_MAX + 1];
	int folder;
	if (fault.code)
		return -fault.code;
	int rc = info || event ? -ABI_DER_INVAL : look(pool, POOL, &handle);
	if (!rc)
		rc = der(open_in(handle.pool, cont, name, &folder));
	if (rc)
		return rc;
	close(folder);
	handle.kind = CONTAINER;
	handle.of = pool;
	handle.writable = flags == ABI_COO_RW;
	snprintf(handle.cont, sizeof(handle.cont), "%s", cont);
	return is_refused("STANDIN_CONTAINER", handle.writable) ? -ABI_DER_NO_PERM : take(&handle, out);
}

int daos_cont_close(abi_handle cont, abi_event *event)
{
	standin_enter("daos_cont_close", -1);
	return event ? -ABI_DER_INVAL : drop(cont, CONTAINER);
}

int standin_opened(abi_handle pool, abi_handle cont, struct standin_container *out)
{
	struct handle handle;
	struct stat st;
	char name[NAME_MAX + 1], mark[NAME_MAX + 16];
	int folder, rc = look(pool, POOL, &handle) || look(cont, CONTAINER, &handle) ? EINVAL : 0;
	if (!rc)
		rc = open_in(handle.pool, handle.cont, name, &folder);
	if (rc)
		return rc;
	standin_uuid(name, out->uuid);
	out->writable = handle.writable;
	out->fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (out->fd < 0 && errno != ENOTDIR)
		rc = errno;
	snprintf(mark, sizeof(mark), "%s.balanced", name);
	out->balanced = fstatat(folder, mark, &st, 0) == 0;
	close(folder);
	return rc;
}
