/* Tar archives: the members of one in memory, and those of a stream. */
#include "bind.h"

#include <errno.h>
#include <string.h>

#include "../core/tar.h"

struct tar_stream {
	PyObject_HEAD
	struct dpx_tar tar;
	int views;
	int busy;         /* in a call: the collector may run anybody's code while objects are made */
	PyObject *piece;  /* owned while in a call, once it is needed: the piece as a read-only memoryview of bytes */
	PyObject *name;   /* owned: of the member whose body is coming, or NULL */
	PyObject *body;   /* owned: bytes of the member's size */
	uint64_t size, got, next; /* of the body; where the archive goes on behind it */
};

/* GIL: held. Raise what a walk has come to. Returns NULL. */
static PyObject *raise_fault(const struct dpx_tar *tar, struct module_state *state)
{
	if (tar->err == ENOMEM)
		return PyErr_NoMemory();
	PyObject *args = Py_BuildValue("(sK)", tar->fault, (unsigned long long)tar->fault_offset);
	if (args)
		PyErr_SetObject(state->tar_error, args);
	Py_XDECREF(args);
	return NULL;
}

/* GIL: held. A tuple of three new references, which it takes over, one or more perhaps NULL; put at the end of the
 * list. -1 with an exception. */
static int append(PyObject *list, PyObject *first, PyObject *second, PyObject *third)
{
	int rc = -1;
	PyObject *item = first && second && third ? PyTuple_New(3) : NULL;
	if (item) {
		PyTuple_SetItem(item, 0, first); /* steals, like the next two */
		PyTuple_SetItem(item, 1, second);
		PyTuple_SetItem(item, 2, third);
		rc = PyList_Append(list, item);
		Py_DECREF(item);
		return rc;
	}
	Py_XDECREF(first);
	Py_XDECREF(second);
	Py_XDECREF(third);
	return rc;
}

static PyObject *make_name(const struct dpx_tar *tar)
{
	return PyUnicode_DecodeUTF8(tar->name, (Py_ssize_t)tar->name_len, "surrogateescape");
}

/* GIL: held throughout: for 0.2 us a member it is not worth giving up. */
static PyObject *walk_members(struct dpx_tar *tar, const unsigned char *data, size_t len, struct module_state *state)
{
	enum dpx_tar_event event = DPX_TAR_MEMBER;
	PyObject *list = PyList_New(0);
	int failed = !list;
	while (!failed && event == DPX_TAR_MEMBER) {
		size_t used;
		if (dpx_tar_next(tar, data, len, &used, &event))
			break;
		data += used;
		len -= used;
		if (event == DPX_TAR_MEMBER)
			failed = append(list, make_name(tar), PyLong_FromUnsignedLongLong(tar->offset),
					PyLong_FromUnsignedLongLong(tar->size));
	}
	if (!failed && dpx_tar_finish(tar)) {
		raise_fault(tar, state);
		failed = 1;
	}
	if (failed)
		Py_CLEAR(list);
	return list;
}

PyObject *dpx_py_tar_members(PyObject *module, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"", "start", NULL};
	PyObject *buffer, *list = NULL;
	long long start = 0;
	Py_buffer view;
	struct dpx_tar tar;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$L:tar_members", names, &buffer, &start))
		return NULL;
	if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE))
		return NULL;
	if (start < 0 || start > view.len) {
		PyErr_Format(PyExc_ValueError, "start must lie within the buffer of %zd bytes, not at %lld", view.len, start);
	} else {
		dpx_tar_init(&tar, (uint64_t)start, DPX_TAR_SIZE_MOST);
		list = walk_members(&tar, (const unsigned char *)view.buf + start, (size_t)(view.len - start),
				    PyModule_GetState(module));
		dpx_tar_free(&tar);
	}
	PyBuffer_Release(&view);
	return list;
}

static int stream_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"offset", "views", "max_member_bytes", NULL};
	struct tar_stream *self = (struct tar_stream *)op;
	long long offset = 0, most = (long long)DPX_TAR_SIZE_MOST;
	int views = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$LpL:TarStream", names, &offset, &views, &most))
		return -1;
	if (self->busy || self->tar.size_most) {
		PyErr_SetString(PyExc_RuntimeError, "a TarStream is made once");
		return -1;
	}
	if (offset < 0 || offset > (long long)DPX_TAR_SIZE_MOST || most < 1 || most > (long long)DPX_TAR_SIZE_MOST) {
		PyErr_SetString(PyExc_ValueError, "offset and max_member_bytes are counts of bytes up to 2**62");
		return -1;
	}
	dpx_tar_init(&self->tar, (uint64_t)offset, (uint64_t)most);
	self->views = views;
	return 0;
}

static void stream_dealloc(PyObject *op)
{
	struct tar_stream *self = (struct tar_stream *)op;
	PyTypeObject *type = Py_TYPE(op);
	dpx_tar_free(&self->tar);
	Py_XDECREF(self->piece);
	Py_XDECREF(self->name);
	Py_XDECREF(self->body);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(op);
	Py_DECREF(type);
}

/* GIL: held. The body that lies whole in the piece, at `begin`: a view, or bytes. */
static PyObject *cut_body(struct tar_stream *self, PyObject *piece, const Py_buffer *view, size_t begin, size_t size)
{
	if (!self->views)
		return PyBytes_FromStringAndSize((const char *)view->buf + begin, (Py_ssize_t)size);
	if (!self->piece) {
		PyObject *raw = PyMemoryView_FromObject(piece);
		PyObject *flat = raw ? PyObject_CallMethod(raw, "cast", "s", "B") : NULL;
		self->piece = flat ? PyObject_CallMethod(flat, "toreadonly", NULL) : NULL;
		Py_XDECREF(raw);
		Py_XDECREF(flat);
	}
	return self->piece ? PySequence_GetSlice(self->piece, (Py_ssize_t)begin, (Py_ssize_t)(begin + size)) : NULL;
}

