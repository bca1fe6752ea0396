#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "allocator.h"
#include "buffers.h"
#include "io_delay.h"
#include "path.h"
#include "pool.h"
#include "process.h"

/* More than any one reader or listing asks for; those that do not get a thread at once wait for one. */
#define MAX_THREADS 4096

const struct dpx_io *dpx_io_find(const char *name)
{
	static const struct dpx_io *const tables[] = {&dpx_io_posix, &dpx_io_dfs};
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		if (strcmp(name, tables[i]->name) == 0)
			return tables[i];
	return NULL;
}

/* Mount what the spec says into session->io and session->mount. */
static int mount_root(struct dpx_session *session, const struct dpx_session_spec *spec, char *why)
{
	void *mount;
	int rc = spec->io->mount(spec->root, &mount, why);
	if (rc)
		return rc;
	if (spec->open_delay_us == 0) {
		session->io = *spec->io;
		session->mount = mount;
		return 0;
	}
	rc = dpx_io_delay_wrap(spec->io, mount, spec->open_delay_us, &session->io, &session->mount);
	if (rc)
		spec->io->unmount(mount);
	return rc;
}

int dpx_session_open(const struct dpx_session_spec *spec, struct dpx_session **out,
		     char why[DPX_WHY_ROOM])
{
	why[0] = '\0';
	struct dpx_session *session = calloc(1, sizeof(*session));
	int rc = session ? dpx_process_watch() : ENOMEM;
	if (!rc && !(session->root = strdup(spec->root)))
		rc = ENOMEM;
	if (!rc)
		rc = dpx_pool_create(MAX_THREADS, &session->pool);
	if (!rc)
		rc = dpx_buffers_create(&session->buffers);
	if (!rc)
		rc = mount_root(session, spec, why);
	if (!rc) {
		rc = pthread_mutex_init(&session->lock, NULL);
		if (rc)
			session->io.unmount(session->mount);
	}
	if (rc) {
		if (session) {
			dpx_buffers_release(session->buffers);
			dpx_pool_release(session->pool);
			free(session->root);
		}
		free(session);
		return rc;
	}
	dpx_allocator_settle();
	session->pid = getpid();
	session->generation = dpx_process_generation();
	atomic_init(&session->refs, 1);
	*out = session;
	return 0;
}

struct dpx_session *dpx_session_retain(struct dpx_session *session)
{
	atomic_fetch_add_explicit(&session->refs, 1, memory_order_relaxed);
	return session;
}

void dpx_session_release(struct dpx_session *session)
{
	if (!session || atomic_fetch_sub(&session->refs, 1) != 1)
		return;
	session->io.unmount(session->mount);
	dpx_buffers_release(session->buffers);
	dpx_pool_release(session->pool);
	pthread_mutex_destroy(&session->lock);
	free(session->root);
	free(session);
}

int dpx_session_close(struct dpx_session *session, unsigned wait_ms)
{
	atomic_store(&session->closed, 1);
	return dpx_pool_close(session->pool, wait_ms);
}

int dpx_session_check(const struct dpx_session *session)
{
	if (session->generation != dpx_process_generation())
		return ECHILD;
	return atomic_load_explicit(&session->closed, memory_order_relaxed) ? EBADF : 0;
}

int dpx_session_stat(struct dpx_session *session, const char *path, struct dpx_stat *out)
{
	int rc = dpx_path_check(path);
	return rc ? rc : session->io.stat(session->mount, path, 1, out);
}

int dpx_session_rename(struct dpx_session *session, const char *from, const char *to)
{
	int rc = dpx_path_check(from);
	if (!rc)
		rc = dpx_path_check(to);
	return rc ? rc : session->io.rename(session->mount, from, to);
}

int dpx_session_remove(struct dpx_session *session, const char *path)
{
	int rc = dpx_path_check(path);
	return rc ? rc : session->io.remove(session->mount, path);
}

int dpx_session_open_file(struct dpx_session *session, const char *path, void **file)
{
	int rc = session->io.open(session->mount, path, file);
	if (!rc)
		atomic_fetch_add_explicit(&session->counters.files_open, 1, memory_order_relaxed);
	return rc;
}

int dpx_session_open_saved(struct dpx_session *session, const char *path, const void *handle, size_t len, void **file)
{
	int rc = session->io.open_saved(session->mount, path, handle, len, file);
	if (!rc)
		atomic_fetch_add_explicit(&session->counters.files_open, 1, memory_order_relaxed);
	return rc;
}

void dpx_session_close_file(struct dpx_session *session, void *file)
{
	session->io.close(file);
	atomic_fetch_sub_explicit(&session->counters.files_open, 1, memory_order_relaxed);
}
