/* Objects: looking up, opening, releasing, and handles as bytes. */
#include "libdfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int standin_check_name(const char *name)
{
	size_t len = strlen(name);
	return len == 0 || len > ABI_MAX_NAME || strchr(name, '/') ? EINVAL : 0;
}

int standin_folder(struct dfs *dfs, struct dfs_obj *parent, int *fd)
{
	if (parent && !S_ISDIR(parent->mode))
		return ENOTDIR;
	if (parent && standin_find_again(parent))
		return ENOENT;
	*fd = parent ? parent->fd : dfs->root;
	return 0;
}

void standin_plain_stat(struct stat *st)
{
	st->st_ino = 0;
	st->st_dev = 0;
	st->st_nlink = 1;
}

static int identify(int fd, struct stat *st, struct timespec *born)
{
	struct statx more = {0};
	if (fstat(fd, st))
		return errno;
	statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &more);
	*born = (struct timespec){.tv_sec = more.stx_btime.tv_sec, .tv_nsec = more.stx_btime.tv_nsec};
	return 0;
}

static void put_path(struct dfs_obj *object, const struct dfs_obj *parent, const char *name)
{
	const char *above = parent ? parent->path : "";
	int len = snprintf(object->path, sizeof(object->path), "%s%s%s", above, *above ? "/" : "", name);
	object->too_deep = len >= (int)sizeof(object->path) || (parent && parent->too_deep);
}

int standin_object(struct dfs *dfs, struct dfs_obj *parent, const char *name, int fd, int flags, struct dfs_obj **out)
{
	struct stat st;
	struct dfs_obj *object = calloc(1, sizeof(*object));
	int rc = object ? identify(fd, &st, &object->born) : ENOMEM;
	if (rc) {
		free(object);
		close(fd);
		return rc;
	}
	object->dfs = dfs;
	object->fd = fd;
	object->flags = flags;
	object->mode = st.st_mode;
	object->inode = st.st_ino;
	put_path(object, parent, name);
	standin_live(LIVE_OBJECTS, 1);
	*out = object;
	return 0;
}

int standin_find_again(struct dfs_obj *object)
{
	struct stat st;
	struct timespec born;
	if (object->fd < 0 && *object->path)
		object->fd = openat(object->dfs->root, object->path,
				    (S_ISDIR(object->mode) ? O_RDONLY : object->flags & O_ACCMODE) | O_CLOEXEC);
	if (object->fd < 0 || identify(object->fd, &st, &born))
		return ENOENT;
	int same = st.st_ino == object->inode && born.tv_sec == object->born.tv_sec && born.tv_nsec == object->born.tv_nsec;
	return same && st.st_nlink > 0 ? 0 : ENOENT;
}

/* Open what the name stands for, links followed (within the container) unless flags say otherwise. */
static int open_entry(struct dfs *dfs, int folder, const char *name, int flags, int *fd)
{
	struct stat st;
	char target[4096];
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno;
	if (S_ISLNK(st.st_mode) && flags & O_NOFOLLOW) {
		*fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		return *fd < 0 ? errno : 0;
	}
	const char *path = name;
	if (S_ISLNK(st.st_mode)) {
		ssize_t len = readlinkat(folder, name, target, sizeof(target) - 1);
		if (len < 0)
			return errno;
		target[len] = '\0';
		path = target;
		if (target[0] == '/') {
			folder = dfs->root;
			path += strspn(target, "/");
		}
		if (fstatat(folder, path, &st, 0))
			return errno;
	}
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return EINVAL;
	int how = S_ISDIR(st.st_mode) ? O_RDONLY : (flags & O_ACCMODE) | (flags & O_TRUNC);
	*fd = openat(folder, path, how | O_CLOEXEC);
	return *fd < 0 ? errno : 0;
}

int dfs_lookup_rel(abi_dfs *dfs, abi_obj *parent, const char *name, int flags, abi_obj **out, mode_t *mode,
		   struct stat *st)
{
	struct standin_fault fault = standin_enter("dfs_lookup_rel", 1);
	int folder, fd, rc = fault.code ? fault.code : standin_folder(dfs, parent, &folder);
	if (!rc)
		rc = standin_check_name(name);
	if (rc)
		return rc;
	standin_pay(COST_LOOKUP, 1);
	rc = open_entry(dfs, folder, name, flags, &fd);
	if (!rc)
		rc = standin_object(dfs, parent, name, fd, flags, out);
	if (rc)
		return rc;
	if (mode)
		*mode = (*out)->mode;
	if (st) {
		standin_enter("dfs_lookup_rel+size", -1);
		standin_pay(COST_SIZE, 1);
		fstat((*out)->fd, st);
		if (standin_find_again(*out))
			st->st_size = 0; /* removed or replaced since */
		standin_plain_stat(st);
	}
	return 0;
}

