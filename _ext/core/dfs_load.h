/* libdfs and libdaos, found by dlopen when the first container is opened, never before. */
#ifndef DPX_DFS_LOAD_H
#define DPX_DFS_LOAD_H

#include <errno.h>

#include "dfs_abi.h"
#include "io.h"

#define DPX_DFS_MEMBER(library, result, name, arguments) result(*name) arguments;

struct dpx_dfs {
	ABI_FUNCTIONS(DPX_DFS_MEMBER)
};

/* The functions, the same for all callers in all threads; loaded once and kept until the process ends. Looked for in
 * the directory DATAPIPES_LIBDFS_DIR if that is set, else where the system's loader looks. What failed is tried
 * again by the next call. Returns 0, or DPX_DFS_MISSING with what is missing, and what to do about it, in `why`. */
int dpx_dfs_load(const struct dpx_dfs **dfs, char why[DPX_WHY_ROOM]);

#ifdef ELIBACC
#define DPX_DFS_MISSING ELIBACC
#else
#define DPX_DFS_MISSING ENOSYS
#endif

#endif
