/* The directory hooks of the dfs table (see io.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dfs_mount.h"

/* Entries asked for at once. */
#define BATCH 256

/* Of a directory changed this recently a further change might not show: the store's clock is not this one. */
#define RECENT_NS (20 * 1000000LL)

struct dfs_dir {
	struct dpx_dfs_mount *mount;
	abi_obj *obj; /* owned */
};

/* That a directory has gone DAOS says by ENOENT. Its ESTALE is about something else: no reason to leave anything out. */
static int meant(int rc)
{
	return rc == ESTALE ? EIO : rc;
}

int dpx_dfs_dir_open(void *mount, const char *path, int follow, void **dir)
{
	struct dpx_dfs_mount *made = mount;
	struct dfs_dir *opened = malloc(sizeof(*opened));
	mode_t mode = S_IFDIR;
	if (!opened)
		return ENOMEM;
	opened->mount = made;
	int rc = dpx_dfs_find(made, path, follow ? 0 : O_NOFOLLOW, &opened->obj, &mode, NULL);
	if (!rc && !S_ISDIR(mode)) {
		made->dfs->dfs_release(opened->obj);
		rc = ENOTDIR;
	}
	if (rc)
		free(opened);
	else
		*dir = opened;
	return meant(rc);
}

void dpx_dfs_dir_close(void *dir)
{
	struct dfs_dir *opened = dir;
	opened->mount->dfs->dfs_release(opened->obj);
	free(opened);
}

/* No round trip; a directory that lies on one target has one part. */
int dpx_dfs_dir_parts(void *dir, unsigned *parts)
{
	struct dfs_dir *opened = dir;
	uint32_t count = 0; /* as the store likes it: it takes no other number */
	int rc = opened->mount->dfs->dfs_obj_anchor_split(opened->obj, &count, NULL);
	*parts = count ? count : 1;
	return meant(rc);
}

/* Names only: libdfs does not say what they stand for. */
int dpx_dfs_dir_list(void *dir, unsigned part, unsigned parts, dpx_dirent_fn entry, void *arg)
{
	struct dfs_dir *opened = dir;
	const struct dpx_dfs *dfs = opened->mount->dfs;
	abi_anchor anchor = {0};
	struct dirent *entries = malloc(BATCH * sizeof(*entries));
	int rc = entries ? 0 : ENOMEM;
	if (!rc && parts > 1)
		rc = dfs->dfs_obj_anchor_set(opened->obj, part, &anchor);
	while (!rc && anchor.da_type != ABI_ANCHOR_EOF) {
		uint32_t count = BATCH;
		rc = dfs->dfs_readdir(opened->mount->mount, opened->obj, &anchor, &count, entries);
		for (uint32_t i = 0; !rc && i < count; i++) {
			struct dpx_dirent told = {
				.name = entries[i].d_name,
				.name_len = strlen(entries[i].d_name),
				.kind = DPX_KIND_UNKNOWN,
				.size = DPX_SIZE_UNKNOWN,
			};
			rc = entry(arg, &told);
		}
	}
	free(entries);
	return meant(rc);
}

int dpx_dfs_dir_stat(void *dir, const char *name, int follow, struct dpx_stat *out)
{
	struct dfs_dir *opened = dir;
	struct dpx_glance glance = {.follow = follow, .size = 1};
	struct stat st;
	int rc = *name ? dpx_dfs_dir_glance(dir, name, &glance)
		       : opened->mount->dfs->dfs_ostat(opened->mount->mount, opened->obj, &st);
	if (!rc && !*name)
		dpx_dfs_fill(&st, &glance.stat);
	*out = glance.stat;
	return meant(rc);
}

/* A look-up tells the kind and opens the file, for one round trip; the size is one more. */
int dpx_dfs_dir_glance(void *dir, const char *name, struct dpx_glance *glance)
{
	struct dfs_dir *opened = dir;
	struct dpx_dfs_mount *mount = opened->mount;
	struct stat st = {0};
	mode_t mode = 0;
	abi_obj *obj;
	glance->len = 0;
	if (strlen(name) > ABI_MAX_NAME)
		return ENAMETOOLONG;
	int flags = O_RDONLY | (glance->follow ? 0 : O_NOFOLLOW);
	int rc = mount->dfs->dfs_lookup_rel(mount->mount, opened->obj, name, flags, &obj, &mode,
					    glance->size ? &st : NULL);
	if (rc)
		return meant(rc);
	st.st_mode = mode;
	dpx_dfs_fill(&st, &glance->stat);
	if (!glance->size)
		glance->stat.size = DPX_SIZE_UNKNOWN;
	/* Without a handle the file will be opened by its path. */
	if (S_ISREG(mode) && glance->handle && dpx_dfs_save(mount, obj, glance->handle, glance->room, &glance->len))
		glance->len = 0;
	mount->dfs->dfs_release(obj);
	return 0;
}

int dpx_dfs_dir_version(void *dir, uint64_t *version)
{
	struct dpx_stat st;
	struct timespec now;
	int rc = dpx_dfs_dir_stat(dir, "", 0, &st);
	if (rc)
		return rc;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t age = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - st.mtime_ns;
	*version = age < RECENT_NS ? 0 : (uint64_t)st.mtime_ns;
	return 0;
}
