/* The hooks of the dfs table that change something. They look up every directory on their way: what is made in a
 * directory that was removed would be lost without an error. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "dfs_mount.h"

#define FILE_MODE 0644
#define DIR_MODE 0755

/* What is below is not where it was. */
static void forget(struct dpx_dfs_mount *mount, const struct dpx_dfs_place *place)
{
	dpx_dfs_parents_forget_below(mount->parents, place->text, strlen(place->text));
}

/* EINVAL: something else than a file stands there. A link leads on, a directory does not. */
static int create_through(struct dpx_dfs_mount *mount, const struct dpx_dfs_place *place, abi_obj **obj)
{
	mode_t mode = 0;
	int rc = mount->dfs->dfs_lookup_rel(mount->mount, place->parent->obj, place->name, O_RDWR | O_TRUNC, obj, &mode,
					    NULL);
	if (rc || S_ISREG(mode))
		return rc;
	mount->dfs->dfs_release(*obj);
	return EISDIR;
}

int dpx_dfs_create(void *mount, const char *path, const struct dpx_new_file *how, void **file)
{
	struct dpx_dfs_mount *made = mount;
	struct dpx_dfs_place place;
	abi_obj *obj = NULL;
	mode_t mode = S_IFREG | (mode_t)(how->mode ? how->mode : FILE_MODE);
	int cid = how->object_class ? made->dfs->daos_oclass_name2id(how->object_class) : 0;
	if (how->object_class && cid == 0)
		return EINVAL;
	int rc = dpx_dfs_place_find(made, path, 1, &place);
	if (!rc && !*place.name)
		rc = EISDIR;
	if (!rc) {
		rc = made->dfs->dfs_open(made->mount, place.parent->obj, place.name, mode,
					 O_RDWR | O_CREAT | O_TRUNC, (uint32_t)cid, how->chunk_bytes, NULL, &obj);
		if (rc == EINVAL)
			rc = create_through(made, &place, &obj);
	}
	dpx_dfs_place_free(made, &place);
	return rc ? rc : dpx_dfs_file_new(made, obj, path, file);
}

int dpx_dfs_mkdir(void *mount, const char *path)
{
	struct dpx_dfs_mount *made = mount;
	struct dpx_dfs_place place;
	int rc = dpx_dfs_place_find(made, path, 1, &place);
	if (!rc)
		rc = *place.name ? made->dfs->dfs_mkdir(made->mount, place.parent->obj, place.name, DIR_MODE, 0) : EEXIST;
	dpx_dfs_place_free(made, &place);
	return rc;
}

int dpx_dfs_remove(void *mount, const char *path)
{
	struct dpx_dfs_mount *made = mount;
	struct dpx_dfs_place place;
	int rc = dpx_dfs_place_find(made, path, 1, &place);
	if (!rc)
		rc = *place.name ? made->dfs->dfs_remove(made->mount, place.parent->obj, place.name, false, NULL) : EBUSY;
	if (!rc)
		forget(made, &place);
	dpx_dfs_place_free(made, &place);
	return rc;
}

/* EINVAL: a file in place of a directory, or the other way round; say which, as other stores do. */
static int explain(struct dpx_dfs_mount *mount, const struct dpx_dfs_place *to)
{
	struct stat st;
	int rc = mount->dfs->dfs_stat(mount->mount, to->parent->obj, to->name, &st);
	return rc ? EINVAL : S_ISDIR(st.st_mode) ? EISDIR : ENOTDIR;
}

static int move(struct dpx_dfs_mount *mount, const struct dpx_dfs_place *from, const struct dpx_dfs_place *to)
{
	size_t len = strlen(from->text);
	struct stat st;
	if (!*from->name || !*to->name)
		return EBUSY;
	if (strncmp(from->text, to->text, len) == 0 && to->text[len] == '/')
		return EINVAL; /* into itself */
	if (strcmp(from->text, to->text) == 0)
		return mount->dfs->dfs_stat(mount->mount, from->parent->obj, from->name, &st);
	int rc = mount->dfs->dfs_move(mount->mount, from->parent->obj, from->name, to->parent->obj, to->name, NULL);
	return rc == EINVAL ? explain(mount, to) : rc;
}

int dpx_dfs_rename(void *mount, const char *from, const char *to)
{
	struct dpx_dfs_mount *made = mount;
	struct dpx_dfs_place source, target = {0};
	int rc = dpx_dfs_place_find(made, from, 1, &source);
	if (!rc)
		rc = dpx_dfs_place_find(made, to, 1, &target);
	if (!rc)
		rc = move(made, &source, &target);
	if (!rc) {
		forget(made, &source);
		forget(made, &target);
	}
	dpx_dfs_place_free(made, &target);
	dpx_dfs_place_free(made, &source);
	return rc;
}
