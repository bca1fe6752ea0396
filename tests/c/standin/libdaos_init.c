/* Starting and ending, and forks. Counts references; callers (dfs_init, dfs_fini) take turns. */
#include "standin.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DER_UNINIT 1015

static atomic_long inits;
static atomic_int owner; /* the process that called init or reinit */

static atomic_int restarts;
static __thread int begun_with; /* as many restarts there had been, and one, when the thread first waited for DAOS */

/* What libdaos keeps for each thread that waits is of the DAOS before, unless the thread itself has restarted it. */
int standin_thread_is_old(void)
{
	int now = atomic_load(&restarts) + 1;
	if (!begun_with)
		begun_with = now;
	return begun_with != now;
}

int standin_astray(void)
{
	return atomic_load(&inits) > 0 && atomic_load(&owner) != getpid();
}

int standin_engine_is_down(void)
{
	if (strcmp(standin_text("STANDIN_ENGINE"), "down") != 0)
		return 0;
	usleep((useconds_t)standin_number("STANDIN_ENGINE_US"));
	return 1;
}

int standin_daos_init(void)
{
	if (strcmp(standin_text("STANDIN_AGENT"), "none") == 0)
		return -ABI_DER_AGENT_COMM;
	if (standin_engine_is_down())
		return -ABI_DER_TIMEDOUT;
	if (atomic_load(&inits) == 0)
		standin_pay(COST_INIT, 1);
	if (atomic_fetch_add(&inits, 1) == 0)
		atomic_store(&owner, getpid());
	return 0;
}

int standin_daos_fini(void)
{
	if (atomic_load(&inits) == 0)
		return -DER_UNINIT;
	if (atomic_load(&inits) == 1 && (standin_living(LIVE_QUEUES) || standin_living(LIVE_EVENTS)))
		return -ABI_DER_BUSY;
	if (atomic_fetch_sub(&inits, 1) == 1)
		begun_with = atomic_fetch_add(&restarts, 1) + 2;
	return 0;
}

int daos_init(void)
{
	struct standin_fault fault = standin_enter("daos_init", 0);
	return fault.code ? -fault.code : standin_daos_init();
}

int daos_reinit(void)
{
	struct standin_fault fault = standin_enter("daos_reinit", 1);
	if (fault.code)
		return -fault.code;
	standin_pay(COST_REINIT, 1);
	if (atomic_load(&inits) == 0) {
		fprintf(stderr, "stand-in: daos_reinit, and DAOS was never initialised: a real one crashes here\n");
		abort();
	}
	atomic_store(&owner, getpid());
	begun_with = atomic_fetch_add(&restarts, 1) + 2;
	return 0;
}

int daos_oclass_name2id(const char *name)
{
	return strcmp(name, "S1") == 0 ? 201 : strcmp(name, "SX") == 0 ? 211 : 0;
}

int daos_version_get(int *major, int *minor, int *fix)
{
	return sscanf(standin_text("STANDIN_VERSION"), "%d.%d.%d", major, minor, fix) == 3 ? 0 : -ABI_DER_INVAL;
}
