/* Making files: the few steps above single hooks of the table. */
#ifndef DPX_PUT_H
#define DPX_PUT_H

#include <stddef.h>

#include "session.h"

/* Names of files that are being written begin like this; they are no data yet. */
#define DPX_PART_PREFIX ".datapipes-part-"

/* A directory with its parents; one that is there is fine. 0 or an errno. */
int dpx_put_directory(struct dpx_session *session, const char *path);

/* Create or replace a file with these bytes, at once: readers see the old content or the new. Missing parents are
 * made. On failure nothing is left of it. 0 or an errno. */
int dpx_put_file(struct dpx_session *session, const char *path, const void *data, size_t len);

#endif
