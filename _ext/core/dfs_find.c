/* From a path to what stands there: the directory through the cache, the rest by one look-up. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "dfs_mount.h"
#include "path.h"

/* All directories on the way are looked for in the cache, each by the whole path to it. */
#define LONGEST_WAY 65535

/* Without empty parts and ".", in place. */
static void tidy(char *path)
{
	char *to = path;
	for (const char *from = path; *from;) {
		size_t len = strcspn(from, "/");
		if (len && !(len == 1 && *from == '.')) {
			if (to != path)
				*to++ = '/';
			memmove(to, from, len);
			to += len;
		}
		from += len + (from[len] == '/');
	}
	*to = '\0';
}

int dpx_dfs_place_find(struct dpx_dfs_mount *mount, const char *path, int fresh, struct dpx_dfs_place *place)
{
	*place = (struct dpx_dfs_place){0};
	int rc = dpx_path_check(path);
	if (rc)
		return rc;
	place->text = strdup(path);
	if (!place->text)
		return ENOMEM;
	tidy(place->text);
	const char *slash = strrchr(place->text, '/');
	place->dir_len = slash ? (size_t)(slash - place->text) : 0;
	place->name = slash ? slash + 1 : place->text;
	if (place->dir_len > LONGEST_WAY || strlen(place->name) > ABI_MAX_NAME)
		rc = ENAMETOOLONG;
	if (!rc && fresh)
		dpx_dfs_parents_forget_above(mount->parents, place->text, place->dir_len);
	if (!rc)
		rc = dpx_dfs_parents_get(mount->parents, place->text, place->dir_len, &place->parent, &place->recalled);
	if (rc)
		place->parent = NULL;
	return rc;
}

void dpx_dfs_place_free(struct dpx_dfs_mount *mount, struct dpx_dfs_place *place)
{
	if (place->parent)
		dpx_dfs_parents_release(mount->parents, place->parent);
	free(place->text);
}

static int find(struct dpx_dfs_mount *mount, const struct dpx_dfs_place *place, int links, abi_obj **obj, mode_t *mode,
		struct stat *st)
{
	const struct dpx_dfs *dfs = mount->dfs;
	if (!*place->name)
		return dfs->dfs_lookup(mount->mount, "/", O_RDONLY, obj, mode, st);
	return dfs->dfs_lookup_rel(mount->mount, place->parent->obj, place->name, O_RDONLY | links, obj, mode, st);
}

struct found {
	abi_obj *obj;
	mode_t mode;
	int recalled;  /* the directory was, and another one may stand there by now */
	int in_folder; /* there is one, whatever it holds */
};

static int look(struct dpx_dfs_mount *mount, const char *path, int fresh, int links, struct found *found, struct stat *st)
{
	struct dpx_dfs_place place;
	int rc = dpx_dfs_place_find(mount, path, fresh, &place);
	found->recalled = place.recalled;
	found->in_folder = !rc;
	if (!rc)
		rc = find(mount, &place, links, &found->obj, &found->mode, st);
	dpx_dfs_place_free(mount, &place);
	return rc;
}

/* Where names are not changed in transactions, one that is replaced is missing for a moment. */
static int look_until_there(struct dpx_dfs_mount *mount, const char *path, int links, struct found *found,
			    struct stat *st)
{
	int rc = look(mount, path, 0, links, found, st);
	if (rc == ENOENT && found->recalled)
		rc = look(mount, path, 1, links, found, st);
	for (long ms = 1; rc == ENOENT && found->in_folder && !mount->balanced && ms <= DPX_DFS_LONGEST_PAUSE_MS; ms *= 2) {
		dpx_dfs_pause(ms);
		rc = look(mount, path, 0, links, found, st);
	}
	return rc;
}

int dpx_dfs_find(struct dpx_dfs_mount *mount, const char *path, int links, abi_obj **obj, mode_t *mode,
		 struct stat *st)
{
	struct found found = {0};
	int rc = look_until_there(mount, path, links, &found, st);
	size_t len = strlen(path);
	if (!rc && len && path[len - 1] == '/' && !S_ISDIR(found.mode)) {
		mount->dfs->dfs_release(found.obj);
		rc = ENOTDIR;
	}
	if (rc)
		return rc;
	*obj = found.obj;
	if (mode)
		*mode = found.mode;
	return 0;
}

static enum dpx_kind kind_of(mode_t mode)
{
	if (S_ISREG(mode))
		return DPX_KIND_FILE;
	if (S_ISDIR(mode))
		return DPX_KIND_DIR;
	return S_ISLNK(mode) ? DPX_KIND_LINK : DPX_KIND_OTHER;
}

#ifdef __APPLE__
#define st_mtim st_mtimespec
#endif

void dpx_dfs_fill(const struct stat *st, struct dpx_stat *out)
{
	*out = (struct dpx_stat){
		.kind = kind_of(st->st_mode),
		.size = (uint64_t)st->st_size,
		.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
		.mode = (uint32_t)st->st_mode,
	};
}
