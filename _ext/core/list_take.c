/* The consumer's side of a listing: walk the tree depth first and hand over what is ready. */
#include <errno.h>
#include <string.h>

#include "list_tree.h"
#include "monotonic.h"

#define BLOCK_BYTES ((size_t)1 << 20) /* of path text; one longer path makes a block of its own */
#define FILL_NS INT64_C(3000000)      /* how long a block that is not full waits for more */

enum step {
	STEP_ON,
	STEP_FULL,
	STEP_WAIT,
	STEP_END,
	STEP_FAILED,
};

static int is_full(const struct dpx_listing *listing)
{
	return listing->entry_count == DPX_LIST_BLOCK || listing->paths.len >= BLOCK_BYTES;
}

/* Fill in the error; `name` is what failed below the node, "" for the node's own directory. */
static enum step fail(struct dpx_listing *listing, const struct dir_node *node, const char *name, int err, enum dpx_op op)
{
	listing->error = (struct dpx_status){.err = err == EAGAIN ? EIO : err, .op = op}; /* EAGAIN says "not yet" */
	if (!dpx_node_path(node, &listing->error_path) && *name)
		dpx_text_add(&listing->error_path, name, strlen(name));
	if (!*name && listing->error_path.len)
		listing->error_path.len--;
	return STEP_FAILED;
}

/* Append one path to the block. Without the lock: only the consumer touches the block. */
static int put(struct dpx_listing *listing, const char *name, uint64_t size)
{
	size_t start = listing->paths.len, prefix = listing->prefix.len, len = strlen(name);
	if (dpx_text_room(&listing->paths, prefix + len))
		return ENOMEM;
	memcpy(listing->paths.text + start, listing->prefix.text, prefix);
	memcpy(listing->paths.text + start + prefix, name, len);
	listing->paths.len += prefix + len;
	listing->starts[listing->entry_count] = start;
	listing->entries[listing->entry_count++] = (struct dpx_list_entry){.path_len = prefix + len, .size = size};
	return 0;
}

static int set_prefix(struct dpx_listing *listing, const struct dir_node *node)
{
	if (listing->prefix_of == node)
		return 0;
	int rc = dpx_node_path(node, &listing->prefix);
	listing->prefix_of = rc ? NULL : node;
	return rc;
}

/* With the lock held, after `handed` has moved on: a chunk that is used up makes room for another look. */
static void pass(struct dpx_listing *listing, struct dir_node *node, size_t entries)
{
	size_t chunk = (node->handed - 1) / DPX_LIST_CHUNK;
	listing->done_ahead -= entries;
	if ((node->handed % DPX_LIST_CHUNK == 0 || node->handed == node->names.count) &&
	    node->chunks[chunk] == CHUNK_DONE)
		listing->looks_ahead -= dpx_chunk_entries(node, chunk);
}

static enum step enter(struct dpx_listing *listing, struct dir_node *node)
{
	struct dir_node *child = node->children[node->passed_dirs];
	if (!child)
		child = dpx_node_new(listing, node, node->passed_dirs);
	if (!child)
		return fail(listing, node, "", ENOMEM, DPX_OP_LIST);
	atomic_store(&child->wanted, 1);
	if (child->state == NODE_PUT_OFF) {
		child->state = NODE_NEW;
		listing->put_off--;
	}
	node->last = node->names.entries[node->handed].text;
	node->handed++;
	node->passed_dirs++;
	pass(listing, node, 1);
	listing->current = child;
	return STEP_ON;
}

static enum step leave(struct dpx_listing *listing, struct dir_node *node)
{
	if (listing->prefix_of == node)
		listing->prefix_of = NULL;
	listing->current = node->parent;
	dpx_node_free(listing, node);
	return STEP_ON;
}

static enum step take_extra(struct dpx_listing *listing, struct dir_node *node)
{
	struct extra_name *extra = node->extras;
	node->extras = extra->next;
	extra->next = node->extras_past;
	node->extras_past = extra;
	node->last = extra->text;
	if (set_prefix(listing, node) || put(listing, extra->text, extra->size))
		return fail(listing, node, "", ENOMEM, DPX_OP_LIST);
	return STEP_ON;
}

/* Hand over the files from here to the end of the chunk, the next directory or the next extra. The copying is
 * done without the lock: entries below `handed` belong to the consumer. */
static enum step take_files(struct dpx_listing *listing, struct dir_node *node)
{
	const struct dpx_names *names = &node->names;
	size_t at = node->handed, chunk = at / DPX_LIST_CHUNK;
	size_t end = chunk * DPX_LIST_CHUNK + dpx_chunk_entries(node, chunk);
	if (node->passed_dirs < node->dir_count && node->dirs[node->passed_dirs] < end)
		end = node->dirs[node->passed_dirs];
	if (end - at > DPX_LIST_BLOCK - listing->entry_count)
		end = at + (DPX_LIST_BLOCK - listing->entry_count);
	for (size_t i = at + 1; node->extras && i < end; i++)
		if (strcmp(node->extras->text, names->entries[i].text) < 0)
			end = i;
	node->handed = end;
	node->last = names->entries[end - 1].text;
	pthread_mutex_unlock(&listing->lock);