/* GIL: held. More of the body that is coming; it goes to the list when it is whole. -1 with an exception. */
static int fill_body(struct tar_stream *self, PyObject *list, const unsigned char *data, size_t len)
{
	uint64_t want = self->size - self->got;
	size_t more = want < len ? (size_t)want : len;
	if (more)
		memcpy(PyBytes_AsString(self->body) + self->got, data, more);
	self->got += more;
	if (self->got < self->size)
		return 0;
	PyObject *name = self->name, *body = self->body;
	self->name = self->body = NULL;
	if (self->views) {
		PyObject *view = PyMemoryView_FromObject(body);
		Py_DECREF(body);
		body = view;
	}
	return append(list, name, body, PyLong_FromUnsignedLongLong(self->next));
}

/* GIL: held. A member begins behind `used` bytes of the piece. -1 with an exception, 0 also where it does not fit into
 * memory: then the walk has failed. */
static int begin_member(struct tar_stream *self, PyObject *list, PyObject *piece, const Py_buffer *view, size_t used)
{
	const struct dpx_tar *tar = &self->tar;
	size_t left = (size_t)view->len - used;
	PyObject *name = make_name(tar);
	if (!name)
		return -1;
	self->next = tar->offset + tar->skip;
	if (tar->size <= left)
		return append(list, name, cut_body(self, piece, view, used, (size_t)tar->size),
			      PyLong_FromUnsignedLongLong(self->next));
	void *data;
	if (dpx_py_bytes_new(tar->size, 0, &self->body, &data)) {
		Py_DECREF(name);
		dpx_tar_fail(&self->tar, EFBIG, tar->offset, "a member is larger than the memory that can be had");
		return 0;
	}
	self->name = name;
	self->size = tar->size;
	self->got = 0;
	return fill_body(self, list, (const unsigned char *)view->buf + used, left);
}

/* GIL: held. */
static int walk_piece(struct tar_stream *self, PyObject *list, PyObject *piece, const Py_buffer *view)
{
	const unsigned char *data = view->buf;
	size_t at = 0, len = (size_t)view->len;
	enum dpx_tar_event event = DPX_TAR_MEMBER;
	if (self->body && fill_body(self, list, data, len))
		return -1;
	while (event == DPX_TAR_MEMBER) {
		size_t used;
		if (dpx_tar_next(&self->tar, data + at, len - at, &used, &event))
			return 0;
		at += used;
		if (event == DPX_TAR_MEMBER && begin_member(self, list, piece, view, at))
			return -1;
	}
	return 0;
}

/* GIL: held. Whether a call may begin; RuntimeError if another one runs. */
static int enter(struct tar_stream *self)
{
	if (self->busy || !self->tar.size_most) {
		PyErr_SetString(PyExc_RuntimeError, self->busy ? "another call of this TarStream is running"
								: "this TarStream was never made");
		return -1;
	}
	self->busy = 1;
	return 0;
}

static PyObject *stream_feed(PyObject *op, PyObject *piece)
{
	struct tar_stream *self = (struct tar_stream *)op;
	Py_buffer view;
	if (PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE))
		return NULL;
	PyObject *list = NULL;
	if (enter(self) == 0) {
		list = PyList_New(0);
		if (list && walk_piece(self, list, piece, &view)) {
			dpx_tar_fail(&self->tar, ENOMEM, self->tar.offset, "a call failed before"); /* members are lost */
			Py_CLEAR(list);
		} else if (list && self->tar.err && PyList_Size(list) == 0) {
			Py_CLEAR(list);
			raise_fault(&self->tar, dpx_py_state(op));
		}
		Py_CLEAR(self->piece);
		self->busy = 0;
	}
	PyBuffer_Release(&view);
	return list;
}

static PyObject *stream_finish(PyObject *op, PyObject *unused)
{
	struct tar_stream *self = (struct tar_stream *)op;
	(void)unused;
	if (enter(self))
		return NULL;
	int err = dpx_tar_finish(&self->tar);
	self->busy = 0;
	return err ? raise_fault(&self->tar, dpx_py_state(op)) : Py_NewRef(Py_None);
}

static PyObject *stream_ended(PyObject *op, void *unused)
{
	(void)unused;
	return PyBool_FromLong(((struct tar_stream *)op)->tar.ended);
}

static PyMethodDef stream_methods[] = {
	{"feed", stream_feed, METH_O, "The members that end within the next piece."},
	{"finish", stream_finish, METH_NOARGS, "Say that the last piece was given."},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
	{"ended", stream_ended, NULL, "Whether the end marker was met.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stream_slots[] = {
	{Py_tp_doc, "The regular files of a tar archive that comes in pieces."},
	{Py_tp_init, stream_init},
	{Py_tp_dealloc, stream_dealloc},
	{Py_tp_methods, stream_methods},
	{Py_tp_getset, stream_getset},
	{0, NULL},
};

PyType_Spec dpx_tar_stream_spec = {
	.name = "datapipes._dfs.TarStream",
	.basicsize = sizeof(struct tar_stream),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = stream_slots,
};
