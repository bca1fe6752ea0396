/* Tables of names joined: of parts of a directory, and of passes over one that changes meanwhile. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "names.h"

int dpx_names_absorb(struct dpx_names *into, struct dpx_names *from)
{
	size_t total = into->count + from->count, shared = 0;
	if (!into->count || !from->count) {
		struct dpx_names *empty = into->count ? from : into, held = into->count ? *into : *from;
		dpx_names_free(empty);
		*from = (struct dpx_names){0};
		*into = held;
		return 0;
	}
	struct dpx_name *entries = realloc(into->entries, total * sizeof(*entries));
	if (!entries)
		return ENOMEM;
	memcpy(entries + into->count, from->entries, from->count * sizeof(*entries));
	while (shared < into->shared && shared < from->shared && entries[0].text[shared] == from->entries[0].text[shared])
		shared++;
	struct dpx_name_chunk **last = &from->arena;
	while (*last)
		last = &(*last)->next;
	*last = into->arena;
	size_t arenas = into->bytes + from->bytes - (into->capacity + from->capacity) * sizeof(*entries);
	free(from->entries);
	*into = (struct dpx_names){.entries = entries, .count = total, .capacity = total, .shared = shared,
				   .arena = from->arena, .bytes = arenas + total * sizeof(*entries)};
	*from = (struct dpx_names){0};
	return 0;
}

static int compare_inodes(const void *a, const void *b)
{
	const struct dpx_inode_at *x = a, *y = b;
	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

struct dpx_inode_at *dpx_names_by_inode(const struct dpx_names *names)
{
	struct dpx_inode_at *pairs = malloc((names->count + 1) * sizeof(*pairs));
	if (!pairs)
		return NULL;
	for (size_t i = 0; i < names->count; i++)
		pairs[i] = (struct dpx_inode_at){names->entries[i].inode, i};
	qsort(pairs, names->count, sizeof(*pairs), compare_inodes);
	return pairs;
}

size_t dpx_inode_find(const struct dpx_inode_at *pairs, size_t count, uint64_t inode)
{
	size_t low = 0, high = count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (pairs[mid].inode < inode)
			low = mid + 1;
		else
			high = mid;
	}
	return low < count && pairs[low].inode == inode ? low : SIZE_MAX;
}

int dpx_names_merge(struct dpx_names *into, const struct dpx_names *from, size_t *unseen)
{
	size_t had = into->count, at = 0;
	struct dpx_inode_at *known = dpx_names_by_inode(into);
	int rc = known ? 0 : ENOMEM;
	*unseen = 0;
	for (size_t i = 0; !rc && i < from->count; i++) {
		const struct dpx_name *entry = &from->entries[i];
		*unseen += dpx_inode_find(known, had, entry->inode) == SIZE_MAX;
		int differs = 1;
		while (at < had && (differs = strcmp(into->entries[at].text, entry->text)) < 0)
			into->entries[at++].mark = DPX_MARK_CHECK;
		if (at < had && differs == 0) {
			const char *text = into->entries[at].text;
			into->entries[at] = *entry;
			into->entries[at++].text = text;
		} else {
			rc = dpx_names_add(into, entry->text, strcspn(entry->text, "/"), entry);
		}
	}
	while (!rc && at < had)
		into->entries[at++].mark = DPX_MARK_CHECK;
	free(known);
	dpx_names_sort(into);
	return rc;
}
