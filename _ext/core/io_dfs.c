/* The dfs table: containers of DAOS. Its parts: dfs_load (the libraries), dfs_mount (the connection), dfs_parents and
 * dfs_find (paths), dfs_queue (reads that nobody waits for), dfs_dir (listing), dfs_write. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "dfs_mount.h"

int dpx_dfs_file_new(struct dpx_dfs_mount *mount, abi_obj *obj, const char *path, void **file)
{
	struct dpx_dfs_file *made = malloc(sizeof(*made));
	char *copy = strdup(path);
	if (!made || !copy) {
		free(made);
		free(copy);
		mount->dfs->dfs_release(obj);
		return ENOMEM;
	}
	*made = (struct dpx_dfs_file){.mount = mount, .obj = obj, .path = copy};
	*file = made;
	return 0;
}

static int dfs_table_open(void *mount, const char *path, void **file)
{
	struct dpx_dfs_mount *made = mount;
	abi_obj *obj;
	mode_t mode = 0;
	int rc = dpx_dfs_find(made, path, 0, &obj, &mode, NULL);
	if (rc)
		return rc;
	if (S_ISREG(mode))
		return dpx_dfs_file_new(made, obj, path, file);
	made->dfs->dfs_release(obj);
	return S_ISDIR(mode) ? EISDIR : EOPNOTSUPP;
}

int dpx_dfs_save(struct dpx_dfs_mount *mount, abi_obj *obj, void *buf, size_t room, size_t *len)
{
	const struct dpx_dfs *dfs = mount->dfs;
	abi_iov blob = {0};
	int rc = dfs->dfs_obj_local2global(mount->mount, obj, &blob); /* how long it is */
	if (rc)
		return rc;
	if (blob.iov_buf_len > room)
		return ENOBUFS;
	*len = blob.iov_buf_len;
	blob = (abi_iov){.iov_buf = buf, .iov_buf_len = *len, .iov_len = *len};
	return dfs->dfs_obj_local2global(mount->mount, obj, &blob);
}

static int dfs_handle_save(void *file, void *buf, size_t room, size_t *len)
{
	struct dpx_dfs_file *made = file;
	return dpx_dfs_save(made->mount, made->obj, buf, room, len);
}

static int dfs_open_saved(void *mount, const char *path, const void *buf, size_t len, void **file)
{
	struct dpx_dfs_mount *made = mount;
	abi_iov blob = {.iov_buf = (void *)(uintptr_t)buf, .iov_buf_len = len, .iov_len = len};
	abi_obj *obj;
	int rc = made->dfs->dfs_obj_global2local(made->mount, O_RDONLY, blob, &obj);
	return rc ? rc : dpx_dfs_file_new(made, obj, path, file);
}

static int dfs_table_fstat(void *file, struct dpx_stat *out)
{
	struct dpx_dfs_file *made = file;
	*out = (struct dpx_stat){.kind = DPX_KIND_FILE};
	int rc = made->mount->dfs->dfs_get_size(made->mount->mount, made->obj, &out->size);
	return !rc && out->size == 0 ? dpx_dfs_check_empty(made) : rc;
}

/* Does the path still stand for the object that was opened? ESTALE: for another one. */
static int look_again(struct dpx_dfs_file *file)
{
	const struct dpx_dfs *dfs = file->mount->dfs;
	abi_obj_id opened, found;
	abi_obj *now;
	int rc = dpx_dfs_find(file->mount, file->path, 0, &now, NULL, NULL);
	if (rc)
		return rc;
	rc = dfs->dfs_obj2id(now, &found);
	if (!rc)
		rc = dfs->dfs_obj2id(file->obj, &opened);
	dfs->dfs_release(now);
	if (rc)
		return rc;
	return opened.lo == found.lo && opened.hi == found.hi ? 0 : ESTALE;
}

/* The object is asked for after it read as empty, never its size: whoever removes or replaces a file empties it first,
 * and a file may be replaced again between two questions. */
