#include "dir_read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "path.h"

struct pass {
	struct dpx_dir_read *job;
	struct dpx_names *names;
	size_t held;    /* memory of earlier passes that are still kept */
	size_t unknown; /* entries whose kind the pass did not tell */
};

static int keep(struct pass *pass, int kind, const char *text)
{
	struct dpx_dir_read *job = pass->job;
	if (kind == DPX_KIND_OTHER)
		job->left_out++;
	return kind != DPX_KIND_OTHER && (kind != DPX_KIND_DIR || job->keep_dirs) &&
	       dpx_name_resumes(text, job->inside);
}

static int on_entry(void *arg, const struct dpx_dirent *entry)
{
	struct pass *pass = arg;
	struct dpx_names *names = pass->names;
	struct dpx_name like = {.inode = entry->inode, .size = entry->size, .kind = (uint8_t)entry->kind};
	int rc = dpx_names_add(names, entry->name, entry->name_len, &like);
	if (rc)
		return rc;
	if (entry->kind == DPX_KIND_UNKNOWN)
		pass->unknown++;
	else if (!keep(pass, entry->kind, names->entries[names->count - 1].text))
		dpx_names_pop(names);
	return pass->job->grown(pass->job->arg, pass->held + names->bytes);
}

/* For stores that do not tell kinds with the names. */
static int find_kinds(struct pass *pass, void *dir)
{
	struct dpx_names *names = pass->names;
	size_t kept = 0;
	for (size_t i = 0; i < names->count; i++) {
		struct dpx_name entry = names->entries[i];
		int wanted = 1;
		if (entry.kind == DPX_KIND_UNKNOWN) {
			struct dpx_stat st;
			int rc = pass->job->grown(pass->job->arg, pass->held + names->bytes);
			if (!rc)
				rc = pass->job->io->dir_stat(dir, entry.text, 0, &st);
			if (rc && rc != ENOENT)
				return rc;
			if (!rc) {
				dpx_name_set_kind(&entry, st.kind);
				entry.inode = st.inode;
				entry.size = st.kind == DPX_KIND_FILE ? st.size : DPX_SIZE_UNKNOWN;
			}
			wanted = !rc && keep(pass, entry.kind, entry.text);
		}
		if (wanted)
			names->entries[kept++] = entry;
	}
	names->count = kept;
	return 0;
}

static int read_once(struct pass *pass, void *dir)
{
	struct dpx_dir_read *job = pass->job;
	job->left_out = 0;
	int rc = job->io->dir_list(dir, job->sizes, on_entry, pass);
	if (!rc && pass->unknown)
		rc = find_kinds(pass, dir);
	if (!rc)
		dpx_names_sort(pass->names);
	return rc;
}

/* One inode under several names, or a name that the last pass did not see: look which of them stand. A file
 * with one link keeps one name; hard links keep all that are there. With none there, one name stays, marked,
 * because its file may have moved on in the meantime. */
static int settle_group(struct dpx_dir_read *job, void *dir, struct dpx_names *names,
			const struct dpx_inode_at *group, size_t count)
{
	struct dpx_name *last = NULL;
	int standing = 0;
	for (size_t i = 0; i < count; i++) {
		struct dpx_name *entry = &names->entries[group[i].index];
		struct dpx_stat st;
		int rc = job->grown(job->arg, names->bytes);
		if (!rc)
			rc = job->io->dir_stat(dir, entry->text, 0, &st);
		if (rc && rc != ENOENT && rc != ENOTDIR)
			return rc;
		if (!last || last->mark == DPX_MARK_CHECK)
			last = entry;
		int here = !rc && st.kind == entry->kind && st.inode == entry->inode;
		if (here && (!standing || (st.links != 1 && st.kind != DPX_KIND_DIR))) {
			entry->mark = DPX_MARK_NONE;
			standing = 1;
		} else {
			entry->mark = DPX_MARK_DROPPED;
		}
	}
	if (!standing)
		last->mark = DPX_MARK_CHECK;
	return 0;
}

