/* The posix table: a directory, and what lies below it. Files are reached with openat below the root's own
 * descriptor, so a root that is renamed meanwhile stays the same root, and each path is resolved from there. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"
#include "path.h"
#include "posix_dir.h"

struct posix_mount {
	int root; /* owned descriptor */
};

/* A file is its descriptor: no allocation for each open. */
static void *file_of(int fd)
{
	return (void *)((intptr_t)fd + 1);
}

static int fd_of(void *file)
{
	return (int)((intptr_t)file - 1);
}

int dpx_posix_root(void *mount)
{
	return ((struct posix_mount *)mount)->root;
}

static int posix_mount(const char *spec, void **mount, char why[DPX_WHY_ROOM])
{
	(void)why; /* the errno says it */
	struct posix_mount *made = malloc(sizeof(*made));
	if (!made)
		return ENOMEM;
	made->root = open(spec, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (made->root < 0) {
		int rc = errno;
		free(made);
		return rc;
	}
	*mount = made;
	return 0;
}

static void posix_unmount(void *mount)
{
	struct posix_mount *made = mount;
	if (!made)
		return;
	close(made->root);
	free(made);
}

static int open_at(void *mount, const char *path, int flags, int *fd)
{
	int rc = dpx_path_check(path);
	if (rc)
		return rc;
	do
		*fd = openat(dpx_posix_root(mount), *path ? path : ".", flags | O_CLOEXEC, 0666);
	while (*fd < 0 && errno == EINTR);
	return *fd < 0 ? errno : 0;
}

/* O_NONBLOCK: the open of a pipe returns, and its read fails; regular files do not care. */
static int posix_open(void *mount, const char *path, void **file)
{
	int fd;
	int rc = open_at(mount, path, O_RDONLY | O_NONBLOCK, &fd);
	if (rc == EAGAIN) /* a lease is being given back */
		rc = open_at(mount, path, O_RDONLY, &fd);
	if (!rc)
		*file = file_of(fd);
	return rc;
}

static int posix_fstat(void *file, struct dpx_stat *out)
{
	struct stat st;
	if (fstat(fd_of(file), &st))
		return errno;
	dpx_posix_fill(&st, out);
	return 0;
}

/* A file system that takes O_NONBLOCK seriously on a regular file: wait like everybody else. */
static int wait_for_data(int fd)
{
	struct stat st;
	if (fstat(fd, &st))
		return errno;
	if (!S_ISREG(st.st_mode) || fcntl(fd, F_SETFL, O_RDONLY))
		return EAGAIN;
	return 0;
}

static int posix_read(void *file, void *buf, size_t len, uint64_t offset, size_t *got)
{
	int fd = fd_of(file);
	*got = 0;
	while (*got < len) {
		ssize_t n = pread(fd, (char *)buf + *got, len - *got, (off_t)(offset + *got));
		if (n == 0)
			break;
		if (n > 0) {
			*got += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		int rc = errno == EAGAIN ? wait_for_data(fd) : errno;
		if (rc)
			return rc;
	}
	return 0;
}

static void posix_close(void *file)
{
	close(fd_of(file));
}

static int posix_stat(void *mount, const char *path, int follow, struct dpx_stat *out)
{
	struct stat st;
	int rc = dpx_path_check(path);
	if (rc)
		return rc;
	if (fstatat(dpx_posix_root(mount), *path ? path : ".", &st, follow ? 0 : AT_SYMLINK_NOFOLLOW))
		return errno;
	dpx_posix_fill(&st, out);
	return 0;
}

static int posix_create(void *mount, const char *path, const struct dpx_new_file *how, void **file)
{
	int fd;
	int rc = open_at(mount, path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, &fd);
	if (rc)
		return rc;
	if (how->mode && fchmod(fd, (mode_t)how->mode)) {
		rc = errno;
		close(fd);
		return rc;
	}
	*file = file_of(fd);
	return 0;
}

static int posix_write(void *file, const void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;
	while (done < len) {
		ssize_t n = pwrite(fd_of(file), (const char *)buf + done, len - done, (off_t)(offset + done));
		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return errno;
	}
	return 0;
}

static int posix_truncate(void *file, uint64_t size)
{
	int rc;
	if (size > INT64_MAX)
		return EFBIG;
	do
		rc = ftruncate(fd_of(file), (off_t)size);
	while (rc && errno == EINTR);
	return rc ? errno : 0;
}

static int posix_sync(void *file)
{
	return fsync(fd_of(file)) ? errno : 0;
}

static int posix_rename(void *mount, const char *from, const char *to)
{
	int root = dpx_posix_root(mount);
	int rc = dpx_path_check(from);
	if (!rc)
		rc = dpx_path_check(to);
	if (!rc && renameat(root, from, root, to))
		rc = errno;
	return rc;
}

static int posix_remove(void *mount, const char *path)
{
	int root = dpx_posix_root(mount);
	int rc = dpx_path_check(path);
	if (rc || unlinkat(root, path, 0) == 0)
		return rc;
	rc = errno;
	if ((rc == EISDIR || rc == EPERM) && unlinkat(root, path, AT_REMOVEDIR) == 0)
		return 0;
	/* EPERM: what POSIX says for a directory; if it was none, the first answer stands */
	return rc == EISDIR || (rc == EPERM && errno != ENOTDIR) ? errno : rc;
}

static int posix_mkdir(void *mount, const char *path)
{
	int rc = dpx_path_check(path);
	if (!rc && mkdirat(dpx_posix_root(mount), *path ? path : ".", 0777))
		rc = errno;
	return rc;
}

const struct dpx_io dpx_io_posix = {
	.name = "posix",
	.mount = posix_mount,
	.unmount = posix_unmount,
	.open = posix_open,
	.fstat = posix_fstat,
	.read = posix_read,
	.close = posix_close,
	.stat = posix_stat,
	.dir_open = dpx_posix_dir_open,
	.dir_list = dpx_posix_dir_list,
	.dir_stat = dpx_posix_dir_stat,
	.dir_version = dpx_posix_dir_version,
	.dir_close = dpx_posix_dir_close,
	.create = posix_create,
	.write = posix_write,
	.truncate = posix_truncate,
	.sync = posix_sync,
	.rename = posix_rename,
	.remove = posix_remove,
	.mkdir = posix_mkdir,
};
