#include "opening.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "monotonic.h"

struct dpx_opening {
	struct dpx_session_spec spec; /* its root is owned */
	atomic_uint refs;             /* the caller, and the thread */
	pthread_mutex_t lock;         /* what follows */
	pthread_cond_t done;
	int is_done, rc;
	struct dpx_session *session; /* owned until it is given to the caller */
	char why[DPX_WHY_ROOM];
};

static void drop(struct dpx_opening *opening)
{
	if (atomic_fetch_sub(&opening->refs, 1) != 1)
		return;
	dpx_session_release(opening->session);
	pthread_cond_destroy(&opening->done);
	pthread_mutex_destroy(&opening->lock);
	free((char *)(uintptr_t)opening->spec.root);
	free(opening);
}

static void *open_it(void *arg)
{
	struct dpx_opening *opening = arg;
	struct dpx_session *session = NULL;
	char why[DPX_WHY_ROOM];
	int rc = dpx_session_open(&opening->spec, &session, why);
	pthread_mutex_lock(&opening->lock);
	opening->is_done = 1;
	opening->rc = rc == EAGAIN ? ENOMEM : rc; /* what threads and locks are refused with */
	opening->session = session;
	memcpy(opening->why, why, sizeof(why));
	pthread_cond_signal(&opening->done);
	pthread_mutex_unlock(&opening->lock);
	drop(opening);
	return NULL;
}

/* Signals are for the caller's threads; a stack as large as others have, as the store's libraries start on it. */
static void run(struct dpx_opening *opening)
{
	sigset_t all, before;
	pthread_t thread;
	atomic_fetch_add(&opening->refs, 1);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int rc = pthread_create(&thread, NULL, open_it, opening);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		open_it(opening);
	else
		pthread_detach(thread);
}

int dpx_opening_start(const struct dpx_session_spec *spec, struct dpx_opening **out)
{
	struct dpx_opening *opening = calloc(1, sizeof(*opening));
	char *root = strdup(spec->root);
	int rc = opening && root ? pthread_mutex_init(&opening->lock, NULL) : ENOMEM;
	if (!rc) {
		rc = dpx_cond_init(&opening->done);
		if (rc)
			pthread_mutex_destroy(&opening->lock);
	}
	if (rc) {
		free(root);
		free(opening);
		return rc;
	}
	if (spec->io->renew)
		spec->io->renew(opening->why); /* mounting tries again what fails, and says why */
	opening->spec = *spec;
	opening->spec.root = root;
	atomic_init(&opening->refs, 1);
	run(opening);
	*out = opening;
	return 0;
}

int dpx_opening_wait(struct dpx_opening *opening, unsigned wait_ms, struct dpx_session **session,
		     char why[DPX_WHY_ROOM])
{
	int64_t until = dpx_now_ns() + (int64_t)wait_ms * 1000000;
	int waited = 0;
	pthread_mutex_lock(&opening->lock);
	while (!opening->is_done && waited == 0)
		waited = dpx_cond_wait_until(&opening->done, &opening->lock, until);
	int rc = opening->is_done ? opening->rc : EAGAIN;
	if (opening->is_done) {
		memcpy(why, opening->why, sizeof(opening->why));
		*session = opening->session;
		opening->session = NULL;
	}
	pthread_mutex_unlock(&opening->lock);
	return rc;
}

void dpx_opening_end(struct dpx_opening *opening)
{
	drop(opening);
}
