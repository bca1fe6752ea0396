/* The iterator of Session.read_many: requests in as results go out. */
#include "py_read.h"

#include <errno.h>

/* GIL: held. Inside the gate. A blank item or NULL with MemoryError. */
static struct dpx_item *get_item(struct read_iterator *self)
{
	struct dpx_item *item = self->spare;
	if (item) {
		self->spare = item->link;
		item->link = NULL;
		return item;
	}
	item = dpx_item_new();
	if (!item)
		PyErr_NoMemory();
	return item;
}

static void put_spare(struct read_iterator *self, struct dpx_item *item)
{
	item->link = self->spare;
	self->spare = item;
}

/* GIL: held. Inside the gate. The pending exception is kept for later, unless it is not an error at all but
 * KeyboardInterrupt or the like: then -1, and it stays set. */
static int keep_failure(struct read_iterator *self)
{
	PyObject *type, *value, *trace;
	Py_CLEAR(self->requests);
	if (!PyErr_ExceptionMatches(PyExc_Exception))
		return -1;
	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace)
		PyException_SetTraceback(value, trace);
	self->failure = value;
	Py_XDECREF(type);
	Py_XDECREF(trace);
	return 0;
}

/* GIL: held. One request from the iterable into an item. 1; 0 when there is none, for now or for ever; -1 as above. */
static int pull_item(struct read_iterator *self, struct dpx_item **item)
{
	PyObject *request = PyIter_Next(self->requests);
	if (!request && !PyErr_Occurred()) {
		Py_CLEAR(self->requests); /* the end */
		return 0;
	}
	*item = request ? get_item(self) : NULL;
	int rc = *item ? dpx_py_item_fill(*item, request) : -1;
	Py_XDECREF(request);
	if (rc == 0)
		return 1;
	if (*item)
		put_spare(self, *item);
	return keep_failure(self);
}

/* GIL: held. The next requests into the reader: those with a size that memory is promised for get their bytes now.
 * Negative with an exception set. */
static int pull(struct read_iterator *self, unsigned most)
{
	struct dpx_item *items[DPX_PULL_MOST];
	unsigned count = 0;
	int rc = 1;
	while (count < most && self->requests && rc > 0) {
		rc = pull_item(self, &items[count]);
		count += rc > 0;
	}
	if (count == 0)
		return rc;
	size_t promised = self->consumer_memory ? dpx_reader_promise(self->reader, items, count) : 0;
	for (size_t i = 0; i < promised; i++) {
		PyObject *bytes;
		if (items[i]->held && dpx_py_bytes_new(items[i]->held, self->maker.writable, &bytes, &items[i]->dest) == 0)
			items[i]->owner = bytes;
	}
	self->ahead += count;
	dpx_reader_push(self->reader, items, count);
	return rc;
}

/* GIL: held. Inside the gate. Bytes objects for large files whose size is known by now. */
static void provide(struct read_iterator *self)
{
	for (size_t i = 0; i < self->taken.wanting_count; i++) {
		PyObject *bytes = NULL;
		void *data = NULL;
		dpx_py_bytes_new(self->taken.wanting[i]->want, self->maker.writable, &bytes, &data);
		dpx_reader_provide(self->reader, self->taken.wanting[i], data, bytes);
	}
	self->taken.wanting_count = 0;
}

static void recycle(struct read_iterator *self)
{
	dpx_reader_recycle(self->reader, self->taken.done, self->taken.done_count);
	for (size_t i = 0; i < self->taken.done_count; i++)
		put_spare(self, self->taken.done[i]);
	self->taken.done_count = self->given = 0;
}

/* GIL: held. Inside the gate. The next result of those taken already. */
static PyObject *give(struct read_iterator *self)
{
	PyObject *result = dpx_py_item_result(&self->maker, self->taken.done[self->given++]);
	self->ahead--;
	if (self->given == self->taken.done_count)
		recycle(self);
	return result;
}

static PyObject *raise_failure(struct read_iterator *self)
{
	PyObject *failure = self->failure;
	self->failure = NULL;
	if (failure)
		PyErr_SetObject((PyObject *)Py_TYPE(failure), failure);
	Py_XDECREF(failure);
	return NULL;
}

/* GIL: held. What a take that gave nothing means: NULL, with or without an exception. At the end all is given back. */
static PyObject *stop(struct read_iterator *self, int rc)
{
	if (rc == 0) {
		self->closed = 1;
		dpx_reader_cancel(self->reader);
		return raise_failure(self);
	}
	if (rc == EBADF)
		PyErr_SetString(PyExc_ValueError, "the session was closed while it was reading");
	else if (rc > 0 && rc != ECANCELED)
		dpx_py_maker_raise(&self->maker, rc);
	return NULL;
}

PyObject *dpx_py_read_next(struct read_iterator *self)
{
	for (;;) {
		if (self->closed || !self->maker.result)
			return NULL;
		unsigned room = self->max_in_flight - self->ahead;
		unsigned most = room < self->chunk ? room : self->chunk;
		if (self->requests && (most == self->chunk || self->ahead == 0) && pull(self, most) < 0)
			return NULL;
		if (self->given < self->taken.done_count)
			return give(self);
		room = self->max_in_flight - self->ahead;
		int more = self->requests && room >= self->chunk;
		int rc = dpx_py_take(self->reader, more ? 0 : DPX_WAIT_SLICE_MS, &self->taken);
		if (rc == EAGAIN || (rc == 0 && self->taken.done_count == 0 && self->taken.wanting_count)) {
			provide(self);
			continue;
		}
		if (rc)
			return stop(self, rc);
		provide(self);
		if (self->taken.done_count == 0 && !self->requests)
			return stop(self, 0);
	}
}

void dpx_py_read_clean(struct read_iterator *self, unsigned wait_ms)
{
	struct dpx_item *item, *next;
	if (self->cleaned)
		return;
	self->cleaned = 1;
	PyObject *type, *value, *trace;
	PyErr_Fetch(&type, &value, &trace);
	for (unsigned waited = 0; waited < wait_ms; waited += DPX_WAIT_SLICE_MS) {
		if (dpx_py_drain(self->reader, DPX_WAIT_SLICE_MS) == 0)
			break;
		if (wait_ms > DPX_DROP_WAIT_MS && PyErr_CheckSignals()) {
			if (type) { /* an exception is on its way already: this one would hide it */
				PyErr_Clear();
			} else {
				PyErr_Fetch(&type, &value, &trace);
			}
			break;
		}
	}
	for (size_t i = self->given; i < self->taken.done_count; i++)
		dpx_py_item_clear(self->taken.done[i]);
	recycle(self);
	for (item = dpx_py_reap(self->reader); item; item = next) {
		next = item->link;
		dpx_py_item_clear(item);
		dpx_item_free(item);
	}
	for (item = self->spare; item; item = next) {
		next = item->link;
		dpx_item_free(item);
	}
	self->spare = NULL;
	dpx_reader_stats(self->reader, &self->stats);
	struct dpx_reader *reader = self->reader;
	self->reader = NULL;
	dpx_py_reader_close(reader);
	Py_CLEAR(self->requests);
	Py_CLEAR(self->failure);
	PyErr_Restore(type, value, trace);
}
