/* One connection to a container, as the files of the dfs table share it. */
#ifndef DPX_DFS_MOUNT_H
#define DPX_DFS_MOUNT_H

#include <pthread.h>
#include <time.h>

#include "dfs_load.h"
#include "dfs_parents.h"

struct dpx_dfs_mount {
	const struct dpx_dfs *dfs; /* borrowed, for good */
	abi_handle pool, cont;     /* owned */
	abi_dfs *mount;            /* owned */
	int balanced;              /* names are changed in transactions */
	abi_obj *root;             /* owned */
	struct dpx_dfs_parents *parents;
	pthread_mutex_t lock;       /* what follows */
	struct dpx_dfs_queue *idle; /* owned */
	unsigned queues;            /* in all */
};

/* The hooks of io.h. */
int dpx_dfs_renew(char why[DPX_WHY_ROOM]);
int dpx_dfs_mount(const char *spec, void **mount, char why[DPX_WHY_ROOM]);
void dpx_dfs_unmount(void *mount);

/* A path cut in two: the directory it lies in, and its name there. */
struct dpx_dfs_place {
	char *text; /* owned: the path without empty parts and "." */
	size_t dir_len;
	const char *name; /* in text; "" is the root itself */
	struct dpx_dfs_parent *parent;
	int recalled; /* the parent may have been another one for some seconds */
};

/* Find the directory of a path; fresh: ask the store for all of the way. free gives it back. 0 or an errno. ENOENT
 * through a recalled parent is worth another look, fresh. */
int dpx_dfs_place_find(struct dpx_dfs_mount *mount, const char *path, int fresh, struct dpx_dfs_place *place);
void dpx_dfs_place_free(struct dpx_dfs_mount *mount, struct dpx_dfs_place *place);

/* What stands at the path, opened. links: 0, or O_NOFOLLOW. *mode: its type. 0 or an errno. */
int dpx_dfs_find(struct dpx_dfs_mount *mount, const char *path, int links, abi_obj **obj, mode_t *mode,
		 struct stat *st);

/* libdfs's stat in the table's words. */
void dpx_dfs_fill(const struct stat *st, struct dpx_stat *out);

/* dfs_dir.c: the hooks for directories. */
int dpx_dfs_dir_open(void *mount, const char *path, int follow, void **dir);
int dpx_dfs_dir_parts(void *dir, unsigned *parts);
int dpx_dfs_dir_list(void *dir, unsigned part, unsigned parts, dpx_dirent_fn entry, void *arg);
int dpx_dfs_dir_stat(void *dir, const char *name, int follow, struct dpx_stat *out);
int dpx_dfs_dir_glance(void *dir, const char *name, struct dpx_glance *glance);
int dpx_dfs_dir_version(void *dir, uint64_t *version);
void dpx_dfs_dir_close(void *dir);

/* dfs_write.c: the hooks that change something. */
int dpx_dfs_create(void *mount, const char *path, const struct dpx_new_file *how, void **file);
int dpx_dfs_rename(void *mount, const char *from, const char *to);
int dpx_dfs_remove(void *mount, const char *path);
int dpx_dfs_mkdir(void *mount, const char *path);

/* dfs_queue.c: the hooks for reading without waiting. Queues are costly to make and kept for the next reader; free
 * ends those that are kept. */
int dpx_dfs_queue_open(void *mount, void **queue);
void dpx_dfs_queue_close(void *queue);
int dpx_dfs_read_start(void *queue, void *file, void *buf, size_t len, uint64_t offset, void *tag);
int dpx_dfs_read_poll(void *queue, unsigned wait_ms, struct dpx_landing *landed, unsigned *count);
void dpx_dfs_queues_free(struct dpx_dfs_mount *mount);

/* A file of the table. */
struct dpx_dfs_file {
	struct dpx_dfs_mount *mount; /* borrowed: files are closed before it goes */
	abi_obj *obj;                /* owned */
	char *path;                  /* owned: to look again when it reads as empty */
};
int dpx_dfs_file_new(struct dpx_dfs_mount *mount, abi_obj *obj, const char *path, void **file);

/* The hook handle_save, of any object. */
int dpx_dfs_save(struct dpx_dfs_mount *mount, abi_obj *obj, void *buf, size_t room, size_t *len);

/* Nothing came from the start of a file: it is empty (0), or was removed (ENOENT) or made anew (ESTALE) since it was
 * opened, of which libdfs says nothing. */
int dpx_dfs_check_empty(struct dpx_dfs_file *file);

/* Outside of balanced containers a name is replaced in steps, and a look may fall between two: what is missing or empty
 * is looked at again after 1 ms, 2, and so on up to this, and believed then. */
#define DPX_DFS_LONGEST_PAUSE_MS 8
static inline void dpx_dfs_pause(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

#endif
