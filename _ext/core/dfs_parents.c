#include "dfs_parents.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "monotonic.h"

#define BUCKETS DPX_DFS_PARENTS

struct dpx_dfs_parents {
	const struct dpx_dfs *dfs; /* borrowed, as are the next two */
	abi_dfs *mount;
	int flags;
	struct dpx_dfs_parent root;
	pthread_mutex_t lock; /* all that follows, and what parents keep for the cache */
	struct dpx_dfs_parent *buckets[BUCKETS];
	struct dpx_dfs_parent *newest, *oldest;
	unsigned count;
};

int dpx_dfs_parents_create(const struct dpx_dfs *dfs, abi_dfs *mount, abi_obj *root, int flags,
			   struct dpx_dfs_parents **out)
{
	struct dpx_dfs_parents *parents = calloc(1, sizeof(*parents));
	if (!parents)
		return ENOMEM;
	int rc = pthread_mutex_init(&parents->lock, NULL);
	if (rc) {
		free(parents);
		return rc;
	}
	parents->dfs = dfs;
	parents->mount = mount;
	parents->flags = flags;
	parents->root.obj = root;
	*out = parents;
	return 0;
}

static uint64_t hash_of(const char *path, size_t len)
{
	uint64_t hash = UINT64_C(14695981039346656037);
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)path[i]) * UINT64_C(1099511628211);
	return hash;
}

static void dispose(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *parent)
{
	parents->dfs->dfs_release(parent->obj);
	free(parent->path);
	free(parent);
}

static void unlink_age(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *parent)
{
	*(parent->newer ? &parent->newer->older : &parents->newest) = parent->older;
	*(parent->older ? &parent->older->newer : &parents->oldest) = parent->newer;
	parent->newer = parent->older = NULL;
}

static void link_newest(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *parent)
{
	parent->older = parents->newest;
	*(parents->newest ? &parents->newest->newer : &parents->oldest) = parent;
	parents->newest = parent;
}

/* Out of the cache; what nobody holds goes onto `dead`, through `chain`, to be released without the lock. */
static void drop_locked(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *parent, struct dpx_dfs_parent **dead)
{
	struct dpx_dfs_parent **at = &parents->buckets[parent->hash % BUCKETS];
	while (*at != parent)
		at = &(*at)->chain;
	*at = parent->chain;
	unlink_age(parents, parent);
	parent->listed = 0;
	parents->count--;
	if (parent->holders)
		return;
	parent->chain = *dead;
	*dead = parent;
}

static void bury(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *dead)
{
	for (struct dpx_dfs_parent *next; dead; dead = next) {
		next = dead->chain;
		dispose(parents, dead);
	}
}

void dpx_dfs_parents_free(struct dpx_dfs_parents *parents)
{
	struct dpx_dfs_parent *dead = NULL;
	if (!parents)
		return;
	while (parents->newest)
		drop_locked(parents, parents->newest, &dead);
	bury(parents, dead);
	pthread_mutex_destroy(&parents->lock);
	free(parents);
}

static struct dpx_dfs_parent *find_locked(struct dpx_dfs_parents *parents, const char *path, size_t len, uint64_t hash)
{
	struct dpx_dfs_parent *found = parents->buckets[hash % BUCKETS];
	while (found && (found->hash != hash || found->path_len != len || memcmp(found->path, path, len) != 0))
		found = found->chain;
	return found;
}

static struct dpx_dfs_parent *recall(struct dpx_dfs_parents *parents, const char *path, size_t len)
{
	uint64_t hash = hash_of(path, len);
	struct dpx_dfs_parent *dead = NULL;
	pthread_mutex_lock(&parents->lock);
	struct dpx_dfs_parent *found = find_locked(parents, path, len, hash);
	if (found && dpx_now_ns() - found->looked_up > DPX_DFS_PARENT_NS) {
		drop_locked(parents, found, &dead);
		found = NULL;
	}
	if (found) {
		found->holders++;
		unlink_age(parents, found);
		link_newest(parents, found);
	}
	pthread_mutex_unlock(&parents->lock);
	bury(parents, dead);
	return found;
}

/* Into the cache, in place of one that another thread was quicker with; the oldest gives way. */
static void keep(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *made)
{
	struct dpx_dfs_parent *dead = NULL;
	pthread_mutex_lock(&parents->lock);
	struct dpx_dfs_parent *other = find_locked(parents, made->path, made->path_len, made->hash);
	if (other)
		drop_locked(parents, other, &dead);
	else if (parents->count == DPX_DFS_PARENTS)
		drop_locked(parents, parents->oldest, &dead);
	made->chain = parents->buckets[made->hash % BUCKETS];
	parents->buckets[made->hash % BUCKETS] = made;
	link_newest(parents, made);
	made->listed = 1;
	parents->count++;
	pthread_mutex_unlock(&parents->lock);
	bury(parents, dead);
}

