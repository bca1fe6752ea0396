/* Starting, and mounting what is behind handles. */
#include "libdfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Every open object has a descriptor. */
__attribute__((constructor)) static void raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int dfs_init(void)
{
	struct standin_fault fault = standin_enter("dfs_init", 1);
	if (fault.code)
		return fault.code;
	pthread_mutex_lock(&lock);
	int rc = standin_daos_init();
	standin_live(LIVE_INITS, rc == 0);
	pthread_mutex_unlock(&lock);
	return rc == 0 ? 0 : rc == -ABI_DER_TIMEDOUT ? ETIMEDOUT : EIO;
}

int dfs_fini(void)
{
	standin_enter("dfs_fini", -1);
	pthread_mutex_lock(&lock);
	if (standin_living(LIVE_INITS) == 1)
		standin_forget_names();
	int rc = standin_daos_fini();
	standin_live(LIVE_INITS, -(rc == 0));
	pthread_mutex_unlock(&lock);
	return rc == 0 ? 0 : rc == -ABI_DER_BUSY ? EBUSY : EINVAL;
}

int standin_let_go(abi_dfs *dfs, const char *function, int by_name)
{
	standin_enter(function, -1);
	if (!standin_living(LIVE_INITS)) {
		fprintf(stderr, "stand-in: %s after the last dfs_fini: a real one crashes here\n", function);
		abort();
	}
	if (dfs->by_name != by_name)
		return EINVAL;
	close(dfs->root);
	free(dfs);
	standin_live(LIVE_MOUNTS, -1);
	return 0;
}

int dfs_mount(abi_handle pool, abi_handle cont, int flags, abi_dfs **out)
{
	struct standin_fault fault = standin_enter("dfs_mount", 1);
	struct standin_container container;
	int rc = fault.code ? fault.code : standin_opened(pool, cont, &container);
	if (rc)
		return rc;
	if (container.fd < 0)
		return EINVAL; /* not POSIX */
	struct dfs *dfs = NULL;
	if (container.balanced && !(flags & ABI_DFS_BALANCED))
		rc = EPERM;
	else if (!(dfs = calloc(1, sizeof(*dfs))))
		rc = ENOMEM;
	if (rc) {
		close(container.fd);
		return rc;
	}
	dfs->root = container.fd;
	dfs->writable = (flags & O_ACCMODE) == O_RDWR;
	dfs->granted = container.writable;
	dfs->transactional = flags & ABI_DFS_BALANCED;
	memcpy(dfs->uuid, container.uuid, sizeof(dfs->uuid));
	standin_live(LIVE_MOUNTS, 1);
	*out = dfs;
	return 0;
}

int dfs_umount(abi_dfs *dfs)
{
	return standin_let_go(dfs, "dfs_umount", 0);
}

int dfs_sync(abi_dfs *dfs)
{
	struct standin_fault fault = standin_enter("dfs_sync", 1);
	(void)dfs;
	return fault.code;
}
