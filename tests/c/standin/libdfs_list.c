/* Directories: their names in the order of a hash, all at once or in parts that are disjoint and complete. */
#include "libdfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What an anchor's buffer holds. */
struct place {
	uint64_t part, parts; /* of a directory cut into parts; parts 0 or 1: all of it */
	uint64_t after;       /* the hash of the name that was given last */
};

struct entry {
	uint64_t hash;
	char *name;
};

/* The names of a directory as they were when they were read. */
struct names {
	dev_t device;
	ino_t inode;
	struct timespec changed;
	int settled; /* a further change would have shown: the last one was not just then */
	size_t count, room;
	struct entry *entries;
};

/* Of those listed last: to read and sort them for each call would cost more than what is to be measured. */
#define KEPT 8
static struct names kept[KEPT];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void take_lock(void)
{
	pthread_mutex_lock(&lock);
}

static void give_lock(void)
{
	pthread_mutex_unlock(&lock);
}

/* A child must not find it held by a thread that it does not have. */
__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(take_lock, give_lock, give_lock);
}

/* FNV-1a: two names of one hash are not met in a test. */
static uint64_t hash_of(const char *name)
{
	uint64_t hash = UINT64_C(14695981039346656037);
	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * UINT64_C(1099511628211);
	return hash;
}

static int by_hash(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static int add(struct names *names, const char *name)
{
	if (names->count == names->room) {
		names->room = names->room * 2 + 64;
		names->entries = realloc(names->entries, names->room * sizeof(*names->entries));
	}
	if (!names->entries)
		return ENOMEM;
	names->entries[names->count++] = (struct entry){.hash = hash_of(name), .name = strdup(name)};
	return 0;
}

static int read_names(int folder, struct names *names)
{
	int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *pass = again < 0 ? NULL : fdopendir(again);
	struct dirent *found;
	if (!pass)
		return errno;
	while (!rc && (found = readdir(pass)))
		if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0)
			rc = add(names, found->d_name);
	closedir(pass);
	qsort(names->entries, names->count, sizeof(*names->entries), by_hash);
	return rc;
}

static void forget(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->entries[i].name);
	free(names->entries);
	*names = (struct names){0};
}

static int is_settled(const struct timespec *changed)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - changed->tv_sec) * 1000000000L + now.tv_nsec - changed->tv_nsec > 50000000;
}

/* With the lock held: the names of the directory, read anew if it may have changed. */
static int names_of(int folder, int begins, struct names **out)
{
	static unsigned next;
	struct stat st;
	struct names *names = kept;
	if (fstat(folder, &st))
		return errno;
	while (names < kept + KEPT && (names->inode != st.st_ino || names->device != st.st_dev))
		names++;
	if (names == kept + KEPT)
		names = &kept[next++ % KEPT];
	*out = names;
	if (names->inode == st.st_ino && names->changed.tv_sec == st.st_ctim.tv_sec &&
	    names->changed.tv_nsec == st.st_ctim.tv_nsec && (names->settled || !begins))
		return 0;
	forget(names);
	names->device = st.st_dev;
	names->inode = st.st_ino;
	names->changed = st.st_ctim;
	names->settled = is_settled(&st.st_ctim);
	return read_names(folder, names);
}

/* Where the names after this hash begin. */
static size_t begin_of(const struct names *names, uint64_t after)
{
	size_t low = 0, high = names->count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (names->entries[mid].hash <= after)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Up to *count entries from where the anchor stands. */
static int list(int folder, abi_anchor *anchor, uint32_t *count, struct dirent *entries)
{
	struct names *names = NULL;
	struct place place;
	uint32_t n = 0;
	memcpy(&place, anchor->da_buf, sizeof(place));
	pthread_mutex_lock(&lock);
	int rc = names_of(folder, !anchor->da_type, &names);
	size_t at = rc || !anchor->da_type ? 0 : begin_of(names, place.after);
	for (; !rc && n < *count && at < names->count; at++) {
		const struct entry *entry = &names->entries[at];
		if (place.parts > 1 && entry->hash % place.parts != place.part)
			continue;
		snprintf(entries[n++].d_name, sizeof(entries->d_name), "%s", entry->name);
		place.after = entry->hash;
	}
	anchor->da_type = rc || at < names->count ? 2 : ABI_ANCHOR_EOF;
	pthread_mutex_unlock(&lock);
	memcpy(anchor->da_buf, &place, sizeof(place));
	*count = n;
	return rc;
}

/* Types are not told: d_type stays as it was. */
int dfs_readdir(abi_dfs *dfs, abi_obj *dir, abi_anchor *anchor, uint32_t *count, struct dirent *entries)
{
	struct standin_fault fault = standin_enter("dfs_readdir", 1);
	int folder = -1, rc = fault.code ? fault.code : standin_folder(dfs, dir, &folder);
	if (rc == ENOENT) { /* a directory that was removed is empty */
		*count = 0;
		anchor->da_type = ABI_ANCHOR_EOF;
		return 0;
	}
	if (rc || anchor->da_type == ABI_ANCHOR_EOF) {
		*count = 0;
		return rc;
	}
	standin_pay(COST_ROUND, 1);
	rc = list(folder, anchor, count, entries);
	standin_pay(COST_READDIR, *count);
	return rc;
}

static uint32_t parts_of(void)
{
	return (uint32_t)standin_number("STANDIN_PARTS");
}

static void put_anchor(abi_anchor *anchor, uint32_t part, uint32_t parts)
{
	struct place place = {.part = part, .parts = parts};
	*anchor = (abi_anchor){0};
	memcpy(anchor->da_buf, &place, sizeof(place));
}

/* No number but the store's own is taken, and 0, which asks for it. */
int dfs_obj_anchor_split(abi_obj *dir, uint32_t *count, abi_anchor *anchors)
{
	struct standin_fault fault = standin_enter("dfs_obj_anchor_split", 0);
	uint32_t parts = parts_of();
	if (fault.code)
		return fault.code;
	if (!S_ISDIR(dir->mode) || (*count && *count != parts))
		return EINVAL;
	*count = parts;
	for (uint32_t i = 0; anchors && i < parts; i++)
		put_anchor(&anchors[i], i, parts);
	return 0;
}

int dfs_obj_anchor_set(abi_obj *dir, uint32_t index, abi_anchor *anchor)
{
	struct standin_fault fault = standin_enter("dfs_obj_anchor_set", 0);
	if (fault.code)
		return fault.code;
	if (!S_ISDIR(dir->mode) || index >= parts_of())
		return EINVAL;
	put_anchor(anchor, index, parts_of());
	return 0;
}
