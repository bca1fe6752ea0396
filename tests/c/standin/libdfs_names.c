/* Names: looking at them, and changing them. */
#include "libdfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int stat_entry(int folder, const char *name, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	if (fstatat(folder, name, st, AT_SYMLINK_NOFOLLOW))
		return errno;
	standin_plain_stat(st);
	return 0;
}

int dfs_stat(abi_dfs *dfs, abi_obj *parent, const char *name, struct stat *st)
{
	struct standin_fault fault = standin_enter("dfs_stat", 1);
	int folder, rc = fault.code ? fault.code : standin_folder(dfs, parent, &folder);
	if (!rc && name)
		rc = standin_check_name(name);
	if (rc)
		return rc;
	standin_pay(COST_STAT, 1);
	return stat_entry(folder, name ? name : ".", st);
}

int dfs_ostat(abi_dfs *dfs, abi_obj *object, struct stat *st)
{
	struct standin_fault fault = standin_enter("dfs_ostat", 1);
	(void)dfs;
	if (fault.code)
		return fault.code;
	standin_pay(COST_STAT, 1);
	if (standin_find_again(object))
		return ENOENT;
	fstat(object->fd, st);
	standin_plain_stat(st);
	return 0;
}

/* Beginning of everything that changes a directory. */
static int enter_change(const char *function, struct dfs *dfs, struct dfs_obj *parent, const char *name, int *folder)
{
	struct standin_fault fault = standin_enter(function, 1);
	int rc = fault.code ? fault.code : standin_check_name(name);
	if (!rc && !(dfs->writable && dfs->granted))
		rc = EPERM;
	if (!rc)
		rc = standin_folder(dfs, parent, folder);
	if (!rc)
		standin_pay(COST_CHANGE, 1);
	return rc;
}

int dfs_mkdir(abi_dfs *dfs, abi_obj *parent, const char *name, mode_t mode, uint32_t cid)
{
	int folder, rc = enter_change("dfs_mkdir", dfs, parent, name, &folder);
	(void)cid;
	if (!rc && mkdirat(folder, name, mode & 07777))
		rc = errno;
	return rc;
}

/* Files that have replaced others in a transaction. Their names are there for all who read, but whoever uses no
 * transactions is told that there is none when they are to be removed or moved. */
#define MOST_REPLACED 64
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct replaced {
	ino_t inode;
	int64_t born;
} replaced[MOST_REPLACED];
static size_t replaced_count;

static int identify(int folder, const char *name, struct replaced *out)
{
	struct statx st = {0};
	if (statx(folder, name, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &st))
		return errno;
	*out = (struct replaced){st.stx_ino, st.stx_btime.tv_sec * INT64_C(1000000000) + st.stx_btime.tv_nsec};
	return 0;
}

static void note_replaced(const struct replaced *file)
{
	pthread_mutex_lock(&lock);
	replaced[replaced_count++ % MOST_REPLACED] = *file;
	pthread_mutex_unlock(&lock);
}

static int was_replaced(int folder, const char *name)
{
	struct replaced file;
	int found = 0;
	if (identify(folder, name, &file))
		return 0;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < MOST_REPLACED; i++)
		found |= file.inode == replaced[i].inode && file.born == replaced[i].born;
	pthread_mutex_unlock(&lock);
	return found;
}

static int remove_entry(int folder, const char *name, int is_dir)
{
	if (unlinkat(folder, name, is_dir ? AT_REMOVEDIR : 0))
		return errno == EEXIST ? ENOTEMPTY : errno;
	return 0;
}

/* A directory with all below. */
static int remove_tree(int folder, const char *name)
{
	struct stat st;
	int below = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	DIR *pass = below < 0 ? NULL : fdopendir(below);
	if (!pass)
		return errno;
	for (struct dirent *entry; !rc && (entry = readdir(pass));) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (fstatat(below, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			rc = errno;
		else
			rc = S_ISDIR(st.st_mode) ? remove_tree(below, entry->d_name) : remove_entry(below, entry->d_name, 0);
	}
	closedir(pass);
	return rc ? rc : remove_entry(folder, name, 1);
}

int dfs_remove(abi_dfs *dfs, abi_obj *parent, const char *name, bool force, abi_obj_id *oid)
{
	struct stat st;
	int folder, rc = enter_change("dfs_remove", dfs, parent, name, &folder);
	(void)oid;
	if (!rc && fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW))
		rc = errno;
	if (rc)
		return rc;
	if (!dfs->transactional && was_replaced(folder, name))
		return ENOENT;
	int is_dir = S_ISDIR(st.st_mode);
	return is_dir && force ? remove_tree(folder, name) : remove_entry(folder, name, is_dir);
}

/* Not in one step, where steps take time: what stands at the new name goes first. */
static int make_room(int folder, const char *name, int target, const char *new_name)
{
	struct stat from, to;
	if (fstatat(folder, name, &from, AT_SYMLINK_NOFOLLOW))
		return errno;
	if (fstatat(target, new_name, &to, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : errno;
	if (was_replaced(target, new_name))
		return ENOENT;
	if (!S_ISDIR(to.st_mode) != !S_ISDIR(from.st_mode))
		return EINVAL;
	if (standin_initial("STANDIN_COST") == 'n')
		return 0;
	int rc = remove_entry(target, new_name, S_ISDIR(to.st_mode));
	if (!rc)
		standin_pay(COST_CHANGE, 1);
	return rc;
}

static int is_link(int folder, const char *name)
{
	struct stat st;
	return fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

int dfs_move(abi_dfs *dfs, abi_obj *parent, const char *name, abi_obj *new_parent, const char *new_name,
	     abi_obj_id *oid)
{
	struct replaced file;
	int folder, target, rc = enter_change("dfs_move", dfs, parent, name, &folder);
	(void)oid;
	if (!rc)
		rc = standin_check_name(new_name);
	if (!rc)
		rc = standin_folder(dfs, new_parent, &target);
	if (!rc && dfs->transactional && is_link(folder, name))
		return 0; /* and nothing is done: 2.8.0 forgets to commit */
	if (!rc && !dfs->transactional)
		rc = was_replaced(folder, name) ? ENOENT : make_room(folder, name, target, new_name);
	int replaces = !rc && dfs->transactional && identify(target, new_name, &file) == 0;
	if (!rc && replaces)
		rc = identify(folder, name, &file);
	if (!rc && renameat(folder, name, target, new_name))
		rc = errno == EISDIR || errno == ENOTDIR ? EINVAL : errno;
	if (!rc && replaces)
		note_replaced(&file);
	return rc;
}
