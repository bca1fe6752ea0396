/* The iterator of Session.read_many: its fields, and what its two files share. */
#ifndef DPX_PY_READ_H
#define DPX_PY_READ_H

#include "bind.h"

#include "../core/gate.h"

/* How long dropping waits for threads; what hangs longer is left to its thread. */
#define DPX_DROP_WAIT_MS DPX_WAIT_SLICE_MS

/* Requests pulled from the iterable in one go, at most. */
#define DPX_PULL_MOST 32

struct read_iterator {
	PyObject_HEAD
	struct dpx_reader *reader; /* owned; NULL once it was cleaned up */
	struct dpx_gate gate;      /* whoever is inside owns all that follows */
	unsigned generation;       /* of the process that made it; another one touches nothing */
	struct dpx_py_maker maker;
	PyObject *requests;  /* owned iterator; NULL when it is exhausted */
	PyObject *failure;   /* owned: what it raised, to be raised after the results before it */
	unsigned max_in_flight, chunk;
	int consumer_memory;
	int gated;           /* the gate was made */
	int closed, cleaned;
	unsigned ahead;      /* pulled and not yet given to the caller */
	struct dpx_taken taken;
	size_t given;        /* of taken.done */
	struct dpx_item *spare; /* owned, chained: blank items */
	struct dpx_read_stats stats; /* of the reader that was closed */
};

/* GIL: held; released in waits. Inside the gate. A result, or NULL with an exception or at the end. */
PyObject *dpx_py_read_next(struct read_iterator *self);

/* GIL: held; released in waits. Inside the gate, after a cancel: free all that is in flight, once. Waits at most so
 * long for threads. An exception that is set stays set. */
void dpx_py_read_clean(struct read_iterator *self, unsigned wait_ms);

#endif
