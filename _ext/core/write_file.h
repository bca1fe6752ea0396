/* A file that is being written: from its start to its end, or by any number of threads, each at its own offset. */
#ifndef DPX_WRITE_FILE_H
#define DPX_WRITE_FILE_H

#include <stddef.h>

#include "session.h"

struct dpx_write_file;

/* A new or emptied file. It holds a reference to the session. *out: owned by the caller until close. 0 or an errno. */
int dpx_write_file_open(struct dpx_session *session, const char *path, const struct dpx_new_file *how,
			struct dpx_write_file **out);

/* All of it where the furthest write so far has ended, or an errno. Threads that come at once take turns. */
int dpx_write_file_append(struct dpx_write_file *file, const void *data, size_t len);

/* All of it at an offset, or an errno. Threads may come at once. */
int dpx_write_file_put(struct dpx_write_file *file, const void *data, size_t len, uint64_t offset);

/* What was written, and nothing else, survives a crash from now on: what a write that failed has left is cut off. 0 or
 * an errno. */
int dpx_write_file_sync(struct dpx_write_file *file);

/* No other thread may be inside. Accepts NULL. */
void dpx_write_file_close(struct dpx_write_file *file);

#endif
