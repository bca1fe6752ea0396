/* Session.read_many: its options, and the type of its iterator. */
#include "py_read.h"

#include <errno.h>

#include "../core/process.h"

/* GIL: held; released while waiting for whoever is inside. 0, or -1 with an exception: TimeoutError
 * after most_ms, unless that is 0. */
static int enter(struct read_iterator *self, unsigned most_ms)
{
	for (unsigned waited = 0;; waited += DPX_WAIT_SLICE_MS) {
		int rc = dpx_gate_enter(&self->gate, 0);
		if (rc == ETIMEDOUT)
			rc = dpx_py_enter(&self->gate, DPX_WAIT_SLICE_MS);
		if (rc == 0)
			return 0;
		if (rc == EDEADLK) {
			PyErr_SetString(PyExc_ValueError, "the iterator is being advanced by this very thread");
			return -1;
		}
		if (PyErr_CheckSignals())
			return -1;
		if (most_ms && waited >= most_ms) {
			PyErr_SetNone(PyExc_TimeoutError);
			return -1;
		}
	}
}

/* Leave the gate; if the iterator was closed meanwhile by another thread, that one left the rest to us. */
static void leave(struct read_iterator *self)
{
	if (self->closed)
		dpx_py_read_clean(self, dpx_py_close_wait_ms());
	dpx_gate_leave(&self->gate);
}

static PyObject *iterator_next(PyObject *op)
{
	struct read_iterator *self = (struct read_iterator *)op;
	if (self->generation != dpx_process_generation()) {
		PyErr_SetString(PyExc_RuntimeError, "the iterator belongs to the parent process: make a new one after fork");
		return NULL;
	}
	if (enter(self, 0))
		return NULL;
	dpx_py_bury();
	PyObject *result = dpx_py_read_next(self);
	leave(self);
	return result;
}

/* GIL: held; released in waits. */
static PyObject *iterator_close(PyObject *op, PyObject *unused)
{
	struct read_iterator *self = (struct read_iterator *)op;
	(void)unused;
	if (self->generation != dpx_process_generation() || self->closed)
		Py_RETURN_NONE;
	self->closed = 1;
	if (self->reader)
		dpx_reader_cancel(self->reader);
	if (enter(self, dpx_py_close_wait_ms()) == 0) {
		leave(self);
		if (PyErr_Occurred())
			return NULL;
		Py_RETURN_NONE;
	}
	/* Somebody is inside, in the caller's own iterable perhaps: that thread cleans up when it leaves. */
	if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_TimeoutError))
		return NULL;
	PyErr_Clear();
	Py_RETURN_NONE;
}

static PyObject *iterator_stats(PyObject *op, PyObject *unused)
{
	struct read_iterator *self = (struct read_iterator *)op;
	struct dpx_read_stats stats = self->stats;
	(void)unused;
	if (self->generation != dpx_process_generation())
		return PyDict_New();
	if (self->reader)
		dpx_reader_stats(self->reader, &stats);
	return Py_BuildValue("{sdsdsdsdsdsdsd}", "items", (double)stats.items, "bytes", (double)stats.bytes, "errors",
			     (double)stats.errors, "wait_s", (double)stats.wait_ns / 1e9, "depth", (double)stats.depth,
			     "threads", (double)stats.threads, "in_flight", (double)stats.in_flight);
}

static int iterator_traverse(PyObject *op, visitproc visit, void *arg)
{
	struct read_iterator *self = (struct read_iterator *)op;
	Py_VISIT(Py_TYPE(op));
	Py_VISIT(self->requests);
	Py_VISIT(self->failure);
	Py_VISIT(self->maker.result);
	Py_VISIT(self->maker.error);
	return 0;
}

static int iterator_clear(PyObject *op)
{
	struct read_iterator *self = (struct read_iterator *)op;
	Py_CLEAR(self->requests);
	Py_CLEAR(self->failure);
	dpx_py_maker_clear(&self->maker);
	return 0;
}

/* GIL: held; released in waits. */
static void iterator_dealloc(PyObject *op)
{
	struct read_iterator *self = (struct read_iterator *)op;
	PyTypeObject *type = Py_TYPE(op);
	PyObject_GC_UnTrack(op);
	if (self->reader && self->generation == dpx_process_generation()) {
		dpx_reader_cancel(self->reader);
		dpx_py_read_clean(self, DPX_DROP_WAIT_MS);
	}
	if (self->gated && self->generation == dpx_process_generation())
		dpx_gate_destroy(&self->gate);
	iterator_clear(op);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(op);
	Py_DECREF(type);
}

