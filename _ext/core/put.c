#include "put.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monotonic.h"
#include "path.h"

/* 0 when a directory stands there. */
static int check_directory(struct dpx_session *session, const char *path)
{
	struct dpx_stat st;
	int rc = session->io.stat(session->mount, path, 1, &st);
	return rc ? rc : st.kind == DPX_KIND_DIR ? 0 : EEXIST;
}

int dpx_put_directory(struct dpx_session *session, const char *path)
{
	int rc = dpx_path_check(path);
	if (rc || check_directory(session, path) == 0)
		return rc;
	char *step = strdup(path);
	if (!step)
		return ENOMEM;
	for (char *at = step; !rc && at; ) {
		at = strchr(at + 1, '/');
		if (at)
			*at = '\0';
		if (at != step)
			rc = session->io.mkdir(session->mount, step);
		if (rc == EEXIST)
			rc = check_directory(session, step);
		if (at)
			*at = '/';
	}
	free(step);
	return rc;
}

/* A name beside `path` that nobody else uses. The caller frees it; NULL: no memory. */
static char *part_name(const char *path)
{
	static atomic_uint counter;
	const char *slash = strrchr(path, '/');
	size_t dir_len = slash ? (size_t)(slash - path) + 1 : 0;
	size_t room = dir_len + sizeof(DPX_PART_PREFIX) + 64;
	char *part = malloc(room);
	if (!part)
		return NULL;
	memcpy(part, path, dir_len);
	snprintf(part + dir_len, room - dir_len, DPX_PART_PREFIX "%lx-%llx-%x", (long)getpid(),
		 (unsigned long long)dpx_now_ns(), atomic_fetch_add(&counter, 1));
	return part;
}

static const struct dpx_new_file as_it_is;

static int create_with_parents(struct dpx_session *session, const char *part, void **file)
{
	int rc = session->io.create(session->mount, part, &as_it_is, file);
	if (rc != ENOENT)
		return rc;
	char *parent = strdup(part);
	if (!parent)
		return ENOMEM;
	char *slash = strrchr(parent, '/');
	if (slash) {
		*slash = '\0';
		rc = dpx_put_directory(session, parent);
		if (!rc)
			rc = session->io.create(session->mount, part, &as_it_is, file);
	}
	free(parent);
	return rc;
}

int dpx_put_file(struct dpx_session *session, const char *path, const void *data, size_t len)
{
	void *file = NULL;
	int rc = dpx_path_check(path);
	if (rc)
		return rc;
	char *part = part_name(path);
	if (!part)
		return ENOMEM;
	rc = create_with_parents(session, part, &file);
	if (rc) {
		free(part);
		return rc;
	}
	atomic_fetch_add(&session->counters.files_open, 1);
	rc = session->io.write(file, data, len, 0);
	if (!rc)
		rc = session->io.sync(file);
	dpx_session_close_file(session, file);
	if (!rc)
		rc = session->io.rename(session->mount, part, path);
	if (rc)
		session->io.remove(session->mount, part); /* the first error stands */
	free(part);
	return rc;
}
