/* Session.read_batch: all of a batch at once, into bytes (bytearrays) or into the caller's own memory. */
#include "bind.h"

#include <errno.h>
#include <stdlib.h>

struct batch {
	struct dpx_reader *reader;
	struct dpx_py_maker maker;
	PyObject *requests;       /* owned tuple */
	PyObject *out;            /* owned: a flat memoryview of the caller's buffer, or NULL */
	unsigned char *memory;    /* of out */
	PyObject *spans;          /* owned tuple, or NULL */
	struct dpx_item **items;  /* owned array; its items are the reader's while `pushed` */
	size_t count, made;
	int pushed;
	PyObject *results; /* owned list */
};

/* GIL: held. (start, end) of item i within out, checked. */
static int get_span(struct batch *batch, size_t i, Py_ssize_t size, Py_ssize_t *start, Py_ssize_t *end)
{
	PyObject *span = PyTuple_GetItem(batch->spans, (Py_ssize_t)i);
	if (!span || !PyTuple_Check(span) || PyTuple_Size(span) != 2) {
		PyErr_SetString(PyExc_TypeError, "a span is a tuple (start, end)");
		return -1;
	}
	*start = PyLong_AsSsize_t(PyTuple_GetItem(span, 0));
	if (*start == -1 && PyErr_Occurred())
		return -1;
	*end = PyLong_AsSsize_t(PyTuple_GetItem(span, 1));
	if (*end == -1 && PyErr_Occurred())
		return -1;
	if (*start < 0 || *end < *start || *end > size) {
		PyErr_Format(PyExc_ValueError, "span %zd:%zd lies outside of out, which has %zd bytes", *start, *end, size);
		return -1;
	}
	return 0;
}

/* GIL: held. Item i goes into its span of out: as many bytes as the span has, no more and no fewer. */
static int place_in_out(struct batch *batch, struct dpx_item *item, size_t i)
{
	Py_ssize_t start, end;
	if (get_span(batch, i, PyObject_Size(batch->out), &start, &end))
		return -1;
	uint64_t want = dpx_item_want(item), room = (uint64_t)(end - start);
	if (want != DPX_SIZE_UNKNOWN && want != room) {
		PyErr_Format(PyExc_ValueError, "span %zd:%zd does not fit its request of %llu bytes", start, end,
			     (unsigned long long)want);
		return -1;
	}
	item->length = room;
	item->owner = PySequence_GetSlice(batch->out, start, end);
	item->dest = batch->memory + start;
	item->promised = 1;
	return item->owner ? 0 : -1;
}

/* GIL: held. Items from requests, with their memory where that is known. */
static int fill_items(struct batch *batch)
{
	for (; batch->made < batch->count; batch->made++) {
		size_t i = batch->made;
		struct dpx_item *item = batch->items[i] = dpx_item_new();
		if (!item) {
			PyErr_NoMemory();
			return -1;
		}
		if (dpx_py_item_fill(item, PyTuple_GetItem(batch->requests, (Py_ssize_t)i)) ||
		    (batch->out && place_in_out(batch, item, i))) {
			batch->made++; /* to be freed like the others */
			return -1;
		}
		uint64_t want = dpx_item_want(item);
		if (batch->out || want == 0 || want == DPX_SIZE_UNKNOWN)
			continue;
		PyObject *bytes;
		if (dpx_py_bytes_new(want, batch->maker.writable, &bytes, &item->dest) == 0) {
			item->owner = bytes;
			item->promised = 1;
		}
	}
	return 0;
}

/* GIL: held. The flat view of out, and where it lies. */
static int open_out(struct batch *batch, PyObject *out)
{
	Py_buffer view;
	if (PyObject_GetBuffer(out, &view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS))
		return -1;
	batch->memory = view.buf;
	/* Each item holds a view of its own part, and so the memory, for as long as a thread may write to it. */
	PyObject *empty = PyBytes_FromStringAndSize(NULL, 0); /* an array without elements cannot be cast */
	PyObject *whole = empty ? PyMemoryView_FromObject(view.len ? out : empty) : NULL;
	Py_XDECREF(empty);
	batch->out = whole ? PyObject_CallMethod(whole, "cast", "s", "B") : NULL;
	Py_XDECREF(whole);
	PyBuffer_Release(&view);
	return batch->out ? 0 : -1;
}

