/* The waits of both readers: without the GIL, in slices after which signals are looked at. */
#include "bind.h"

#include <errno.h>

/* GIL: held; released around the wait. */
int dpx_py_enter(struct dpx_gate *gate, unsigned wait_ms)
{
	int rc;
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_gate_enter(gate, wait_ms);
	Py_END_ALLOW_THREADS
	return rc;
}

/* GIL: held; released around the wait, if there is to be one. */
int dpx_py_take(struct dpx_reader *reader, unsigned wait_ms, struct dpx_taken *taken)
{
	int rc;
	if (wait_ms == 0)
		return dpx_reader_take(reader, 0, taken);
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_reader_take(reader, wait_ms, taken);
	Py_END_ALLOW_THREADS
	return rc == EAGAIN && PyErr_CheckSignals() ? -1 : rc;
}

/* GIL: held; released around the wait. */
int dpx_py_drain(struct dpx_reader *reader, unsigned wait_ms)
{
	int rc;
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_reader_drain(reader, wait_ms);
	Py_END_ALLOW_THREADS
	return rc;
}

/* GIL: held; released while files are closed. */
struct dpx_item *dpx_py_reap(struct dpx_reader *reader)
{
	struct dpx_item *items;
	Py_BEGIN_ALLOW_THREADS
	items = dpx_reader_reap(reader);
	Py_END_ALLOW_THREADS
	return items;
}
