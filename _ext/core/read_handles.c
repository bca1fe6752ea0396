/* Handles that were kept from reads before, and those that are kept for reads to come. */
#include <errno.h>

#include "reader_state.h"

int dpx_item_recall(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_handle handle;
	item->recalled = 0;
	item->known_size = DPX_SIZE_UNKNOWN;
	if (!reader->options.handles || item->beginnings)
		return ENOENT;
	struct dpx_handle_key key = dpx_handles_key(&reader->root, item->path);
	if (!dpx_handles_get(reader->options.handles, &key, &handle))
		return ENOENT;
	int rc = dpx_session_open_saved(reader->session, item->path, handle.bytes, handle.len, &item->file);
	if (rc)
		return rc;
	atomic_fetch_add_explicit(&reader->session->counters.handle_hits, 1, memory_order_relaxed);
	item->recalled = 1;
	item->known_size = handle.size;
	return 0;
}

/* The size of the item's file, which was read without a fault; DPX_SIZE_UNKNOWN where it is not certain. */
static uint64_t learnt_size(const struct dpx_item *item)
{
	if (item->file_size != DPX_SIZE_UNKNOWN)
		return item->file_size;
	if (item->want == DPX_SIZE_UNKNOWN && item->got) /* then it was read to its end */
		return item->offset + item->got;
	return item->known_size;
}

void dpx_item_remember(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_handle handle = {.size = DPX_SIZE_UNKNOWN};
	if (!reader->options.handles)
		return;
	uint64_t size = learnt_size(item);
	/* An empty answer is always looked at by path, so a handle would be of no help. */
	if (size == 0 || (item->recalled && (size == item->known_size || size == DPX_SIZE_UNKNOWN)))
		return;
	handle.size = size;
	if (reader->session->io.handle_save(item->file, handle.bytes, sizeof(handle.bytes), &handle.len))
		return;
	struct dpx_handle_key key = dpx_handles_key(&reader->root, item->path);
	dpx_handles_put(reader->options.handles, &key, &handle);
}
