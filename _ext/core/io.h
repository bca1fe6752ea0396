/* The I/O table: all that the engine asks of a store. `posix` (io_posix.c) serves directories, `dfs` (io_dfs.c)
 * DAOS containers through libdfs. Model: a table of function pointers with designated
 * initialisers, each hook saying what it must do, when it is called, and from which thread.
 *
 * Every hook returns 0 or a positive errno. Paths are NUL-terminated bytes relative to the mounted root,
 * without a leading '/', "" for the root itself. All hooks may be called from several threads at once on one
 * mount; on one file, from one thread at a time, but for writes at different offsets. Hooks may block: they run without
 * the GIL.
 */
#ifndef DPX_IO_H
#define DPX_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DPX_SIZE_UNKNOWN UINT64_MAX

/* For a sentence on why a mount failed. */
#define DPX_WHY_ROOM 512

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

/* What is asked of an entry, and what is told. */
struct dpx_glance {
	int follow;    /* symbolic links */
	int size;      /* 0: its kind will do */
	void *handle;  /* NULL, or room for so many bytes: of a regular file, what handle_save would give */
	size_t room;
	size_t len;    /* told: of the handle; 0: there is none */
	struct dpx_stat stat; /* told; of a file whose size was not asked for, it may be DPX_SIZE_UNKNOWN */
};

/* Called by `dir_list` once per entry, "." and ".." left out. Non-zero stops the pass, which returns it. */
typedef int (*dpx_dirent_fn)(void *arg, const struct dpx_dirent *entry);

/* How a new file is to be; zeros: as the store has it. */
struct dpx_new_file {
	unsigned mode;            /* permissions */
	const char *object_class; /* by name, or NULL; DAOS only */
	uint64_t chunk_bytes;     /* DAOS only */
};

/* A read that was started and has come to its end. */
struct dpx_landing {
	void *tag; /* as it was started with */
	int err;
	size_t got;
};

/* Most landings that one look at a queue gives, and reads that a queue holds. */
#define DPX_QUEUE_LANDINGS 64
#define DPX_QUEUE_FLIGHTS 256

struct dpx_io {
	const char *name;

	/* fstat is a round trip of its own: readers that do not know a file's size read first, and ask only when
	 * what they read into was filled. */
	int size_costs;

	/* mount may wait for other machines, until they are given up on. */
	int mount_waits;

	/* Called before mount, by the thread that is to use it: in a forked child a library may hold things of that thread
	 * that were its parent's. Waits for no other machine. NULL: there is nothing to do. */
	int (*renew)(char why[DPX_WHY_ROOM]);

	/* Life of a mount. spec: what to open (posix: a directory's path; dfs: POOL/CONTAINER). *mount: owned by the
	 * caller until unmount. why: "" before; a sentence for the user where the errno alone does not say enough.
	 * unmount accepts NULL and is called when no file of the mount is open. */
	int (*mount)(const char *spec, void **mount, char why[DPX_WHY_ROOM]);
	void (*unmount)(void *mount);

	/* Reading. open: *file is owned by the caller until close; opening a directory, or its first read,
	 * fails with EISDIR. Opening never waits for a peer (as a plain open of a pipe does).
	 * fstat asks the open file for its size (a store may answer DPX_SIZE_UNKNOWN: then readers read until
	 * a short answer). read: up to len bytes at offset into buf; *got < len only at the end of the file. */
	int (*open)(void *mount, const char *path, void **file);
	int (*fstat)(void *file, struct dpx_stat *out);
	int (*read)(void *file, void *buf, size_t len, uint64_t offset, size_t *got);
	void (*close)(void *file);

	/* Opening without a round trip; both NULL where opening costs none. handle_save: an open file as bytes, *len of
	 * them; ENOBUFS: more than `room`. open_saved: the file again, on any mount of the same container, in any
	 * process, at any time later; the path is the one that it was opened by. Neither asks the store, so the file may
	 * be gone: what is not as it was when the handle was saved is for the caller to look at anew, by path. An error:
	 * the bytes are of no use here. */
	int (*handle_save)(void *file, void *buf, size_t room, size_t *len);
	int (*open_saved)(void *mount, const char *path, const void *buf, size_t len, void **file);

	/* Reading without waiting; all NULL where a store has no such thing. queue_open: an error means that read() has
	 * to do. queue_close: with nothing under way. read_start, from any thread: as read(), of len > 0; on an error
	 * nothing was started (EAGAIN: DPX_QUEUE_FLIGHTS are under way). The file stays open and the memory
	 * in place until the read has landed. An answer of 0 bytes is not looked into, as read() does. read_poll, from one
	 * thread at a time: reads that have landed, at most DPX_QUEUE_LANDINGS, waiting at most wait_ms for the first; 0
	 * or an errno, and then they are still under way. */
	int (*queue_open)(void *mount, void **queue);
	void (*queue_close)(void *queue);
	int (*read_start)(void *queue, void *file, void *buf, size_t len, uint64_t offset, void *tag);
	int (*read_poll)(void *queue, unsigned wait_ms, struct dpx_landing *landed, unsigned *count);

	/* Names. stat follows symbolic links when follow is non-zero. */
	int (*stat)(void *mount, const char *path, int follow, struct dpx_stat *out);

	/* Directories, opened once and then asked by name: what listings walk with. A mount may have several handles
	 * open on one directory, and any of these may be asked again and again: dir_stat and dir_glance, and dir_list for
	 * different parts, by several threads at once. dir_open: the path may be longer than PATH_MAX; a symbolic link at
	 * its end is followed only if follow is non-zero, else it is ENOTDIR. dir_parts: into how many parts, at least 1,
	 * the store can cut this directory; NULL: one. dir_list: one pass over all entries of one part, which all together
	 * are those of the directory, each once. dir_stat: one entry, or "" for the directory itself. dir_glance: less
	 * than that for less; NULL where stat costs no more. dir_version: a number that differs after an entry was
	 * added, removed or renamed; 0 when the store cannot vouch for that, for instance because the last change is too
	 * recent for its clock. */
	int (*dir_open)(void *mount, const char *path, int follow, void **dir);
	int (*dir_parts)(void *dir, unsigned *parts);
	int (*dir_list)(void *dir, unsigned part, unsigned parts, dpx_dirent_fn entry, void *arg);
	int (*dir_stat)(void *dir, const char *name, int follow, struct dpx_stat *out);
	int (*dir_glance)(void *dir, const char *name, struct dpx_glance *glance);
	int (*dir_version)(void *dir, uint64_t *version);
	void (*dir_close)(void *dir);

	/* Writing. create: new or emptied file for writing, EINVAL: there is no such object class; write: all of len bytes at
	 * offset, or an error; truncate: the file ends at this size from now on, cut off or filled up with zeros; sync makes
	 * the content durable before a rename shows it. mkdir: one level, EEXIST when it is there.
	 * rename replaces what stood at `to`; not for links: of those DAOS 2.8 says in a balanced container that they were
	 * moved, and leaves them. remove: a file or an empty directory. */
	int (*create)(void *mount, const char *path, const struct dpx_new_file *how, void **file);
	int (*write)(void *file, const void *buf, size_t len, uint64_t offset);
	int (*truncate)(void *file, uint64_t size);
	int (*sync)(void *file);
	int (*rename)(void *mount, const char *from, const char *to);
	int (*remove)(void *mount, const char *path);
	int (*mkdir)(void *mount, const char *path);
};

extern const struct dpx_io dpx_io_posix;
extern const struct dpx_io dpx_io_dfs;

#endif
