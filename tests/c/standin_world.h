/* A pool with a container for programs that go through the stand-in, and the stand-in's own controls. */
#ifndef DPX_TEST_STANDIN_WORLD_H
#define DPX_TEST_STANDIN_WORLD_H

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "dfs_load.h"
#include "session.h"

static const struct dpx_dfs *dfs;

static struct {
	int (*set)(const char *name, const char *value);
	void (*reset)(void);
	long (*count)(const char *what);
	void (*release)(void);
	void (*uuid)(const char *label, char out[37]);
} standin;

/* What other libraries in a process connect with. */
static struct {
	int (*connect)(const char *pool, const char *sys, const char *cont, int flags, void *attr, abi_dfs **mount);
	int (*disconnect)(abi_dfs *mount);
} others;

static char world_root[] = "/tmp/dpx-standin-XXXXXX";

/* The controls of the libraries, which something has loaded; everything as the environment has it. */
__attribute__((unused)) static void world_controls(void)
{
	void *daos = dlopen("libdaos.so.2", RTLD_NOW | RTLD_NOLOAD);
	CHECK(daos);
	*(void **)&standin.set = dlsym(daos, "standin_set");
	*(void **)&standin.reset = dlsym(daos, "standin_reset");
	*(void **)&standin.count = dlsym(daos, "standin_count");
	*(void **)&standin.release = dlsym(daos, "standin_release");
	*(void **)&standin.uuid = dlsym(daos, "standin_uuid");
	dlclose(daos);
	CHECK(standin.set && standin.reset && standin.count && standin.release && standin.uuid);
	standin.reset();
}

static void world_others(void)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/libdfs.so", getenv("DATAPIPES_LIBDFS_DIR"));
	void *lib = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	CHECK(lib);
	*(void **)&others.connect = dlsym(lib, "dfs_connect");
	*(void **)&others.disconnect = dlsym(lib, "dfs_disconnect");
	dlclose(lib);
	CHECK(others.connect && others.disconnect);
}

__attribute__((unused)) static void world_load(void)
{
	char why[DPX_WHY_ROOM] = "";
	int rc = dpx_dfs_load(&dfs, why);
	if (rc)
		fprintf(stderr, "%s\n", why);
	CHECK(rc == 0);
	world_controls();
	world_others();
}

/* A path in the container pool/cont; good until the next call but seven. */
__attribute__((unused, format(printf, 1, 2))) static const char *world_path(const char *format, ...)
{
	static char paths[8][4200];
	static unsigned next;
	char *path = paths[next++ % 8];
	int len = snprintf(path, sizeof(paths[0]), "%s/pool/cont/", world_root);
	va_list args;
	va_start(args, format);
	vsnprintf(path + len, sizeof(paths[0]) - (size_t)len, format, args);
	va_end(args);
	return path;
}

__attribute__((unused)) static void world_make(void)
{
	char pool[64];
	CHECK(mkdtemp(world_root));
	snprintf(pool, sizeof(pool), "%s/pool", world_root);
	CHECK(mkdir(pool, 0755) == 0 && mkdir(world_path("%s", ""), 0755) == 0);
	CHECK(mkdir(world_path("dir"), 0755) == 0);
	setenv("STANDIN_ROOT", world_root, 1);
}

__attribute__((unused)) static void world_file(const char *path, const void *data, size_t len)
{
	FILE *file = fopen(path, "wb");
	CHECK(file && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

/* From now on the container is as --mode=balanced makes it, or no more. */
__attribute__((unused)) static void world_balanced(int balanced)
{
	if (balanced)
		world_file(world_path("../cont.balanced"), "", 0);
	else
		CHECK(unlink(world_path("../cont.balanced")) == 0);
}

__attribute__((unused)) static void world_remove(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", world_root);
	CHECK(system(command) == 0);
}

/* Nothing is left alive behind the table. */
__attribute__((unused)) static void world_check_empty(void)
{
	static const char *const kinds[] = {"inits", "mounts", "objects", "queues", "events", "reads", "handles"};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (standin.count(kinds[i]))
			fprintf(stderr, "%ld %s are left\n", standin.count(kinds[i]), kinds[i]);
		CHECK(standin.count(kinds[i]) == 0);
	}
}

__attribute__((unused)) static struct dpx_session *world_session(void)
{
	struct dpx_session_spec spec = {.io = dpx_io_find("dfs"), .root = "pool/cont"};
	struct dpx_session *session = NULL;
	char why[DPX_WHY_ROOM];
	CHECK(dpx_session_open(&spec, &session, why) == 0);
	return session;
}

/* Nothing of it is in use any more. */
__attribute__((unused)) static void world_close(struct dpx_session *session)
{
	CHECK(atomic_load(&session->counters.files_open) == 0 && atomic_load(&session->counters.listings_live) == 0);
	CHECK(atomic_load(&session->counters.graveyard) == 0);
	CHECK(dpx_session_close(session, 20000) == 0);
	dpx_session_release(session);
}

/* The first byte of a file. 0 or an errno. */
__attribute__((unused)) static int world_read_first(struct dpx_session *session, const char *path, char *first)
{
	void *file;
	size_t got = 0;
	int rc = dpx_session_open_file(session, path, &file);
	if (rc)
		return rc;
	rc = session->io.read(file, first, 1, 0, &got);
	dpx_session_close_file(session, file);
	return rc ? rc : got == 1 ? 0 : ENODATA;
}

#endif
