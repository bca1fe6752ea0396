#include "handles_spool.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "handles_file.h"

/* Written together. */
#define BLOCK 256

struct record {
	struct dpx_handle_key key;
	struct dpx_handle handle;
};

struct dpx_spool {
	atomic_uint refs;
	int fd;                       /* owned */
	struct dpx_handle_key secret; /* of the table to come */
	char **masks;                 /* owned, each */
	size_t mask_count;
	uint64_t most;                /* records that a table has slots for */
	pthread_mutex_t lock;         /* what follows */
	uint64_t written, count;      /* records in the file; and those in the block */
	int failed;                   /* no room: what is written stays, nothing more comes */
	struct record block[BLOCK];
};

static int open_nameless(const char *directory, int *fd)
{
	char name[PATH_MAX];
	if (snprintf(name, sizeof(name), "%s/.datapipes-handles-XXXXXX", directory) >= (int)sizeof(name))
		return ENAMETOOLONG;
	*fd = mkstemp(name);
	if (*fd < 0)
		return errno;
	unlink(name);
	fcntl(*fd, F_SETFD, FD_CLOEXEC);
	return 0;
}

static int copy_masks(struct dpx_spool *spool, const char *const *masks, size_t count)
{
	spool->masks = calloc(count + 1, sizeof(*spool->masks));
	if (!spool->masks)
		return ENOMEM;
	for (; spool->mask_count < count; spool->mask_count++) {
		char *mask = strdup(masks[spool->mask_count]);
		if (!mask)
			return ENOMEM;
		spool->masks[spool->mask_count] = mask;
	}
	return 0;
}

int dpx_spool_open(const char *directory, uint64_t max_bytes, const char *const *masks, size_t mask_count,
		   struct dpx_spool **out)
{
	struct dpx_spool *spool = calloc(1, sizeof(*spool));
	if (!spool)
		return ENOMEM;
	atomic_init(&spool->refs, 1);
	spool->fd = -1;
	spool->most = max_bytes / sizeof(struct dpx_handles_slot);
	int rc = pthread_mutex_init(&spool->lock, NULL);
	if (rc) {
		free(spool);
		return rc;
	}
	rc = copy_masks(spool, masks, mask_count);
	if (!rc)
		rc = dpx_handles_secret(&spool->secret);
	if (!rc)
		rc = open_nameless(directory, &spool->fd);
	if (rc)
		dpx_spool_release(spool);
	else
		*out = spool;
	return rc;
}

struct dpx_spool *dpx_spool_retain(struct dpx_spool *spool)
{
	atomic_fetch_add_explicit(&spool->refs, 1, memory_order_relaxed);
	return spool;
}

void dpx_spool_release(struct dpx_spool *spool)
{
	if (!spool || atomic_fetch_sub(&spool->refs, 1) != 1)
		return;
	if (spool->fd >= 0)
		close(spool->fd);
	for (size_t i = 0; i < spool->mask_count; i++)
		free(spool->masks[i]);
	free(spool->masks);
	pthread_mutex_destroy(&spool->lock);
	free(spool);
}

struct dpx_handle_key dpx_spool_root(const struct dpx_spool *spool, const char *root)
{
	return dpx_handles_key(&spool->secret, root);
}

static int is_meant(const struct dpx_spool *spool, const char *name)
{
	for (size_t i = 0; i < spool->mask_count; i++)
		if (fnmatch(spool->masks[i], name, FNM_NOESCAPE) == 0)
			return 1;
	return spool->mask_count == 0;
}

/* With the lock held. */
static void write_block(struct dpx_spool *spool)
{
	const char *at = (const char *)spool->block;
	size_t left = (size_t)(spool->count - spool->written) * sizeof(struct record);
	off_t offset = (off_t)(spool->written * sizeof(struct record));
	while (left && !spool->failed) {
		ssize_t done = pwrite(spool->fd, at, left, offset);
		if (done < 0 && errno == EINTR)
			continue;
		spool->failed = done <= 0;
		at += done;
		offset += done;
		left -= spool->failed ? 0 : (size_t)done;
	}
	if (spool->failed)
		spool->count = spool->written;
	else
		spool->written = spool->count;
}

void dpx_spool_put(struct dpx_spool *spool, const struct dpx_handle_key *root, const char *dir, const char *name,
		   const struct dpx_handle *handle)
{
	size_t dir_len = strlen(dir), len = strlen(name);
	char *path = handle->len <= DPX_HANDLE_BYTES && is_meant(spool, name) ? malloc(dir_len + len + 1) : NULL;
	if (!path)
		return;
	memcpy(path, dir, dir_len);
	memcpy(path + dir_len, name, len + 1);
	struct dpx_handle_key key = dpx_handles_key(root, path);
	free(path);
	pthread_mutex_lock(&spool->lock);
	if (!spool->failed && spool->count < spool->most) {
		spool->block[spool->count - spool->written] = (struct record){.key = key, .handle = *handle};
		if (++spool->count - spool->written == BLOCK)
			write_block(spool);
	}
	pthread_mutex_unlock(&spool->lock);
}

void dpx_spool_give_up(struct dpx_spool *spool)
{
	pthread_mutex_lock(&spool->lock);
	spool->failed = 1;
	spool->written = spool->count = 0;
	while (ftruncate(spool->fd, 0) && errno == EINTR)
		continue;
	pthread_mutex_unlock(&spool->lock);
}

/* With the lock held. */
static int read_block(struct dpx_spool *spool, uint64_t first, size_t *count)
{
	uint64_t left = spool->written - first;
	*count = left < BLOCK ? (size_t)left : BLOCK;
	size_t wanted = *count * sizeof(struct record), got = 0;
	while (got < wanted) {
		ssize_t n = pread(spool->fd, (char *)spool->block + got, wanted - got,
				  (off_t)(first * sizeof(struct record) + got));
		if (n <= 0 && !(n < 0 && errno == EINTR))
			return n < 0 ? errno : EIO;
		got += n < 0 ? 0 : (size_t)n;
	}
	return 0;
}

static int put_all(void *arg, struct dpx_handles *handles)
{
	struct dpx_spool *spool = arg;
	size_t count = 0;
	int rc = 0;
	for (uint64_t first = 0; !rc && first < spool->written; first += count) {
		rc = read_block(spool, first, &count);
		for (size_t i = 0; !rc && i < count; i++)
			dpx_handles_put(handles, &spool->block[i].key, &spool->block[i].handle);
	}
	return rc;
}

int dpx_spool_settle(struct dpx_spool *spool, const char *path, const char *identity, uint64_t files,
		     uint64_t max_bytes)
{
	pthread_mutex_lock(&spool->lock);
	write_block(spool);
	uint64_t most = files > spool->written ? files : spool->written;
	int rc = dpx_handles_make(path, identity, most, max_bytes, &spool->secret, put_all, spool);
	pthread_mutex_unlock(&spool->lock);
	return rc;
}