int dfs_lookup(abi_dfs *dfs, const char *path, int flags, abi_obj **out, mode_t *mode, struct stat *st)
{
	struct standin_fault fault = standin_enter("dfs_lookup", 1);
	if (fault.code || path[0] != '/')
		return fault.code ? fault.code : EINVAL;
	const char *rest = path + strspn(path, "/");
	unsigned parts = 1;
	for (const char *at = rest; *at; at++)
		parts += *at == '/';
	standin_pay(COST_LOOKUP, parts);
	int fd, rc = 0;
	if (*rest)
		rc = open_entry(dfs, dfs->root, rest, flags, &fd);
	else if ((fd = openat(dfs->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = errno;
	if (!rc)
		rc = standin_object(dfs, NULL, rest, fd, flags, out);
	if (rc)
		return rc;
	if (mode)
		*mode = (*out)->mode;
	if (st) {
		fstat((*out)->fd, st);
		if (standin_find_again(*out))
			st->st_size = 0; /* removed or replaced since */
		standin_plain_stat(st);
	}
	return 0;
}

int dfs_open(abi_dfs *dfs, abi_obj *parent, const char *name, mode_t mode, int flags, uint32_t cid,
	     uint64_t chunk_size, const char *value, abi_obj **out)
{
	struct standin_fault fault = standin_enter("dfs_open", 1);
	struct stat st;
	int folder, rc = fault.code ? fault.code : standin_folder(dfs, parent, &folder);
	(void)value;
	if (!rc)
		rc = standin_check_name(name);
	if (rc)
		return rc;
	standin_pay(flags & O_CREAT ? COST_CHANGE : COST_LOOKUP, 1);
	if ((flags & O_CREAT || (flags & O_ACCMODE) != O_RDONLY) && !(dfs->writable && dfs->granted))
		return EPERM;
	int there = fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (there && (st.st_mode & S_IFMT) != (mode & S_IFMT))
		return EINVAL;
	int keep = O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC;
	int fd = openat(folder, name, (S_ISDIR(mode) ? O_RDONLY : flags & keep) | O_CLOEXEC | O_NOFOLLOW, mode & 07777);
	if (fd < 0)
		return errno;
	if (flags & O_CREAT)
		standin_made(cid, chunk_size);
	return standin_object(dfs, parent, name, fd, flags, out);
}

int dfs_release(abi_obj *object)
{
	standin_enter("dfs_release", -1);
	if (atomic_load(&object->reads)) {
		fprintf(stderr, "stand-in: dfs_release while it is read: a real one reads freed memory here\n");
		abort();
	}
	if (object->fd >= 0)
		close(object->fd);
	free(object);
	standin_live(LIVE_OBJECTS, -1);
	return 0;
}

int dfs_obj2id(abi_obj *object, abi_obj_id *oid)
{
	struct standin_fault fault = standin_enter("dfs_obj2id", 0);
	*oid = (abi_obj_id){.lo = object->inode, .hi = (uint64_t)object->born.tv_sec * 1000000000 + (uint64_t)object->born.tv_nsec};
	return fault.code;
}

/* As large as a real one. */
struct blob {
	char uuid[36], path[260];
	uint32_t mode, flags;
	uint64_t inode;
	struct timespec born;
	uint64_t pad[2];
};
_Static_assert(sizeof(struct blob) == 344, "a blob has 344 bytes");

int dfs_obj_local2global(abi_dfs *dfs, abi_obj *object, abi_iov *out)
{
	struct standin_fault fault = standin_enter("dfs_obj_local2global", 0);
	if (fault.code)
		return fault.code;
	size_t room = out->iov_buf_len;
	out->iov_buf_len = sizeof(struct blob);
	if (!out->iov_buf)
		return 0;
	if (room < sizeof(struct blob))
		return ENOBUFS;
	struct blob blob = {.mode = object->mode, .flags = (uint32_t)object->flags, .inode = object->inode, .born = object->born};
	memcpy(blob.uuid, dfs->uuid, sizeof(blob.uuid));
	if (!object->too_deep && strlen(object->path) < sizeof(blob.path))
		memcpy(blob.path, object->path, strlen(object->path) + 1);
	memcpy(out->iov_buf, &blob, sizeof(blob));
	out->iov_len = sizeof(blob);
	return 0;
}

int dfs_obj_global2local(abi_dfs *dfs, int flags, abi_iov in, abi_obj **out)
{
	struct standin_fault fault = standin_enter("dfs_obj_global2local", 0);
	struct blob blob;
	if (fault.code)
		return fault.code;
	if (in.iov_len != sizeof(blob))
		return EINVAL;
	memcpy(&blob, in.iov_buf, sizeof(blob));
	if (memcmp(blob.uuid, dfs->uuid, sizeof(blob.uuid)) != 0)
		return EINVAL;
	struct dfs_obj *object = calloc(1, sizeof(*object));
	if (!object)
		return ENOMEM;
	*object = (struct dfs_obj){.dfs = dfs, .fd = -1, .flags = flags ? flags : (int)blob.flags, .mode = blob.mode,
				   .inode = blob.inode, .born = blob.born};
	memcpy(object->path, blob.path, sizeof(blob.path));
	standin_live(LIVE_OBJECTS, 1);
	*out = object;
	return 0;
}
