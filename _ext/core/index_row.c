#include "index_row.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define UNKNOWN UINT32_MAX

static uint32_t word(const struct dpx_index *index, int64_t at)
{
	uint32_t found;
	memcpy(&found, index->bytes + 4 * (size_t)at, sizeof(found));
	return le32toh(found);
}

/* How many names a block has, or -1: its parts do not lie in the file, or in another order. */
static int64_t names_of(const struct dpx_index *index, const struct dpx_index_block *block)
{
	int64_t length = (int64_t)index->length, words = length / 4;
	if (block->starts_at < 0 || block->sizes_at <= block->starts_at || block->sizes_at > words)
		return -1;
	int64_t names = block->sizes_at - block->starts_at - 1, after = block->sizes_at + names;
	int has_high = block->high_at >= 0;
	if (has_high && block->high_at != after)
		return -1;
	int64_t names_at = 4 * (after + has_high * names);
	int inside = names_at <= length && block->names_at == names_at && block->name_bytes >= 0 &&
		     block->name_bytes <= length - names_at;
	return inside ? names : -1;
}

static int64_t size_of(const struct dpx_index *index, const struct dpx_index_block *block, int64_t within)
{
	uint32_t low = word(index, block->sizes_at + within);
	if (block->high_at < 0)
		return low == UNKNOWN ? DPX_INDEX_SIZE_UNKNOWN : (int64_t)low;
	uint32_t high = word(index, block->high_at + within);
	return high == UNKNOWN ? DPX_INDEX_SIZE_UNKNOWN : (int64_t)((uint64_t)high << 32 | low);
}

int dpx_index_row(const struct dpx_index *index, int64_t row, struct dpx_index_row *out)
{
	if (row < 0 || !index->block_count)
		return ERANGE;
	int64_t names = names_of(index, &index->blocks[0]);
	if (names < 0)
		return EINVAL;
	if (!names || (uint64_t)(row / names) >= index->block_count)
		return ERANGE;
	size_t number = (size_t)(row / names);
	const struct dpx_index_block *block = &index->blocks[number];
	int64_t within = row % names, own = names_of(index, block);
	if (own < 0 || within >= own)
		return own < 0 ? EINVAL : ERANGE;
	int64_t low = word(index, block->starts_at + within), high = word(index, block->starts_at + within + 1);
	if (low >= high || high > block->name_bytes)
		return EINVAL;
	const char *name = (const char *)index->bytes + block->names_at + low;
	size_t length = (size_t)(high - low) - 1;
	if (name[length] != '\0' || memchr(name, '\0', length))
		return EINVAL;
	int64_t size = size_of(index, block, within);
	*out = (struct dpx_index_row){name, length, size, number};
	return size < DPX_INDEX_SIZE_UNKNOWN ? EINVAL : 0;
}
