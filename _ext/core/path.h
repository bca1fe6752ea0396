/* Paths as bytes: relative to the mounted root, parts joined by '/', no '/' at either end. */
#ifndef DPX_PATH_H
#define DPX_PATH_H

#include <stddef.h>

/* A growing text, NUL-terminated whenever it is not empty. Zeroed memory is an empty one. */
struct dpx_text {
	char *text; /* owned */
	size_t len;
	size_t capacity;
};

/* free accepts an empty text and leaves one. room and add return 0 or ENOMEM; room makes sure that `more`
 * bytes and a NUL fit behind what is there. */
void dpx_text_free(struct dpx_text *text);
int dpx_text_room(struct dpx_text *text, size_t more);
int dpx_text_add(struct dpx_text *text, const char *bytes, size_t len);

/* EINVAL when a part of the path is "..": the engine does not leave its root. Else 0. */
int dpx_path_check(const char *path);

/* Where a listing resumes below a directory. dir: its path with '/' at the end ("" for the root). Returns 0
 * when everything below it comes at or before `after`; else 1, with *inside the rest of `after` below the
 * directory, or NULL when everything below it comes later. */
int dpx_path_resumes(const char *dir, size_t dir_len, const char *after, const char **inside);

/* The same for one entry of the directory, by the name it sorts as ("file" or "dir/"). */
int dpx_name_resumes(const char *name, const char *inside);

#endif
