/* Rows of an index file, whose format is described in datapipes/index_format.py: names and sizes out of mapped bytes. */
#ifndef DPX_INDEX_ROW_H
#define DPX_INDEX_ROW_H

#include <stddef.h>
#include <stdint.h>

#define DPX_INDEX_SIZE_UNKNOWN (-1)

/* Where the parts of a block lie. All in 8 bytes each, so that an array of blocks can be handed in from elsewhere. */
struct dpx_index_block {
	int64_t starts_at;  /* in words of 4 bytes: where each name begins, and the end of the last one */
	int64_t sizes_at;   /* in words: one for each name */
	int64_t high_at;    /* in words: the upper halves of the sizes; -1 where they are all zero */
	int64_t names_at;   /* in bytes */
	int64_t name_bytes; /* of all names together, a NUL character after each */
};

struct dpx_index {
	const unsigned char *bytes;
	size_t length;
	const struct dpx_index_block *blocks; /* each but the last has as many names as the first */
	size_t block_count;
};

struct dpx_index_row {
	const char *name; /* not terminated */
	size_t length;
	int64_t size; /* DPX_INDEX_SIZE_UNKNOWN, or from 0 on */
	size_t block;
};

/* 0; ERANGE: there is no such row; EINVAL: the bytes are not those of an index. */
int dpx_index_row(const struct dpx_index *index, int64_t row, struct dpx_index_row *out);

#endif
