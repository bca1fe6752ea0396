/* A stand-in for DAOS: libdfs.so, libdaos.so.2 and libgurt.so.4 as shared objects of their own, loaded by the same
 * dlopen as the real ones. Pools are the directories in STANDIN_ROOT, containers the directories in these, and what
 * lies in a container is in that directory. It does what a real DAOS was seen to do, above all where that hurts.
 *
 * Control is by name and value, and the same from outside (the environment, read at first use) and from inside the
 * process (standin_set). Times are in microseconds.
 *
 *   STANDIN_ROOT        where the pools are
 *   STANDIN_AGENT       "none": no agent runs
 *   STANDIN_ENGINE      "down": the agent runs, the engine does not; noticed after STANDIN_ENGINE_US (10 s)
 *   STANDIN_VERSION     what daos_version_get says ("2.8.0")
 *   STANDIN_POOL        what the user may do with pools: "read": not connect for writing; "none"
 *   STANDIN_CONTAINER   what the user may do in containers: "read": not open them for writing; "none"
 *   STANDIN_PARTS       into how many parts dfs_obj_anchor_split cuts a directory (1)
 *   STANDIN_COST        "none" (the default), "sleep": calls wait, "burn": calls use the CPU
 *   STANDIN_..._US      what a call costs unless STANDIN_COST is "none": INIT CONNECT (to the pool: all until a container
 *                       is mounted) QUEUE REINIT LOOKUP READ SIZE STAT ROUND (one dfs_readdir) READDIR (a name of it)
 *                       WRITE CHANGE; the defaults are those of a real one
 *   STANDIN_DELAY_US    time between issuing a read with an event and its completion, whatever STANDIN_COST says (0)
 *   STANDIN_FAIL        faults, separated by commas: FUNCTION:WHEN=WHAT
 *       FUNCTION  such as dfs_read, or "any": each call that can fail counts
 *       WHEN      "3": the third call since the last reset, "3+": that and all later ones, "*": all
 *       WHAT      a number that the call returns: an errno for dfs_*, a DER number for daos_*; or, for reads (and, of
 *                 these, "late" and "never" for writes):
 *                 "late:5" the call is fine and its event ends with errno 5 (without an event: returns it)
 *                 "short" half of what was asked for    "never" it never ends (until standin_release)
 *                 "dead" the connection is lost: this call, all reads under way and all later calls fail with EIO
 *
 * A container that is a plain file stands for one that is not POSIX. One beside which there is a file CONTAINER.balanced
 * was made with --mode=balanced; in the others names are replaced in one step only by who has mounted them as balanced,
 * and what they have replaced is out of reach for whoever has not.
 * A pool or container answers to its label and to the UUID that standin_uuid() gives for the label. */
#ifndef STANDIN_H
#define STANDIN_H

#include "dfs_abi.h"

/* Returns 0, or -1 for a name or value that makes no sense. Setting STANDIN_FAIL replaces all faults. */
int standin_set(const char *name, const char *value);

/* Everything as the environment has it, calls counted from 0, the connection alive. */
void standin_reset(void);

/* Live objects: "inits", "mounts", "objects", "queues", "events", "reads" (under way), "handles" (of pools and
 * containers, asked for at libdaos); "class" and "chunk": what
 * the file that was made last was asked to have; "calls": those counted for "any"; "at_once": the most calls that were paid for at
 * the same time; or a function's name: its calls, all since the last reset. "dfs_lookup_rel+size": those of them that
 * asked for the size as well. -1 for an unknown name. */
long standin_count(const char *what);

/* Let reads end that never end. */
void standin_release(void);

void standin_uuid(const char *label, char out[37]);

/* --- between the stand-in's own libraries */

enum standin_cost {
	COST_INIT, COST_CONNECT, COST_QUEUE, COST_REINIT, COST_LOOKUP, COST_READ, COST_SIZE, COST_STAT, COST_ROUND,
	COST_READDIR, COST_WRITE, COST_CHANGE, COST_COUNT
};
enum standin_live { LIVE_INITS, LIVE_MOUNTS, LIVE_OBJECTS, LIVE_QUEUES, LIVE_EVENTS, LIVE_READS, LIVE_HANDLES, LIVE_COUNT };

struct standin_fault {
	int code; /* return it, if not 0 */
	int late; /* complete with it, if not 0 */
	int is_short;
	unsigned until; /* the standin_release() that ends it, counted from 1; 0: none has to */
};

/* A call begins: count it, and see what is to go wrong. remote: 1 needs the connection, 0 does not, -1 is none of
 * those that count for "any" (waiting, and calls that cannot fail). */
struct standin_fault standin_enter(const char *function, int remote);

const char *standin_text(const char *name);
long standin_number(const char *name);
char standin_initial(const char *name);
void standin_live(enum standin_live what, long change);
void standin_made(uint32_t cid, uint64_t chunk_size);
long standin_living(enum standin_live what);
int standin_is_dead(void);
/* A call begins (1) or ends (-1) to be paid for. */
void standin_paying(int change);

/* Wait or burn, count times what the call costs. */
void standin_pay(enum standin_cost cost, unsigned count);
/* The same, if it burns; if it sleeps, return the nanoseconds instead. */
int64_t standin_pay_later(enum standin_cost cost, unsigned count);
int64_t standin_now(void);

/* pool.c. What is behind handles; EINVAL: they are none. */
struct standin_container {
	int fd; /* of its directory; -1: it is of another kind */
	int writable, balanced;
	char uuid[37];
};
int standin_opened(abi_handle pool, abi_handle cont, struct standin_container *out);

/* queue.c. Run fn(arg), which gives ev_error, on another thread after so many ns, then complete the event. */
int standin_launch(abi_event *event, int64_t delay_ns, unsigned until, int (*fn)(void *arg), void *arg);
/* What the next standin_release() counts as. A call that begins before one and waits after it is ended by it as well. */
unsigned standin_next_release(void);
void standin_hang(unsigned until);
/* 1 in a forked child that has not called daos_reinit: what it reads is wrong. */
int standin_astray(void);
int standin_thread_is_old(void);
int standin_engine_is_down(void);
int standin_daos_init(void);
int standin_daos_fini(void);

#define STANDIN_DECLARE(library, result, name, arguments) result name arguments;
ABI_FUNCTIONS(STANDIN_DECLARE)
int daos_event_abort(abi_event *event);
const char *d_errstr(int code);

#endif
