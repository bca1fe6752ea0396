#include "list_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int dpx_node_path(const struct dir_node *node, struct dpx_text *text)
{
	text->len = 0;
	if (dpx_text_room(text, node->path_len))
		return ENOMEM;
	text->len = node->path_len;
	text->text[node->path_len] = '\0';
	for (; node; node = node->parent) {
		size_t start = node->parent ? node->parent->path_len : 0;
		memcpy(text->text + start, node->name, node->path_len - start);
	}
	return 0;
}

/* In front of `before`, or at the end. */
static void work_link(struct dpx_listing *listing, struct dir_node *node, struct dir_node *before)
{
	node->in_work = 1;
	node->work_next = before;
	node->work_prev = before ? before->work_prev : listing->work_tail;
	*(node->work_prev ? &node->work_prev->work_next : &listing->work_head) = node;
	*(before ? &before->work_prev : &listing->work_tail) = node;
}

static void work_unlink(struct dpx_listing *listing, struct dir_node *node)
{
	if (!node->in_work)
		return;
	node->in_work = 0;
	*(node->work_prev ? &node->work_prev->work_next : &listing->work_head) = node->work_next;
	*(node->work_next ? &node->work_next->work_prev : &listing->work_tail) = node->work_prev;
}

/* A node for the directory `dir` (an index into dirs) of its parent, or for the root. It goes to its place in
 * the list of work: all that comes before it in the listing stands before it there, because children are made
 * in order and a parent follows the children it has. */
struct dir_node *dpx_node_new(struct dpx_listing *listing, struct dir_node *parent, size_t dir)
{
	struct dir_node *node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	node->parent = parent;
	node->state = NODE_NEW;
	if (parent) {
		const struct dpx_name *entry = &parent->names.entries[parent->dirs[dir]];
		node->name = entry->text;
		node->path_len = parent->path_len + strlen(entry->text);
		node->inode = entry->inode;
		parent->children[dir] = node;
		parent->next_dir = dir + 1;
	}
	node->next = listing->all;
	if (node->next)
		node->next->prev = node;
	listing->all = node;
	work_link(listing, node, parent); /* with a child still to be made, the parent is in the list */
	return node;
}

static void free_extras(struct extra_name *extra)
{
	while (extra) {
		struct extra_name *next = extra->next;
		free(extra);
		extra = next;
	}
}

void dpx_node_free(struct dpx_listing *listing, struct dir_node *node)
{
	work_unlink(listing, node);
	if (node->next)
		node->next->prev = node->prev;
	*(node->prev ? &node->prev->next : &listing->all) = node->next;
	atomic_fetch_sub(&listing->ahead, atomic_load(&node->ahead));
	dpx_names_free(&node->names);
	free_extras(node->extras);
	free_extras(node->extras_past);
	free(node->dirs);
	free(node->children);
	free(node->chunks);
	free(node);
}

int dpx_entry_needs_look(const struct dpx_name *entry, int sizes)
{
	switch (entry->kind) {
	case DPX_KIND_FILE:
		return (sizes && entry->size == DPX_SIZE_UNKNOWN) || entry->mark == DPX_MARK_CHECK;
	case DPX_KIND_LINK:
		return 1;
	default:
		return 0;
	}
}

/* What the list of work needs to know of a table that has just been read. */
int dpx_node_index(struct dir_node *node, int sizes)
{
	const struct dpx_names *names = &node->names;
	size_t dirs = 0;
	for (size_t i = 0; i < names->count; i++)
		dirs += names->entries[i].kind == DPX_KIND_DIR;
	node->chunk_count = (names->count + DPX_LIST_CHUNK - 1) / DPX_LIST_CHUNK;
	node->chunks = malloc(node->chunk_count + 1);
	node->dirs = malloc((dirs + 1) * sizeof(*node->dirs));
	node->children = calloc(dirs + 1, sizeof(*node->children));
	if (!node->chunks || !node->dirs || !node->children)
		return ENOMEM;
	memset(node->chunks, CHUNK_FREE, node->chunk_count + 1);
	for (size_t i = 0; i < names->count; i++) {
		if (names->entries[i].kind == DPX_KIND_DIR)
			node->dirs[node->dir_count++] = i;
		else if (dpx_entry_needs_look(&names->entries[i], sizes))
			node->chunks[i / DPX_LIST_CHUNK] = CHUNK_OPEN;
	}
	return 0;
}