/* GIL: held; released in waits. All items become results. */
static int collect(struct batch *batch)
{
	struct dpx_taken taken;
	for (size_t done = 0; done < batch->count;) {
		int rc = dpx_py_take(batch->reader, DPX_WAIT_SLICE_MS, &taken);
		if (rc && rc != EAGAIN) {
			if (rc == EBADF)
				PyErr_SetString(PyExc_ValueError, "the session was closed while it was reading");
			else if (rc > 0)
				dpx_py_maker_raise(&batch->maker, rc);
			return -1;
		}
		for (size_t i = 0; i < taken.wanting_count; i++) {
			PyObject *bytes = NULL;
			void *data = NULL;
			dpx_py_bytes_new(taken.wanting[i]->want, batch->maker.writable, &bytes, &data);
			dpx_reader_provide(batch->reader, taken.wanting[i], data, bytes);
		}
		for (size_t i = 0; i < taken.done_count; i++, done++) {
			PyObject *result = PyErr_Occurred() ? NULL : dpx_py_item_result(&batch->maker, taken.done[i]);
			if (result && PyList_SetItem(batch->results, (Py_ssize_t)taken.done[i]->position, result))
				result = NULL; /* taken over all the same */
			dpx_py_item_clear(taken.done[i]);
			dpx_item_free(taken.done[i]);
		}
		if (PyErr_Occurred())
			return -1;
	}
	return 0;
}

/* GIL: held; released in waits. */
static void finish(struct batch *batch, int rc)
{
	struct dpx_item *item, *next;
	PyObject *type, *value, *trace;
	PyErr_Fetch(&type, &value, &trace);
	if (batch->reader && rc) { /* some items may be out yet */
		dpx_reader_cancel(batch->reader);
		dpx_py_drain(batch->reader, DPX_WAIT_SLICE_MS);
		for (item = dpx_py_reap(batch->reader); item; item = next) {
			next = item->link;
			dpx_py_item_clear(item);
			dpx_item_free(item);
		}
	}
	for (size_t i = 0; !batch->pushed && i < batch->made; i++) {
		dpx_py_item_clear(batch->items[i]);
		dpx_item_free(batch->items[i]);
	}
	dpx_py_reader_close(batch->reader);
	dpx_py_maker_clear(&batch->maker);
	Py_XDECREF(batch->requests);
	Py_XDECREF(batch->spans);
	Py_XDECREF(batch->out);
	free(batch->items);
	PyErr_Restore(type, value, trace);
}

/* GIL: held; released in waits. A list of results or NULL. */
static PyObject *run(struct batch *batch, struct dpx_session *session, const struct dpx_read_options *options)
{
	int rc = -1;
	batch->count = (size_t)PyTuple_Size(batch->requests);
	batch->items = calloc(batch->count + 1, sizeof(*batch->items));
	batch->results = PyList_New((Py_ssize_t)batch->count);
	if (!batch->items || dpx_reader_open(session, options, &batch->reader)) {
		PyErr_NoMemory();
	} else if (batch->results && fill_items(batch) == 0) {
		batch->pushed = 1;
		dpx_reader_push(batch->reader, batch->items, batch->count);
		rc = collect(batch);
	}
	finish(batch, rc);
	if (rc)
		Py_CLEAR(batch->results);
	return batch->results;
}

PyObject *dpx_py_session_read_batch(struct session_object *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"requests", "result", "error", "max_in_flight", "out", "spans", "timeout_s", "verify_size",
				"writable", "handles", NULL};
	PyObject *requests, *result = Py_None, *error = NULL, *out = Py_None, *spans = Py_None, *handles = Py_None;
	long long in_flight = 0;
	int verify = 0, writable = 0;
	double timeout_s = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOLOOdppO:read_batch", names, &requests, &result, &error,
					 &in_flight, &out, &spans, &timeout_s, &verify, &writable, &handles) ||
	    dpx_py_check_options(result == Py_None ? (PyObject *)&PyTuple_Type : result, error, in_flight, timeout_s))
		return NULL;
	struct dpx_session *session = dpx_py_session_retain(self);
	if (!session)
		return NULL;
	struct dpx_read_options options = {
		.max_in_flight = (unsigned)in_flight,
		.max_bytes = UINT64_MAX / 2, /* the caller asked for all of it */
		.ordered = 1,
		.timeout_ns = dpx_py_timeout_ns(timeout_s),
		.verify_size = verify,
		.consumer_memory = 1,
		.batch = 1,
		.disown = dpx_py_disown,
	};
	if (dpx_py_handles_of(self, handles, &options.handles)) {
		dpx_session_release(session);
		return NULL;
	}
	struct batch batch = {.requests = PySequence_Tuple(requests), .maker.writable = writable};
	PyObject *results = NULL;
	int ok = batch.requests != NULL;
	dpx_py_maker_init(&batch.maker, result, error);
	if (ok && out != Py_None) {
		batch.spans = spans == Py_None ? NULL : PySequence_Tuple(spans);
		if (!batch.spans || PyTuple_Size(batch.spans) != PyTuple_Size(batch.requests)) {
			if (!PyErr_Occurred())
				PyErr_SetString(PyExc_ValueError, "out needs a span for each request");
			ok = 0;
		}
		ok = ok && open_out(&batch, out) == 0;
	}
	if (ok)
		results = run(&batch, session, &options);
	else
		finish(&batch, -1);
	dpx_session_release(session);
	return results;
}
