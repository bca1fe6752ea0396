/* WriteFile: a file that is being written. */
#include "bind.h"

#include <errno.h>

#include "../core/process.h"
#include "../core/write_file.h"

struct write_file {
	PyObject_HEAD
	struct dpx_write_file *file; /* owned; NULL when closed */
	PyObject *path;              /* owned bytes, for errors */
	unsigned generation;         /* of the process that opened it */
	unsigned users;              /* threads inside a call without the GIL */
	int close_later;             /* the last of them closes */
};

enum action { ACTION_APPEND, ACTION_WRITE, ACTION_SYNC, ACTION_CLOSE };

/* GIL: held; released around the call. */
static int run(struct dpx_write_file *file, enum action action, const Py_buffer *data, uint64_t offset)
{
	int rc = 0;
	Py_BEGIN_ALLOW_THREADS
	switch (action) {
	case ACTION_APPEND:
		rc = dpx_write_file_append(file, data->buf, (size_t)data->len);
		break;
	case ACTION_WRITE:
		rc = dpx_write_file_put(file, data->buf, (size_t)data->len, offset);
		break;
	case ACTION_SYNC:
		rc = dpx_write_file_sync(file);
		break;
	case ACTION_CLOSE:
		dpx_write_file_close(file);
		break;
	}
	Py_END_ALLOW_THREADS
	return rc;
}

/* GIL: held. In a forked child the file stays the parent's. */
static void close_file(struct write_file *self)
{
	struct dpx_write_file *file = self->file;
	if (self->users) {
		self->close_later = 1;
		return;
	}
	self->file = NULL;
	if (file && self->generation == dpx_process_generation())
		run(file, ACTION_CLOSE, NULL, 0);
}

/* GIL: held. write or sync; -1 with an exception set. */
static int use(struct write_file *self, enum action action, const Py_buffer *data, uint64_t offset)
{
	if (self->generation != dpx_process_generation()) {
		PyErr_SetString(PyExc_RuntimeError, "the file was opened by another process and cannot be used after fork");
		return -1;
	}
	if (!self->file || self->close_later) {
		PyErr_SetString(PyExc_ValueError, "the file is closed");
		return -1;
	}
	self->users++;
	int rc = run(self->file, action, data, offset);
	if (--self->users == 0 && self->close_later)
		close_file(self);
	if (rc)
		dpx_py_raise(rc, PyBytes_AsString(self->path));
	return rc ? -1 : 0;
}

static PyObject *write_file_write(PyObject *op, PyObject *args)
{
	Py_buffer data;
	long long offset = 0;
	int append = PyTuple_Size(args) == 1, rc = -1;
	if (!PyArg_ParseTuple(args, "y*|L:write", &data, &offset))
		return NULL;
	if (offset < 0)
		PyErr_Format(PyExc_ValueError, "the offset of a write cannot be %lld", offset);
	else
		rc = use((struct write_file *)op, append ? ACTION_APPEND : ACTION_WRITE, &data, (uint64_t)offset);
	PyObject *written = rc ? NULL : PyLong_FromSsize_t(data.len);
	PyBuffer_Release(&data);
	return written;
}

static PyObject *write_file_sync(PyObject *op, PyObject *unused)
{
	(void)unused;
	return use((struct write_file *)op, ACTION_SYNC, NULL, 0) ? NULL : Py_NewRef(Py_None);
}

static PyObject *write_file_close(PyObject *op, PyObject *unused)
{
	(void)unused;
	close_file((struct write_file *)op);
	Py_RETURN_NONE;
}

static void write_file_dealloc(PyObject *op)
{
	struct write_file *self = (struct write_file *)op;
	PyTypeObject *type = Py_TYPE(op);
	close_file(self);
	Py_XDECREF(self->path);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(op);
	Py_DECREF(type);
}

static PyMethodDef write_file_methods[] = {
	{"write", write_file_write, METH_VARARGS, "Write all of a buffer, at the end or at an offset; its length in bytes."},
	{"sync", write_file_sync, METH_NOARGS, "Make what was written survive a crash."},
	{"close", write_file_close, METH_NOARGS, "Close; twice is fine."},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot write_file_slots[] = {
	{Py_tp_doc, "A file that is being written."},
	{Py_tp_dealloc, write_file_dealloc},
	{Py_tp_methods, write_file_methods},
	{0, NULL},
};

PyType_Spec dpx_write_file_spec = {
	.name = "datapipes._dfs.WriteFile",
	.basicsize = sizeof(struct write_file),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = write_file_slots,
};

struct opening {
	struct dpx_session *session;
	const char *path;
	struct dpx_new_file how;
	struct dpx_write_file *file;
};

/* GIL: held; released around the open. */
static int create_file(struct opening *opening)
{
	int rc;
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_write_file_open(opening->session, opening->path, &opening->how, &opening->file);
	Py_END_ALLOW_THREADS
	return rc;
}

PyObject *dpx_py_session_create(struct session_object *session, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"path", "mode", "object_class", "chunk_bytes", NULL};
	PyObject *path;
	struct dpx_new_file how = {0};
	unsigned long long chunk_bytes = 0;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$IzK:create", names, &path, &how.mode, &how.object_class,
					 &chunk_bytes))
		return NULL;
	how.chunk_bytes = chunk_bytes;
	PyTypeObject *type = dpx_py_state((PyObject *)session)->write_file_type;
	allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	struct opening opening = {.session = dpx_py_session_retain(session), .how = how};
	if (!opening.session)
		return NULL;
	PyObject *path_bytes = dpx_py_path_bytes(path);
	struct write_file *self = path_bytes ? (struct write_file *)allocate(type, 0) : NULL; /* zeroed */
	if (self) {
		self->path = Py_NewRef(path_bytes);
		self->generation = dpx_process_generation();
		opening.path = PyBytes_AsString(path_bytes);
		int rc = create_file(&opening);
		self->file = rc ? NULL : opening.file;
		if (rc) {
			Py_DECREF(self);
			self = NULL;
			dpx_py_raise(rc, opening.path);
		}
	}
	Py_XDECREF(path_bytes);
	dpx_session_release(opening.session);
	return (PyObject *)self;
}
