/* DAOS itself is one per process: started with the first mount, and told once about each fork. libdfs ends with the last.
 *
 * Each mount asks libdaos for handles of its own. dfs_connect would save that, but shares handles by name with whoever
 * is in the process, and the first may have asked for one that cannot write; nor does it know balanced containers. */
#include "dfs_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dfs_fork.h"
#include "process.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* what follows, and starting and ending */
static unsigned mounts;
static int kept;            /* libdaos is started for as long as the process lives */
static unsigned generation; /* the process that DAOS was started or restarted in */

/* The parent's threads hold nothing here. */
static void in_child(void)
{
	pthread_mutex_init(&lock, NULL);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, in_child);
}

/* On the way to a mount. */
enum step { NAMING, STARTING, POOL, CONTAINER, MOUNTING };

static const char *reason(enum step step, int rc)
{
	switch (rc) {
	case EIO:
		return step < CONTAINER ? "no DAOS agent answers on this machine: is daos_agent running?"
					: "DAOS failed to open the container";
	case ETIMEDOUT:
		return "the DAOS agent answers, but no engine does: is the system up?";
	case ENOENT:
		return step == POOL ? "no such DAOS pool" : "no such container in the DAOS pool";
	case EINVAL:
		return step == MOUNTING	   ? "the DAOS container is not of type POSIX"
		       : step == CONTAINER ? "not a name that DAOS takes for a container"
					   : "not a name that DAOS takes for a pool and a container";
	case EPERM:
		return step == POOL ? "DAOS does not let this user connect to the pool: see `dmg pool get-acl`"
				    : "DAOS does not let this user read the container: see `daos container get-acl`";
	}
	return NULL;
}

static int explain(int rc, enum step step, const char *spec, char *why)
{
	const char *text = why[0] ? NULL : reason(step, rc);
	if (text)
		snprintf(why, DPX_WHY_ROOM, "%s (%.300s)", text, spec);
	return rc;
}

/* What libdaos says, in the words of libdfs. */
static int to_errno(int der, char *why)
{
	switch (-der) {
	case 0:
		return 0;
	case ABI_DER_NO_PERM:
		return EPERM;
	case ABI_DER_INVAL:
		return EINVAL;
	case ABI_DER_NONEXIST:
		return ENOENT;
	case ABI_DER_UNREACH:
		return EHOSTUNREACH;
	case ABI_DER_NOMEM:
		return ENOMEM;
	case ABI_DER_TIMEDOUT:
		return ETIMEDOUT;
	case ABI_DER_BUSY:
		return EBUSY;
	case ABI_DER_AGENT_COMM:
		return EIO;
	}
	snprintf(why, DPX_WHY_ROOM, "DAOS could not connect (DER %d)", -der);
	return EIO;
}

/* A child that goes on with what its parent had started reads wrong bytes without an error. What libdaos keeps for each
 * thread is made anew for the calling one alone: so that must be the one that forked, the only one a child has. */
static int renew_locked(const struct dpx_dfs *dfs, char *why)
{
	if (!(mounts || kept) || generation == dpx_process_generation())
		return 0;
	int rc = dfs->daos_reinit();
	if (rc) {
		snprintf(why, DPX_WHY_ROOM, "DAOS could not be started anew after a fork (DER %d)", -rc);
		return EIO;
	}
	generation = dpx_process_generation();
	return 0;
}

int dpx_dfs_renew(char why[DPX_WHY_ROOM])
{
	const struct dpx_dfs *dfs;
	if (dpx_dfs_load(&dfs, why))
		return 0; /* mounting says why */
	dpx_dfs_hold_forks();
	pthread_mutex_lock(&lock);
	int rc = renew_locked(dfs, why);
	pthread_mutex_unlock(&lock);
	dpx_dfs_let_forks();
	return rc;
}

static int start_locked(const struct dpx_dfs *dfs, char *why)
{
	int rc = renew_locked(dfs, why);
	if (rc)
		return rc;
	rc = dfs->dfs_init();
	if (rc)
		return rc;
	/* What libdaos keeps for a thread would be wrong in each that has waited for it before and does again, had it
	 * been ended in between: so it never is. */
	if (!kept)
		kept = dfs->daos_init() == 0;
	mounts++;
	generation = dpx_process_generation();
	return 0;
}

static void end(const struct dpx_dfs *dfs)
{
	pthread_mutex_lock(&lock);
	dfs->dfs_fini();
	mounts--;
	pthread_mutex_unlock(&lock);
}

static void detach(struct dpx_dfs_mount *mount)
{
	mount->dfs->dfs_umount(mount->mount);
	mount->dfs->daos_cont_close(mount->cont, NULL);
}

/* As balanced only what was made so, where all who change names do it in transactions: in a relaxed container, whoever
 * does not is told of a name that was replaced in one that there is none, when it is to be removed or replaced again. */
