/* The I/O table: all that the engine asks of a store. `posix` (io_posix.c) serves directories; `dfs` (libdfs)
 * is the second implementation and fits the same hooks. Model: a table of function pointers with designated
 * initialisers, each hook saying what it must do, when it is called, and from which thread.
 *
 * Every hook returns 0 or a positive errno. Paths are NUL-terminated bytes relative to the mounted root,
 * without a leading '/', "" for the root itself. All hooks may be called from several threads at once on one
 * mount; on one file, from one thread at a time. Hooks may block: they run without the GIL.
 */
#ifndef DPX_IO_H
#define DPX_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DPX_SIZE_UNKNOWN UINT64_MAX

enum dpx_kind { DPX_KIND_FILE, DPX_KIND_DIR, DPX_KIND_LINK, DPX_KIND_OTHER, DPX_KIND_UNKNOWN };

struct dpx_stat {
	enum dpx_kind kind;
	uint64_t size;     /* bytes */
	int64_t mtime_ns;  /* since the epoch */
	uint64_t device;   /* with inode: identity of the file where the store has one, else 0 */
	uint64_t inode;
	uint32_t mode;
	uint32_t links; /* names of the file, 0 where the store does not count them */
};

/* One entry as a pass over its directory sees it. */
struct dpx_dirent {
	const char *name;   /* borrowed for the call, NUL-terminated */
	size_t name_len;
	enum dpx_kind kind; /* DPX_KIND_UNKNOWN where a pass does not tell */
	uint64_t inode;     /* 0 where the store has none */
	uint64_t size;      /* DPX_SIZE_UNKNOWN where a pass does not tell */
};

/* Called by `dir_list` once per entry, "." and ".." left out. Non-zero stops the pass, which returns it. */
typedef int (*dpx_dirent_fn)(void *arg, const struct dpx_dirent *entry);

struct dpx_io {
	const char *name;

	/* Life of a mount. spec: what to open (posix: a directory's path). *mount: owned by the caller until
	 * unmount. unmount accepts NULL and is called when no file of the mount is open. */
	int (*mount)(const char *spec, void **mount);
	void (*unmount)(void *mount);

	/* Reading. open: *file is owned by the caller until close; opening a directory, or its first read,
	 * fails with EISDIR. Opening never waits for a peer (as a plain open of a pipe does).
	 * fstat asks the open file for its size (a store may answer DPX_SIZE_UNKNOWN: then readers read until
	 * a short answer). read: up to len bytes at offset into buf; *got < len only at the end of the file. */
	int (*open)(void *mount, const char *path, void **file);
	int (*fstat)(void *file, struct dpx_stat *out);
	int (*read)(void *file, void *buf, size_t len, uint64_t offset, size_t *got);
	void (*close)(void *file);

	/* Names. stat follows symbolic links when follow is non-zero. */
	int (*stat)(void *mount, const char *path, int follow, struct dpx_stat *out);

	/* Directories, opened once and then asked by name: what listings walk with. A handle is used by one thread
	 * at a time; a mount may have several open on one directory. Any of these may be asked again and again.
	 * dir_open: the path may be longer than PATH_MAX; a symbolic link at its end is followed only if follow
	 * is non-zero, else it is ENOTDIR. dir_list: one pass over all entries; with_sizes is a hint to a store
	 * that can fetch sizes along with the names. dir_stat: one entry, or "" for the directory itself.
	 * dir_version: a number that differs after an entry was added, removed or renamed; 0 when the store
	 * cannot vouch for that, for instance because the last change is too recent for its clock. */
	int (*dir_open)(void *mount, const char *path, int follow, void **dir);
	int (*dir_list)(void *dir, int with_sizes, dpx_dirent_fn entry, void *arg);
	int (*dir_stat)(void *dir, const char *name, int follow, struct dpx_stat *out);
	int (*dir_version)(void *dir, uint64_t *version);
	void (*dir_close)(void *dir);

	/* Writing. create: new or emptied file for writing; write: all of len bytes at offset, or an error;
	 * sync makes the content durable before a rename shows it. mkdir: one level, EEXIST when it is there.
	 * rename replaces what stood at `to`. remove: a file or an empty directory. */
	int (*create)(void *mount, const char *path, void **file);
	int (*write)(void *file, const void *buf, size_t len, uint64_t offset);
	int (*sync)(void *file);
	int (*rename)(void *mount, const char *from, const char *to);
	int (*remove)(void *mount, const char *path);
	int (*mkdir)(void *mount, const char *path);
};

extern const struct dpx_io dpx_io_posix;

#endif
