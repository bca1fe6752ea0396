/* Waits, those of both readers and that for a session: without the GIL, in slices after which signals are looked at. */
#include "bind.h"

#include <errno.h>

#include "../core/opening.h"

unsigned dpx_py_close_wait_ms(void)
{
	PyObject *handled = PyErr_GetHandledException();
	int interrupted = handled && PyErr_GivenExceptionMatches(handled, PyExc_KeyboardInterrupt);
	Py_XDECREF(handled);
	return interrupted ? DPX_WAIT_SLICE_MS : 1000;
}

/* GIL: held; released around the wait. */
int dpx_py_enter(struct dpx_gate *gate, unsigned wait_ms)
{
	int rc;
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_gate_enter(gate, wait_ms);
	Py_END_ALLOW_THREADS
	return rc;
}

/* GIL: held; released around the wait. A session that nobody waits for any more is closed when it comes. */
int dpx_py_open(const struct dpx_session_spec *spec, struct dpx_session **session, char why[DPX_WHY_ROOM])
{
	struct dpx_opening *opening;
	int rc = dpx_opening_start(spec, &opening);
	if (rc)
		return rc;
	do {
		Py_BEGIN_ALLOW_THREADS
		rc = dpx_opening_wait(opening, DPX_WAIT_SLICE_MS, session, why);
		Py_END_ALLOW_THREADS
		if (rc == EAGAIN && PyErr_CheckSignals())
			rc = -1;
	} while (rc == EAGAIN);
	Py_BEGIN_ALLOW_THREADS
	dpx_opening_end(opening);
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

/* GIL: held; released around it. */
void dpx_py_reader_close(struct dpx_reader *reader)
{
	Py_BEGIN_ALLOW_THREADS
	dpx_reader_close(reader);
	Py_END_ALLOW_THREADS
}
