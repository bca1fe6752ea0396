#include "dir_pass.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "path.h"

/* What one part of a pass gave. */
struct dpx_dir_part {
	struct dpx_names names;
	size_t counted; /* of its memory, in pass.bytes */
	size_t unknown; /* entries whose kind the pass did not tell */
	size_t left_out;
	struct dpx_dir_pass *pass;
};

static int is_wanted(const struct dpx_dir_read *job, int kind, const char *text)
{
	return kind != DPX_KIND_OTHER && (kind != DPX_KIND_DIR || job->keep_dirs) && dpx_name_resumes(text, job->inside);
}

/* An entry of unknown kind that comes before where to resume, whatever it is. */
static int is_past(const struct dpx_dir_read *job, char *text, size_t len)
{
	if (!job->inside || dpx_name_resumes(text, job->inside))
		return 0;
	memcpy(text + len, "/", 2); /* the arena left room for it */
	int past = !dpx_name_resumes(text, job->inside);
	text[len] = '\0';
	return past;
}

static int on_entry(void *arg, const struct dpx_dirent *entry)
{
	struct dpx_dir_part *part = arg;
	struct dpx_dir_pass *pass = part->pass;
	struct dpx_dir_read *job = pass->job;
	struct dpx_names *names = &part->names;
	int unknown = entry->kind == DPX_KIND_UNKNOWN, kind = unknown && !job->kinds ? DPX_KIND_FILE : (int)entry->kind;
	struct dpx_name like = {.inode = entry->inode, .size = entry->size, .kind = (uint8_t)kind};
	int rc = dpx_names_add(names, entry->name, entry->name_len, &like);
	if (rc)
		return rc;
	char *text = (char *)names->entries[names->count - 1].text;
	part->left_out += kind == DPX_KIND_OTHER;
	if (kind == DPX_KIND_UNKNOWN ? is_past(job, text, entry->name_len) : !is_wanted(job, kind, text))
		dpx_names_pop(names);
	else
		part->unknown += kind == DPX_KIND_UNKNOWN;
	size_t more = names->bytes - part->counted;
	part->counted = names->bytes;
	return job->grown(job->arg, pass->held + more + atomic_fetch_add(&pass->bytes, more));
}

static int list_part(void *of, size_t number)
{
	struct dpx_dir_pass *pass = of;
	struct dpx_dir_part *part = &pass->parts[number];
	return pass->job->io->dir_list(pass->dir, (unsigned)number, pass->part_count, on_entry, part);
}

/* The names, in as many parts as the store has them in. *unknown: how many have no kind yet. */
static int list_parts(struct dpx_dir_pass *pass, size_t *unknown)
{
	const struct dpx_io *io = pass->job->io;
	pass->part_count = 1;
	*unknown = 0;
	int rc = io->dir_parts ? io->dir_parts(pass->dir, &pass->part_count) : 0;
	if (rc)
		return rc;
	pass->parts = calloc(pass->part_count, sizeof(*pass->parts));
	if (!pass->parts)
		return ENOMEM;
	for (unsigned i = 0; i < pass->part_count; i++)
		pass->parts[i].pass = pass;
	size_t calls = !pass->job->kinds; /* where there are steps to come, the depth is judged by these alone */
	rc = pass->job->share(pass->job->arg, pass->part_count, calls, list_part, pass);
	for (unsigned i = 0; i < pass->part_count; i++) {
		struct dpx_dir_part *part = &pass->parts[i];
		if (!rc)
			rc = dpx_names_absorb(pass->names, &part->names);
		dpx_names_free(&part->names);
		*unknown += part->unknown;
		pass->left_out += part->left_out;
	}
	free(pass->parts);
	return rc;
}

/* What an earlier pass has told of it: 1, or 0 for nothing. */
static int recall(const struct dpx_dir_pass *pass, struct dpx_name *entry)
{
	char *text = (char *)entry->text;
	size_t at = pass->known->count ? dpx_names_find(pass->known, text) : SIZE_MAX;
	if (at == SIZE_MAX && pass->known->count) {
		size_t len = strlen(text);
		memcpy(text + len, "/", 2);
		at = dpx_names_find(pass->known, text);
		text[len] = '\0';
	}
	if (at == SIZE_MAX)
		return 0;
	const struct dpx_name *known = &pass->known->entries[at];
	dpx_name_set_kind(entry, known->kind);
	entry->inode = known->inode;
	entry->size = known->size;
	return 1;
}

int dpx_dir_ask(const struct dpx_io *io, void *dir, const char *name, struct dpx_glance *glance,
		struct dpx_handle *handle)
{
	glance->len = 0;
	glance->handle = handle ? handle->bytes : NULL;
	glance->room = handle ? sizeof(handle->bytes) : 0;
	int rc = io->dir_glance ? io->dir_glance(dir, name, glance)
				: io->dir_stat(dir, name, glance->follow, &glance->stat);
	if (handle) {
		handle->len = rc ? 0 : glance->len;
		handle->size = glance->stat.size;
	}
	return rc;
}

/* One entry of a kind that the pass did not tell. One that is gone is dropped. */
static int find_kind(struct dpx_dir_pass *pass, struct dpx_name *entry)
{
	struct dpx_dir_read *job = pass->job;
	struct dpx_glance glance = {.size = job->sizes};
	struct dpx_handle handle = {0};
	int rc = job->grown(job->arg, pass->held + pass->names->bytes);
	if (rc)
		return rc;
	if (!recall(pass, entry)) {
		rc = dpx_dir_ask(job->io, pass->dir, entry->text, &glance, job->keep_handle ? &handle : NULL);
		if (rc == ENOENT) {
			entry->mark = DPX_MARK_DROPPED;
			return 0;
		}
		if (rc)
			return rc;
		if (handle.len)
			job->keep_handle(job->arg, entry->text, &handle);
		dpx_name_set_kind(entry, glance.stat.kind);
		entry->inode = glance.stat.inode;
		entry->size = glance.stat.kind == DPX_KIND_FILE ? glance.stat.size : DPX_SIZE_UNKNOWN;
	}
	pass->left_out += entry->kind == DPX_KIND_OTHER;
	if (!is_wanted(job, entry->kind, entry->text))
		entry->mark = DPX_MARK_DROPPED;
	return 0;
}

static int find_some_kinds(void *of, size_t number)
{
	struct dpx_dir_pass *pass = of;
	size_t at = number * DPX_DIR_STEP, end = at + DPX_DIR_STEP;
	int rc = 0;
	for (; !rc && at < end && at < pass->names->count; at++)
		if (pass->names->entries[at].kind == DPX_KIND_UNKNOWN)
			rc = find_kind(pass, &pass->names->entries[at]);
	return rc;
}

void dpx_dir_drop_marked(struct dpx_names *names)
{
	size_t kept = 0;
	for (size_t i = 0; i < names->count; i++)
		if (names->entries[i].mark != DPX_MARK_DROPPED)
			names->entries[kept++] = names->entries[i];
	names->count = kept;
}

int dpx_dir_pass(struct dpx_dir_pass *pass)
{
	struct dpx_dir_read *job = pass->job;
	size_t unknown, steps;
	int rc = list_parts(pass, &unknown);
	if (!rc && unknown) {
		steps = (pass->names->count + DPX_DIR_STEP - 1) / DPX_DIR_STEP;
		rc = job->share(job->arg, steps, DPX_DIR_STEP, find_some_kinds, pass);
		dpx_dir_drop_marked(pass->names);
	}
	job->left_out = atomic_load(&pass->left_out);
	if (!rc)
		dpx_names_sort(pass->names);
	return rc;
}
