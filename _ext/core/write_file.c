#include "write_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "path.h"

struct dpx_write_file {
	struct dpx_session *session; /* one reference */
	void *file;                  /* owned */
	uint64_t at;                 /* where the furthest write has ended; under the lock, like the next */
	int torn;                    /* a write that failed may have left bytes behind it */
	pthread_mutex_t lock;
};

int dpx_write_file_open(struct dpx_session *session, const char *path, const struct dpx_new_file *how,
			struct dpx_write_file **out)
{
	int rc = dpx_path_check(path);
	if (rc)
		return rc;
	struct dpx_write_file *made = calloc(1, sizeof(*made));
	if (!made)
		return ENOMEM;
	rc = pthread_mutex_init(&made->lock, NULL);
	if (rc) {
		free(made);
		return rc;
	}
	rc = session->io.create(session->mount, path, how, &made->file);
	if (rc) {
		pthread_mutex_destroy(&made->lock);
		free(made);
		return rc;
	}
	atomic_fetch_add(&session->counters.files_open, 1);
	made->session = dpx_session_retain(session);
	*out = made;
	return 0;
}

int dpx_write_file_append(struct dpx_write_file *file, const void *data, size_t len)
{
	pthread_mutex_lock(&file->lock);
	int rc = file->session->io.write(file->file, data, len, file->at);
	if (!rc)
		file->at += len;
	file->torn |= rc != 0;
	pthread_mutex_unlock(&file->lock);
	return rc;
}

int dpx_write_file_put(struct dpx_write_file *file, const void *data, size_t len, uint64_t offset)
{
	int rc = file->session->io.write(file->file, data, len, offset);
	pthread_mutex_lock(&file->lock);
	if (!rc && offset + len > file->at)
		file->at = offset + len;
	file->torn |= rc != 0;
	pthread_mutex_unlock(&file->lock);
	return rc;
}

int dpx_write_file_sync(struct dpx_write_file *file)
{
	pthread_mutex_lock(&file->lock);
	int rc = file->torn ? file->session->io.truncate(file->file, file->at) : 0;
	file->torn &= rc != 0;
	if (!rc)
		rc = file->session->io.sync(file->file);
	pthread_mutex_unlock(&file->lock);
	return rc;
}

void dpx_write_file_close(struct dpx_write_file *file)
{
	if (!file)
		return;
	dpx_session_close_file(file->session, file->file);
	dpx_session_release(file->session);
	pthread_mutex_destroy(&file->lock);
	free(file);
}
