#include "dir_read.h"

#include <errno.h>
#include <stdlib.h>

#include "dir_pass.h"

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
	dpx_dir_drop_marked(names);
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
		struct dpx_dir_pass pass = {.job = job, .dir = dir, .names = &seen, .known = names, .held = names->bytes};
		size_t unseen = 0;
		rc = dpx_dir_pass(&pass);
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
static int look_through(const struct dpx_io *io, void *dir, const char *name, enum dpx_look *look, uint64_t *size,
			struct dpx_handle *handle)
{
	struct dpx_glance glance = {.follow = 1, .size = 1};
	struct dpx_stat st;
	int rc = dpx_dir_ask(io, dir, name, &glance, handle);
	if (!rc) {
		*look = glance.stat.kind == DPX_KIND_FILE ? DPX_LOOK_LISTED : DPX_LOOK_OUT;
		*size = glance.stat.size;
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
		 uint64_t *size, uint64_t *inode, struct dpx_handle *handle)
{
	struct dpx_glance glance = {.size = 1};
	*inode = 0;
	*size = DPX_SIZE_UNKNOWN;
	*look = DPX_LOOK_GONE;
	if (handle)
		handle->len = 0;
	if (kind == DPX_KIND_LINK)
		return look_through(io, dir, name, look, size, handle);
	int rc = dpx_dir_ask(io, dir, name, &glance, handle);
	if (rc == ENOENT)
		return 0;
	if (rc)
		return rc;
	*inode = glance.stat.inode;
	switch (glance.stat.kind) {
	case DPX_KIND_FILE:
		*look = DPX_LOOK_LISTED;
		*size = glance.stat.size;
		return 0;
	case DPX_KIND_LINK:
		return look_through(io, dir, name, look, size, handle);
	case DPX_KIND_OTHER:
		*look = DPX_LOOK_OUT;
		return 0;
	case DPX_KIND_DIR:
	case DPX_KIND_UNKNOWN:
		break;
	}
	return 0;
}
