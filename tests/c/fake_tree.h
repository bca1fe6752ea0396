/* A tree of made-up files that counts what is open, fails at a chosen call, changes at a chosen call, or hangs;
 * and a listing of it as text. */
#ifndef DPX_TEST_FAKE_TREE_H
#define DPX_TEST_FAKE_TREE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "listing.h"

struct file {
	char name[32];
	size_t parent; /* index of the directory; its own is the root's */
	enum dpx_kind kind;
	uint64_t inode, size;
	size_t target; /* of a link: index, or SIZE_MAX for nowhere */
	int gone;
};

enum fake_call { CALL_OPEN, CALL_LIST, CALL_STAT, CALL_VERSION };

static struct fake {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct file *files;
	size_t count, capacity;
	uint64_t version, next_inode;
	atomic_long calls, open;
	atomic_long listed; /* entries that passes gave */
	long fail_at;       /* the call with this number fails; 0: none */
	int fail_with, failed;
	void (*before)(enum fake_call call, const char *name); /* sees each call first, without the lock */
	int hang;                                              /* dir_stat waits while it is set */
	int hanging;
	int hide_kinds, hide_inodes, tell_sizes, restless;
	unsigned parts; /* that passes come in; 0: one */
	int blind; /* dir_stat does not look for the name: large directories in no time */
	unsigned delay_us;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static size_t fake_add(size_t parent, const char *name, enum dpx_kind kind, uint64_t size)
{
	if (fake.count == fake.capacity) {
		fake.capacity = fake.capacity ? fake.capacity * 2 : 64;
		fake.files = realloc(fake.files, fake.capacity * sizeof(*fake.files));
		CHECK(fake.files);
	}
	struct file *file = &fake.files[fake.count];
	memset(file, 0, sizeof(*file));
	snprintf(file->name, sizeof(file->name), "%s", name);
	file->parent = parent;
	file->kind = kind;
	file->size = size;
	file->inode = ++fake.next_inode;
	file->target = SIZE_MAX;
	fake.version++;
	return fake.count++;
}

static void fake_reset(void)
{
	free(fake.files);
	fake.files = NULL;
	fake.count = fake.capacity = 0;
	fake.version = 1;
	fake.fail_at = fake.fail_with = fake.failed = 0;
	fake.before = NULL;
	fake.hang = fake.hanging = 0;
	fake.hide_kinds = fake.hide_inodes = fake.tell_sizes = fake.restless = fake.blind = 0;
	fake.delay_us = fake.parts = 0;
	atomic_store(&fake.calls, 0);
	atomic_store(&fake.listed, 0);
	fake_add(0, "", DPX_KIND_DIR, 0);
}

static size_t fake_find(size_t parent, const char *name, size_t len)
{
	for (size_t i = 1; i < fake.count; i++)
		if (fake.files[i].parent == parent && !fake.files[i].gone && strncmp(fake.files[i].name, name, len) == 0 &&
		    fake.files[i].name[len] == '\0')
			return i;
	return SIZE_MAX;
}

static void fake_rename(const char *from, size_t to_parent, const char *to)
{
	pthread_mutex_lock(&fake.lock);
	for (size_t i = 1; i < fake.count; i++)
		if (!fake.files[i].gone && fake.files[i].parent == to_parent && strcmp(fake.files[i].name, to) == 0)
			fake.files[i].gone = 1;
	size_t at = SIZE_MAX;
	for (size_t i = 1; i < fake.count; i++)
		if (!fake.files[i].gone && strcmp(fake.files[i].name, from) == 0)
			at = i;
	CHECK(at != SIZE_MAX);
	snprintf(fake.files[at].name, sizeof(fake.files[at].name), "%s", to);
	fake.files[at].parent = to_parent;
	fake.version++;
	pthread_mutex_unlock(&fake.lock);
}

static inline void fake_remove(const char *name)
{
	pthread_mutex_lock(&fake.lock);
	for (size_t i = 1; i < fake.count; i++)
		if (strcmp(fake.files[i].name, name) == 0)
			fake.files[i].gone = 1;
	fake.version++;
	pthread_mutex_unlock(&fake.lock);
}

/* Returns the errno that this call shall fail with. Takes the lock. */
static int fake_enter(enum fake_call call, const char *name)
{
	long number = atomic_fetch_add(&fake.calls, 1) + 1;
	if (fake.delay_us)
		nanosleep(&(struct timespec){.tv_nsec = fake.delay_us * 1000L}, NULL);
	if (fake.before)
		fake.before(call, name);
	pthread_mutex_lock(&fake.lock);
	while (fake.hang && call == CALL_STAT && *name) {
		fake.hanging = 1;
		pthread_cond_broadcast(&fake.changed);
		pthread_cond_wait(&fake.changed, &fake.lock);
	}
	if (number != fake.fail_at)
		return 0;
	fake.failed = 1;
	pthread_mutex_unlock(&fake.lock);
	return fake.fail_with;
}

static int fake_mount(const char *spec, void **mount, char why[DPX_WHY_ROOM])
{
	(void)why;
	(void)spec;
	*mount = &fake;
	return 0;
}

static void fake_unmount(void *mount)
{
	(void)mount;
}

static int fake_lookup(const char *path, size_t *at)
{
	*at = 0;
	while (*path) {
		size_t len = strcspn(path, "/");
		if (fake.files[*at].kind != DPX_KIND_DIR)
			return ENOTDIR;
		*at = fake_find(*at, path, len);
		if (*at == SIZE_MAX)
			return ENOENT;
		path += len + (path[len] == '/');
	}
	return 0;
}

static void fill_stat(const struct file *file, struct dpx_stat *out)
{
	*out = (struct dpx_stat){.kind = file->kind, .size = file->size, .links = 1};
	out->inode = fake.hide_inodes ? 0 : file->inode;
}

static int fake_stat(void *mount, const char *path, int follow, struct dpx_stat *out)
{
	(void)mount, (void)follow;
	size_t at;
	int rc = fake_enter(CALL_STAT, "");
	if (rc)
		return rc;
	rc = fake_lookup(path, &at);
	if (!rc)
		fill_stat(&fake.files[at], out);
	pthread_mutex_unlock(&fake.lock);
	return rc;
}

static int fake_dir_open(void *mount, const char *path, int follow, void **dir)
{
	(void)mount, (void)follow;
	size_t at = 0, *handle = malloc(sizeof(*handle));
	int rc = handle ? fake_enter(CALL_OPEN, path) : ENOMEM;
	if (!rc) {
		rc = fake_lookup(path, &at);
		if (!rc && fake.files[at].kind != DPX_KIND_DIR)
			rc = ENOTDIR;
		pthread_mutex_unlock(&fake.lock);
	}
	if (rc) {
		free(handle);
		return rc;
	}
	*handle = at;
	*dir = handle;
	atomic_fetch_add(&fake.open, 1);
	return 0;
}

static void fake_dir_close(void *dir)
{
	free(dir);
	atomic_fetch_sub(&fake.open, 1);
}

/* Entry by entry, and the store may change between two: as with a real directory. */
static int fake_dir_list(void *dir, unsigned part, unsigned parts, dpx_dirent_fn entry, void *arg)
{
	size_t parent = *(size_t *)dir;
	int rc = fake_enter(CALL_LIST, fake.files[parent].name);
	if (rc)
		return rc;
	for (size_t i = 1; !rc && i < fake.count; i++) {
		if (fake.files[i].gone || fake.files[i].parent != parent || i % parts != part)
			continue;
		struct file file = fake.files[i];
		struct dpx_dirent told = {
			.name = file.name,
			.name_len = strlen(file.name),
			.kind = fake.hide_kinds ? DPX_KIND_UNKNOWN : file.kind,
			.inode = fake.hide_inodes ? 0 : file.inode,
			.size = fake.tell_sizes && file.kind == DPX_KIND_FILE ? file.size : DPX_SIZE_UNKNOWN,
		};
		pthread_mutex_unlock(&fake.lock);
		atomic_fetch_add(&fake.listed, 1);
		rc = entry(arg, &told);
		pthread_mutex_lock(&fake.lock);
	}
	pthread_mutex_unlock(&fake.lock);
	return rc;
}

static int fake_dir_parts(void *dir, unsigned *parts)
{
	int rc = 0;
	*parts = fake.parts ? fake.parts : 1;
	if (fake.parts) {
		rc = fake_enter(CALL_LIST, fake.files[*(size_t *)dir].name);
		if (!rc)
			pthread_mutex_unlock(&fake.lock);
	}
	return rc;
}

static int fake_dir_stat(void *dir, const char *name, int follow, struct dpx_stat *out)
{
	size_t parent = *(size_t *)dir, at = parent;
	int rc = fake_enter(CALL_STAT, name);
	if (rc)
		return rc;
	if (*name)
		at = fake.blind ? 1 : fake_find(parent, name, strlen(name));
	if (at != SIZE_MAX && follow && fake.files[at].kind == DPX_KIND_LINK)
		at = fake.files[at].target;
	if (at == SIZE_MAX)
		rc = ENOENT;
	else
		fill_stat(&fake.files[at], out);
	pthread_mutex_unlock(&fake.lock);
	return rc;
}

static int fake_dir_version(void *dir, uint64_t *version)
{
	int rc = fake_enter(CALL_VERSION, fake.files[*(size_t *)dir].name);
	if (rc)
		return rc;
	*version = fake.restless ? 0 : fake.version;
	pthread_mutex_unlock(&fake.lock);
	return 0;
}

static const struct dpx_io fake_io = {
	.name = "fake",
	.mount = fake_mount,
	.unmount = fake_unmount,
	.stat = fake_stat,
	.dir_open = fake_dir_open,
	.dir_parts = fake_dir_parts,
	.dir_list = fake_dir_list,
	.dir_stat = fake_dir_stat,
	.dir_version = fake_dir_version,
	.dir_close = fake_dir_close,
};

static struct dpx_session *open_session(void)
{
	struct dpx_session *session;
	char why[DPX_WHY_ROOM];
	struct dpx_session_spec spec = {.io = &fake_io, .root = "fake"};
	CHECK(dpx_session_open(&spec, &session, why) == 0);
	return session;
}

static void close_session(struct dpx_session *session)
{
	CHECK(atomic_load(&session->counters.listings_live) == 0);
	CHECK(atomic_load(&session->counters.files_open) == 0);
	CHECK(atomic_load(&fake.open) == 0);
	CHECK(dpx_session_close(session, 5000) == 0);
	dpx_session_release(session);
}

struct result {
	char *text; /* "path size\n" of each entry */
	size_t len, capacity, entries;
	int err;
	struct dpx_list_counts counts;
};

static void keep(struct result *result, const struct dpx_list_entry *entry)
{
	if (result->capacity - result->len < entry->path_len + 32) {
		result->capacity = result->capacity * 2 + entry->path_len + 4096;
		result->text = realloc(result->text, result->capacity);
		CHECK(result->text);
	}
	memcpy(result->text + result->len, entry->path, entry->path_len);
	result->len += entry->path_len;
	result->len += (size_t)snprintf(result->text + result->len, 32, " %lld\n",
					entry->size == DPX_SIZE_UNKNOWN ? -1LL : (long long)entry->size);
	result->entries++;
}

static struct result list_in(struct dpx_session *session, const struct dpx_list_options *options)
{
	struct result result = {.text = calloc(1, 4096), .capacity = 4096};
	struct dpx_listing *listing;
	const struct dpx_list_entry *entries;
	size_t count;
	result.err = dpx_listing_open(session, options, &listing);
	if (result.err)
		return result;
	for (;;) {
		result.err = dpx_listing_next(listing, 50, &entries, &count);
		if (result.err != EAGAIN && (result.err || count == 0))
			break;
		for (size_t i = 0; i < count; i++)
			keep(&result, &entries[i]);
	}
	CHECK(dpx_listing_next(listing, 50, &entries, &count) == result.err); /* the end and errors stay */
	CHECK(count == 0);
	dpx_listing_counts(listing, &result.counts);
	dpx_listing_close(listing, 5000);
	return result;
}

static struct result list_path(const char *path, const char *after, unsigned depth)
{
	struct dpx_list_options options = {.path = path, .start_after = after, .recursive = 1, .sizes = 1, .depth = depth};
	struct dpx_session *session = open_session();
	struct result result = list_in(session, &options);
	close_session(session);
	return result;
}

static inline void expect(struct result result, const char *text)
{
	if (result.err || strcmp(result.text, text) != 0) {
		fprintf(stderr, "error %d, got:\n%swanted:\n%s", result.err, result.text, text);
		exit(1);
	}
	free(result.text);
}

/* a-b, a.txt, a/x, a/y, b/c/1, b/z, with a link to a file, one to a directory, one to nowhere, a socket */
static void small_tree(void)
{
	fake_reset();
	size_t b = fake_add(0, "b", DPX_KIND_DIR, 0);
	size_t a = fake_add(0, "a", DPX_KIND_DIR, 0);
	fake_add(0, "a.txt", DPX_KIND_FILE, 1);
	fake_add(a, "y", DPX_KIND_FILE, 4);
	fake_add(a, "x", DPX_KIND_FILE, 3);
	fake_add(0, "a-b", DPX_KIND_FILE, 2);
	fake_add(b, "z", DPX_KIND_FILE, 6);
	size_t c = fake_add(b, "c", DPX_KIND_DIR, 0);
	fake_add(c, "1", DPX_KIND_FILE, 5);
	fake.files[fake_add(0, "l1", DPX_KIND_LINK, 0)].target = 3;
	fake.files[fake_add(0, "l2", DPX_KIND_LINK, 0)].target = a;
	fake_add(0, "l3", DPX_KIND_LINK, 0);
	fake_add(0, "s", DPX_KIND_OTHER, 0);
}

#define SMALL_TREE "a-b 2\na.txt 1\na/x 3\na/y 4\nb/c/1 5\nb/z 6\nl1 1\nl3 -1\n"

static void big_tree(size_t dirs, size_t files)
{
	char name[32];
	fake_reset();
	for (size_t d = 0; d < dirs; d++) {
		snprintf(name, sizeof(name), "d%04zu", d);
		size_t dir = fake_add(0, name, DPX_KIND_DIR, 0);
		for (size_t f = 0; f < files; f++) {
			snprintf(name, sizeof(name), "f%06zu", (f * 7919) % files);
			fake_add(dir, name, DPX_KIND_FILE, f);
		}
	}
}

static const char *trigger; /* the change below happens once, just before this name is looked at or opened */
static enum fake_call trigger_call;
static void (*change)(void);

static void on_trigger(enum fake_call call, const char *name)
{
	if (change && call == trigger_call && strcmp(name, trigger) == 0) {
		void (*now)(void) = change;
		change = NULL;
		now();
	}
}

static void change_before(enum fake_call call, const char *name, void (*what)(void))
{
	trigger_call = call;
	trigger = name;
	change = what;
	fake.before = on_trigger;
}

#endif
