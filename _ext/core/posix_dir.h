/* The directory hooks of the posix table (see io.h). Each opens below the file descriptor that
 * dpx_posix_root() gives for a mount. */
#ifndef DPX_POSIX_DIR_H
#define DPX_POSIX_DIR_H

#include "io.h"

/* io_posix.c: descriptor of the mounted root, borrowed from the mount. */
int dpx_posix_root(void *mount);

/* What the system's stat says, in the table's words. */
struct stat;
void dpx_posix_fill(const struct stat *st, struct dpx_stat *out);

int dpx_posix_dir_open(void *mount, const char *path, int follow, void **dir);
int dpx_posix_dir_list(void *dir, unsigned part, unsigned parts, dpx_dirent_fn entry, void *arg);
int dpx_posix_dir_stat(void *dir, const char *name, int follow, struct dpx_stat *out);
int dpx_posix_dir_version(void *dir, uint64_t *version);
void dpx_posix_dir_close(void *dir);

#endif