int dpx_dfs_check_empty(struct dpx_dfs_file *file)
{
	int rc = look_again(file);
	for (long ms = 1; !rc && !file->mount->balanced && ms <= DPX_DFS_LONGEST_PAUSE_MS; ms *= 2) {
		dpx_dfs_pause(ms);
		rc = look_again(file);
	}
	return rc;
}

static int dfs_table_read(void *file, void *buf, size_t len, uint64_t offset, size_t *got)
{
	struct dpx_dfs_file *made = file;
	abi_iov iov = {.iov_buf = buf, .iov_buf_len = len, .iov_len = len};
	abi_sgl sgl = {.sg_nr = 1, .sg_iovs = &iov};
	uint64_t came = 0;
	*got = 0;
	int rc = made->mount->dfs->dfs_read(made->mount->mount, made->obj, &sgl, offset, &came, NULL);
	if (!rc && came == 0 && len && offset == 0)
		rc = dpx_dfs_check_empty(made);
	if (!rc)
		*got = came <= len ? (size_t)came : len;
	return rc;
}

static void dfs_table_close(void *file)
{
	struct dpx_dfs_file *made = file;
	made->mount->dfs->dfs_release(made->obj);
	free(made->path);
	free(made);
}

static int dfs_table_stat(void *mount, const char *path, int follow, struct dpx_stat *out)
{
	struct dpx_dfs_mount *made = mount;
	struct stat st;
	abi_obj *obj;
	int rc = dpx_dfs_find(made, path, follow ? 0 : O_NOFOLLOW, &obj, NULL, &st);
	if (rc)
		return rc;
	made->dfs->dfs_release(obj);
	dpx_dfs_fill(&st, out);
	return 0;
}

static int dfs_table_write(void *file, const void *buf, size_t len, uint64_t offset)
{
	struct dpx_dfs_file *made = file;
	abi_iov iov = {.iov_buf = (void *)(uintptr_t)buf, .iov_buf_len = len, .iov_len = len};
	abi_sgl sgl = {.sg_nr = 1, .sg_iovs = &iov};
	return len ? made->mount->dfs->dfs_write(made->mount->mount, made->obj, &sgl, offset, NULL) : 0;
}

static int dfs_table_truncate(void *file, uint64_t size)
{
	struct dpx_dfs_file *made = file;
	return made->mount->dfs->dfs_punch(made->mount->mount, made->obj, size, ABI_TO_END);
}

static int dfs_table_sync(void *file)
{
	struct dpx_dfs_file *made = file;
	return made->mount->dfs->dfs_sync(made->mount->mount);
}

const struct dpx_io dpx_io_dfs = {
	.name = "dfs",
	.size_costs = 1,
	.mount_waits = 1,
	.renew = dpx_dfs_renew,
	.mount = dpx_dfs_mount,
	.unmount = dpx_dfs_unmount,
	.open = dfs_table_open,
	.fstat = dfs_table_fstat,
	.read = dfs_table_read,
	.close = dfs_table_close,
	.handle_save = dfs_handle_save,
	.open_saved = dfs_open_saved,
	.queue_open = dpx_dfs_queue_open,
	.queue_close = dpx_dfs_queue_close,
	.read_start = dpx_dfs_read_start,
	.read_poll = dpx_dfs_read_poll,
	.stat = dfs_table_stat,
	.dir_open = dpx_dfs_dir_open,
	.dir_parts = dpx_dfs_dir_parts,
	.dir_list = dpx_dfs_dir_list,
	.dir_stat = dpx_dfs_dir_stat,
	.dir_glance = dpx_dfs_dir_glance,
	.dir_version = dpx_dfs_dir_version,
	.dir_close = dpx_dfs_dir_close,
	.create = dpx_dfs_create,
	.write = dfs_table_write,
	.truncate = dfs_table_truncate,
	.sync = dfs_table_sync,
	.rename = dpx_dfs_rename,
	.remove = dpx_dfs_remove,
	.mkdir = dpx_dfs_mkdir,
};