static int settle(struct dpx_dir_read *job, void *dir, struct dpx_names *names)
{
	struct dpx_inode_at *pairs = dpx_names_by_inode(names);
	int rc = pairs ? 0 : ENOMEM;
	for (size_t i = 0, end; !rc && i < names->count; i = end) {
		for (end = i + 1; end < names->count && pairs[i].inode && pairs[end].inode == pairs[i].inode;)
			end++;
		if (end - i > 1 || names->entries[pairs[i].index].mark == DPX_MARK_CHECK)
			rc = settle_group(job, dir, names, pairs + i, end - i);
	}
	free(pairs);
	size_t kept = 0;
	for (size_t i = 0; i < names->count; i++)
		if (names->entries[i].mark != DPX_MARK_DROPPED)
			names->entries[kept++] = names->entries[i];
	names->count = kept;
	return rc;
}

int dpx_dir_read(struct dpx_dir_read *job, void *dir, struct dpx_names *names)
{
	uint64_t before = 0, now = 0;
	unsigned calm = 0;
	int quiet = 0;
	int rc = job->io->dir_version(dir, &before);
	for (unsigned turn = 0; !rc && !quiet && turn < DPX_DIR_PASSES && calm < 2; turn++) {
		struct dpx_names seen = {0};
		struct pass pass = {.job = job, .names = &seen, .held = names->bytes};
		size_t unseen = 0;
		rc = read_once(&pass, dir);
		if (!rc)
			rc = job->io->dir_version(dir, &now);
		quiet = !rc && before && before == now;
		before = now;
		if (quiet || turn == 0) { /* a quiet pass is the whole truth; the first is all there is */
			dpx_names_free(names);
			*names = seen;
			continue;
		}
		if (!rc)
			rc = dpx_names_merge(names, &seen, &unseen);
		calm = unseen ? 0 : calm + 1;
		dpx_names_free(&seen);
	}
	job->version = now;
	if (!rc && !quiet)
		rc = settle(job, dir, names);
	if (rc)
		dpx_names_free(names);
	return rc;
}

/* What a symbolic link stands for in a listing: the file it leads to, itself where it leads nowhere. */
static int look_through(const struct dpx_io *io, void *dir, const char *name, enum dpx_look *look, uint64_t *size)
{
	struct dpx_stat st;
	int rc = io->dir_stat(dir, name, 1, &st);
	if (!rc) {
		*look = st.kind == DPX_KIND_FILE ? DPX_LOOK_LISTED : DPX_LOOK_OUT;
		*size = st.size;
		return 0;
	}
	if (rc != ENOENT && rc != ELOOP && rc != ENOTDIR && rc != EACCES && rc != EPERM && rc != ENAMETOOLONG)
		return rc;
	rc = io->dir_stat(dir, name, 0, &st);
	*size = DPX_SIZE_UNKNOWN;
	*look = rc == ENOENT ? DPX_LOOK_GONE : DPX_LOOK_LISTED;
	return rc == ENOENT ? 0 : rc;
}

int dpx_dir_look(const struct dpx_io *io, void *dir, const char *name, int kind, enum dpx_look *look,
		 uint64_t *size, uint64_t *inode)
{
	struct dpx_stat st;
	*inode = 0;
	*size = DPX_SIZE_UNKNOWN;
	*look = DPX_LOOK_GONE;
	if (kind == DPX_KIND_LINK)
		return look_through(io, dir, name, look, size);
	int rc = io->dir_stat(dir, name, 0, &st);
	if (rc == ENOENT)
		return 0;
	if (rc)
		return rc;
	*inode = st.inode;
	switch (st.kind) {
	case DPX_KIND_FILE:
		*look = DPX_LOOK_LISTED;
		*size = st.size;
		return 0;
	case DPX_KIND_LINK:
		return look_through(io, dir, name, look, size);
	case DPX_KIND_OTHER:
		*look = DPX_LOOK_OUT;
		return 0;
	case DPX_KIND_DIR:
	case DPX_KIND_UNKNOWN:
		break;
	}
	return 0;
}
