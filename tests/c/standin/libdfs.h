/* Between the files of the stand-in's libdfs. */
#ifndef STANDIN_LIBDFS_H
#define STANDIN_LIBDFS_H

#include <stdatomic.h>
#include <time.h>

#include "standin.h"

struct dfs {
	int root;     /* owned descriptor of the container's directory */
	int writable;      /* as asked for */
	int granted;       /* as the container's handle says */
	int transactional; /* names are replaced in one step */
	int by_name;       /* dfs_connect made it */
	char uuid[37];
};

/* connect.c: what libraries that connect by name do. */
int dfs_connect(const char *pool, const char *sys, const char *cont, int flags, void *attr, abi_dfs **out);
int dfs_disconnect(abi_dfs *dfs);
void standin_forget_names(void);

int standin_let_go(abi_dfs *dfs, const char *function, int by_name);

struct dfs_obj {
	struct dfs *dfs;
	int fd; /* owned; -1: made from a blob and not looked for yet */
	int flags;
	mode_t mode;
	uint64_t inode;
	struct timespec born;
	atomic_int reads; /* under way */
	int too_deep;     /* to be found again by its path */
	char path[288];   /* from the root; "" for the root */
};

/* EINVAL for a name that DFS does not take. */
int standin_check_name(const char *name);

/* The object behind a descriptor, which it takes over, also on failure. */
int standin_object(struct dfs *dfs, struct dfs_obj *parent, const char *name, int fd, int flags, struct dfs_obj **out);

/* The descriptor of a directory; a parent of NULL is the root. 0, or ENOTDIR. */
int standin_folder(struct dfs *dfs, struct dfs_obj *parent, int *fd);

/* 0 when what the object stands for is still there, else ENOENT: it was removed or made anew. */
int standin_find_again(struct dfs_obj *object);

/* What DFS tells of a file: no inode, no device, one link. */
void standin_plain_stat(struct stat *st);

#endif
