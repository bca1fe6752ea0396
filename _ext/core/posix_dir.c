#include "posix_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Kernels stamp changes with a clock that ticks every 1 to 10 ms: of a directory changed this recently, a
 * further change might not show. */
#define CLOCK_TICK_NS (20 * 1000000LL)

struct posix_dir {
	int fd;    /* owned, by `pass` once there is one */
	DIR *pass; /* owned; NULL before the first dir_list */
};

/* openat that goes on after a signal. */
static int open_at(int at, const char *path, int flags, int *fd)
{
	do
		*fd = openat(at, path, flags | O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (*fd < 0 && errno == EINTR);
	return *fd < 0 ? errno : 0;
}

/* The kernel takes paths below PATH_MAX only: longer ones are walked in steps, each as long as may be. */
static int open_long(int root, const char *path, int flags, int *fd)
{
	char step[PATH_MAX];
	int at = root, rc = 0, next;
	while (strlen(path) >= PATH_MAX) {
		size_t len = PATH_MAX - 1;
		while (len > 0 && path[len] != '/')
			len--;
		if (len == 0) {
			rc = ENAMETOOLONG;
			break;
		}
		memcpy(step, path, len);
		step[len] = '\0';
		path += len + 1;
		rc = open_at(at, step, 0, &next);
		if (at != root)
			close(at);
		at = next;
		if (rc)
			return rc;
	}
	if (!rc)
		rc = open_at(at, path, flags, fd);
	if (at != root)
		close(at);
	return rc;
}

int dpx_posix_dir_open(void *mount, const char *path, int follow, void **dir)
{
	struct posix_dir *opened = malloc(sizeof(*opened));
	if (!opened)
		return ENOMEM;
	opened->pass = NULL;
	int rc = open_long(dpx_posix_root(mount), *path ? path : ".", follow ? 0 : O_NOFOLLOW, &opened->fd);
	if (rc) {
		free(opened);
		return rc == ELOOP && !follow ? ENOTDIR : rc;
	}
	*dir = opened;
	return 0;
}

void dpx_posix_dir_close(void *dir)
{
	struct posix_dir *opened = dir;
	if (opened->pass)
		closedir(opened->pass);
	else
		close(opened->fd);
	free(opened);
}

static enum dpx_kind kind_of_type(unsigned char type)
{
	switch (type) {
	case DT_REG:
		return DPX_KIND_FILE;
	case DT_DIR:
		return DPX_KIND_DIR;
	case DT_LNK:
		return DPX_KIND_LINK;
	case DT_UNKNOWN:
		return DPX_KIND_UNKNOWN;
	default:
		return DPX_KIND_OTHER;
	}
}

int dpx_posix_dir_list(void *dir, unsigned part, unsigned parts, dpx_dirent_fn entry, void *arg)
{
	struct posix_dir *opened = dir;
	(void)part, (void)parts; /* the only one */
	if (opened->pass)
		rewinddir(opened->pass);
	else
		opened->pass = fdopendir(opened->fd);
	if (!opened->pass)
		return errno;
	int rc = 0;
	while (!rc) {
		errno = 0;
		struct dirent *found = readdir(opened->pass);
		if (!found)
			return errno;
		const char *name = found->d_name;
		if (name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0')))
			continue;
		struct dpx_dirent told = {
			.name = name,
			.name_len = strlen(name),
			.kind = kind_of_type(found->d_type),
			.inode = found->d_ino,
			.size = DPX_SIZE_UNKNOWN,
		};
		rc = entry(arg, &told);
	}
	return rc;
}

static enum dpx_kind kind_of_mode(mode_t mode)
{
	if (S_ISREG(mode))
		return DPX_KIND_FILE;
	if (S_ISDIR(mode))
		return DPX_KIND_DIR;
	return S_ISLNK(mode) ? DPX_KIND_LINK : DPX_KIND_OTHER;
}

#ifdef __APPLE__
#define st_mtim st_mtimespec
#define st_ctim st_ctimespec
#endif

void dpx_posix_fill(const struct stat *st, struct dpx_stat *out)
{
	*out = (struct dpx_stat){
		.kind = kind_of_mode(st->st_mode),
		.size = (uint64_t)st->st_size,
		.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
		.device = (uint64_t)st->st_dev,
		.inode = (uint64_t)st->st_ino,
		.mode = (uint32_t)st->st_mode,
		.links = (uint32_t)st->st_nlink,
	};
}

int dpx_posix_dir_stat(void *dir, const char *name, int follow, struct dpx_stat *out)
{
	struct posix_dir *opened = dir;
	struct stat st;
	int rc;
	do
		rc = *name ? fstatat(opened->fd, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) : fstat(opened->fd, &st);
	while (rc && errno == EINTR);
	if (rc)
		return errno;
	dpx_posix_fill(&st, out);
	return 0;
}

int dpx_posix_dir_version(void *dir, uint64_t *version)
{
	struct posix_dir *opened = dir;
	struct stat st;
	struct timespec now;
	if (fstat(opened->fd, &st))
		return errno;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t changed = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
	int64_t modified = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	int64_t age = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - changed;
	/* Both stamps: whoever sets the modification time back cannot set the other. */
	*version = age < CLOCK_TICK_NS ? 0 : (uint64_t)changed * 31 + (uint64_t)modified;
	return 0;
}
