/* The inside of a listing: the tree of directory tables and the order of work on it. Private to listing.c,
 * list_tree.c and list_work.c. Every field is guarded by listing.lock unless it says otherwise. */
#ifndef DPX_LIST_TREE_H
#define DPX_LIST_TREE_H

#include <pthread.h>
#include <stdatomic.h>

#include "adapt.h"
#include "dir_read.h"
#include "handles_spool.h"
#include "listing.h"
#include "names.h"
#include "path.h"

#define DPX_LIST_CHUNK 256

enum node_state {
	NODE_NEW,     /* waits for a runner to read it */
	NODE_READING, /* a runner fills `names`; nobody else touches the table */
	NODE_PUT_OFF, /* too large to be read ahead; waits for the consumer */
	NODE_READY,   /* table sorted and fixed; entries change only by the rules of their chunk */
	NODE_FAILED,
};

enum chunk_state {
	CHUNK_OPEN,  /* holds entries that somebody must look at */
	CHUNK_TAKEN, /* a runner looks at them: only it touches the entries */
	CHUNK_DONE,  /* was taken once; only the consumer reads it, or `place` revives an entry not handed over */
	CHUNK_FREE,  /* done without having been taken */
};

/* A file that turned up under a new name after its directory had been read: listed in between. */
struct extra_name {
	struct extra_name *next; /* in order of text */
	uint64_t size;
	char text[];
};

/* Work on one directory that several runners do a step of at a time. It lies on the stack of the one that began it,
 * who waits for the others. */
struct list_crew {
	dpx_dir_step step;
	void *of;
	size_t count, next, calls; /* calls: to the store, in a step */
	unsigned busy;             /* runners in a step */
	int err;                   /* the first */
};

struct dir_node {
	struct dir_node *parent;          /* outlives its children */
	struct dir_node *prev, *next;     /* of all nodes */
	struct dir_node *work_prev, *work_next; /* of nodes with work left, in the order of their next work */
	int in_work;
	const char *name;                 /* "dir/", borrowed from the parent's table; of the root: its path */
	size_t path_len;                  /* of the whole path with its '/' */
	uint64_t inode;                   /* as the parent's pass told it */
	uint64_t self_inode, version;     /* as the directory told itself when it was read */
	enum node_state state;
	int err;
	enum dpx_op op;
	atomic_int wanted;                /* the consumer stands here: read it whatever its size */
	atomic_size_t ahead;              /* bytes counted in listing.ahead; written by the runners that read it */
	struct list_crew *crew;           /* while it is read, or NULL: steps that any runner may do */

	struct dpx_names names;
	size_t *dirs;                     /* owned: indices of the directories among the entries */
	struct dir_node **children;       /* owned array, one place for each of dirs */
	size_t dir_count, next_dir;       /* next_dir: the first without a node */
	unsigned char *chunks;            /* owned: enum chunk_state of each DPX_LIST_CHUNK entries */
	size_t chunk_count, next_chunk;   /* next_chunk: none before it is open */
	struct extra_name *extras;        /* owned, not yet handed over */
	struct extra_name *extras_past;   /* owned, handed over */
	atomic_uint passes;               /* over the directory in search of renamed files */

	size_t handed;                    /* entries before this one have been handed over */
	size_t passed_dirs;               /* directories among them */
	const char *last;                 /* text handed over last; NULL at first */
};

struct dpx_listing {
	struct dpx_session *session; /* one reference */
	const struct dpx_io *io;     /* borrowed from the session, like the mount */
	void *mount;
	char *root;        /* owned: the path without '/' at its end */
	char *root_prefix; /* owned: with one, or "" */
	char *start_after; /* owned, or NULL */
	int root_slash;    /* the path was given with a '/' at its end: it must be a directory */
	int recursive, kinds, sizes, depth_fixed;
	struct dpx_spool *spool; /* one reference, or NULL */
	struct dpx_handle_key spool_root;

	pthread_mutex_t lock;
	pthread_cond_t ready; /* for the consumer and close */
	pthread_cond_t done;  /* for who waits for a crew */
	unsigned refs;        /* the caller's and one for each runner */
	unsigned running;
	struct dpx_adapt adapt; /* how many there may be */
	atomic_int cancelled;
	int starved;          /* errno of a runner that could not go on for want of memory, else 0 */