static int look_up(struct dpx_dfs_parents *parents, abi_obj *above, const char *name, abi_obj **obj)
{
	char text[ABI_MAX_NAME + 1];
	mode_t mode;
	size_t len = strlen(name);
	if (len > ABI_MAX_NAME)
		return ENAMETOOLONG;
	memcpy(text, name, len + 1);
	int rc = parents->dfs->dfs_lookup_rel(parents->mount, above, text, parents->flags, obj, &mode, NULL);
	if (rc || S_ISDIR(mode))
		return rc;
	parents->dfs->dfs_release(*obj);
	return ENOTDIR;
}

/* The directory at the first `len` bytes of the path, whose name there begins at `from`, in the one above it. */
static int make(struct dpx_dfs_parents *parents, const struct dpx_dfs_parent *above, const char *path, size_t from,
		size_t len, struct dpx_dfs_parent **out)
{
	struct dpx_dfs_parent *made = calloc(1, sizeof(*made));
	if (made)
		made->path = strndup(path, len);
	int rc = made && made->path ? look_up(parents, above->obj, made->path + from, &made->obj) : ENOMEM;
	if (rc) {
		if (made)
			free(made->path);
		free(made);
		return rc;
	}
	made->path_len = len;
	made->hash = hash_of(path, len);
	made->looked_up = dpx_now_ns();
	made->holders = 1;
	keep(parents, made);
	*out = made;
	return 0;
}

/* The last directory of the way that is known, and how much of the path leads there. */
static struct dpx_dfs_parent *nearest(struct dpx_dfs_parents *parents, const char *path, size_t len, size_t *known)
{
	for (*known = len; *known;) {
		struct dpx_dfs_parent *found = recall(parents, path, *known);
		if (found)
			return found;
		while (*known && path[--*known] != '/')
			;
	}
	return &parents->root;
}

int dpx_dfs_parents_get(struct dpx_dfs_parents *parents, const char *path, size_t len, struct dpx_dfs_parent **out,
			int *recalled)
{
	size_t at;
	struct dpx_dfs_parent *above = nearest(parents, path, len, &at), *below = NULL;
	*recalled |= at > 0;
	while (at < len) { /* step by step: a path may have more parts than a thread's stack has room for */
		size_t from = at + (at > 0);
		for (at = from; at < len && path[at] != '/';)
			at++;
		int rc = make(parents, above, path, from, at, &below);
		dpx_dfs_parents_release(parents, above);
		if (rc)
			return rc;
		above = below;
	}
	*out = above;
	return 0;
}

void dpx_dfs_parents_release(struct dpx_dfs_parents *parents, struct dpx_dfs_parent *parent)
{
	if (parent == &parents->root)
		return;
	pthread_mutex_lock(&parents->lock);
	int last = --parent->holders == 0 && !parent->listed;
	pthread_mutex_unlock(&parents->lock);
	if (last)
		dispose(parents, parent);
}

static int is_above(const char *path, size_t len, const struct dpx_dfs_parent *parent)
{
	size_t n = parent->path_len;
	return n <= len && memcmp(path, parent->path, n) == 0 && (n == len || path[n] == '/');
}

static int is_below(const char *path, size_t len, const struct dpx_dfs_parent *parent)
{
	size_t n = parent->path_len;
	return n >= len && memcmp(path, parent->path, len) == 0 && (n == len || parent->path[len] == '/');
}

static void forget(struct dpx_dfs_parents *parents, const char *path, size_t len,
		   int (*meant)(const char *path, size_t len, const struct dpx_dfs_parent *parent))
{
	struct dpx_dfs_parent *dead = NULL, *older;
	pthread_mutex_lock(&parents->lock);
	for (struct dpx_dfs_parent *parent = parents->newest; parent; parent = older) {
		older = parent->older;
		if (meant(path, len, parent))
			drop_locked(parents, parent, &dead);
	}
	pthread_mutex_unlock(&parents->lock);
	bury(parents, dead);
}

void dpx_dfs_parents_forget_above(struct dpx_dfs_parents *parents, const char *path, size_t len)
{
	forget(parents, path, len, is_above);
}

void dpx_dfs_parents_forget_below(struct dpx_dfs_parents *parents, const char *path, size_t len)
{
	forget(parents, path, len, is_below);
}