static PyMethodDef iterator_methods[] = {
	{"close", iterator_close, METH_NOARGS, "Cancel what is in flight and free its memory."},
	{"stats", iterator_stats, METH_NOARGS, "items, bytes, errors, wait_s, depth, threads, in_flight."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot iterator_slots[] = {
	{Py_tp_doc, "Results of Session.read_many."},
	{Py_tp_dealloc, iterator_dealloc},
	{Py_tp_traverse, iterator_traverse},
	{Py_tp_clear, iterator_clear},
	{Py_tp_iter, PyObject_SelfIter},
	{Py_tp_iternext, iterator_next},
	{Py_tp_methods, iterator_methods},
	{0, NULL},
};

PyType_Spec dpx_read_iterator_spec = {
	.name = "datapipes._dfs.ReadIterator",
	.basicsize = sizeof(struct read_iterator),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = iterator_slots,
};

/* GIL: held. An iterator over checked options, or NULL. */
static PyObject *make_iterator(struct session_object *session, const struct dpx_read_options *options, PyObject *requests,
			       PyObject *result, PyObject *error, int views, int writable)
{
	struct module_state *state = dpx_py_state((PyObject *)session);
	allocfunc allocate = (allocfunc)PyType_GetSlot(state->read_iterator_type, Py_tp_alloc);
	struct dpx_session *opened = dpx_py_session_retain(session);
	if (!opened)
		return NULL;
	struct read_iterator *self = (struct read_iterator *)allocate(state->read_iterator_type, 0); /* zeroed */
	if (!self)
		goto out;
	self->generation = dpx_process_generation();
	self->max_in_flight = options->max_in_flight;
	self->chunk = options->max_in_flight / 8;
	self->chunk = self->chunk < 1 ? 1 : self->chunk > DPX_PULL_MOST ? DPX_PULL_MOST : self->chunk;
	self->consumer_memory = options->consumer_memory;
	self->maker.buffer_type = views ? state->buffer_type : NULL;
	self->maker.writable = writable;
	self->requests = PyObject_GetIter(requests);
	dpx_py_maker_init(&self->maker, result, error);
	if (!self->requests) {
		Py_CLEAR(self);
	} else if (dpx_gate_init(&self->gate)) {
		PyErr_NoMemory();
		Py_CLEAR(self);
	} else {
		self->gated = 1;
		if (dpx_reader_open(opened, options, &self->reader)) {
			PyErr_NoMemory();
			Py_CLEAR(self);
		}
	}
out:
	dpx_session_release(opened);
	return (PyObject *)self;
}

PyObject *dpx_py_session_read_many(struct session_object *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"requests", "result", "error", "max_in_flight", "max_buffer_bytes", "ordered",
				"depth",    "views",  "timeout_s", "verify_size",   "writable",         "handles", NULL};
	PyObject *requests, *result = NULL, *error = NULL, *handles = Py_None;
	long long in_flight = 0, bytes = 0;
	int ordered = 1, depth = 0, views = 0, verify = 0, writable = 0;
	double timeout_s = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOLLpipdppO:read_many", names, &requests, &result, &error,
					 &in_flight, &bytes, &ordered, &depth, &views, &timeout_s, &verify, &writable,
					 &handles))
		return NULL;
	if (dpx_py_check_options(result, error, in_flight, timeout_s))
		return NULL;
	if (bytes < 1 || depth < 0) {
		PyErr_SetString(PyExc_ValueError, "max_buffer_bytes must be at least 1 and depth at least 0 (adapt)");
		return NULL;
	}
	if (views && writable) {
		PyErr_SetString(PyExc_ValueError, "views are read-only: not writable as well");
		return NULL;
	}
	struct dpx_read_options options = {
		.max_in_flight = (unsigned)in_flight,
		.max_bytes = (uint64_t)bytes,
		.ordered = ordered,
		.depth = (unsigned)depth,
		.timeout_ns = dpx_py_timeout_ns(timeout_s),
		.verify_size = verify,
		.consumer_memory = !views,
		.disown = dpx_py_disown,
	};
	if (dpx_py_handles_of(self, handles, &options.handles))
		return NULL;
	return make_iterator(self, &options, requests, result, error, views, writable);
}
