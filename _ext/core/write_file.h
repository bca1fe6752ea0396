/* A file that is being written, from its start to its end, by one thread at a time. */
#ifndef DPX_WRITE_FILE_H
#define DPX_WRITE_FILE_H

#include <stddef.h>

#include "session.h"

struct dpx_write_file;

/* A new or emptied file. It holds a reference to the session. *out: owned by the caller until close. 0 or an errno. */
int dpx_write_file_open(struct dpx_session *session, const char *path, struct dpx_write_file **out);

/* All of it behind what was written before, or an errno. Threads that come at once take turns. */
int dpx_write_file_append(struct dpx_write_file *file, const void *data, size_t len);

/* What was written survives a crash from now on. 0 or an errno. */
int dpx_write_file_sync(struct dpx_write_file *file);

/* No other thread may be inside. Accepts NULL. */
void dpx_write_file_close(struct dpx_write_file *file);

#endif