static int is_needed(const struct dpx_listing *listing, const struct dir_node *node, size_t chunk)
{
	return node == listing->current && chunk == node->handed / DPX_LIST_CHUNK;
}

/* The first work of one node that the bounds allow. *left: whether it has any work left at all. */
static int node_take(struct dpx_listing *listing, struct dir_node *node, int may_read, int may_look,
		     struct list_work *work, int *left)
{
	*left = 1;
	if (node->state == NODE_NEW) {
		*work = (struct list_work){WORK_READ, node, 0};
		return may_read || atomic_load(&node->wanted);
	}
	if (node->state == NODE_READING && node->crew && node->crew->next < node->crew->count) {
		*work = (struct list_work){WORK_HELP, node, 0};
		return 1;
	}
	if (node->state != NODE_READY)
		return 0;
	while (node->next_chunk < node->chunk_count && node->chunks[node->next_chunk] != CHUNK_OPEN)
		node->next_chunk++;
	int has_chunk = node->next_chunk < node->chunk_count;
	int has_dir = node->next_dir < node->dir_count;
	*left = has_chunk || has_dir;
	int look = has_chunk && (may_look || is_needed(listing, node, node->next_chunk));
	if (look && !(has_dir && may_read && node->dirs[node->next_dir] < node->next_chunk * DPX_LIST_CHUNK)) {
		*work = (struct list_work){WORK_LOOK, node, node->next_chunk};
		return 1;
	}
	*work = (struct list_work){WORK_READ, NULL, 0};
	return has_dir && may_read;
}

size_t dpx_chunk_entries(const struct dir_node *node, size_t chunk)
{
	size_t start = chunk * DPX_LIST_CHUNK;
	return node->names.count - start < DPX_LIST_CHUNK ? node->names.count - start : DPX_LIST_CHUNK;
}

/* Nodes without work in this list are few: those being read (one for each runner) and those put off, which
 * end all reading ahead until the consumer is there. */
static int find_work(struct dpx_listing *listing, struct list_work *work, struct dir_node **at)
{
	int may_read = !listing->put_off && atomic_load(&listing->ahead) < DPX_LIST_AHEAD_BYTES;
	int may_look = listing->looks_ahead < DPX_LIST_AHEAD_LOOKS;
	struct dir_node *node = listing->work_head, *next;
	for (; node; node = next) {
		int left;
		next = node->work_next;
		*at = node;
		if (node_take(listing, node, may_read, may_look, work, &left))
			return 1;
		if (!left)
			work_unlink(listing, node);
	}
	listing->stalled = listing->work_head != NULL;
	return 0;
}

int dpx_work_waits(struct dpx_listing *listing)
{
	struct list_work work;
	struct dir_node *at;
	return find_work(listing, &work, &at);
}

/* Take the earliest work the bounds allow: 1 and *work, 0 when there is none, -1 without memory for a node. */
int dpx_work_take(struct dpx_listing *listing, struct list_work *work)
{
	struct dir_node *at;
	if (!find_work(listing, work, &at))
		return 0;
	if (work->kind == WORK_LOOK) {
		work->node->chunks[work->chunk] = CHUNK_TAKEN;
		listing->looks_ahead += dpx_chunk_entries(work->node, work->chunk);
		return 1;
	}
	if (work->kind == WORK_HELP) {
		work->node->crew->busy++;
		return 1;
	}
	if (!work->node)
		work->node = dpx_node_new(listing, at, at->next_dir);
	if (!work->node)
		return -1;
	work->node->state = NODE_READING;
	return 1;
}