	enum step step = STEP_ON;
	size_t i = at;
	if (set_prefix(listing, node))
		step = fail(listing, node, "", ENOMEM, DPX_OP_LIST);
	for (; step == STEP_ON && i < end; i++) {
		const struct dpx_name *entry = &names->entries[i];
		if (entry->mark == DPX_MARK_FAILED)
			step = fail(listing, node, entry->text, (int)entry->size, DPX_OP_STAT);
		else if (entry->mark == DPX_MARK_DROPPED)
			continue;
		else if (put(listing, entry->text, entry->size))
			step = fail(listing, node, entry->text, ENOMEM, DPX_OP_LIST);
	}
	pthread_mutex_lock(&listing->lock);
	pass(listing, node, end - at);
	return step;
}

static enum step take_step(struct dpx_listing *listing)
{
	struct dir_node *node = listing->current;
	if (!node)
		return STEP_END;
	if (node->state == NODE_FAILED)
		return fail(listing, node, "", node->err, node->op);
	if (node->state != NODE_READY)
		return STEP_WAIT;
	if (is_full(listing))
		return STEP_FULL;
	size_t counted = atomic_exchange(&node->ahead, 0);
	if (counted)
		atomic_fetch_sub(&listing->ahead, counted);
	size_t at = node->handed;
	if (at < node->names.count) {
		unsigned char chunk = node->chunks[at / DPX_LIST_CHUNK];
		if (chunk != CHUNK_DONE && chunk != CHUNK_FREE)
			return STEP_WAIT; /* an extra may still turn up in it, before what comes next */
	}
	if (node->extras && (at == node->names.count || strcmp(node->extras->text, node->names.entries[at].text) < 0))
		return take_extra(listing, node);
	if (at == node->names.count)
		return leave(listing, node);
	if (node->names.entries[at].kind != DPX_KIND_DIR)
		return take_files(listing, node);
	return enter(listing, node);
}

/* With the lock held: wait for the current node, or for a full block. */
static void wait_until(struct dpx_listing *listing, int64_t moment)
{
	listing->waiting = listing->entry_count ? WAIT_FILL : WAIT_CURRENT;
	dpx_cond_wait_until(&listing->ready, &listing->lock, moment);
	listing->waiting = WAIT_NONE;
}

/* Is there room for a runner that the bounds had sent away? Not for every chunk that is handed over: that would
 * wake a thread for each. */
static int has_room(struct dpx_listing *listing)
{
	return listing->stalled && listing->looks_ahead < DPX_LIST_AHEAD_LOOKS / 4 * 3 &&
	       atomic_load(&listing->ahead) < DPX_LIST_AHEAD_BYTES / 4 * 3;
}

static enum step start_runner(struct dpx_listing *listing, int must)
{
	listing->stalled = 0;
	int rc = dpx_listing_kick(listing);
	if (!rc)
		rc = listing->starved;
	if (rc && must && listing->running == 0)
		return fail(listing, listing->current, "", rc, DPX_OP_LIST);
	return must ? STEP_WAIT : STEP_ON;
}

/* Steps until the block is full, the end, an error, or the time is up. */
static enum step take_steps(struct dpx_listing *listing, unsigned wait_ms)
{
	int64_t until = dpx_now_ns() + wait_ms * INT64_C(1000000);
	int filling = 0;
	for (;;) {
		if (dpx_list_stopped(listing))
			return STEP_END;
		enum step step = take_step(listing);
		if (step == STEP_WAIT || (step == STEP_ON && has_room(listing)))
			step = start_runner(listing, step == STEP_WAIT);
		if (step == STEP_ON)
			continue;
		if (step != STEP_WAIT)
			return step;
		int64_t now = dpx_now_ns();
		if (!filling && listing->entry_count) {
			filling = 1;
			if (now + FILL_NS < until)
				until = now + FILL_NS;
		}
		if (now >= until)
			return STEP_WAIT;
		wait_until(listing, until);
	}
}

int dpx_listing_next(struct dpx_listing *listing, unsigned wait_ms, const struct dpx_list_entry **entries,
		     size_t *count)
{
	*count = 0;
	*entries = listing->entries;
	if (listing->given) {
		listing->entry_count = listing->paths.len = 0;
		listing->given = 0;
	}
	if (listing->error.err)
		return listing->error.err;
	pthread_mutex_lock(&listing->lock);
	enum step step = take_steps(listing, wait_ms);
	int cancelled = atomic_load(&listing->cancelled);
	if (!cancelled && dpx_list_stopped(listing) && listing->current)
		step = fail(listing, listing->current, "", EBADF, DPX_OP_LIST);
	else
		listing->counts.entries += cancelled ? 0 : listing->entry_count;
	pthread_mutex_unlock(&listing->lock);
	if (cancelled)
		return 0;
	if (listing->entry_count == 0)
		return step == STEP_FAILED ? listing->error.err : step == STEP_WAIT ? EAGAIN : 0;
	for (size_t i = 0; i < listing->entry_count; i++)
		listing->entries[i].path = listing->paths.text + listing->starts[i];
	listing->given = 1;
	*count = listing->entry_count;
	return 0;
}
