/* Handles: a table of handles, as an object. */
#include "bind.h"

struct handles_object {
	PyObject_HEAD
	struct dpx_handles *handles; /* one reference; NULL before __init__ has succeeded */
};

/* GIL: held; released while the table is opened. */
static int handles_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
	static char *names[] = {"path", "identity", "files", "max_bytes", NULL};
	struct handles_object *self = (struct handles_object *)op;
	struct dpx_handles *opened = NULL;
	const char *identity = NULL;
	PyObject *path;
	long long files = 0, max_bytes = 0;
	int rc;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$sLL:Handles", names, &path, &identity, &files, &max_bytes))
		return -1;
	if (!identity || files < 0 || max_bytes < 0) {
		PyErr_SetString(PyExc_ValueError, "a table of handles needs an identity, files and max_bytes");
		return -1;
	}
	PyObject *path_bytes = self->handles ? NULL : dpx_py_path_bytes(path);
	if (!path_bytes) {
		if (self->handles)
			PyErr_SetString(PyExc_RuntimeError, "a table is opened once");
		return -1;
	}
	const char *text = PyBytes_AsString(path_bytes);
	Py_BEGIN_ALLOW_THREADS
	rc = dpx_handles_open(text, identity, (uint64_t)files, (uint64_t)max_bytes, &opened);
	Py_END_ALLOW_THREADS
	if (rc)
		dpx_py_raise(rc, text);
	else
		self->handles = opened;
	Py_DECREF(path_bytes);
	return rc ? -1 : 0;
}

static void handles_dealloc(PyObject *op)
{
	PyTypeObject *type = Py_TYPE(op);
	dpx_handles_release(((struct handles_object *)op)->handles);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(op);
	Py_DECREF(type);
}

int dpx_py_handles_of(struct session_object *self, PyObject *object, struct dpx_handles **handles)
{
	*handles = NULL;
	if (object == Py_None)
		return 0;
	if (Py_TYPE(object) != dpx_py_state((PyObject *)self)->handles_type) {
		PyErr_SetString(PyExc_TypeError, "handles must be a Handles or None");
		return -1;
	}
	*handles = ((struct handles_object *)object)->handles;
	return 0;
}

static PyType_Slot handles_slots[] = {
	{Py_tp_doc, "A table of handles and sizes of files, shared by processes."},
	{Py_tp_init, handles_init},
	{Py_tp_dealloc, handles_dealloc},
	{0, NULL},
};

PyType_Spec dpx_handles_spec = {
	.name = "datapipes._dfs.Handles",
	.basicsize = sizeof(struct handles_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = handles_slots,
};