static int mount_as_made(struct dpx_dfs_mount *mount, int flags)
{
	int rc = mount->dfs->dfs_mount(mount->pool, mount->cont, flags, &mount->mount);
	mount->balanced = rc == EPERM;
	return mount->balanced ? mount->dfs->dfs_mount(mount->pool, mount->cont, flags | ABI_DFS_BALANCED, &mount->mount) : rc;
}

static int attach(struct dpx_dfs_mount *mount, const char *cont, int flags, enum step *step, char *why)
{
	const struct dpx_dfs *dfs = mount->dfs;
	unsigned access = flags == O_RDWR ? ABI_COO_RW : ABI_COO_RO;
	*step = CONTAINER;
	int rc = to_errno(dfs->daos_cont_open(mount->pool, cont, access, &mount->cont, NULL, NULL), why);
	if (rc)
		return rc;
	*step = MOUNTING;
	rc = mount_as_made(mount, flags);
	if (rc)
		dfs->daos_cont_close(mount->cont, NULL);
	return rc;
}

static int find_root(struct dpx_dfs_mount *mount, int flags)
{
	const struct dpx_dfs *dfs = mount->dfs;
	int rc = dfs->dfs_lookup(mount->mount, "/", flags, &mount->root, NULL, NULL);
	if (rc)
		return rc;
	rc = dpx_dfs_parents_create(dfs, mount->mount, mount->root, flags, &mount->parents);
	if (rc)
		dfs->dfs_release(mount->root);
	return rc;
}

/* To write, or where the user may not, to read. A handle of the pool for reading is enough: what may be done in a
 * container is for its own ACL to say, the pool's says who may make and destroy some. */
static int connect_to(struct dpx_dfs_mount *mount, const char *pool, const char *cont, enum step *step, char *why)
{
	const struct dpx_dfs *dfs = mount->dfs;
	int flags = O_RDWR;
	*step = POOL;
	int rc = to_errno(dfs->daos_pool_connect(pool, NULL, ABI_PC_RO, &mount->pool, NULL, NULL), why);
	if (rc)
		return rc;
	rc = attach(mount, cont, flags, step, why);
	if (rc == EPERM)
		rc = attach(mount, cont, flags = O_RDONLY, step, why);
	if (!rc) {
		rc = find_root(mount, flags);
		if (rc)
			detach(mount);
	}
	if (rc)
		dfs->daos_pool_disconnect(mount->pool, NULL);
	return rc;
}

/* pool: in place; *cont: behind the slash. */
static int cut(char *pool, char **cont)
{
	char *slash = strchr(pool, '/');
	if (!slash || slash == pool || !slash[1] || strchr(slash + 1, '/'))
		return EINVAL;
	*slash = '\0';
	*cont = slash + 1;
	return 0;
}

static int open_mount(struct dpx_dfs_mount *mount, const char *spec, char *why)
{
	enum step step = NAMING;
	char *pool = strdup(spec), *cont;
	int rc = pool ? cut(pool, &cont) : ENOMEM;
	if (!rc) {
		step = STARTING;
		pthread_mutex_lock(&lock);
		rc = start_locked(mount->dfs, why);
		pthread_mutex_unlock(&lock);
	}
	if (!rc) {
		rc = connect_to(mount, pool, cont, &step, why);
		if (rc)
			end(mount->dfs);
	}
	free(pool);
	return explain(rc, step, spec, why);
}

static int mount_new(const struct dpx_dfs *dfs, const char *spec, void **out, char *why)
{
	struct dpx_dfs_mount *mount = calloc(1, sizeof(*mount));
	if (!mount)
		return ENOMEM;
	mount->dfs = dfs;
	int rc = pthread_mutex_init(&mount->lock, NULL);
	if (!rc) {
		rc = open_mount(mount, spec, why);
		if (rc)
			pthread_mutex_destroy(&mount->lock);
	}
	if (rc)
		free(mount);
	else
		*out = mount;
	return rc;
}

int dpx_dfs_mount(const char *spec, void **out, char why[DPX_WHY_ROOM])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const struct dpx_dfs *dfs;
	int rc = dpx_dfs_load(&dfs, why);
	if (rc)
		return rc;
	pthread_once(&once, watch_forks);
	dpx_dfs_hold_forks();
	rc = mount_new(dfs, spec, out, why);
	dpx_dfs_let_forks();
	return rc;
}

void dpx_dfs_unmount(void *mount)
{
	struct dpx_dfs_mount *made = mount;
	if (!made)
		return;
	dpx_dfs_hold_forks();
	dpx_dfs_queues_free(made);
	dpx_dfs_parents_free(made->parents);
	made->dfs->dfs_release(made->root);
	detach(made);
	made->dfs->daos_pool_disconnect(made->pool, NULL);
	end(made->dfs);
	dpx_dfs_let_forks();
	pthread_mutex_destroy(&made->lock);
	free(made);
}