	struct dir_node *all, *root_node, *current; /* current: where the consumer stands */
	struct dir_node *work_head, *work_tail;
	atomic_size_t ahead;  /* bytes in tables that the consumer has not reached */
	size_t looks_ahead;   /* entries of chunks taken and not yet handed over */
	size_t done_ahead;    /* entries ready to be handed over, in order or not */
	size_t put_off;       /* nodes in NODE_PUT_OFF */
	int stalled;          /* a runner left because the bounds held it, not for want of work */
	enum { WAIT_NONE, WAIT_CURRENT, WAIT_FILL } waiting; /* the consumer: for its node, or for a full block */
	struct dpx_list_counts counts;

	/* Of the consumer alone, unguarded. */
	struct dpx_list_entry *entries; /* owned, like all below */
	size_t *starts;       /* owned: of each entry's path in `paths` */
	size_t entry_count;
	int given;            /* the block has been handed over: the next call begins a new one */
	struct dpx_text paths, prefix; /* prefix: the path of `prefix_of` */
	const struct dir_node *prefix_of;
	struct dpx_status error;
	struct dpx_text error_path;
};

enum work_kind { WORK_READ, WORK_LOOK, WORK_HELP };

struct list_work {
	enum work_kind kind;
	struct dir_node *node;
	size_t chunk;
};

/* list_tree.c: with the lock held */
struct dir_node *dpx_node_new(struct dpx_listing *listing, struct dir_node *parent, size_t dir);
void dpx_node_free(struct dpx_listing *listing, struct dir_node *node);
int dpx_work_take(struct dpx_listing *listing, struct list_work *work);
int dpx_work_waits(struct dpx_listing *listing);
int dpx_node_index(struct dir_node *node, int sizes); /* without the lock, before the node is shared */
size_t dpx_chunk_entries(const struct dir_node *node, size_t chunk);
int dpx_entry_needs_look(const struct dpx_name *entry, int sizes);

/* Path of a directory with its '/'; what `text` held is lost. Needs no lock: parents do not change. */
int dpx_node_path(const struct dir_node *node, struct dpx_text *text);

/* list_work.c: what runners do, without the lock. Handles of directories count as open files. */
int dpx_list_stopped(struct dpx_listing *listing);
int dpx_list_dir_open(struct dpx_listing *listing, const char *path, int follow, void **dir);
void dpx_list_dir_close(struct dpx_listing *listing, void *dir);
void dpx_work_read(struct dpx_listing *listing, struct dir_node *node);

/* The directory of a node, wherever it is now; *self: its own stat. On an error *dir is NULL. */
int dpx_list_open(struct dpx_listing *listing, const struct dir_node *node, void **dir, struct dpx_stat *self);
int dpx_list_is_gone(int err);

/* list_look.c, without the lock too. look_now: a directory whose looks fit one chunk is done in one go, while it is
 * open. keep_handle: of an entry, by its name in the directory at `dir` (with its '/'). */
void dpx_work_look(struct dpx_listing *listing, struct dir_node *node, size_t chunk);
void dpx_list_look_now(struct dpx_listing *listing, struct dir_node *node, void *dir);
void dpx_list_keep_handle(struct dpx_listing *listing, const struct dpx_text *dir, const char *name,
			  const struct dpx_handle *handle);

/* list_share.c: all steps of a crew, with the help of other runners; the lock is not held. And such help: one step of
 * a crew that dpx_work_take has joined. */
int dpx_list_share(struct dpx_listing *listing, struct dir_node *node, const struct list_crew *work);
void dpx_work_help(struct dpx_listing *listing, struct dir_node *node);

/* listing.c: with the lock held. kick: start a runner if there is work for one more; 0 or an errno. */
int dpx_listing_kick(struct dpx_listing *listing);

/* A runner has made so many calls to the store. */
void dpx_listing_worked(struct dpx_listing *listing, size_t calls);

/* Something of `node` is done, and `entries` more may be handed over. */
void dpx_listing_notify(struct dpx_listing *listing, const struct dir_node *node, size_t entries);

#endif
