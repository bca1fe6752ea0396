#include "dfs_load.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDER_VARIABLE "DATAPIPES_LIBDFS_DIR"
#define LIBDAOS "libdaos.so.2"
#define LIBDFS "libdfs.so"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct dpx_dfs functions;
static int loaded; /* both under the lock */

__attribute__((format(printf, 2, 3))) static int missing(char *why, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why, DPX_WHY_ROOM, format, args);
	va_end(args);
	return DPX_DFS_MISSING;
}

/* From the folder, or from wherever the loader finds it. libdaos is loaded first: libdfs asks for it by its soname
 * and gets the one that is there. */
static void *load_one(const char *folder, const char *name)
{
	char path[PATH_MAX];
	if (!folder)
		return dlopen(name, RTLD_NOW | RTLD_LOCAL);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static int load_libraries(const char *folder, void **dfs, char *why)
{
	/* What the two are linked with may lie in the same folder, where the loader would not look. */
	static const char *const beside[] = {"libgurt.so.4", "libdaos_common.so"};
	for (size_t i = 0; folder && i < sizeof(beside) / sizeof(beside[0]); i++)
		load_one(folder, beside[i]);
	static const char *const needed[] = {LIBDAOS, LIBDFS};
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		*dfs = load_one(folder, needed[i]);
		if (!*dfs) {
			const char *said = dlerror();
			return missing(why,
				       "%s cannot be loaded (%s): install the client of DAOS %d.%d (package "
				       "daos-client), or set " FOLDER_VARIABLE " to the folder that holds it",
				       needed[i], said ? said : "no reason given", ABI_API_MAJOR, ABI_API_MINOR);
		}
	}
	return 0;
}

/* Where a function's address is kept. */
struct slot {
	const char *library, *name;
	size_t offset;
};

#define SLOT(library, result, name, arguments) {library, #name, offsetof(struct dpx_dfs, name)},

static int find_functions(void *dfs, struct dpx_dfs *out, char *why)
{
	static const struct slot slots[] = {ABI_FUNCTIONS(SLOT)};
	for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
		void *found = dlsym(dfs, slots[i].name); /* all the libraries hang on this one */
		if (!found)
			return missing(why, "%s has no function %s: it is no library of DAOS %d.%d; install that version",
				       slots[i].library, slots[i].name, ABI_API_MAJOR, ABI_API_MINOR);
		memcpy((char *)out + slots[i].offset, &found, sizeof(found));
	}
	return 0;
}

static int check_version(void *dfs, char *why)
{
	int (*ask)(int *, int *, int *);
	int major = 0, minor = 0, fix = 0;
	void *found = dlsym(dfs, "daos_version_get");
	if (!found)
		return missing(why, LIBDAOS " has no function daos_version_get: it is no library of DAOS %d.%d; "
			       "install that version", ABI_API_MAJOR, ABI_API_MINOR);
	memcpy(&ask, &found, sizeof(found));
	int rc = ask(&major, &minor, &fix);
	if (rc || major != ABI_API_MAJOR || minor != ABI_API_MINOR)
		return missing(why, LIBDAOS " has the interface %d.%d.%d, of which only %d.%d is known here; install "
			       "DAOS %d.%d", major, minor, fix, ABI_API_MAJOR, ABI_API_MINOR, ABI_API_MAJOR,
			       ABI_API_MINOR);
	return 0;
}

/* Libraries stay loaded even when they are of no use: DAOS's do not like to be unloaded. */
static int load(char *why)
{
	const char *folder = getenv(FOLDER_VARIABLE);
	struct dpx_dfs found;
	void *dfs;
	int rc = load_libraries(folder && *folder ? folder : NULL, &dfs, why);
	if (!rc)
		rc = check_version(dfs, why);
	if (!rc)
		rc = find_functions(dfs, &found, why);
	if (!rc) {
		functions = found;
		loaded = 1;
	}
	return rc;
}

/* The parent's thread that was loading is not here. */
static void in_child(void)
{
	pthread_mutex_init(&lock, NULL);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, in_child);
}

int dpx_dfs_load(const struct dpx_dfs **dfs, char why[DPX_WHY_ROOM])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, watch_forks);
	pthread_mutex_lock(&lock);
	int rc = loaded ? 0 : load(why);
	pthread_mutex_unlock(&lock);
	*dfs = rc ? NULL : &functions;
	return rc;
}
